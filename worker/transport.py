"""The road of one HTTP request: httpx's types outside, aiohttp's connections inside.

Owns which failures prove that a request was never sent. A submission costs money, so that proof is not read off an
exception's class but off how far the request had come: until the connector hands over a connection not one byte can
have left, after that nothing is certain. `NOT_SENT` comes out of the first part only, all else out of the second.
Must not follow a redirect, keep a cookie, read a proxy from the environment, repeat a POST, send a header that the
`httpx.Request` does not carry, or connect to an address that was not put to `address_fault` just before. Knows nothing
of the gateway or of webhooks. HTTP/1.1 only.

Read in aiohttp 3.11 and 3.14, each held by a row of `tests/integration/test_transport.py`:
- every connection comes out of `BaseConnector.connect` and every new one out of `_create_connection`, in the task of
  the caller. The resolver is asked for names only: an address written in the URL never passes it;
- `_resolve_host` answers for both, with what is then connected to and nothing else. It keeps a resolver's answer for
  10 s, which is connected to no longer than that and checked anew each time;
- aiohttp's `total` that fires while it connects is a bare `TimeoutError`, its `sock_connect` leaves out the look-up of
  the name and starts anew for each address. So one clock of our own bounds each phase in turn;
- `sock_read` starts when the body is out. Nothing in aiohttp bounds the writing, so that clock does;
- only an idempotent method is sent a second time, when a kept connection turns out broken.
"""

import asyncio
import functools
import io
import math
import re
import select
import ssl
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Literal

import aiohttp
import httpx
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.tracing import Trace
from yarl import URL

from worker.decoding import Decoder, Undecodable
from worker.lookups import Lookups
from worker.protocol import Protocol
from worker.timer import Timer

NOT_SENT: tuple[type[httpx.TransportError], ...] = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.UnsupportedProtocol,
    httpx.LocalProtocolError,
)
"""Raised only when not one byte of the request can have reached the server's application."""


class Withheld(httpx.ConnectError):
    """Not one byte was sent: whoever wanted to send it may not any more."""


_REACH_SHARE = 0.75
"""Share of `total` for getting a connection: nothing is sent that leaves hardly any time to hear the answer."""
_DIRECT_BYTES = 64 * 1024
"""Larger bodies go out in pieces, so that an early answer is seen while they do."""
_PIECE_BYTES = 16 * 1024
_HEADER_LIMIT_BYTES = 64 * 1024  # aiohttp's own 8 KiB would turn a CDN's long header into an answer never seen
_ANY_URL = re.compile(r"\bhttps?://\S+", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
MAX_RETRY_AFTER_S = 32 * 86_400.0
_AUTO_HEADERS = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")


class Transport(httpx.AsyncBaseTransport):
    """Send `httpx.Request`s over pooled aiohttp connections, with or without an `httpx.AsyncClient` around it.

    `limit` is the number of connections at a time (0: any number). A connection that idled for more than `keepalive_s`
    seconds is not used again (0: none is). `resolver` stays the caller's to close; without one names are looked up in
    threads of this transport's own. `verify=True` means httpx's roots. `address_fault` says what is wrong with an
    address, or None: one wrong address among those of a name refuses it.
    """

    def __init__(
        self,
        *,
        limit: int,
        keepalive_s: float,
        resolver: AbstractResolver | None = None,
        address_fault: Callable[[str], str | None] | None = None,
        verify: ssl.SSLContext | bool = True,
    ) -> None:
        self._limit = limit
        self._keepalive_s = keepalive_s
        self._own_lookups = Lookups()
        self._resolver = resolver or self._own_lookups
        self._address_fault = address_fault
        self._verify = _trusted() if verify is True else verify
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and return its answer once the head is there, the body still to be read.

        Timeouts are seconds in `request.extensions["timeout"]`: httpx's `pool`, `connect` (name, TCP and TLS), `write`
        and `read`, and `total` for everything up to the last byte of the body. The head of the answer is due `write` +
        `read` after the connection. `request.extensions["may_send"]` is asked once there is a connection, just before
        the first byte. Raises one of `NOT_SENT`, or else an `httpx.TransportError`: it may have arrived.
        """
        if self._closed:
            raise httpx.ConnectError("the transport is closed", request=request)
        session = self._session or self._open()
        exchange = _Exchange.begin(request.extensions.get("timeout") or {}, request.extensions.get("may_send"))
        token = _EXCHANGE.set(exchange)
        try:
            url, headers, body = await _prepare(request)
            async with exchange.clock:
                answer = await session.request(
                    request.method,
                    url,
                    headers=headers,
                    data=body,
                    allow_redirects=False,
                    timeout=exchange.limits,
                    server_hostname=request.extensions.get("sni_hostname"),
                )
        except asyncio.CancelledError as error:
            if not self._closed or _is_cancelled():
                raise
            raise _translate(error, exchange, request) from error  # `aclose` cancels whoever waits for a connection
        except Exception as error:
            raise _translate(error, exchange, request) from error
        finally:
            _EXCHANGE.reset(token)
        return httpx.Response(
            answer.status,
            headers=answer.raw_headers,
            stream=_Body(answer, exchange, request),
            request=request,
            extensions={"http_version": b"HTTP/1.1", "reason_phrase": (answer.reason or "").encode()},
        )

    async def aclose(self) -> None:
        """Close every connection, those in use included. Safe to call twice."""
        self._closed = True
        if self._session is not None:
            await self._session.close()
        await self._own_lookups.close()

    def _open(self) -> aiohttp.ClientSession:
        reuse = self._keepalive_s > 0
        connector = _Connector(
            self._address_fault,
            limit=self._limit,
            force_close=not reuse,
            keepalive_timeout=self._keepalive_s if reuse else None,
            resolver=self._resolver,
            ssl=self._verify,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=_AUTO_HEADERS,
            auto_decompress=False,
            trust_env=False,
            max_line_size=_HEADER_LIMIT_BYTES,
            max_field_size=_HEADER_LIMIT_BYTES,
        )
        return self._session


async def read_capped(response: httpx.Response, limit_bytes: int, *, decoded: bool = True) -> tuple[bytes, bool]:
    """Read a body of at most `limit_bytes`, decoded or as it came; the second value tells whether there was more.

    Always closes the response: a connection whose answer was not read to its end is not used again. Raises what the
    stream raises, or `httpx.DecodingError` (no `TransportError`) where the body is not what its Content-Encoding says,
    or that names more than one coding. Only gzip and deflate are undone.
    """
    body = bytearray()
    stream = response.stream
    try:
        decoder = Decoder(response.headers.get("Content-Encoding", "") if decoded else "")
        pieces = stream if isinstance(stream, _Body) and not response.is_stream_consumed else response.aiter_raw()
        async for piece in pieces:
            body += decoder.decode(piece, limit_bytes + 1 - len(body))
            if len(body) > limit_bytes:
                return bytes(body[:limit_bytes]), True
        return bytes(body), False
    except Undecodable as error:
        raise httpx.DecodingError(str(error), request=response.request) from error
    finally:
        await response.aclose()


@dataclass(slots=True)
class _Exchange:
    """How far one request has come, and the one clock that bounds the phase it is in."""

    clock: Timer
    limits: aiohttp.ClientTimeout
    connect_s: float | None
    answer_s: float | None
    reach_by: float | None
    done_by: float | None
    may_send: Callable[[], bool] | None
    phase: Literal["pool", "connect", "sent"] = "pool"

    @classmethod
    def begin(cls, timeout: dict[str, float | None], may_send: Callable[[], bool] | None) -> "_Exchange":
        now = asyncio.get_running_loop().time()
        total_s, pool_s, read_s, write_s = (timeout.get(key) for key in ("total", "pool", "read", "write"))
        reach_by = None if total_s is None else now + total_s * _REACH_SHARE
        return cls(
            clock=Timer(_earlier(reach_by, now, pool_s)),
            limits=_limits(read_s),
            connect_s=timeout.get("connect"),
            answer_s=None if read_s is None or write_s is None else write_s + read_s,
            reach_by=reach_by,
            done_by=None if total_s is None else now + total_s,
            may_send=may_send,
        )

    def connecting(self) -> None:
        """Note that a connection is being made; nothing changes if the request was sent before (over a broken one)."""
        if self.phase == "pool":
            now = asyncio.get_running_loop().time()
            self.clock.reschedule(_earlier(self.reach_by, now, self.connect_s))
            self.phase = "connect"

    def connected(self) -> None:
        """Note that from here on bytes may leave."""
        if self.phase != "sent":
            now = asyncio.get_running_loop().time()
            self.clock.reschedule(_earlier(self.done_by, now, self.answer_s))
            self.phase = "sent"


_EXCHANGE: ContextVar[_Exchange] = ContextVar("_EXCHANGE")


class _AddressRefused(Exception):  # noqa: N818 - named after what it says
    """A name resolves to an address that must not be connected to. No `OSError`: aiohttp would take its words away."""


class _MayNotSend(Exception):  # noqa: N818 - named after what it says
    """There is a connection, and no leave any more to send what it is for."""


class _Connector(aiohttp.TCPConnector):
    """Tells the exchange under way when it starts to connect and has a connection, and to what it must not connect."""

    def __init__(self, address_fault: Callable[[str], str | None] | None, **options: Any) -> None:
        super().__init__(**options)
        self._factory = functools.partial(Protocol, loop=self._loop)  # type: ignore[assignment]
        self._address_fault = address_fault

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's signature
    ) -> Connection:
        exchange = _EXCHANGE.get()
        connection = await super().connect(req, traces, timeout)
        while exchange.phase == "pool" and _is_stale(connection):
            connection.close()
            connection = await super().connect(req, traces, timeout)
        if exchange.phase != "sent" and exchange.may_send is not None and not exchange.may_send():
            connection.release()  # nothing was sent over it: it is as good as before
            raise _MayNotSend("its sender may not send it any more")
        exchange.connected()
        return connection

    async def _create_connection(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's signature
    ) -> ResponseHandler:
        _EXCHANGE.get().connecting()
        return await super()._create_connection(req, traces, timeout)

    async def _resolve_host(self, host: str, port: int, traces: Sequence[Trace] | None = None) -> list[ResolveResult]:
        found = await super()._resolve_host(host, port, traces)
        faults = (self._address_fault(result["host"]) for result in found) if self._address_fault else ()
        if fault := next(filter(None, faults), None):
            raise _AddressRefused(f"{host} resolves to {fault}")
        return found


class _Body(httpx.AsyncByteStream):
    """The body of one answer, as it came over the wire."""

    def __init__(self, answer: aiohttp.ClientResponse, exchange: _Exchange, request: httpx.Request) -> None:
        self._answer = answer
        self._exchange = exchange
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while received := await self._receive():
            for start in range(0, len(received), _PIECE_BYTES):
                yield received[start : start + _PIECE_BYTES]

    async def aclose(self) -> None:
        self._answer.release()  # closes the connection instead if the answer is not at its end

    async def _receive(self) -> bytes:
        content = self._answer.content
        try:
            if content.is_eof():  # nothing to wait for, as with most small answers
                return await content.readany()
            async with asyncio.timeout_at(self._exchange.done_by):
                return await content.readany()
        except Exception as error:
            self._answer.close()
            raise _translate(error, self._exchange, self._request) from error
        except BaseException:
            self._answer.close()
            raise


async def _prepare(request: httpx.Request) -> tuple[URL, list[tuple[str, str]], bytes | io.BytesIO | None]:
    if request.url.scheme not in ("http", "https") or not request.url.raw_host:  # `host` fails on emoji in punycode
        raise aiohttp.InvalidURL(f"{request.url.scheme}://{request.url.host}", "no http or https address")
    url = URL(str(request.url), encoded=True)  # as httpx quoted it: a signature may depend on it
    if request.url.userinfo:
        url = url.with_user(None)  # httpx's client has made a header of it
    body = await request.aread()
    headers = [
        (name.decode("ascii"), value.decode())
        for name, value in request.headers.raw
        if name.lower() != b"transfer-encoding"  # the body is in memory: its length is known
    ]
    if any(_CONTROL.search(value) for _, value in headers):
        raise ValueError("a header holds a control character")  # aiohttp says so only once it has a connection
    return url, headers, (io.BytesIO(body) if len(body) > _DIRECT_BYTES else body or None)


def _translate(error: BaseException, exchange: _Exchange, request: httpx.Request) -> httpx.TransportError:
    """Turn any failure into httpx's; only `exchange.phase` decides on which side of `NOT_SENT` it falls."""
    text = f"{exchange.phase}: {_words(error)}"
    kind: type[httpx.TransportError]
    match exchange.phase, error:
        case _, _MayNotSend():
            kind = Withheld
        case "pool", TimeoutError():
            kind = httpx.PoolTimeout
        case "connect", TimeoutError():
            kind = httpx.ConnectTimeout
        case "pool" | "connect", aiohttp.InvalidURL() | aiohttp.NonHttpUrlClientError():
            kind = httpx.UnsupportedProtocol
        case "pool", ValueError():
            kind = httpx.LocalProtocolError
        case "pool" | "connect", _:
            kind = httpx.ConnectError
        case _, TimeoutError():
            kind = httpx.ReadTimeout
        case _, aiohttp.ServerDisconnectedError() | aiohttp.ClientResponseError() | aiohttp.ClientPayloadError():
            kind = httpx.RemoteProtocolError
        case _:
            kind = httpx.ReadError
    return kind(text, request=request)


def _words(error: BaseException) -> str:
    """Say what happened without the URL, which may hold a secret: what a webhook met goes into logs and records."""
    match error:
        case aiohttp.ClientResponseError() | HttpProcessingError():
            said = error.message
        case aiohttp.InvalidURL():
            said = error.description or ""
        case _:
            said = str(error)
    return _ANY_URL.sub("(a URL)", said) or type(error).__name__


def _is_stale(connection: Connection) -> bool:
    """Tell whether a kept connection got something while idle: its end, or bytes that would pass for our answer.

    Asks the kernel, too, as httpcore does: the event loop may not have seen it yet, and a POST sent now would be lost.
    """
    if connection.protocol is None or connection.protocol.should_close or connection.transport is None:
        return True
    poll = select.poll()
    poll.register(connection.transport.get_extra_info("socket"), select.POLLIN)
    return bool(poll.poll(0))


def _earlier(moment: float | None, now: float, wait_s: float | None) -> float | None:
    if wait_s is None:
        return moment
    return now + wait_s if moment is None else min(moment, now + wait_s)


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


@functools.cache
def _trusted() -> ssl.SSLContext:
    """Read the certificates of all authorities: it takes 20 ms, so once for all, and not within a request."""
    return httpx.create_ssl_context()


@functools.lru_cache(maxsize=32)
def _limits(read_s: float | None) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, connect=None, sock_connect=None, sock_read=read_s)


def retry_after_s(headers: httpx.Headers) -> float | None:
    """Read ``Retry-After``, seconds or an HTTP date, as seconds from now; None where there is none to be read."""
    text = headers.get("retry-after", "")
    try:
        wait_s = float(text) if text[:1].isdigit() else parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, OverflowError):
        return None
    return min(max(wait_s, 0.0), MAX_RETRY_AFTER_S) if math.isfinite(wait_s) else None
