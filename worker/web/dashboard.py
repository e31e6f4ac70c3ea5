"""Owns the operators' page at ``/``, the files it is made of, and the signing in and out.

The page reads the JSON API like any other client. What it loads is listed here and served from here, and its
Content-Security-Policy allows nothing else: no script or style stands in the page itself.
"""

import asyncio
import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from worker.web.body import too_slow
from worker.web.brake import Brake, Busy
from worker.web.guard import STATIC, Tokens
from worker.web.problems import Kind, Refusal
from worker.web.services import services
from worker.web.sessions import LASTS_S, by_own_page, came_by_https, issue, set_cookie

FOLDER = Path(__file__).parent / "static"
MEDIA_TYPES: Mapping[str, str] = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    # Not no-referrer, which would also take the Origin from the forms' posts.
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
CACHE_S = 60
MAX_FORM_BYTES = 16 * 1024
MAX_FORM_S = 10.0

PAGE = FOLDER.joinpath("index.html").read_text()
SIGN_IN = FOLDER.joinpath("sign-in.html").read_text()
REFUSED = SIGN_IN.replace("<html", "<html data-refused", 1)

router = APIRouter(include_in_schema=False)


@router.get("/")
async def show_dashboard(request: Request) -> Response:
    """Show the dashboard, or the sign-in form to who has no session."""
    if services(request).settings.api_tokens is None:
        return _page(PAGE, "dashboard")
    if request.scope.get("holder") is None:
        return _page(SIGN_IN, "sign-in")
    return _page(PAGE.replace('data-access="open"', 'data-access="locked"', 1), "dashboard")


@router.post("/sign-in")
async def sign_in(request: Request) -> Response:
    """Take a token from the form and give a session for it."""
    tokens = services(request).settings.api_tokens
    if tokens is None:
        return _gone_home()
    if ("origin" in request.headers or "sec-fetch-site" in request.headers) and not by_own_page(request.headers):
        raise Refusal(Kind.FORBIDDEN_ORIGIN, "sign in on the page of this server")
    presented = _only_value(await _read_form(request), "token")
    if Tokens(tokens).holder([f"Bearer {presented}"]) is None:
        brake: Brake = request.app.state.brake
        try:
            await brake.hold_up()
        except Busy:
            return _page(REFUSED, "sign-in", 429, **{"retry-after": "1"})
        return _page(REFUSED, "sign-in", 401, **{"www-authenticate": "Bearer"})
    return _gone_home(_cookie(request, issue(presented, time.time()), LASTS_S))


@router.post("/sign-out")
async def sign_out(request: Request) -> Response:
    """Take the session from the browser."""
    if not by_own_page(request.headers):
        raise Refusal(Kind.FORBIDDEN_ORIGIN, "sign out on the page of this server")
    return _gone_home(_cookie(request, "", 0))


async def show_file(request: Request) -> Response:
    """Serve one of the page's files."""
    file = FILES[request.scope["path"].removeprefix(STATIC)]
    headers = {"cache-control": f"public, max-age={CACHE_S}", "etag": file.etag, "x-content-type-options": "nosniff"}
    known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    if file.etag in known:
        return Response(status_code=304, headers=headers)
    return Response(file.content, headers=headers, media_type=file.media_type)


@dataclass(frozen=True, slots=True)
class File:
    """A file of the page, in memory."""

    content: bytes
    etag: str
    media_type: str


def _load(path: Path) -> File:
    content = path.read_bytes()
    return File(content, f'"{hashlib.sha256(content).hexdigest()[:32]}"', MEDIA_TYPES[path.suffix])


FILES = {path.name: _load(path) for path in sorted(FOLDER.iterdir()) if path.suffix in MEDIA_TYPES}
for _name in FILES:
    router.add_api_route(f"{STATIC}{_name}", show_file, methods=["GET"], name=f"show_{_name}")


def _page(text: str, name: str, status: int = 200, **headers: str) -> Response:
    sent = {**HEADERS, "cache-control": "no-store", "x-page": name, **headers}
    return Response(text, status_code=status, headers=sent, media_type="text/html")


def _gone_home(cookie: str | None = None) -> Response:
    """Send the browser to the page, by an address that holds behind any proxy."""
    sent = {"location": "./", "cache-control": "no-store"} | ({"set-cookie": cookie} if cookie else {})
    return Response(status_code=303, headers=sent)


def _cookie(request: Request, value: str, lasts_s: int) -> str:
    return set_cookie(value, lasts_s=lasts_s, secure=came_by_https(request.headers, request.url.scheme))


async def _read_form(request: Request) -> bytes:
    """Read what a form posts; raise ``Refusal`` for another type, or more bytes or time than a token could need."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/x-www-form-urlencoded":
        raise Refusal(Kind.UNSUPPORTED_MEDIA_TYPE, "send the form as Content-Type: application/x-www-form-urlencoded")
    body = b""
    try:
        async with asyncio.timeout(MAX_FORM_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_FORM_BYTES:
                    detail = f"send at most {MAX_FORM_BYTES // 1024} KB"
                    raise Refusal(Kind.PAYLOAD_TOO_LARGE, detail, headers={"connection": "close"})
    except TimeoutError as error:
        raise too_slow() from error
    return body


def _only_value(form: bytes, name: str) -> str:
    """Give a field's value, without the space that pasting leaves around it; nothing where it comes twice or never."""
    try:
        values = parse_qs(form.decode("ascii"), max_num_fields=8).get(name, [])
    except ValueError:
        return ""
    return values[0].strip() if len(values) == 1 else ""
