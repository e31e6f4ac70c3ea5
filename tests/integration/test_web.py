"""The HTTP API over a real socket, on a real Redis: every status, every problem, how the server starts and stops."""

import asyncio
import json
import logging
import pickle
import re
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis.asyncio
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from config.models import load_models
from config.settings import Settings
from jobs.request import MAX_REQUEST_BYTES
from worker.enqueue import Door
from worker.link import Link
from worker.store import Store
from worker.web.app import WebServer, create_app
from worker.web.server import CannotListen

JOB = {"kind": "video", "model": "veo3", "input": {"prompt": "a lighthouse at dusk"}}
TOKENS = "shop:s3cret-of-the-shop,second-token"
PROBLEM_MEMBERS = {"type", "title", "status", "detail", "code"}
PATIENCE_S = 2.0
CHUNK = b" " * 65536


@dataclass
class Api:
    """A running web server, and a client of it."""

    server: WebServer
    running: asyncio.Task[None]
    client: httpx.AsyncClient
    store: Store

    @property
    def state(self) -> Any:
        """What uvicorn knows about connections and running requests."""
        return self.server._server.server_state

    async def idle(self) -> None:
        """Wait until no request runs and no connection is open."""
        await until(lambda: not self.state.tasks and not self.state.connections)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection to write raw bytes to."""
        return await asyncio.open_connection("127.0.0.1", self.server.port)


async def until(condition: Callable[[], Any]) -> None:
    """Wait until a condition of this process holds."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - uvicorn and the transports tell nobody
            await asyncio.sleep(0.005)


@asynccontextmanager
async def serving(url: str, **environ: str) -> AsyncIterator[Api]:
    """Serve the API on a free port until the block ends."""
    settings, models, link = Settings.from_env(environ), load_models(), Link(url)
    store = Store(link, prefix=settings.key_prefix, models=models)
    door = Door(store, settings, models, announce=True)
    server = WebServer(create_app(store=store, door=door, settings=settings), "127.0.0.1", 0)
    running = asyncio.create_task(server.run())
    try:
        base_url = f"http://127.0.0.1:{await server.started()}"
        async with httpx.AsyncClient(base_url=base_url, trust_env=False, timeout=10, verify=False) as client:
            yield Api(server, running, client, store)
    finally:
        server.stop()
        await asyncio.wait([running])
        await link.aclose()


@pytest.fixture
async def api(redis_url: str) -> AsyncIterator[Api]:
    """Serve without tokens."""
    async with serving(redis_url) as api:
        await api.store.sync_clock()
        yield api


@pytest.fixture
async def locked(redis_url: str) -> AsyncIterator[Api]:
    """Serve with tokens."""
    async with serving(redis_url, API_TOKENS=TOKENS) as api:
        yield api


def check_problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Check that an answer is a whole problem; return it."""
    body: dict[str, Any] = answer.json()
    assert (answer.status_code, body["code"], body["status"]) == (status, code, status), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-request-id"]
    assert body.keys() >= PROBLEM_MEMBERS
    assert all(body[member] for member in PROBLEM_MEMBERS)
    assert ("errors" in body) == (code == "invalid_request")
    return body


def faulty_fields(answer: httpx.Response) -> list[str]:
    """Name the fields a 422 complains about."""
    return [error["field"] for error in check_problem(answer, 422, "invalid_request")["errors"]]


async def test_health(api: Api) -> None:
    """The process is alive and ready, and says so to HEAD as well."""
    for path, status in (("/healthz", "ok"), ("/readyz", "ready")):
        answer = await api.client.get(path)
        assert (answer.status_code, answer.json()) == (200, {"status": status})
        head = await api.client.head(path)
        assert (head.status_code, head.content) == (200, b"")
        assert "server" not in answer.headers


async def test_take_and_show(api: Api) -> None:
    """A new job is 202 with its view, and is then found with its timeline."""
    taken = await api.client.post("/v1/jobs", json={**JOB, "id": "order-1", "metadata": {"név": "ő"}})
    assert taken.status_code == 202
    assert taken.headers["location"] == "/v1/jobs/order-1"
    job = taken.json()
    assert (job["id"], job["status"], job["model"], job["metadata"]) == ("order-1", "queued", "veo3", {"név": "ő"})
    found = await api.client.get("/v1/jobs/order-1")
    assert found.status_code == 200
    timeline, hindrances = found.json()["timeline"], found.json()["hindrances"]
    assert found.json() == {**job, "timeline": timeline, "hindrances": hindrances}
    assert [line["event"] for line in timeline] == ["job.created"]
    made_up = await api.client.post("/v1/jobs", json=JOB)
    assert made_up.status_code == 202
    assert (await api.client.get(made_up.headers["location"])).json()["id"] == made_up.json()["id"]


async def test_same_request_same_job(api: Api) -> None:
    """Of ten posts of one request under one id, one makes the job and nine find it, by whichever door the id came."""
    by_body = {"json": {**JOB, "id": "order-2"}}
    by_header = {"json": JOB, "headers": {"Idempotency-Key": "order-2"}}
    by_both = {**by_body, "headers": {"Idempotency-Key": '"order-2"'}}
    calls = [api.client.post("/v1/jobs", **(by_body, by_header, by_both)[i % 3]) for i in range(10)]
    answers = await asyncio.gather(*calls)
    assert sorted(answer.status_code for answer in answers) == [200] * 9 + [202]
    assert len({answer.text for answer in answers}) == 1


async def test_conflict(api: Api) -> None:
    """Another request under a taken id is refused."""
    await api.client.post("/v1/jobs", json={**JOB, "id": "order-3"})
    other = {**JOB, "id": "order-3", "model": "sora-2"}
    assert "order-3" in check_problem(await api.client.post("/v1/jobs", json=other), 409, "conflict")["detail"]


@pytest.mark.parametrize(
    ("key", "own", "field"),
    [
        ("a", {"id": "b"}, "id"),
        ("no spaces", {}, "Idempotency-Key"),
        ("", {}, "Idempotency-Key"),
        ("5", {"id": 5}, "id"),
    ],
)
async def test_clash_of_ids(api: Api, key: str, own: dict[str, Any], field: str) -> None:
    """A header that is no id, or another id than the body's, is refused by its name."""
    answer = await api.client.post("/v1/jobs", json={**JOB, **own}, headers={"Idempotency-Key": key})
    assert faulty_fields(answer) == [field]


async def test_every_fault_is_named(api: Api) -> None:
    """A request with several faults is answered with all of them, and none of its values is quoted."""
    values = {"kind": "sk-ony-0123456789abcdef", "input": "whsec_AAAA", "modle": "sk-ony-0123456789abcdef"}
    answer = await api.client.post("/v1/jobs", json=values)
    assert sorted(faulty_fields(answer)) == ["input", "kind", "modle"]
    assert "0123456789abcdef" not in answer.text
    assert "AAAA" not in answer.text


async def test_field_names_are_redacted(api: Api) -> None:
    """A secret in the place of a field's name does not come back."""
    answer = await api.client.post("/v1/jobs", json={**JOB, "sk-ony-0123456789abcdef": 1})
    assert faulty_fields(answer) == ["sk-ony-[redacted]"]


@pytest.mark.parametrize("body", ["[]", '"job"', "null", "7", "[" + json.dumps(JOB) + "]"])
async def test_json_that_is_no_object(api: Api, body: str) -> None:
    """JSON of another shape is an invalid request, with or without an id in the header."""
    for headers in ({}, {"Idempotency-Key": "order-4"}):
        sent = {"content-type": "application/json", **headers}
        assert faulty_fields(await api.client.post("/v1/jobs", content=body, headers=sent)) == ["request"]


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"{'kind': 'video'}", b"\xff\xfe\xfd", pickle.dumps(JOB), b"[" * 100_000, b"{}{}",
        b'{"kind":"video","input":{"seed":' + b"9" * 5000 + b"}}",
    ],
    ids=["empty", "cut", "python", "bytes", "pickle", "deep", "two", "digits"],
)  # fmt: skip
async def test_bad_json(api: Api, body: bytes) -> None:
    """What is not JSON is told so, whatever it is."""
    sent = {"content-type": "application/json"}
    check_problem(await api.client.post("/v1/jobs", content=body, headers=sent), 400, "invalid_json")


@pytest.mark.parametrize("text", ['{"seed":NaN}', '{"seed":1e999}', '{"prompt":"\\ud800"}'])
async def test_values_that_are_not_plain_json(api: Api, text: str) -> None:
    """What Python reads and JSON does not have is refused with its field."""
    sent = {"content-type": "application/json"}
    answer = await api.client.post("/v1/jobs", content=f'{{"kind":"video","input":{text}}}', headers=sent)
    assert faulty_fields(answer) == ["input"]


@pytest.mark.parametrize(
    "headers",
    [
        {}, {"content-type": "text/plain"}, {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "application/json", "content-encoding": "gzip"},
    ],
)  # fmt: skip
async def test_other_media_types(api: Api, headers: dict[str, str]) -> None:
    """A body that a page could send without asking first is refused."""
    answer = await api.client.post("/v1/jobs", content=json.dumps(JOB), headers=headers)
    check_problem(answer, 415, "unsupported_media_type")
    charset = {"content-type": "Application/JSON; charset=utf-8"}
    assert (await api.client.post("/v1/jobs", content=json.dumps(JOB), headers=charset)).status_code == 202


async def test_unknown_addresses_and_methods(api: Api) -> None:
    """An address that is not there, a job that is not there, and a method that is not there are problems."""
    for path in (
        "/v1",
        "/v1/nothing",
        "/v1/jobs/",
        "/v1/jobs/none",
        "/v1/jobs/n%20o",
        "/v1/jobs/%00",
        "/v1/jobs/a%2Fb",
    ):
        check_problem(await api.client.get(path), 404, "not_found")
    answer = await api.client.delete("/v1/jobs/none")
    check_problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "GET, HEAD"
    assert (await api.client.put("/v1/jobs")).headers["allow"] == "GET, HEAD, POST"


@pytest.mark.parametrize("megabytes", [12, 80])
@pytest.mark.parametrize("chunked", [True, False])
async def test_too_large(api: Api, megabytes: int, *, chunked: bool) -> None:
    """A client that sends too much sees the answer; beyond what is read and dropped it may see the end instead."""

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(megabytes * 16):
            yield CHUNK

    headers = {"content-type": "application/json"} | ({} if chunked else {"content-length": str(megabytes << 20)})
    try:
        answer = await api.client.post("/v1/jobs", content=pieces(), headers=headers)
    except httpx.TransportError:
        assert megabytes > 64
    else:
        assert "11 MB" in check_problem(answer, 413, "payload_too_large")["detail"]
        assert answer.headers.get("connection") == ("close" if megabytes > 64 else None)
    assert (await api.client.get("/healthz")).status_code == 200


async def test_largest_request(api: Api) -> None:
    """A request of the full size is taken; a byte more of it is not, though it fits into a body."""
    empty = len(json.dumps({"kind": "audio", "input": {"text": ""}}, separators=(",", ":")))
    for over, status in ((0, 202), (1, 413)):
        text = "a" * (MAX_REQUEST_BYTES - empty + over)
        answer = await api.client.post("/v1/jobs", json={"kind": "audio", "input": {"text": text}})
        assert answer.status_code == status
    check_problem(answer, 413, "payload_too_large")


async def test_too_large_for_leave_to_send(api: Api) -> None:
    """A client that asks before it sends too much is told no, without the wait for a body that never comes."""
    reader, writer = await api.connect()
    head = "POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {12 << 20}\r\nExpect: 100-continue\r\n\r\n".encode())
    async with asyncio.timeout(PATIENCE_S):
        answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"payload_too_large" in answer
    writer.close()


async def test_client_goes_away(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    """A request cut off in its body leaves no trace in the log and no job."""
    with capture_logs() as logs:
        reader, writer = await api.connect()
        head = b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        writer.write(head + b"Content-Length: 1000\r\n\r\n{")
        await until(lambda: api.state.tasks)
        writer.transport.abort()
        await api.idle()
    assert not logs
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert await reader.read() == b""


async def test_not_http(api: Api) -> None:
    """Even what is not HTTP is answered with a problem."""
    reader, writer = await api.connect()
    writer.write(b"\x16\x03\x01 hello\r\n\r\n")
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"x-request-id: req_" in head
    assert json.loads(body)["code"] == "malformed_request"
    writer.close()


async def test_request_ids(api: Api) -> None:
    """A caller's request id comes back if it is one; whoever has none is given one, with errors too."""
    for given in ("trace-1:a.b_c", "x" * 128):
        assert (await api.client.get("/healthz", headers={"x-request-id": given})).headers["x-request-id"] == given
    for given in ("", "x" * 129, "two words", "caf\u00e9"):
        answer = await api.client.get("/nothing", headers=[(b"x-request-id", given.encode())])
        assert re.fullmatch(r"req_[0-9a-f]{32}", answer.headers["x-request-id"])


async def test_bugs_stay_inside(
    locked: Api, redis_client: redis.asyncio.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """An error of ours is logged once, under the request's id and the holder's name, and its answer tells nothing."""
    await redis_client.set("onysoft:index:queued:video", "rubbish")
    headers = {"authorization": "Bearer s3cret-of-the-shop", "x-request-id": "trace-2"}
    with capture_logs(processors=[merge_contextvars]) as logs:
        answer = await locked.client.post("/v1/jobs", json=JOB, headers=headers)
    check_problem(answer, 500, "internal_error")
    assert answer.headers["x-request-id"] == "trace-2"
    assert "WRONGTYPE" not in answer.text
    (line,) = logs
    assert (line["event"], line["request_id"], line["holder"]) == ("request.failed", "trace-2", "shop")
    assert line["exc_info"]
    assert "s3cret" not in str(logs)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("authorization", [None, "Bearer wrong", "Basic s3cret-of-the-shop", "Bearer", "s3cret"])
async def test_without_a_token(locked: Api, authorization: str | None) -> None:
    """Whoever has no token learns nothing: each address, method and body is answered the same."""
    headers = {"x-request-id": "same"} | ({"authorization": authorization} if authorization else {})
    paths = ("/v1", "/v1/jobs", "/v1/jobs/none", "/nothing", "/docs", "/openapi.json", "/healthz/", "/v1/jobs/a%2Fb")
    calls = [
        locked.client.request(method, path, headers=headers, content=content)
        for path in paths
        for method, content in (("GET", None), ("POST", b"{"), ("DELETE", None), ("POST", b"x" * (12 << 20)))
    ]
    seen = set()
    for call in calls:
        answer = await call
        check_problem(answer, 401, "unauthorized")
        assert answer.headers["www-authenticate"] == "Bearer"
        seen.add((answer.text, tuple((k, v) for k, v in answer.headers.items() if k != "date")))
    assert len(seen) == 1


async def test_with_a_token(locked: Api) -> None:
    """Each token opens everything under any name and from any page, and health needs none."""
    for token in ("s3cret-of-the-shop", "second-token"):
        headers = {"authorization": f"bearer {token}", "host": "jobs.example", "origin": "https://shop.example"}
        answer = await locked.client.post("/v1/jobs", json=JOB, headers=headers)
        assert answer.status_code == 202
        assert token not in answer.text
    assert (await locked.client.get("/healthz", headers={"host": "10.0.0.7:8000"})).status_code == 200
    assert (await locked.client.get("/readyz")).status_code == 200


@pytest.mark.parametrize("path", ["/healthz", "/v1/jobs", "/docs", "/nothing"])
async def test_rebound_names(api: Api, path: str) -> None:
    """Without tokens, a page whose own name was made to point here is refused everywhere."""
    for host in ("evil.example", "evil.example:8000", "127.0.0.1.evil.example", ""):
        check_problem(await api.client.get(path, headers={"host": host}), 403, "forbidden_host")
    assert (await api.client.get("/healthz", headers={"host": "localhost:1"})).status_code == 200


@pytest.mark.parametrize(
    "headers", [{"origin": "https://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}]
)
async def test_pages_of_other_sites(api: Api, headers: dict[str, str]) -> None:
    """Without tokens, no page of another site makes a job, and one of this machine does."""
    answer = await api.client.post("/v1/jobs", json={**JOB, "id": "spent"}, headers=headers)
    check_problem(answer, 403, "forbidden_origin")
    assert await api.store.get("spent") is None
    own = {"origin": "http://localhost:3000", "sec-fetch-site": "same-site"}
    assert (await api.client.post("/v1/jobs", json={**JOB, "id": "spent"}, headers=own)).status_code == 202


async def silent_redis(path: Path) -> Callable[[], None]:
    """Listen where Redis would and never answer; return what ends it."""
    writers: list[asyncio.StreamWriter] = []
    server = await asyncio.start_unix_server(lambda _reader, writer: writers.append(writer), path)

    def hang_up() -> None:
        server.close()
        for writer in writers:
            writer.close()

    return hang_up


@pytest.mark.parametrize("silent", [True, False])
async def test_redis_away(tmp_path: Path, *, silent: bool) -> None:
    """With Redis gone or mute, a request is asked to come again within two seconds, under an id that is safe to use."""
    path = tmp_path / "redis.sock"
    hang_up = await silent_redis(path) if silent else lambda: None
    async with serving(f"unix://{path}") as api:
        started_s = time.monotonic()
        calls = [
            api.client.post("/v1/jobs", json={**JOB, "id": "mine"}),
            api.client.post("/v1/jobs", json=JOB),
            api.client.get("/v1/jobs/mine"),
            api.client.get("/readyz"),
        ]
        answers = await asyncio.gather(*calls)
        assert time.monotonic() - started_s < PATIENCE_S
        found = [check_problem(answer, 503, "unavailable") for answer in answers]
        assert all(int(answer.headers["retry-after"]) > 0 for answer in answers)
        assert found[0]["id"] == "mine"
        assert found[1]["id"].startswith("job_")
        assert (await api.client.get("/healthz")).status_code == 200
        assert faulty_fields(await api.client.post("/v1/jobs", json={})) == ["kind", "input"]
        hang_up()


async def test_description(api: Api, locked: Api) -> None:
    """The OpenAPI document describes request, view and every error, and the page for readers is there."""
    document = (await api.client.get("/openapi.json")).json()
    create = document["paths"]["/v1/jobs"]["post"]
    assert create["responses"].keys() == {
        "200",
        "202",
        "400",
        "401",
        "403",
        "408",
        "409",
        "413",
        "415",
        "422",
        "500",
        "503",
    }
    schemas = document["components"]["schemas"]
    view = (await api.client.post("/v1/jobs", json=JOB)).json()
    assert schemas["JobView"]["properties"].keys() == view.keys()
    assert schemas["JobRequest"]["required"] == ["kind", "input"]
    references = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)))
    assert references <= schemas.keys()
    example = create["requestBody"]["content"]["application/json"]["examples"]["everything"]["value"]
    assert (await api.client.post("/v1/jobs", json=example)).status_code == 202
    assert "swagger" in (await api.client.get("/docs")).text
    headers = {"authorization": "Bearer second-token"}
    document = (await locked.client.get("/openapi.json", headers=headers)).json()
    assert "401" in document["paths"]["/v1/jobs"]["post"]["responses"]
    assert "401" not in document["paths"]["/healthz"]["get"]["responses"]
    assert document["security"]


async def test_stop_is_quick_when_idle(api: Api) -> None:
    """Kept-alive connections do not keep the server."""
    assert (await api.client.get("/healthz")).status_code == 200
    assert api.state.connections
    api.server.stop()
    async with asyncio.timeout(PATIENCE_S):
        await api.running
    with pytest.raises(httpx.ConnectError):
        await api.client.get("/healthz")


async def test_stop_lets_requests_finish(api: Api) -> None:
    """A request under way when the server stops is still answered."""
    body = json.dumps(JOB).encode()
    reader, writer = await api.connect()
    head = b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    writer.write(head + b"Content-Length: %d\r\n\r\n" % len(body) + body[:5])
    await until(lambda: api.state.tasks)
    api.server.stop()
    await until(lambda: not api.server._server.servers[0].is_serving())
    writer.write(body[5:])
    assert (await reader.read()).startswith(b"HTTP/1.1 202 ")
    await api.running
    writer.close()


@pytest.mark.parametrize("canceled", [True, False])
async def test_stop_gives_up_on_requests(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, *, canceled: bool
) -> None:
    """A request that outlives the server's patience, or the server itself, is answered and leaves no traceback."""
    monkeypatch.setattr("worker.web.server.GRACE_S", 0)
    async with serving(redis_url) as api:
        reader, writer = await api.connect()
        head = b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        writer.write(head + b"Content-Length: 100\r\n\r\n{")
        await until(lambda: api.state.tasks)
        api.running.cancel() if canceled else api.server.stop()
        assert (await reader.read()).startswith(b"HTTP/1.1 503 ")
        await asyncio.wait([api.running])
        assert api.running.cancelled() == canceled
        assert not api.state.tasks
        assert not [record for record in caplog.records if record.exc_info]
        writer.close()


async def test_port_in_use(api: Api) -> None:
    """A port that is taken is one error that names the variable to set."""
    port = api.server.port

    async def app(*_: Any) -> None:
        raise AssertionError

    with pytest.raises(CannotListen, match=rf"^PORT {port} is in use on 127\.0\.0\.1: set PORT$"):
        WebServer(app, "127.0.0.1", port)
    with closing(socket.socket()) as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(("127.0.0.1", 0))
        bound.listen()
        with pytest.raises(CannotListen, match="is in use on localhost: set PORT"):
            WebServer(app, "localhost", bound.getsockname()[1])
    for host in ("192.0.2.1", "no such name", "x" * 300):
        with pytest.raises(CannotListen, match="is no address of this machine: set BIND_HOST"):
            WebServer(app, host, 0)


async def test_signals_are_left_alone(redis_url: str) -> None:
    """The process keeps its own signal handlers while it serves."""
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    async with serving(redis_url):
        assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
