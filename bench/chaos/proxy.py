"""A TCP proxy whose lines can be cut, as a process of its own: `python proxy.py NAME=HOST:PORT ...`.

It says on which port it listens for each name and takes orders on standard input, a line each: ``refuse NAME`` resets
what is connected and refuses whoever comes, ``swallow NAME`` lets come whoever comes and never answers, ``mend NAME``
resets those and carries on. The port stays held while nobody listens on it, so that nobody else can take it.
"""

import asyncio
import contextlib
import socket
import struct
import sys

RESET = struct.pack("ii", 1, 0)  # linger for no time: close() sends RST


class Pipe(asyncio.Protocol):
    """One side of a connection through the proxy: what comes goes to the other side."""

    def __init__(self, line: "Line", other: "Pipe | None" = None) -> None:
        self._line = line
        self._other = other
        self._transport: asyncio.Transport | None = None
        self._early: list[bytes] = []
        self._ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Join the line; the caller's side calls on."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if self._ended:
            transport.abort()
            return
        self._line.pipes.add(self)
        if self._other is None:
            if not self._line.swallows:
                self._line.call_on(self)
        else:
            for part in self._early:
                transport.write(part)

    def data_received(self, data: bytes) -> None:
        """Hand it on."""
        if self._other is not None:
            self._other.write(data)

    def write(self, data: bytes) -> None:
        """Send what came from the other side, once there is someone to send it to."""
        if self._transport is None:
            self._early.append(data)
        else:
            self._transport.write(data)

    def connection_lost(self, error: Exception | None) -> None:
        """Have the other side end as this one did."""
        self._line.pipes.discard(self)
        if self._other is not None:
            self._other.end(reset=error is not None)

    def end(self, *, reset: bool) -> None:
        """Close, with what was written or with a reset."""
        self._ended = True
        if self._transport is None:
            return
        if not reset:
            self._transport.close()
            return
        with contextlib.suppress(OSError):
            self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self._transport.abort()

    def joined(self, other: "Pipe") -> None:
        """Hand what comes to this other side from now on."""
        self._other = other


class Line:
    """A port of ours and where it leads."""

    def __init__(self, host: str, port: int) -> None:
        self._to = host, port
        self._held = socket.socket()
        self._held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._held.bind(("127.0.0.1", 0))
        self.port: int = self._held.getsockname()[1]
        self._server: asyncio.Server | None = None
        self._calls: set[asyncio.Task[None]] = set()
        self.pipes: set[Pipe] = set()
        self.swallows = False

    async def listen(self) -> None:
        """Take connections."""
        if self._server is None:
            loop = asyncio.get_running_loop()
            self._server = await loop.create_server(
                lambda: Pipe(self), "127.0.0.1", self.port, reuse_port=True, backlog=1024
            )

    def call_on(self, caller: Pipe) -> None:
        """Connect a caller with where the line leads."""
        callee = Pipe(self, caller)
        caller.joined(callee)
        task = asyncio.ensure_future(self._connect(caller, callee))
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    async def _connect(self, caller: Pipe, callee: Pipe) -> None:
        try:
            await asyncio.get_running_loop().create_connection(lambda: callee, *self._to)
        except OSError:
            caller.end(reset=True)

    async def obey(self, order: str) -> None:
        """Carry out an order."""
        for pipe in list(self.pipes):
            pipe.end(reset=True)
        self.swallows = order == "swallow"
        if order != "refuse":
            await self.listen()
        elif self._server is not None:
            self._server.close()
            self._server = None


async def main(words: list[str]) -> None:
    lines: dict[str, Line] = {}
    for word in words:
        name, _, place = word.partition("=")
        host, _, port = place.partition(":")
        lines[name] = Line(host, int(port))
        await lines[name].listen()
    for name, line in lines.items():
        sys.stdout.write(f"{name} on http://127.0.0.1:{line.port}\n")
    sys.stdout.flush()
    orders = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    while order := await orders.readline():
        what, name = order.decode().split()
        await lines[name].obey(what)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
