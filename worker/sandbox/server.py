"""Listens: uvicorn's HTTP/1.1 protocol on a socket of our own.

Of uvicorn only the protocol is used, not its `Server`: the sandbox must be able to stop listening for a while (outage
`refuse`), to drop single connections, and to leave at once with keep-alive connections open.
"""

import asyncio
import contextlib
import signal
import sys
from functools import partial
from typing import Any

from uvicorn.config import Config
from uvicorn.server import ServerState

from worker.sandbox.account import Settings
from worker.sandbox.app import SandboxApp
from worker.sandbox.connection import Connection
from worker.sandbox.faults import MixName

KEEP_ALIVE_S = 75
BACKLOG = 2048
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Listener:
    """The listening socket and the live connections behind it."""

    def __init__(self, host: str, port: int, settings: Settings) -> None:
        self.host = host
        self.port = port
        self.app = SandboxApp(settings, self.refuse_for)
        self.state = ServerState()
        self.config = Config(
            self.app,
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            ws="none",
            http=Connection,
            timeout_keep_alive=KEEP_ALIVE_S,
        )
        self.config.load()
        self._server: asyncio.Server | None = None
        self._reopening: asyncio.TimerHandle | None = None
        self._opening: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Say where this server answers."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    async def open(self) -> None:
        """Listen; port 0 is replaced by the port that was free. Raises OSError where the port is taken."""
        factory = partial(Connection, config=self.config, server_state=self.state, app_state={})
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(factory, self.host, self.port, backlog=BACKLOG, reuse_address=True)
        self.port = self._server.sockets[0].getsockname()[1]

    def refuse_for(self, seconds: float, kept: Any) -> None:
        """Stop listening and drop every connection but `kept`; listen again after `seconds`, 0 ending an outage."""
        self.close(kept)
        self._reopening = asyncio.get_running_loop().call_later(seconds, self._reopen)

    def _reopen(self) -> None:
        if self.app.gateway.settings.outage == "refuse":
            self.app.gateway.settings.outage = None
        self._opening = asyncio.get_running_loop().create_task(self.open())

    def close(self, kept: Any = None) -> None:
        """Stop listening and drop every connection but `kept`, answered or not."""
        if self._reopening is not None:
            self._reopening.cancel()
        if self._server is not None:
            self._server.close()
        for connection in list(self.state.connections):
            transport = getattr(connection, "transport", None)
            if isinstance(transport, asyncio.Transport) and transport is not kept:
                transport.abort()


async def serve(
    *,
    port: int,
    host: str = "127.0.0.1",
    faults: MixName = "default",
    seed: int = 1,
    speed: float = 10.0,
    stop: asyncio.Event | None = None,
) -> None:
    """Serve until `stop` is set or the task is cancelled; installs no signal handlers.

    Raises OSError where the port is taken.
    """
    listener = Listener(host, port, Settings(faults=faults, seed=seed, speed=speed))
    await listener.open()
    said = f"sandbox gateway on {listener.url} (faults: {faults}, seed: {seed}, {speed:g}x)"
    print(said, file=sys.stderr, flush=True)  # noqa: T201 - the one line a starter waits for
    try:
        await (stop or asyncio.Event()).wait()
    finally:
        listener.close()
        for task in list(listener.state.tasks):
            task.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.3):
                await asyncio.gather(*listener.state.tasks, return_exceptions=True)


def run(
    *,
    port: int,
    host: str = "127.0.0.1",
    faults: MixName = "default",
    seed: int = 1,
    speed: float = 10.0,
) -> None:
    """Serve until SIGTERM or SIGINT, then return. Raises OSError on a taken port."""

    async def until_signalled() -> None:
        stop = asyncio.Event()
        for number in SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await serve(port=port, host=host, faults=faults, seed=seed, speed=speed, stop=stop)

    asyncio.run(until_signalled())
