"""The operators' page over HTTP: who sees it, what its cookie is and is good for, and what the browser may load."""

import asyncio
import itertools
import re
import time
import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from structlog.testing import capture_logs

from config.models import load_models
from config.settings import Settings
from worker.enqueue import Door
from worker.link import Link
from worker.store import Store
from worker.web.app import WebServer, create_app
from worker.web.brake import PLACES, WRONG_TOKEN_S
from worker.web.dashboard import FILES, FOLDER, MAX_FORM_BYTES
from worker.web.sessions import COOKIE, LASTS_S, issue

TOKEN = "s3cret-of-the-operators"
TOKENS = f"ops:{TOKEN},second-token"
JOB = {"kind": "video", "input": {"prompt": "a lighthouse at dusk"}}
POLICY = {
    "default-src": "'none'", "script-src": "'self'", "style-src": "'self'", "img-src": "'self' data:",
    "connect-src": "'self'", "form-action": "'self'", "frame-ancestors": "'none'", "base-uri": "'none'",
}  # fmt: skip
OWN = {"sec-fetch-site": "same-origin"}


@asynccontextmanager
async def serving(url: str, **environ: str) -> AsyncIterator[httpx.AsyncClient]:
    """Serve on a free port until the block ends; the client keeps no cookies but those of a test."""
    settings, models, link = Settings.from_env(environ), load_models(), Link(url)
    store = Store(link, prefix=settings.key_prefix, models=models)
    door = Door(store, settings, models, announce=True)
    server = WebServer(create_app(store=store, door=door, settings=settings), "127.0.0.1", 0)
    running = asyncio.create_task(server.run())
    try:
        base_url = f"http://127.0.0.1:{await server.started()}"
        async with httpx.AsyncClient(base_url=base_url, trust_env=False, timeout=20, verify=False) as client:
            yield client
    finally:
        server.stop()
        await asyncio.wait([running])
        await link.aclose()


@pytest.fixture
async def web(redis_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """Serve with tokens."""
    async with serving(redis_url, API_TOKENS=TOKENS) as client:
        yield client


@pytest.fixture
async def open_web(redis_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """Serve without tokens."""
    async with serving(redis_url) as client:
        yield client


def cookie(value: str) -> dict[str, str]:
    """Make the header a browser sends with a cookie."""
    return {"cookie": f"theme=dark; {COOKIE}={value}"}


def session(token: str = TOKEN, *, age_s: float = 0) -> dict[str, str]:
    """Make the cookie of a session that was begun some time ago."""
    return cookie(issue(token, time.time() - age_s))


async def sign_in(web: httpx.AsyncClient, token: str, **headers: str) -> httpx.Response:
    """Post the form."""
    return await web.post("/sign-in", data={"token": token}, headers=headers)


async def test_sign_in(web: httpx.AsyncClient) -> None:
    """A token gives a session, which opens the page, the API and its description, and signing out ends it."""
    form = await web.get("/")
    assert form.status_code == 200
    assert 'action="sign-in"' in form.text
    assert "dashboard.js" not in form.text
    for token in (TOKEN, "second-token", f"  {TOKEN}\n"):
        answer = await sign_in(web, token, **OWN)
        assert (answer.status_code, answer.headers["location"]) == (303, "./")
        set_cookie = answer.headers["set-cookie"]
        value, *rules = set_cookie.split("; ")
        assert set(rules) == {"Path=/", f"Max-Age={LASTS_S}", "HttpOnly", "SameSite=Strict"}
        assert token.strip() not in str(answer.headers) + answer.text
        headers = {"cookie": value}
        assert 'data-access="locked"' in (await web.get("/", headers=headers)).text
        for path in ("/v1/jobs", "/docs", "/openapi.json", "/metrics", "/v1/queues", "/v1/models"):
            assert (await web.get(path, headers=headers)).status_code == 200, path
    answer = await web.post("/sign-out", headers={**headers, **OWN})
    assert answer.status_code == 303
    assert f"{COOKIE}=; Path=/; Max-Age=0" in answer.headers["set-cookie"]


@pytest.mark.parametrize(
    "headers", [{"x-forwarded-proto": "https"}, {"origin": "https://jobs.example", "host": "jobs.example"}]
)
async def test_cookie_over_https(web: httpx.AsyncClient, headers: dict[str, str]) -> None:
    """Where the browser came by https, it sends the cookie by https only."""
    assert "; Secure" in (await sign_in(web, TOKEN, **headers)).headers["set-cookie"]


@pytest.mark.parametrize(
    "body",
    [
        b"token=wrong", b"token=", b"", b"tokens=x", b"token=ops:s3cret-of-the-operators", b"token=%ff%fe", b"\xff",
        b"token=S3CRET-OF-THE-OPERATORS", b"token=second-token&token=second-token", b"token=x" + b"&a=b" * 20,
        b"token=second-toke", b"token=second-tokenn", b"token=second-token%00",
    ],
)  # fmt: skip
async def test_wrong_tokens_are_told_the_same(web: httpx.AsyncClient, body: bytes) -> None:
    """However a token is wrong, the answer is the form again, the same to the byte, after a moment."""
    headers = {"content-type": "application/x-www-form-urlencoded", **OWN}
    started_s = time.monotonic()
    answer, other = await asyncio.gather(
        web.post("/sign-in", content=body, headers=headers), sign_in(web, "another wrong one")
    )
    assert time.monotonic() - started_s >= WRONG_TOKEN_S
    assert answer.status_code == other.status_code == 401
    assert answer.text == other.text
    assert "That did not work" in answer.text
    assert "set-cookie" not in answer.headers


async def test_wrong_tokens_are_braked(web: httpx.AsyncClient) -> None:
    """Wrong tokens are told so after a moment, no more than so many at a time, and in few lines of the log."""
    with capture_logs() as logs:
        started_s = time.monotonic()
        answers = await asyncio.gather(*(sign_in(web, f"guess-{number}") for number in range(3 * PLACES)))
        took_s = time.monotonic() - started_s
    statuses = [answer.status_code for answer in answers]
    assert (statuses.count(401), statuses.count(429)) == (PLACES, 2 * PLACES)
    assert {answer.headers.get("set-cookie") for answer in answers} == {None}
    assert took_s >= WRONG_TOKEN_S
    assert [(line["event"], line["reason"]) for line in logs] == [("request.refused", "wrong_token")]
    assert "guess" not in str(logs)


async def test_nobody_is_locked_out_by_guesses(web: httpx.AsyncClient) -> None:
    """A good token gets in at once, however many wrong ones are being tried."""
    guesses = [asyncio.create_task(sign_in(web, f"guess-{number}")) for number in range(4 * PLACES)]
    await asyncio.wait(guesses, return_when=asyncio.FIRST_COMPLETED)
    assert (await sign_in(web, TOKEN)).status_code == 303
    assert not all(guess.done() for guess in guesses)
    await asyncio.gather(*guesses)


async def test_a_form_that_never_comes(web: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever does not send a form whole is told so, and hung up on."""
    monkeypatch.setattr("worker.web.dashboard.MAX_FORM_S", 0.2)
    reader, writer = await asyncio.open_connection("127.0.0.1", web.base_url.port)
    head = b"POST /sign-in HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    writer.write(head + b"Content-Length: 100\r\n\r\ntoken=")
    async with asyncio.timeout(5):
        answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"request_timeout" in answer
    writer.close()


async def test_forms_that_are_none(web: httpx.AsyncClient) -> None:
    """Another type, too large a body, and a form that another site posts are refused."""
    assert (await web.post("/sign-in", json={"token": TOKEN})).status_code == 415
    assert (await sign_in(web, "x" * MAX_FORM_BYTES)).status_code == 413
    for headers in ({"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}, {"origin": "null"}):
        for path in ("/sign-in", "/sign-out"):
            answer = await web.post(path, data={"token": TOKEN}, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden_origin")


@pytest.mark.parametrize(
    "value",
    [
        "", "x", issue("wrong-token", time.time()), issue(TOKEN, time.time() - LASTS_S - 1),
        issue(TOKEN, time.time())[:-1] + "x", "9" * 12 + issue(TOKEN, time.time())[10:], TOKEN, f"9999999999.{TOKEN}",
        f"9999999999.{'0' * 64}", f"{'9' * 13}.{'0' * 64}", f"-1.{'0' * 64}", f"\u0661.{'0' * 64}",
    ],
    ids=itertools.count(),  # values differ from one collection to the next
)  # fmt: skip
async def test_cookies_that_are_none(web: httpx.AsyncClient, value: str) -> None:
    """A cookie that is forged, changed, run out or of a token that is gone opens nothing."""
    headers = {"cookie": f"{COOKIE}={value}".encode()}
    answer = await web.get("/v1/jobs", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
    assert 'action="sign-in"' in (await web.get("/", headers=headers)).text


async def test_sessions_hold_on_every_process(redis_url: str) -> None:
    """A session holds on another process with the same token, to its end, and dies where the token is removed."""
    begun = session(age_s=LASTS_S - 60)
    async with serving(redis_url, API_TOKENS=f"other,moved:{TOKEN}") as another:
        assert (await another.get("/v1/jobs", headers=begun)).status_code == 200
    async with serving(redis_url, API_TOKENS="other") as without:
        assert (await without.get("/v1/jobs", headers=begun)).status_code == 401


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ({"sec-fetch-site": "same-origin"}, 202),
        ({"origin": "http://jobs.example:8000"}, 202),
        ({"origin": "https://jobs.example:8000"}, 202),
        ({"origin": "http://elsewhere.example", "sec-fetch-site": "same-origin"}, 202),  # a proxy renamed us
        ({}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://jobs.example:8001"}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://jobs.example:8000", "sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "none"}, 403),
    ],
)
async def test_only_our_own_page_changes_things(web: httpx.AsyncClient, said: dict[str, str], status: int) -> None:
    """With a session, what changes something must come from our own page; reading may come from anywhere."""
    headers = {**session(), **said, "host": "jobs.example:8000"}
    answer = await web.post("/v1/jobs", json=JOB, headers=headers)
    assert answer.status_code == status
    assert status != 403 or answer.json()["code"] == "forbidden_origin"
    assert (await web.get("/v1/jobs", headers=headers)).status_code == 200
    headers["authorization"] = f"Bearer {TOKEN}"
    assert (await web.post("/v1/jobs", json=JOB, headers=headers)).status_code == 202


async def test_without_tokens_there_is_no_sign_in(open_web: httpx.AsyncClient) -> None:
    """Where no token is set the page is there at once, for this machine's own pages only."""
    page = await open_web.get("/")
    assert page.status_code == 200
    assert 'data-access="open"' in page.text
    assert (await open_web.head("/")).content == b""
    assert (await sign_in(open_web, "anything")).headers.get("set-cookie") is None
    assert (await open_web.get("/", headers={"host": "evil.example"})).status_code == 403
    assert (await open_web.post("/v1/queues/video/pause", headers={"origin": "http://evil.example"})).status_code == 403
    assert (await open_web.post("/v1/queues/video/pause", headers=OWN)).status_code == 200
    assert (await open_web.get("/openapi.json")).json()["paths"].keys().isdisjoint({"/", "/sign-in", "/sign-out"})


def check_page(answer: httpx.Response) -> None:
    """Check what every page of ours promises."""
    said = dict(rule.strip().split(" ", 1) for rule in answer.headers["content-security-policy"].split(";"))
    assert said == POLICY
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["cache-control"] == "no-store"
    assert not re.search(r"<script(?![^>]*\ssrc=)|<style|\sstyle=|\son[a-z]+=|https?://|javascript:", answer.text)


async def test_pages_load_from_here_only(web: httpx.AsyncClient) -> None:
    """The policy allows files of ours only, nothing stands in the pages themselves, and all they name is there."""
    pages = [await web.get("/"), await web.get("/", headers=session()), await sign_in(web, "wrong")]
    for page in pages:
        check_page(page)
        named = re.findall(r'(?:src|href)="(static/[^"]+)"', page.text)
        assert len(named) >= 3
        for name in named:
            assert (await web.get(f"/{name}")).status_code == 200
        assert TOKEN not in page.text
    for source in FOLDER.glob("*.js"):
        text = source.read_text()
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text)
        assert set(re.findall(r'from "\./([^"]+)"', text)) <= FILES.keys()


@pytest.mark.parametrize("name", sorted(FILES))
async def test_files(web: httpx.AsyncClient, name: str) -> None:
    """Each file is everybody's, is kept for a moment, and is not sent again while it is the same."""
    answer = await web.get(f"/static/{name}")
    assert answer.status_code == 200
    assert answer.content == (FOLDER / name).read_bytes()
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert re.fullmatch(r"public, max-age=\d+", answer.headers["cache-control"])
    for known in (answer.headers["etag"], f'"other", W/{answer.headers["etag"]}'):
        again = await web.get(f"/static/{name}", headers={"if-none-match": known})
        assert (again.status_code, again.content) == (304, b"")
    assert (await web.get(f"/static/{name}", headers={"if-none-match": '"other"'})).status_code == 200


@pytest.mark.parametrize("name", ["", "none.js", "index.html", "../guard.py", "%2e%2e/guard.py", "..%2fguard.py"])
async def test_no_other_file(web: httpx.AsyncClient, name: str) -> None:
    """Nothing is served but the page's files."""
    answer = await web.get(f"/static/{name}")
    assert answer.status_code in {401, 404}
    assert answer.json()["code"] in {"not_found", "unauthorized"}


async def test_files_are_packaged() -> None:
    """What is served is named in the package's data, so that an installed copy has it."""
    project = tomllib.loads(Path(__file__).parents[2].joinpath("pyproject.toml").read_text())
    assert "web/static/*" in project["tool"]["setuptools"]["package-data"]["worker"]
