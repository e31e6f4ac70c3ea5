"""Owns who gets in, before anything else looks at a request; also its id, and what its logs are bound to.

With tokens, a request without a good one, or a browser's session that stands for one, is answered the same whatever it
asked for; what a session changes must come from our own page. Without tokens the server listens
on loopback only, where the danger is a web page in a browser of this machine: a page that rebinds its own name to
127.0.0.1 shows itself by its Host header, one that posts across sites by its Origin or Sec-Fetch-Site header. All of
it is plain ASGI, so that a request is a single task from the socket to the route.
"""

import asyncio
import hashlib
import hmac
import ipaddress
import re
import time
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bound_contextvars

from config.settings import ApiToken
from jobs.request import valid_id
from worker.ids import new_id
from worker.web.docs import ASSETS
from worker.web.problems import Kind, Refusal, internal_error, refused, unavailable
from worker.web.sessions import SAFE_METHODS, Sessions, by_own_page

STATIC = "/static/"
OPEN_PATHS = frozenset({"/healthz", "/readyz", "/", "/sign-in", "/sign-out"}) | ASSETS

_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(?::[0-9]{0,5})?")


class Tokens:
    """The bearer tokens there are. Compared as digests, all of them each time: the time taken tells nothing."""

    def __init__(self, tokens: Sequence[ApiToken]) -> None:
        self._digests = [(hashlib.sha256(held.token.encode()).digest(), held.name) for held in tokens]

    def holder(self, authorization: Sequence[str]) -> str | None:
        """Name the holder of the token in the Authorization headers, None where there is no good one."""
        scheme, _, token = authorization[0].partition(" ") if len(authorization) == 1 else ("", "", "")
        presented = hashlib.sha256(token.strip(" ").encode()).digest()
        found = None
        for digest, name in self._digests:
            if hmac.compare_digest(digest, presented):
                found = name
        return found if scheme.lower() == "bearer" else None


def is_loopback(authority: str) -> bool:
    """Tell whether ``host`` or ``host:port`` names this machine by localhost or a loopback address."""
    parts = _AUTHORITY.fullmatch(authority)
    if parts is None:
        return False
    host = parts[1].strip("[]").lower()
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def from_elsewhere(headers: Headers) -> bool:
    """Tell whether a browser says that a page of another machine makes this request."""
    if any(site.strip().lower() == "cross-site" for site in headers.getlist("sec-fetch-site")):
        return True
    for origin in headers.getlist("origin"):
        try:
            parts = urlsplit(origin)
        except ValueError:
            return True
        if parts.scheme not in {"http", "https"} or not is_loopback(parts.netloc):
            return True
    return False


def _is_open(path: str) -> bool:
    """Tell whether a path is everybody's: health, the sign-in form, and files that are the same for all."""
    return path in OPEN_PATHS or path.startswith(STATIC)


class Guard:
    """The outermost layer: an ASGI app around an ASGI app. ``tokens`` of None is the mode without tokens."""

    def __init__(self, app: ASGIApp, tokens: Sequence[ApiToken] | None) -> None:
        self._app = app
        self._tokens = None if tokens is None else Tokens(tokens)
        self._sessions = Sessions(tokens or ())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through or answer it. Web sockets there are none: they are dropped."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        if scope["type"] != "http":
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if valid_id(given) else new_id("req_")
        answer, holder = self._app, None
        try:
            holder = self._admit(scope["method"], scope["path"], headers)
        except Refusal as refusal:
            answer = refused(refusal, scope["path"])
        else:
            # What may be read may be asked about: the server leaves the body out.
            method = "GET" if scope["method"] == "HEAD" else scope["method"]
            scope = {**scope, "method": method, "holder": holder}
        with bound_contextvars(request_id=request_id, holder=holder):
            await _answered(answer, scope, receive, _Marked(send, request_id))

    def _admit(self, method: str, path: str, headers: Headers) -> str | None:
        """Name the holder of the request's token or session; raise ``Refusal`` for who does not get in."""
        if self._tokens is not None:
            holder, is_open = self._tokens.holder(headers.getlist("authorization")), _is_open(path)
            if holder is None and (holder := self._sessions.holder(headers, time.time())) is not None:
                # A browser sends the cookie whoever asks it to: what changes something is asked for by our own page.
                if not (is_open or method in SAFE_METHODS or by_own_page(headers)):
                    raise Refusal(Kind.FORBIDDEN_ORIGIN, "a session is for the pages of this server: send a token")
            elif holder is None and not is_open:
                raise Refusal(
                    Kind.UNAUTHORIZED,
                    "send one of API_TOKENS in the Authorization header, as a bearer token",
                    headers={"www-authenticate": "Bearer"},
                )
            return holder
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not is_loopback(hosts[0]):
            raise Refusal(Kind.FORBIDDEN_HOST, "call it localhost or 127.0.0.1; set API_TOKENS to serve other names")
        if from_elsewhere(headers):
            raise Refusal(Kind.FORBIDDEN_ORIGIN, "call it from this machine; set API_TOKENS to serve others")
        return None


class _Marked:
    """A ``send`` that puts the request's id on the answer and remembers that it has begun."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._header = (b"x-request-id", request_id.encode())
        self.begun = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.begun = True
            message = {**message, "headers": [*message.get("headers", ()), self._header]}
        await self._send(message)


async def _answered(app: ASGIApp, scope: Scope, receive: Receive, send: _Marked) -> None:
    """Have a request answered, whatever happens: nothing is left to the server but to write it out."""
    try:
        await app(scope, receive, send)
    except asyncio.CancelledError:
        # The server stops and its patience is over: an answer says more than a connection that breaks.
        if not send.begun:
            gone = unavailable("the server is stopping: repeat the request", connection="close")
            await refused(gone, scope["path"])(scope, receive, send)
    except Exception as error:  # noqa: BLE001 - the boundary of a request
        # Where an answer has begun, the app has logged why, and the server breaks off what is not whole.
        if not send.begun:
            await internal_error(scope["method"], scope["path"], error)(scope, receive, send)
