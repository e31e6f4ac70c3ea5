"""A consumer of webhooks, as a process of its own: answers each destination as it is told, and keeps books of it all.

It listens on every loopback address, so that one process is many hosts. ``POST /-/plan`` says how a destination (host
and path, or a host's every path) answers from now on: with which status, after how long. ``GET /-/count`` and
``GET /-/books`` tell what came to a host. A request counts as there from its last byte until just before its answer, or
until whoever sent it hangs up.
"""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import signal
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

LIMIT_BYTES = 1024 * 1024
Headers = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Plan:
    """How a destination answers."""

    status: int = 200
    delay_s: float = 0.0


@dataclass
class Host:
    """What came to a host: a row for each request, in order, and how many were there at a time."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    taken: dict[str, set[str]] = field(default_factory=dict)
    plans: dict[str, Plan] = field(default_factory=dict)
    now: Counter[str] = field(default_factory=Counter)
    most: dict[str, int] = field(default_factory=dict)
    most_in_all: int = 0
    forged: int = 0

    def arrived(self, path: str) -> None:
        """Count a request in."""
        self.now[path] += 1
        self.most[path] = max(self.most.get(path, 0), self.now[path])
        self.most_in_all = max(self.most_in_all, self.now.total())

    def books(self) -> dict[str, Any]:
        """Show all of it."""
        return {"rows": self.rows, "most": self.most, "most_in_all": self.most_in_all, "forged": self.forged}


class Consumer:
    """All hosts; ``secret`` is what webhooks are signed with."""

    def __init__(self, secret: str) -> None:
        self._key = base64.b64decode(secret.removeprefix("whsec_"))
        self._hosts: dict[str, Host] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take the requests of a connection, one after the other."""
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    line, headers = _head(await reader.readuntil(b"\r\n\r\n"))
                    body = await reader.readexactly(int(headers.get("content-length", 0)))
                    status, answer = await self._answer(line, headers, body, reader)
                    if not status:
                        return
                    head = f"HTTP/1.1 {status} -\r\ncontent-length: {len(answer)}\r\n\r\n"
                    writer.write(head.encode() + answer)
                    await writer.drain()
        finally:
            writer.close()

    async def _answer(
        self, line: str, headers: Headers, body: bytes, reader: asyncio.StreamReader
    ) -> tuple[int, bytes]:
        target = urlsplit(line.split(" ", 2)[1])
        if not target.path.startswith("/-/"):
            return await self._take(target.path, headers, body, reader), b""
        asked = json.loads(body) if body else {name: values[0] for name, values in parse_qs(target.query).items()}
        host = self._hosts.setdefault(asked["host"], Host())
        match target.path:
            case "/-/plan":
                host.plans[asked.get("path", "")] = Plan(asked["status"], asked["delay_s"])
                return 200, b""
            case "/-/count":
                paths = [asked["path"]] if "path" in asked else list(host.taken)
                return 200, json.dumps({"taken": sum(len(host.taken.get(path, ())) for path in paths)}).encode()
            case _:
                return 200, json.dumps(host.books()).encode()

    async def _take(self, path: str, headers: Headers, body: bytes, reader: asyncio.StreamReader) -> int:
        """Take a webhook; give the status to answer, 0 where its sender did not wait for one."""
        at_ms = time.time_ns() // 1_000_000
        host = self._hosts.setdefault(headers["host"].partition(":")[0], Host())
        host.arrived(path)
        plan = host.plans.get(path) or host.plans.get("") or Plan()
        event = json.loads(body)
        host.forged += not self._is_signed(headers, body)
        row = {
            "path": path, "id": headers["webhook-id"], "job": event["data"]["id"],
            "event_at": event["timestamp"], "at_ms": at_ms, "status": 0,
        }  # fmt: skip
        host.rows.append(row)
        if plan.delay_s:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(plan.delay_s):
                    await reader.read(1)  # nothing comes before the answer but the end
                    host.now[path] -= 1
                    return 0
        host.now[path] -= 1
        row["status"] = plan.status
        if 200 <= plan.status < 300:
            host.taken.setdefault(path, set()).add(row["id"])
        return plan.status

    def _is_signed(self, headers: Headers, body: bytes) -> bool:
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        digest = base64.b64encode(hmac.digest(self._key, signed, hashlib.sha256)).decode()
        return f"v1,{digest}" in headers["webhook-signature"].split(" ")


def _head(found: bytes) -> tuple[str, Headers]:
    line, *rest = found.decode("latin-1").rstrip("\r\n").split("\r\n")
    headers = (each.partition(":") for each in rest)
    return line, {name.lower(): value.strip() for name, _, value in headers}


async def main(secret: str) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    server = await asyncio.start_server(Consumer(secret).serve, "0.0.0.0", 0, limit=LIMIT_BYTES, backlog=2048)
    sys.stdout.write(f"listening on port {server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await stop.wait()
    server.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
