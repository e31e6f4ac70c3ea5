"""A consumer of webhooks that misbehaves to order, at the level of bytes: hangs, floods, redirects, hangs up."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from harness import SECRET
from standardwebhooks import Webhook

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def answer(status: int, body: bytes = b"", **headers: str) -> bytes:
    """Write an answer; ``Retry_After="1"`` is the header Retry-After."""
    lines = [f"HTTP/1.1 {status} Told", f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


@dataclass
class Taken:
    """One request that came: when, where to, with what; its signature has been verified."""

    at_s: float
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        """The webhook-id."""
        return self.headers["webhook-id"]

    @property
    def event(self) -> dict[str, Any]:
        """The body, read."""
        return dict(json.loads(self.body))


@dataclass
class Consumer:
    """``answers`` are given in turn, then 200; None: the connection is kept open and nothing is said."""

    url: str = ""
    answers: list[bytes | None] = field(default_factory=list)
    always: Callable[[Taken], bytes | None] | None = None
    taken: list[Taken] = field(default_factory=list)
    at_a_time: int = 0
    most_at_a_time: int = 0
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def of(self, job_id: str) -> list[Taken]:
        """List what came for a job."""
        return [taken for taken in self.taken if taken.event["data"]["id"] == job_id]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take requests of one connection until it is closed."""
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                line, *rest = head.decode().split("\r\n")
                headers = {name.lower(): value for name, _, value in (row.partition(": ") for row in rest if row)}
                body = await reader.readexactly(int(headers["content-length"]))
                Webhook(SECRET).verify(body, headers)
                taken = Taken(time.monotonic(), line.split()[1], headers, body)
                self.taken.append(taken)
                self.at_a_time += 1
                self.most_at_a_time = max(self.most_at_a_time, self.at_a_time)
                try:
                    told = self.always(taken) if self.always else self.answers.pop(0) if self.answers else OK
                    if told is None:
                        await self.ended.wait()
                        return
                    writer.write(told)
                    await writer.drain()
                finally:
                    self.at_a_time -= 1
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def consuming(*answers: bytes | None) -> AsyncIterator[Consumer]:
    """Run a consumer on a free port."""
    consumer = Consumer(answers=list(answers))
    server = await asyncio.start_server(consumer.serve, "127.0.0.1", 0)
    consumer.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
    try:
        yield consumer
    finally:
        consumer.ended.set()
        server.close()
