"""Owns listening: a uvicorn server on a socket of our own, which handles no signals and never leaves the process.

Its protocol is always h11's, with the one error that no app gets to see, a request that is not HTTP, answered like
every other error.
"""

import asyncio
import errno
import socket
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from worker.store import new_id
from worker.web.problems import Kind, problem

BACKLOG = 2048
GRACE_S = 5
LAST_WORDS_S = 1
KEEP_ALIVE_S = 75  # longer than clients keep theirs, so that they never send into a closing connection


class CannotListen(OSError):  # noqa: N818 - named after what it says
    """The address cannot be listened on; the message is one line that says what to set."""


class Connection(H11Protocol):
    """HTTP/1.1 as h11 reads it."""

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's own words are plain text
        """Answer what is not HTTP, unless an answer is under way, and hang up."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            answer = problem(Kind.MALFORMED_REQUEST, "send HTTP/1.1, with headers of at most 16 KB")
            headers = [*answer.raw_headers, (b"x-request-id", new_id("req_").encode()), (b"connection", b"close")]
            events = (h11.Response(status_code=400, headers=headers), h11.Data(bytes(answer.body)), h11.EndOfMessage())
            for event in events:
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


class _Server(uvicorn.Server):
    """A uvicorn server that leaves signals to the process, and tells when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


class WebServer:
    """Serves an app. Takes its port when it is made: raises ``CannotListen`` then, and never later.

    Port 0 takes one that is free. Made once, run once.
    """

    def __init__(self, app: ASGIApp, host: str, port: int) -> None:
        self._socket = _listen(host, port)
        self.port: int = self._socket.getsockname()[1]
        config = uvicorn.Config(
            app,
            http=Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=GRACE_S,
        )
        self._server = _Server(config)

    async def run(self) -> None:
        """Serve until ``stop``: idle connections are closed at once, running requests get five seconds."""
        try:
            await self._server.serve(sockets=[self._socket])
        finally:
            await self._hang_up()
            self._server.listening.set()

    async def started(self) -> int:
        """Wait until requests are answered; return the port."""
        await self._server.listening.wait()
        return self.port

    def stop(self) -> None:
        """Have ``run`` return soon. Safe to call at any time, and twice."""
        self._server.should_exit = True

    async def _hang_up(self) -> None:
        """Let requests that were given up say so, and break what connections are left."""
        for server in getattr(self._server, "servers", ()):
            server.close()
        self._socket.close()
        state = self._server.server_state
        for task in state.tasks:
            task.cancel()
        if state.tasks:
            await asyncio.wait(state.tasks, timeout=LAST_WORDS_S)
        for connection in list(state.connections):
            connection.transport.close()


def _listen(host: str, port: int) -> socket.socket:
    """Listen on the first of the host's addresses that this machine has, IPv4 before IPv6."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        raise CannotListen(f"BIND_HOST {host} is no address of this machine: set BIND_HOST") from error
    for family, kind, protocol, _, address in sorted(found, key=lambda row: row[0] is not socket.AF_INET):
        try:
            return _listening_on(socket.socket(family, kind, protocol), address)
        except OSError as error:
            match error.errno:
                case errno.EADDRINUSE:
                    raise CannotListen(f"PORT {port} is in use on {host}: set PORT") from error
                case errno.EACCES | errno.EPERM:
                    raise CannotListen(f"PORT {port} on {host} is not allowed for this user: set PORT") from error
    raise CannotListen(f"BIND_HOST {host} is no address of this machine: set BIND_HOST")


def _listening_on(made: socket.socket, address: tuple[Any, ...]) -> socket.socket:
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen(BACKLOG)
        made.setblocking(False)  # noqa: FBT003 - the standard library has no name for it
    except OSError:
        made.close()
        raise
    return made
