"""The receiver of webhooks, as a process of its own: takes them all, checks each signature, and keeps books.

Signatures are checked by the `standardwebhooks` library, which shares no code with what signs. The first request of a
webhook to a path below ``/held`` is never answered. ``GET /-/books`` tells all; ``GET /-/count`` how many jobs have
been told of as ended, and how many requests are held.
"""

import asyncio
import contextlib
import json
import signal
import sys
import time
from collections.abc import Mapping
from typing import Any

from standardwebhooks import Webhook, WebhookVerificationError

LIMIT_BYTES = 1024 * 1024
TERMINAL = frozenset({"job.completed", "job.failed", "job.canceled"})
Headers = Mapping[str, str]


class Inbox:
    """What came."""

    def __init__(self, secret: str) -> None:
        self._webhook = Webhook(secret)
        self._rows: list[dict[str, Any]] = []
        self._told: set[str] = set()
        self._seen: set[str] = set()
        self._held = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take the requests of a connection, one after the other."""
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    line, headers = _head(await reader.readuntil(b"\r\n\r\n"))
                    body = await reader.readexactly(int(headers.get("content-length", 0)))
                    path = line.split(" ", 2)[1]
                    if path.startswith("/-/"):
                        answer = json.dumps(self._tell(path)).encode()
                    elif self._take(path, headers, body):
                        answer = b""
                    else:
                        await reader.read(1)  # nothing comes but the end
                        return
                    writer.write(f"HTTP/1.1 200 OK\r\ncontent-length: {len(answer)}\r\n\r\n".encode() + answer)
                    await writer.drain()
        finally:
            writer.close()

    def _tell(self, path: str) -> Any:
        return {"rows": self._rows} if path == "/-/books" else {"told": len(self._told), "held": self._held}

    def _take(self, path: str, headers: Headers, body: bytes) -> bool:
        """Note a webhook; tell whether to answer it."""
        at_ms = time.time_ns() // 1_000_000
        verified = True
        try:
            self._webhook.verify(body, dict(headers))
        except WebhookVerificationError:
            verified = False
        event, name = json.loads(body), headers.get("webhook-id", "")
        held = path.startswith("/held") and name not in self._seen
        self._held += held
        self._seen.add(name)
        job = event["data"]["id"]
        task = event["data"].get("task_id")
        self._rows.append(
            {
                "id": name, "job": job, "type": event["type"], "task": task, "at_ms": at_ms,
                "verified": verified, "held": held,
            }
        )  # fmt: skip
        if event["type"] in TERMINAL and verified and not held:
            self._told.add(job)
        return not held


def _head(found: bytes) -> tuple[str, Headers]:
    line, *rest = found.decode("latin-1").rstrip("\r\n").split("\r\n")
    headers = (each.partition(":") for each in rest)
    return line, {name.lower(): value.strip() for name, _, value in headers}


async def main(secret: str) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    server = await asyncio.start_server(Inbox(secret).serve, "127.0.0.1", 0, limit=LIMIT_BYTES, backlog=1024)
    sys.stdout.write(f"listening on http://127.0.0.1:{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await stop.wait()
    server.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
