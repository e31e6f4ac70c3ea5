"""The webhook receiver, as a process: takes every POST, counts ids, and answers ``GET /counts?until=N`` when N are in.

That answer is how a bench learns that work is done, without polling; it comes after a second in any case.
"""

import asyncio
import json
import signal
import sys

WAIT_S = 1.0
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


class Counts:
    """What has come in since the last reset."""

    def __init__(self) -> None:
        self.posts = 0
        self.unsigned = 0
        self.ids: set[bytes] = set()
        self.waiting: dict[asyncio.Future[None], int] = {}

    def take(self, head: bytes) -> None:
        """Note one webhook by its head."""
        lines = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
        headers = {name.lower(): value for name, value in lines.items()}
        self.posts += 1
        self.unsigned += not headers.get(b"webhook-signature", b"").startswith(b"v1,")
        self.ids.add(headers[b"webhook-id"])
        for future, count in self.waiting.items():
            if len(self.ids) >= count and not future.done():
                future.set_result(None)

    async def show(self, until: int) -> bytes:
        """Give the counts once so many ids are in, or after a while."""
        if len(self.ids) < until:
            future = asyncio.get_running_loop().create_future()
            self.waiting[future] = until
            await asyncio.wait([future], timeout=WAIT_S)
            del self.waiting[future]
        return json.dumps({"posts": self.posts, "distinct": len(self.ids), "unsigned": self.unsigned}).encode()


class Connection(asyncio.Protocol):
    """One HTTP/1.1 connection; knows Content-Length and nothing else."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self._held = b""
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport to answer on."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Take bytes, and answer each request that is whole."""
        self._held += data
        while (end := self._held.find(b"\r\n\r\n")) >= 0:
            head = self._held[:end]
            at = head.lower().find(b"content-length:")
            stop = end + 4 + (int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0)
            if len(self._held) < stop:
                return
            self._held = self._held[stop:]
            self._answer(head)

    def _answer(self, head: bytes) -> None:
        if head.startswith(b"POST /reset"):
            self._counts.__init__()
        elif head.startswith(b"POST"):
            self._counts.take(head)
        else:
            task = asyncio.ensure_future(self._show(int(head.split(b" ", 2)[1].partition(b"until=")[2])))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return
        self._transport.write(OK)

    async def _show(self, until: int) -> None:
        body = await self._counts.show(until)
        self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))


async def main() -> None:
    loop, stop, counts = asyncio.get_running_loop(), asyncio.Event(), Counts()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    server = await loop.create_server(lambda: Connection(counts), "127.0.0.1", 0, backlog=2048)
    sys.stdout.write(f"listening on http://127.0.0.1:{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await stop.wait()
    server.close()


if __name__ == "__main__":
    asyncio.run(main())
