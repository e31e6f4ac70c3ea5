"""Owns serving: a uvicorn server on a socket of our own, which handles no signals and never leaves the process."""

import asyncio
import socket
from collections.abc import Generator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from worker.web.connection import KEEP_ALIVE_S, Config, Room
from worker.web.listener import BACKLOG, CannotListen, connections_allowed, listen

GRACE_S = 5
LAST_WORDS_S = 1


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
        self._socket = listen(host, port)
        self.port: int = self._socket.getsockname()[1]
        self.address = f"http://{f'[{host}]' if ':' in host else host}:{self.port}"
        config = Config(
            app,
            Room(connections_allowed()),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=BACKLOG,
            timeout_keep_alive=int(KEEP_ALIVE_S),
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


__all__ = ["CannotListen", "WebServer"]
