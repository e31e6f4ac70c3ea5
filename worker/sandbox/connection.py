"""One connection: uvicorn's HTTP/1.1 protocol, with a short cut for the requests that benches are made of.

A small HTTP/1.1 request with a Content-Length, or with no body, is read and answered here, at less than half the CPU.
Anything else (large or chunked bodies, Expect, HTTP/1.0, whatever looks odd) hands the connection to h11 for good.
The application is the same ASGI application either way. It finds the transport in `scope["state"]["transport"]`.
"""

import asyncio
from collections.abc import MutableMapping
from dataclasses import dataclass, field
from typing import Any

from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

SHORT_BYTES = 64 * 1024
_METHODS = frozenset({b"GET", b"POST"})
_FOR_H11 = frozenset({b"transfer-encoding", b"expect", b"upgrade", b"connection"})
_STATUS_LINES = {status: b"HTTP/1.1 %d %s\r\n" % (status, phrase) for status, phrase in STATUS_PHRASES.items()}

Message = MutableMapping[str, Any]


class OddRequestError(Exception):
    """The request is not of the plain sort."""


@dataclass(frozen=True, slots=True)
class Request:
    """One whole plain request and the bytes that came after it."""

    method: str
    path: str
    query: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes
    rest: bytes


def parse(data: bytes) -> Request | None:
    """Read a plain request; None while it is not whole. Raises OddRequestError for what only h11 should read."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        if len(data) > SHORT_BYTES:
            raise OddRequestError
        return None
    first, *lines = data[:end].split(b"\r\n")
    words = first.split(b" ")
    if len(words) != 3 or words[0] not in _METHODS or words[2] != b"HTTP/1.1":
        raise OddRequestError
    if not words[1].isascii() or not words[1].startswith(b"/") or b"%" in words[1]:
        raise OddRequestError
    headers = [_header(line) for line in lines]
    lengths = [int(value) for name, value in headers if name == b"content-length"]
    if len(lengths) > 1:
        raise OddRequestError
    length_bytes = lengths[0] if lengths else 0
    stop = end + 4 + length_bytes
    if stop > SHORT_BYTES:
        raise OddRequestError
    if stop > len(data):
        return None
    path, _, query = words[1].partition(b"?")
    return Request(words[0].decode("ascii"), path.decode("ascii"), query, headers, data[end + 4 : stop], data[stop:])


def _header(line: bytes) -> tuple[bytes, bytes]:
    name, colon, value = line.partition(b":")
    name = name.lower()
    value = value.strip()
    if not colon or not name.replace(b"-", b"").isalnum():
        raise OddRequestError
    if name in _FOR_H11 and value.lower() != b"keep-alive":
        raise OddRequestError
    if name == b"content-length" and not value.isdigit():
        raise OddRequestError
    return name, value


@dataclass(slots=True)
class Exchange:
    """One plain request on its way through the application."""

    transport: asyncio.Transport
    body: bytes
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    head: bytes = b""
    read: bool = False

    async def receive(self) -> Message:
        """Give the whole body, then wait for the client to leave."""
        if not self.read:
            self.read = True
            return {"type": "http.request", "body": self.body, "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Write the answer, head and first part in one piece."""
        if message["type"] == "http.response.start":
            lines = [b"%s: %s\r\n" % header for header in message["headers"]]
            self.head = b"".join((_STATUS_LINES[message["status"]], *lines, b"\r\n"))
            return
        if not self.transport.is_closing():
            self.transport.write(self.head + message["body"])
        self.head = b""


class Connection(H11Protocol):
    """One connection, read by the short cut until something odd comes."""

    held = b""
    by_h11 = False
    exchange: Exchange | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Put the transport where every request of this connection finds it."""
        self.app_state = {"transport": transport}
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the application that the client has left."""
        if self.exchange is not None:
            self.exchange.gone.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes; while a request is being answered they wait."""
        if self.by_h11:
            super().data_received(data)
            return
        self.held = self.held + data if self.held else data
        if self.exchange is not None:
            if len(self.held) > SHORT_BYTES:
                self.transport.pause_reading()
            return
        self._proceed()

    def _proceed(self) -> None:
        try:
            request = parse(self.held)
        except OddRequestError:
            self.by_h11 = True
            super().data_received(self.held)
            self.held = b""
            return
        if request is None:
            return
        self.held = request.rest
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": request.method,
            "scheme": "http",
            "path": request.path,
            "raw_path": request.path.encode("ascii"),
            "query_string": request.query,
            "root_path": "",
            "headers": request.headers,
            "client": self.client,
            "server": self.server,
            "state": self.app_state,
        }
        self.exchange = Exchange(self.transport, request.body)
        application: Any = self.app
        task = self.loop.create_task(application(scope, self.exchange.receive, self.exchange.send))
        self.tasks.add(task)
        task.add_done_callback(self._answered)

    def _answered(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        self.exchange = None
        if task.cancelled() or task.exception() is not None:
            if not task.cancelled():
                self.logger.error("exception in the sandbox", exc_info=task.exception())
            self.transport.abort()
        elif not self.transport.is_closing():
            self.transport.resume_reading()
            if self.held:
                self._proceed()
