"""What each failure of a real socket becomes, and on which side of "certainly not sent" it falls."""

import asyncio
import contextlib
import gzip
import socket
import ssl
import struct
import subprocess
import sys
import threading
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from harness import eventually

from worker.lookups import Lookups
from worker.transport import NOT_SENT, Transport, Withheld, read_capped

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
REFUSAL = b"HTTP/1.1 413 Payload Too Large\r\nContent-Length: 9\r\n\r\ntoo large"
Peer = Callable[["Server", asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Server:
    """A raw server on loopback and what reached it."""

    port: int = 0
    scheme: str = "http"
    connections: int = 0
    requests: list[bytes] = field(default_factory=list)
    seen: asyncio.Event = field(default_factory=asyncio.Event)
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    stop_listening: Callable[[], None] = lambda: None

    @property
    def url(self) -> str:
        """The address to call it at."""
        return f"{self.scheme}://127.0.0.1:{self.port}/v1/video/generate"

    async def read_request(self, reader: asyncio.StreamReader) -> bytes:
        """Read and note one whole request; raises IncompleteReadError when the client hangs up."""
        head = await reader.readuntil(b"\r\n\r\n")
        sizes = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        body = await reader.readexactly(int(sizes[0].split(b":")[1])) if sizes else b""
        self.requests.append(head + body)
        self.seen.set()
        return head + body


@contextlib.asynccontextmanager
async def serving(peer: Peer, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    """Run `peer` for each connection until the block ends."""
    server = Server(scheme="https" if tls else "http")
    tasks: set[asyncio.Task[None]] = set()

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        try:
            await peer(server, reader, writer)
        except (OSError, EOFError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            server.closed.set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(run(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    listener = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls, limit=2**20)
    server.stop_listening = listener.close
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def transporting(**options: Any) -> AsyncIterator[Transport]:
    """Make a transport and close it at the end of the block."""
    transport = Transport(**{"limit": 10, "keepalive_s": 1.0, **options})
    try:
        yield transport
    finally:
        await transport.aclose()


def post(url: str, body: bytes = b'{"model":"veo3"}', **timeout_s: float) -> httpx.Request:
    """Build a submission as the gateway does."""
    timeouts = {"connect": 5.0, "read": 5.0, "write": 5.0, "pool": 5.0, "total": 10.0, **timeout_s}
    return httpx.Request("POST", url, content=body, extensions={"timeout": timeouts})


async def exchange(transport: Transport, request: httpx.Request) -> tuple[int, bytes]:
    """Send and read to the end, as the gateway does."""
    response = await transport.handle_async_request(request)
    body, cut = await read_capped(response, 1_000_000)
    assert not cut
    return response.status_code, body


@contextlib.contextmanager
def failing(*expected: type[httpx.TransportError], not_sent: bool) -> Iterator[None]:
    """Expect one of these classes exactly, on this side of NOT_SENT, with its cause kept."""
    with pytest.raises(httpx.TransportError) as caught:
        yield
    assert type(caught.value) in expected, repr(caught.value)
    assert isinstance(caught.value, NOT_SENT) is not_sent
    assert caught.value.__cause__ is not None
    assert str(caught.value)


# Peers: what a server may do to one connection.


def answering(*pieces: bytes) -> Peer:
    """Read each request and write these bytes, then close."""

    async def peer(server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.read_request(reader)
        for piece in pieces:
            writer.write(piece)
            await writer.drain()

    return peer


async def keep_answering(server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer every request of the connection."""
    while True:
        await server.read_request(reader)
        writer.write(OK)


async def close_at_accept(_server: Server, _reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    """Read nothing."""


async def reset_after_request(server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send a reset instead of an answer."""
    await server.read_request(reader)
    reset(writer)


async def reset_within_request(_server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take a part of the body and reset."""
    await reader.readexactly(200_000)
    reset(writer)


async def hang(server: Server, reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    """Read the request and say nothing until the client hangs up."""
    await server.read_request(reader)
    await reader.read()


async def hang_within_request(_server: Server, reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    """Never read on, so that the client's writing stalls."""
    await reader.readuntil(b"\r\n\r\n")
    await asyncio.Event().wait()


async def drip(server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send a body byte by byte, each soon enough for the read timeout."""
    await server.read_request(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while not writer.is_closing():
        writer.write(b".")
        await writer.drain()
        await asyncio.sleep(0.02)


async def drip_head(server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send the head of an answer byte by byte, without end."""
    await server.read_request(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while not writer.is_closing():
        writer.write(b".")
        await writer.drain()
        await asyncio.sleep(0.02)


async def answer_at_once(_server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer the first byte, whatever it is."""
    await reader.read(1)
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    await reader.read()


async def reset_at_accept(_server: Server, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read nothing and reset."""
    reset(writer)


async def close_within_request(_server: Server, reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    """Take a part of the body and close."""
    await reader.readexactly(200_000)


async def refuse_and_close(_server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Refuse a body by its length and close, with the rest unread."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(REFUSAL)


async def refuse_and_read_on(_server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Refuse a body by its length and read on, as careful servers do."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(REFUSAL)
    await reader.read(-1)


def encoded(body: bytes, coding: str) -> bytes:
    """Write an answer with a Content-Encoding."""
    return f"HTTP/1.1 200 OK\r\nContent-Encoding: {coding}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def reset(writer: asyncio.StreamWriter) -> None:
    """Close with a TCP reset."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class Names(AbstractResolver):
    """A resolver that gives one answer, and counts."""

    def __init__(self, address: str | Exception) -> None:
        self.address = address
        self.asked = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Answer, or raise what a resolver raises."""
        self.asked += 1
        if isinstance(self.address, Exception):
            raise self.address
        return [ResolveResult(hostname=host, host=self.address, port=port, family=family, proto=0, flags=0)]

    async def close(self) -> None:
        """Hold nothing."""


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a self-signed certificate for 127.0.0.1 and put it behind its key, in one file."""
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    subject = ("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1")
    command = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject)
    subprocess.run([*command, "-keyout", path, "-out", path.with_suffix(".crt")], check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + path.with_suffix(".crt").read_bytes())
    return path


@pytest.fixture
def server_tls(certificate: Path) -> ssl.SSLContext:
    """Set up the server's side of a TLS connection."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@pytest.fixture
def deaf_port() -> Iterator[int]:
    """Fill the queue of a listening port, so that a further connection is neither accepted nor refused."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            queued = stack.enter_context(socket.socket())
            queued.settimeout(0)
            queued.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


@pytest.fixture
def free_port() -> int:
    """Find a port where nothing listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return int(unused.getsockname()[1])


# Certainly not sent.


async def test_refused_connection_is_not_sent(free_port: int) -> None:
    """A port where nothing listens is a connect error."""
    async with transporting() as transport:
        with failing(httpx.ConnectError, not_sent=True):
            await exchange(transport, post(f"http://127.0.0.1:{free_port}/"))


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        pytest.param(socket.gaierror(socket.EAI_NONAME, "unknown"), httpx.ConnectError, id="no such name"),
        pytest.param(OSError(None, "lookup failed"), httpx.ConnectError, id="what aiohttp's resolvers raise"),
        pytest.param(PermissionError("private address"), httpx.ConnectError, id="a guard says no"),
        pytest.param(ValueError("not a name"), httpx.ConnectError, id="another exception"),
        pytest.param(TimeoutError(), httpx.ConnectTimeout, id="the resolver's own timeout"),
    ],
)
async def test_failed_lookup_of_a_name_is_not_sent(answer: Exception, expected: type[httpx.TransportError]) -> None:
    """Whatever a resolver raises, nothing was sent."""
    async with transporting(resolver=Names(answer)) as transport:
        with failing(expected, not_sent=True):
            await exchange(transport, post("http://gateway.test/"))


async def test_unknown_name_is_not_sent() -> None:
    """A name that never exists fails in the system's own resolver, too."""
    async with transporting() as transport:
        with failing(httpx.ConnectError, not_sent=True):
            await exchange(transport, post("http://gateway.invalid/"))


async def test_stalled_lookup_is_a_connect_timeout() -> None:
    """The connect timeout bounds the look-up of the name, too."""

    class Stalled(Names):
        async def resolve(self, *_: Any, **__: Any) -> list[ResolveResult]:
            return await asyncio.get_running_loop().create_future()

    async with transporting(resolver=Stalled("127.0.0.1")) as transport:
        with failing(httpx.ConnectTimeout, not_sent=True):
            await exchange(transport, post("http://gateway.test/", connect=0.1))


@pytest.mark.parametrize("bound", [{"connect": 0.1}, {"total": 0.2}, {"connect": 0.2, "total": 0.2}])
async def test_connection_that_never_comes_is_a_connect_timeout(deaf_port: int, bound: dict[str, float]) -> None:
    """A connection neither accepted nor refused is a connect timeout, also when only the total is bounded."""
    async with transporting() as transport:
        with failing(httpx.ConnectTimeout, not_sent=True):
            await exchange(transport, post(f"http://127.0.0.1:{deaf_port}/", **bound))


async def test_loop_that_stood_still_does_not_blur_a_connect_timeout(deaf_port: int) -> None:
    """A stall beyond every timeout at once still ends as a connect timeout."""
    loop = asyncio.get_running_loop()
    async with transporting() as transport:
        loop.call_later(0.02, threading.Event().wait, 0.3)
        with failing(httpx.ConnectTimeout, not_sent=True):
            await exchange(transport, post(f"http://127.0.0.1:{deaf_port}/", connect=0.1, total=0.2))


async def test_waiting_for_a_free_connection_is_a_pool_timeout() -> None:
    """While one request takes the only connection, another waits as long as it may and was not sent."""
    async with serving(hang) as server, transporting(limit=1) as transport:
        first = asyncio.create_task(exchange(transport, post(server.url)))
        await server.seen.wait()
        with failing(httpx.PoolTimeout, not_sent=True):
            await exchange(transport, post(server.url, pool=0.1))
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert len(server.requests) == 1


async def test_untrusted_certificate_is_not_sent(server_tls: ssl.SSLContext) -> None:
    """A self-signed certificate ends the handshake before anything is sent."""
    async with serving(keep_answering, server_tls) as server, transporting() as transport:
        with failing(httpx.ConnectError, not_sent=True):
            await exchange(transport, post(server.url))
        assert server.requests == []


async def test_trusted_certificate_is_served(server_tls: ssl.SSLContext, certificate: Path) -> None:
    """The context handed in decides whom to trust."""
    trusting = ssl.create_default_context(cafile=str(certificate.with_suffix(".crt")))
    async with serving(keep_answering, server_tls) as server, transporting(verify=trusting) as transport:
        assert await exchange(transport, post(server.url)) == (200, b"ok")


async def test_unverified_certificate_is_served(server_tls: ssl.SSLContext) -> None:
    """Verification can be switched off."""
    async with serving(keep_answering, server_tls) as server, transporting(verify=False) as transport:
        assert await exchange(transport, post(server.url)) == (200, b"ok")


async def test_refused_handshake_is_not_sent() -> None:
    """A TLS server that has no certificate refuses the handshake."""
    async with serving(keep_answering, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)) as server, transporting() as transport:
        with failing(httpx.ConnectError, not_sent=True):
            await exchange(transport, post(server.url))


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        pytest.param(close_at_accept, httpx.ConnectError, id="closed at accept"),
        pytest.param(answer_at_once, httpx.ConnectError, id="plain text"),
        pytest.param(hang_within_request, httpx.ConnectTimeout, id="silent"),
    ],
)
async def test_broken_handshake_is_not_sent(peer: Peer, expected: type[httpx.TransportError]) -> None:
    """A port that speaks no TLS fails the handshake, or lets it run into the connect timeout."""
    async with serving(peer) as server, transporting() as transport:
        with failing(expected, not_sent=True):
            await exchange(transport, post(server.url.replace("http:", "https:"), connect=0.5))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("ftp://127.0.0.1/", httpx.UnsupportedProtocol),
        ("ws://127.0.0.1/", httpx.UnsupportedProtocol),
        ("/v1/video/generate", httpx.UnsupportedProtocol),
        ("http:///v1/video/generate", httpx.UnsupportedProtocol),
        (f"http://{'a' * 70}.test/", httpx.ConnectError),
    ],
)
async def test_address_that_cannot_be_called_is_not_sent(url: str, expected: type[httpx.TransportError]) -> None:
    """Only http and https addresses with a proper host are called."""
    async with transporting() as transport:
        with failing(expected, not_sent=True):
            await exchange(transport, post(url))


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("POST", {b"X-Key": b"a\r\nX-Injected: b"}),
        ("POST", {b"X-Key": b"a\nb"}),
        ("POST", {b"X-Key": b"\xff"}),
        ("PO ST", {}),
    ],
)
async def test_head_that_cannot_be_sent_is_not_sent(method: str, headers: dict[bytes, bytes]) -> None:
    """A method or header that no HTTP message may hold is refused before anything is written."""
    async with serving(keep_answering) as server, transporting() as transport:
        with failing(httpx.LocalProtocolError, not_sent=True):
            await exchange(transport, httpx.Request(method, server.url, headers=headers, content=b"{}"))
        await exchange(transport, post(server.url))
        assert len(server.requests) == 1


async def test_closed_transport_sends_nothing() -> None:
    """After `aclose`, which may be called twice and before anything was sent, a request is not sent."""
    transport = Transport(limit=1, keepalive_s=1)
    await transport.aclose()
    await transport.aclose()
    with pytest.raises(httpx.ConnectError):
        await exchange(transport, post("http://127.0.0.1:1/"))


async def test_closing_ends_waiting_and_running_requests() -> None:
    """`aclose` fails the request that waits for a connection as not sent, the one under way as unknown."""
    async with serving(hang) as server, transporting(limit=1) as transport:
        running = asyncio.create_task(exchange(transport, post(server.url)))
        await server.seen.wait()
        waiting = asyncio.create_task(exchange(transport, post(server.url)))
        await asyncio.sleep(0)
        await transport.aclose()
        with failing(httpx.ConnectError, not_sent=True):
            await waiting
        with failing(httpx.RemoteProtocolError, not_sent=False):
            await running


# Unknown: it may have been accepted.

TORN = (httpx.RemoteProtocolError, httpx.ReadError)  # an end or a reset: who was quicker decides

LARGE = b"x" * 11_000_000


@pytest.mark.parametrize(
    ("peer", "expected", "timeout_s"),
    [
        pytest.param(close_at_accept, TORN, {}, id="closed at accept, nothing read"),
        pytest.param(reset_at_accept, TORN, {}, id="reset at accept"),
        pytest.param(answering(), httpx.RemoteProtocolError, {}, id="closed after the request"),
        pytest.param(reset_after_request, httpx.ReadError, {}, id="reset after the request"),
        pytest.param(answering(b"SSH-2.0-OpenSSH_9.2\r\n"), httpx.RemoteProtocolError, {}, id="garbage status line"),
        pytest.param(answering(b"HTTP/1.1 200 OK\r\nContent-"), httpx.RemoteProtocolError, {}, id="half a head"),
        pytest.param(answering(b"HTTP/1.1 100 Continue\r\n\r\n"), httpx.RemoteProtocolError, {}, id="100, no answer"),
        pytest.param(
            answering(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"),
            httpx.RemoteProtocolError,
            {},
            id="half a body",
        ),
        pytest.param(
            answering(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n{"), httpx.RemoteProtocolError, {}, id="bad length"
        ),
        pytest.param(answering(CHUNKED + b"5\r\nab"), httpx.RemoteProtocolError, {}, id="chunk cut"),
        pytest.param(answering(CHUNKED + b"2\r\nab\r\n"), httpx.RemoteProtocolError, {}, id="last chunk missing"),
        pytest.param(answering(CHUNKED, b"zz\r\nab\r\n"), httpx.RemoteProtocolError, {}, id="garbage for a chunk"),
        pytest.param(hang, httpx.ReadTimeout, {"read": 0.1}, id="read timeout"),
        pytest.param(hang, httpx.ReadTimeout, {"total": 0.6}, id="total timeout"),
        pytest.param(drip, httpx.ReadTimeout, {"total": 0.6}, id="total timeout, dripping body"),
        pytest.param(drip_head, httpx.ReadTimeout, {"total": 0.6}, id="total timeout, dripping head"),
        pytest.param(drip_head, httpx.ReadTimeout, {"read": 0.1, "write": 0.1}, id="write and read, dripping head"),
    ],
)
async def test_failure_after_the_connection_is_unknown(
    peer: Peer,
    expected: type[httpx.TransportError] | tuple[type[httpx.TransportError], ...],
    timeout_s: dict[str, float],
) -> None:
    """Once there is a connection every failure may have come too late."""
    async with serving(peer) as server, transporting() as transport:
        with failing(*(expected if isinstance(expected, tuple) else (expected,)), not_sent=False):
            await exchange(transport, post(server.url, **timeout_s))
        await server.closed.wait()
        assert server.connections == 1


@pytest.mark.parametrize(
    ("peer", "expected", "timeout_s"),
    [
        pytest.param(reset_within_request, TORN, {}, id="reset"),
        pytest.param(close_within_request, TORN, {}, id="closed"),
        pytest.param(hang_within_request, httpx.ReadTimeout, {"read": 0.1, "write": 0.1}, id="stalled, write timeout"),
        pytest.param(hang_within_request, httpx.ReadTimeout, {"total": 0.6}, id="stalled, total timeout"),
    ],
)
async def test_failure_while_sending_is_unknown(
    peer: Peer,
    expected: type[httpx.TransportError] | tuple[type[httpx.TransportError], ...],
    timeout_s: dict[str, float],
) -> None:
    """A connection that breaks or stalls under a large body may have brought enough of it."""
    async with serving(peer) as server, transporting() as transport:
        with failing(*(expected if isinstance(expected, tuple) else (expected,)), not_sent=False):
            await exchange(transport, post(server.url, LARGE, **timeout_s))
        assert server.connections == 1


async def test_timed_out_connection_is_closed() -> None:
    """A late answer finds no one: the connection of a request that timed out is not used again."""
    async with serving(hang) as server, transporting() as transport:
        with failing(httpx.ReadTimeout, not_sent=False):
            await exchange(transport, post(server.url, read=0.05))
        await server.closed.wait()


async def test_answer_that_came_while_the_loop_stood_still_is_read() -> None:
    """Every timeout is over when the process goes on, and the answer lies in the socket: it is the answer."""
    loop, answered = asyncio.get_running_loop(), threading.Event()

    def stand_still() -> None:
        answered.wait()
        threading.Event().wait(1.2)

    def answer(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            loop.call_soon_threadsafe(stand_still)
            connection.sendall(OK)
            answered.set()
            connection.recv(1)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with transporting() as transport:
            serving = asyncio.create_task(asyncio.to_thread(answer, listener))
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
            assert await exchange(transport, post(url, read=0.5, write=0.5, total=1.0)) == (200, b"ok")
        await serving


async def test_cancellation_passes_through_and_closes() -> None:
    """A cancelled request stays a cancellation, waiting for the head or in the body."""
    for peer in (hang, drip):
        async with serving(peer) as server, transporting() as transport:
            task = asyncio.create_task(exchange(transport, post(server.url)))
            await server.seen.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await server.closed.wait()


# Kept connections.


async def test_connection_is_kept_for_a_while() -> None:
    """Requests in quick succession share a connection."""
    async with serving(keep_answering) as server, transporting() as transport:
        for _ in range(3):
            assert await exchange(transport, post(server.url)) == (200, b"ok")
        assert server.connections == 1


@pytest.mark.parametrize("peer", [answering(OK), keep_answering], ids=["closed by the server", "still open"])
async def test_connection_that_idled_is_not_used_again(peer: Peer) -> None:
    """1.2 s later, with a keep-alive of 1 s, a submission takes a new connection."""
    async with serving(peer) as server, transporting(keepalive_s=1.0) as transport:
        assert await exchange(transport, post(server.url)) == (200, b"ok")
        await asyncio.sleep(1.2)
        assert await exchange(transport, post(server.url)) == (200, b"ok")
        assert (server.connections, len(server.requests)) == (2, 2)


async def test_nothing_is_kept_with_a_keepalive_of_zero() -> None:
    """Without keep-alive each request has its own connection."""
    async with serving(keep_answering) as server, transporting(keepalive_s=0) as transport:
        for _ in range(2):
            assert await exchange(transport, post(server.url)) == (200, b"ok")
        assert server.connections == 2


async def test_nothing_is_sent_once_it_may_not_be() -> None:
    """Asked when there is a connection, new or kept: not one byte goes out, and the connection serves the next."""
    async with serving(keep_answering) as server, transporting() as transport:
        for _ in range(2):
            withheld = post(server.url)
            withheld.extensions["may_send"] = lambda: False
            with pytest.raises(Withheld):
                await exchange(transport, withheld)
            allowed = post(server.url)
            allowed.extensions["may_send"] = lambda: True
            assert await exchange(transport, allowed) == (200, b"ok")
        assert (server.connections, len(server.requests)) == (1, 2)
    assert issubclass(Withheld, NOT_SENT)


async def test_connection_seen_closed_is_replaced() -> None:
    """A kept connection whose end has arrived is not used for a POST."""
    async with serving(answering(OK)) as server, transporting(keepalive_s=60) as transport:
        assert await exchange(transport, post(server.url)) == (200, b"ok")
        await server.closed.wait()
        await asyncio.sleep(0.05)  # the end travels through the kernel: nothing here can be awaited for it
        assert await exchange(transport, post(server.url)) == (200, b"ok")
        assert (server.connections, len(server.requests)) == (2, 2)


async def test_connection_closed_unseen_is_replaced() -> None:
    """The end of a kept connection is noticed even if the event loop had no turn to see it."""
    hang_up, hung_up, taken = threading.Event(), threading.Event(), []

    def serve() -> None:
        for _ in range(2):
            peer, _ = listener.accept()
            taken.append(peer.recv(65536))
            peer.sendall(OK)
            hang_up.wait()
            peer.close()
            hung_up.set()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        async with transporting(keepalive_s=60) as transport:
            request = post(f"http://127.0.0.1:{listener.getsockname()[1]}/")
            assert await exchange(transport, request) == (200, b"ok")
            hang_up.set()
            hung_up.wait()
            assert await exchange(transport, request) == (200, b"ok")
            assert len(taken) == 2
        await asyncio.to_thread(thread.join)


@pytest.mark.parametrize("tear", [asyncio.StreamWriter.close, reset], ids=["closed", "reset"])
async def test_post_is_never_repeated_when_a_kept_connection_breaks(
    tear: Callable[[asyncio.StreamWriter], None],
) -> None:
    """A POST into a kept connection that breaks under it is unknown and goes out once, while a GET is sent again."""

    async def peer(server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.read_request(reader)
        writer.write(OK)
        await server.read_request(reader)
        tear(writer)

    async with serving(peer) as server, transporting(keepalive_s=60) as transport:
        assert await exchange(transport, post(server.url)) == (200, b"ok")
        kind = httpx.ReadError if tear is reset else httpx.RemoteProtocolError
        with failing(kind, not_sent=False):
            await exchange(transport, post(server.url))
        assert (server.connections, len(server.requests)) == (1, 2)
        for _ in range(2):
            assert await exchange(transport, httpx.Request("GET", server.url)) == (200, b"ok")
        assert (server.connections, len(server.requests)) == (3, 5)


async def test_get_repeated_into_a_refusal_is_unknown() -> None:
    """A GET that went out over a kept connection was sent, even if its second try is refused."""

    async def peer(server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.read_request(reader)
        writer.write(OK)
        await server.read_request(reader)
        server.stop_listening()

    async with serving(peer) as server, transporting(keepalive_s=60) as transport:
        request = httpx.Request("GET", server.url, extensions={"timeout": {"connect": 5.0, "total": 5.0}})
        assert await exchange(transport, request) == (200, b"ok")
        with failing(httpx.ReadError, not_sent=False):
            await exchange(transport, request)


async def test_answer_nobody_asked_for_is_not_taken_for_the_next() -> None:
    """Bytes that arrive on an idle connection never answer a later submission."""
    sent = asyncio.Event()

    async def chatty(server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.read_request(reader)
        writer.write(OK)
        await server.idle.wait()
        writer.write(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        sent.set()
        await keep_answering(server, reader, writer)

    async with serving(chatty) as server, transporting(keepalive_s=60) as transport:
        assert await exchange(transport, post(server.url)) == (200, b"ok")
        server.idle.set()
        await sent.wait()
        await asyncio.sleep(0.05)  # as above
        assert await exchange(transport, post(server.url)) == (200, b"ok")
        assert (server.connections, len(server.requests)) == (2, 2)


# Answers.


@pytest.mark.parametrize("peer", [refuse_and_close, refuse_and_read_on], ids=["closes", "reads on"])
async def test_early_answer_to_a_large_body_is_the_answer(peer: Peer) -> None:
    """A 413 that comes while the body still goes out is heard, and its connection is not used again."""
    async with serving(peer) as server, transporting() as transport:
        for _ in range(2):
            assert await exchange(transport, post(server.url, LARGE)) == (413, b"too large")
        assert server.connections == 2


async def test_large_body_arrives_whole() -> None:
    """11 MB go out with their length and without a warning."""
    async with serving(keep_answering) as server, transporting() as transport:
        assert await exchange(transport, post(server.url, LARGE)) == (200, b"ok")
        head, _, body = server.requests[0].partition(b"\r\n\r\n")
        assert b"Content-Length: 11000000" in head
        assert body == LARGE


async def test_head_is_what_the_request_carries() -> None:
    """No header is added, and the target stays as it was quoted."""
    async with serving(keep_answering) as server, transporting() as transport:
        url = f"http://user:secret@127.0.0.1:{server.port}/a%2Fb/%7Ec?sig=%2B%20x"
        await exchange(transport, httpx.Request("POST", url, headers={b"X-Key": "grün".encode()}, content=b"{}"))
        await exchange(transport, httpx.Request("GET", url, headers={"Host": "api.onysoft.com"}))
        await exchange(transport, httpx.Request("POST", url))
        target = b"/a%2Fb/%7Ec?sig=%2B%20x HTTP/1.1\r\n"
        host = f"Host: 127.0.0.1:{server.port}\r\n".encode()
        assert server.requests == [
            b"POST " + target + host + "X-Key: grün\r\nContent-Length: 2\r\n\r\n{}".encode(),
            b"GET " + target + b"Host: api.onysoft.com\r\n\r\n",
            b"POST " + target + host + b"Content-Length: 0\r\n\r\n",
        ]


async def test_redirect_is_an_answer() -> None:
    """A redirect is handed back, not followed."""
    peer = answering(b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n")
    async with serving(peer) as server, transporting() as transport:
        assert await exchange(transport, post(server.url)) == (307, b"")
        assert len(server.requests) == 1


async def test_cookie_is_not_kept() -> None:
    """A cookie set by one answer is not in the next request."""
    peer = answering(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n")
    async with serving(peer) as server, transporting(resolver=Names("127.0.0.1")) as transport:
        url = f"http://gateway.test:{server.port}/"  # aiohttp keeps no cookies of bare addresses anyway
        response = await transport.handle_async_request(post(url))
        await response.aread()
        assert response.headers["Set-Cookie"] == "a=b"
        await exchange(transport, post(url))
        assert b"cookie" not in server.requests[1].lower()


async def test_environment_is_ignored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither a proxy nor a netrc of the environment touches a request."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    netrc = tmp_path / "netrc"
    netrc.write_text("machine gateway.test login a password b")
    monkeypatch.setenv("NETRC", str(netrc))
    async with serving(keep_answering) as server, transporting(resolver=Names("127.0.0.1")) as transport:
        assert await exchange(transport, post(f"http://gateway.test:{server.port}/")) == (200, b"ok")
        assert b"authorization" not in server.requests[0].lower()


async def test_compressed_answer_is_decoded_by_httpx() -> None:
    """The raw body and its Content-Encoding reach httpx."""
    body = gzip.compress(b"hello " * 1000)
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body)
    async with serving(answering(head + body)) as server, transporting() as transport:
        assert await exchange(transport, post(server.url)) == (200, b"hello " * 1000)
        response = await transport.handle_async_request(post(server.url))
        assert b"".join([piece async for piece in response.aiter_raw()]) == body


async def test_body_that_is_not_what_it_says_is_a_decoding_error() -> None:
    """A body that cannot be decoded raises httpx's own error and closes."""
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\n"
    async with serving(answering(head + b"hello")) as server, transporting() as transport:
        with pytest.raises(httpx.DecodingError):
            await exchange(transport, post(server.url))


@pytest.mark.parametrize(("limit", "cut"), [(0, True), (1, True), (2, False), (3, False)])
async def test_body_is_read_up_to_a_limit(limit: int, *, cut: bool) -> None:
    """What is over the limit is told, and the response is closed in any case."""
    async with serving(keep_answering) as server, transporting() as transport:
        response = await transport.handle_async_request(post(server.url))
        assert await read_capped(response, limit) == (b"ok"[:limit], cut)
        assert response.is_closed


async def test_endless_body_is_cut_and_its_connection_closed() -> None:
    """A body without end does not occupy its connection."""
    async with serving(drip) as server, transporting(limit=1) as transport:
        response = await transport.handle_async_request(post(server.url))
        assert await read_capped(response, 3) == (b"...", True)
        await server.closed.wait()


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_compressed_bomb_is_never_unpacked_beyond_the_limit(coding: str) -> None:
    """Of a body that unpacks a thousandfold not much more than the limit is ever in memory."""
    body = (gzip if coding == "gzip" else zlib).compress(b"\0" * 200_000_000, 9)
    async with serving(answering(encoded(body, coding))) as server, transporting() as transport:
        response = await transport.handle_async_request(post(server.url))
        tracemalloc.start()
        try:
            assert await read_capped(response, 1000) == (b"\0" * 1000, True)
            assert tracemalloc.get_traced_memory()[1] < 2_000_000
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("coding", ["gzip, gzip", "gzip,deflate", "br, gzip", "gzip, gzip, gzip"])
async def test_more_than_one_coding_is_a_decoding_error(coding: str) -> None:
    """A bomb within a bomb is a few hundred bytes: nothing of it is unpacked."""
    body = gzip.compress(gzip.compress(b"\0" * 50_000_000, 9), 9)
    async with serving(answering(encoded(body, coding))) as server, transporting() as transport:
        response = await transport.handle_async_request(post(server.url))
        tracemalloc.start()
        try:
            with pytest.raises(httpx.DecodingError):
                await read_capped(response, 1_000_000)
            assert tracemalloc.get_traced_memory()[1] < 2_000_000
        finally:
            tracemalloc.stop()
        assert response.is_closed


@pytest.mark.parametrize(
    "coding", ["deflate", "raw deflate", "GZip", "identity, gzip", "x-gzip", "identity", "", "br", "utf-8"]
)
async def test_one_coding_is_undone(coding: str) -> None:
    """Whatever way it is written, and with deflate in both of its senses; one that is not known is left on."""
    text = b"hello " * 10_000
    raw = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    packed = {"deflate": zlib.compress(text), "raw deflate": raw.compress(text) + raw.flush()}
    body = packed.get(coding, gzip.compress(text) if "gzip" in coding.lower() else text)
    async with serving(answering(encoded(body, coding.removeprefix("raw ")))) as server, transporting() as transport:
        assert await exchange(transport, post(server.url)) == (200, text)
        response = await transport.handle_async_request(post(server.url))
        assert await read_capped(response, 100_000, decoded=False) == (body, False)


async def test_long_header_does_not_lose_the_answer() -> None:
    """A header line of 20 KB, as CDNs send, is read."""
    peer = answering(b"HTTP/1.1 200 OK\r\nX-Policy: " + b"p" * 20_000 + b"\r\nContent-Length: 2\r\n\r\nok")
    async with serving(peer) as server, transporting() as transport:
        assert await exchange(transport, post(server.url)) == (200, b"ok")


async def test_name_is_asked_of_the_resolver_and_an_address_is_not() -> None:
    """A resolver decides on names; whoever guards addresses must look at those in the URL as well."""
    names = Names("127.0.0.1")
    async with serving(keep_answering) as server, transporting(resolver=names) as transport:
        assert await exchange(transport, post(f"http://gateway.test:{server.port}/")) == (200, b"ok")
        assert names.asked == 1
        assert await exchange(transport, post(server.url)) == (200, b"ok")
        assert names.asked == 1


WRONG = {
    "no HTTP": b"rubbish\r\n\r\n",
    "a bad header": b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
    "a bad length": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    "a bad chunk": CHUNKED + b"2\r\nok\r\nzz\r\n",
    "cut": b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nok",
    "nothing": b"",
}


@pytest.mark.parametrize("wrong", WRONG)
async def test_words_of_a_failure_hold_no_url(wrong: str) -> None:
    """What a URL carries for the one who is called is told to nobody else."""
    async with serving(answering(WRONG[wrong])) as server, transporting() as transport:
        with pytest.raises(httpx.TransportError) as caught:
            await exchange(transport, post(f"{server.url}?token=HIDDEN"))
    assert "HIDDEN" not in str(caught.value)
    assert "generate" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["ftp://shop.test/?token=HIDDEN", "http://2130706433/?token=HIDDEN", "http://:1/?token=HIDDEN"]
)
async def test_words_about_a_url_do_not_quote_it(url: str) -> None:
    """One that cannot be called is not told either."""
    async with transporting() as transport:
        with pytest.raises(httpx.TransportError) as caught:
            await exchange(transport, post(url))
    assert "HIDDEN" not in str(caught.value)


async def test_words_of_a_body_that_could_not_be_written_hold_no_url() -> None:
    """Nor is the URL told where the connection breaks while a large body goes out."""
    async with serving(reset_within_request) as server, transporting() as transport:
        with pytest.raises(httpx.TransportError) as caught:
            await exchange(transport, post(f"{server.url}?token=HIDDEN", LARGE))
    assert "HIDDEN" not in str(caught.value)


async def test_wrong_body_is_told_at_once_and_its_head_is_kept() -> None:
    """A chunk that is none breaks the body off, in one piece with its head or later, and no timeout is waited for."""
    for pieces in ((CHUNKED + b"zz\r\n",), (CHUNKED, b"2\r\nok\r\nzz\r\n")):
        async with serving(answering(*pieces)) as server, transporting() as transport:
            response = await transport.handle_async_request(post(server.url))
            assert response.status_code == 200
            with failing(httpx.RemoteProtocolError, not_sent=False):
                await read_capped(response, 100)


# Names.


@dataclass
class Hanging:
    """Has the system's look-up of names ending in `hang.test` hang, and counts those under way."""

    asked: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    async def has_been_asked(self, times: int) -> None:
        """Wait until it has been, and see that it was not more often."""

        async def asked() -> bool:
            return len(self.asked) >= times

        await eventually(asked)
        assert len(self.asked) == times


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hanging]:
    """Let them go at the end."""
    hanging = Hanging()
    system = socket.getaddrinfo

    def look_up(host: Any, *args: Any, **options: Any) -> Any:
        if str(host).endswith("hang.test"):
            hanging.asked.append(host)
            hanging.over.wait()
            raise socket.gaierror(socket.EAI_AGAIN, "no answer")
        return system(host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    yield hanging
    hanging.over.set()


async def test_names_that_hang_keep_nobody_waiting(hanging: Hanging) -> None:
    """While 40 look-ups hang, other names are found, by this transport and by whatever shares the loop's threads."""
    async with serving(keep_answering) as server, transporting(limit=50) as transport:
        for number in range(40):
            with failing(httpx.ConnectTimeout, not_sent=True):
                await exchange(transport, post(f"http://h{number}.hang.test/", connect=0.01))
        await hanging.has_been_asked(40)
        url = server.url.replace("127.0.0.1", "localhost")
        assert await exchange(transport, post(url)) == (200, b"ok")
        assert await asyncio.to_thread(lambda: "served") == "served"


async def test_a_name_that_hangs_has_one_look_up_at_a_time(hanging: Hanging) -> None:
    """Whatever port it is asked for, and however often."""
    async with transporting(limit=50) as transport:
        for port in (80, 81, 80, 82):
            with failing(httpx.ConnectTimeout, not_sent=True):
                await exchange(transport, post(f"http://shop.hang.test:{port}/", connect=0.01))
        await hanging.has_been_asked(1)
    assert hanging.asked == ["shop.hang.test"]


async def test_names_known_to_hang_leave_room_for_the_others(hanging: Hanging, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names whose last look-up took long have half of the threads at most, and are free of that when one was quick."""
    monkeypatch.setattr("worker.lookups.LONG_S", 0.0)
    lookups = Lookups(threads=4)
    names = [f"h{number}.hang.test" for number in range(4)]
    first = [asyncio.create_task(lookups.resolve(name)) for name in names]
    hanging.over.set()
    assert all(isinstance(answer, OSError) for answer in await asyncio.gather(*first, return_exceptions=True))
    hanging.over.clear()
    hanging.asked.clear()
    again = [asyncio.create_task(lookups.resolve(name)) for name in names]
    monkeypatch.setattr("worker.lookups.LONG_S", 60.0)
    assert (await lookups.resolve("127.0.0.1", 80))[0]["port"] == 80
    await hanging.has_been_asked(2)
    hanging.over.set()
    await asyncio.gather(*again, return_exceptions=True)
    hanging.over.clear()
    hanging.asked.clear()
    once_more = [asyncio.create_task(lookups.resolve(name)) for name in names]
    await hanging.has_been_asked(4)
    await lookups.close()
    assert all(
        isinstance(end, asyncio.CancelledError) for end in await asyncio.gather(*once_more, return_exceptions=True)
    )


async def test_names_are_found_as_the_system_finds_them() -> None:
    """All addresses, with the port that was asked for; a name that is none is an error."""
    lookups = Lookups()
    found = {(result["host"], result["port"]) for result in await lookups.resolve("localhost", 9, socket.AF_UNSPEC)}
    rows = socket.getaddrinfo("localhost", 9, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    assert found == {(row[4][0], 9) for row in rows}
    for wrong in ("gateway.invalid", "a" * 64 + ".test", ""):
        with pytest.raises((OSError, UnicodeError)):
            await lookups.resolve(wrong)
    assert lookups._under_way == {}


def test_a_process_ends_while_a_look_up_hangs() -> None:
    """Neither the event loop's end nor the interpreter's waits for it."""
    script = """
import asyncio, contextlib, socket, threading
import httpx
from worker.transport import Transport

socket.getaddrinfo = lambda *_, **__: threading.Event().wait()

async def call():
    transport = Transport(limit=1, keepalive_s=1)
    with contextlib.suppress(httpx.ConnectTimeout):
        await transport.handle_async_request(
            httpx.Request("GET", "http://shop.test/", extensions={"timeout": {"connect": 0.1}})
        )
    await transport.aclose()

asyncio.run(call())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# Under httpx's own client.


async def test_works_under_the_client_of_httpx() -> None:
    """The client's API works over this transport, streamed bodies included."""

    async def pieces() -> AsyncIterator[bytes]:
        yield b"ab"
        yield b"cd"

    async with (
        serving(keep_answering) as server,
        httpx.AsyncClient(transport=Transport(limit=2, keepalive_s=1)) as client,
    ):
        response = await client.post(server.url, json={"model": "veo3"})
        assert (response.status_code, response.text, response.http_version) == (200, "ok", "HTTP/1.1")
        assert response.reason_phrase == "OK"
        assert (await client.get(server.url)).text == "ok"
        assert (await client.post(server.url, content=pieces())).text == "ok"
        assert server.requests[2].endswith(b"\r\n\r\nabcd")
        async with client.stream("POST", server.url.replace("//", "//user:secret@")) as streamed:
            assert await streamed.aread() == b"ok"
        assert b"authorization: basic" in server.requests[3].lower()
        assert server.connections == 1


async def test_failures_keep_their_class_under_the_client_of_httpx(free_port: int) -> None:
    """The client changes nothing about which side a failure is on."""
    async with (
        serving(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{")) as server,
        httpx.AsyncClient(transport=Transport(limit=2, keepalive_s=1)) as client,
    ):
        with failing(httpx.ConnectError, not_sent=True):
            await client.post(f"http://127.0.0.1:{free_port}/")
        with failing(httpx.RemoteProtocolError, not_sent=False):
            await client.post(server.url)
