"""What integration tests share: the sandbox by URL, a verifying receiver, a worker's surroundings."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
import redis.asyncio
from arq.connections import ArqRedis
from standardwebhooks import Webhook

from config.models import load_models
from config.settings import Settings
from jobs.job import Job, to_form
from worker.enqueue import Door
from worker.main import WorkerProcess
from worker.record import view
from worker.store import Store

API_KEY = "sk-ony-" + "ab" * 24
SECRET = "whsec_" + "c2VjcmV0LXNlY3JldC1zZWNyZXQtMDEyMzQ1Njc4OQ=="
PATIENCE_S = 20.0
# One for all, as each would read the certificates of all authorities; without connections that outlive a call.
BOOKS = httpx.Client(verify=False, limits=httpx.Limits(max_keepalive_connections=0), timeout=PATIENCE_S)

Check = Callable[[], Awaitable[Any]]


async def eventually(check: Check, *, within_s: float = PATIENCE_S) -> Any:
    """Wait until the check gives something true, and return it; fail with its last answer."""
    deadline_s = time.monotonic() + within_s
    while not (answer := await check()):
        if time.monotonic() > deadline_s:
            pytest.fail(f"did not come true within {within_s} s, the last answer was {answer!r}")
        await asyncio.sleep(0.02)
    return answer


@dataclass
class Sandbox:
    """The sandbox gateway, reached by URL only."""

    url: str

    def control(self, **settings: Any) -> None:
        """Set how it behaves."""
        BOOKS.post(f"{self.url}/sandbox/control", json=settings).raise_for_status()

    def stats(self) -> dict[str, Any]:
        """Read what it counted."""
        return dict(BOOKS.get(f"{self.url}/sandbox/stats").json())

    def submissions(self, tag: str | None = None) -> list[dict[str, Any]]:
        """List the submissions it saw."""
        params = {"tag": tag} if tag else {}
        return list(BOOKS.get(f"{self.url}/sandbox/submissions", params=params).json()["submissions"])


@dataclass
class Receiver:
    """A consumer of webhooks: verifies each by an independent library, and answers what it is told to."""

    url: str
    statuses: list[int] = field(default_factory=list)  # answers of the next deliveries; 200 when used up
    received: list[dict[str, Any]] = field(default_factory=list)

    def of(self, job_id: str) -> list[dict[str, Any]]:
        """List what came for a job."""
        return [event for event in self.received if event["data"]["id"] == job_id]

    async def asgi(self, scope: Any, receive: Any, send: Any) -> None:
        """Take one delivery."""
        assert scope["type"] == "http"
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        Webhook(SECRET).verify(body, headers)
        self.received.append({**json.loads(body), "webhook-id": headers["webhook-id"], "path": scope["path"]})
        status = self.statuses.pop(0) if self.statuses else 200
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})


@dataclass
class Bench:
    """A worker's surroundings: its settings, the store, a door, and a plain arq pool as backends use it."""

    settings: Settings
    store: Store
    door: Door
    pool: ArqRedis
    raw: redis.asyncio.Redis
    redis_url: str

    async def submit(self, **request: Any) -> str:
        """Enqueue a job through the store's door."""
        request = {"kind": "video", "input": {"prompt": "a lighthouse"}, **request}
        return (await self.door.take(request)).job.id

    async def job(self, job_id: str) -> Job:
        """Read a job."""
        job = await self.store.get(job_id)
        assert job is not None
        return job

    async def outbox_states(self, job_id: str) -> list[str]:
        """Name the states of a job's deliveries."""
        return [delivery.state for delivery in await self.store.outbox.of_job(job_id)]

    async def ended(self, job_id: str, *, within_s: float = PATIENCE_S) -> dict[str, Any]:
        """Wait for a job's end; return its view."""

        async def check() -> Job | None:
            job = await self.store.get(job_id)
            return job if job is not None and job.ended else None

        return view(to_form(await eventually(check, within_s=within_s)))

    async def standing(self, job_id: str, status: str) -> dict[str, Any]:
        """Wait until a job has a status; return its view."""

        async def check() -> Job | None:
            job = await self.store.get(job_id)
            return job if job is not None and job.status == status else None

        return view(to_form(await eventually(check)))

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[WorkerProcess]:
        """Run a worker in this event loop."""
        stop = asyncio.Event()
        process = WorkerProcess(self.store, self.redis_url, self.settings, load_models())
        running = asyncio.create_task(process.run(stop))
        await process.ready.wait()
        try:
            yield process
        finally:
            stop.set()
            await running


def json_bytes(value: Any) -> bytes:
    """Encode as a backend would."""
    return json.dumps(value).encode()


def directed(**directive: Any) -> dict[str, Any]:
    """Make an input that tells the sandbox what is to happen to the job."""
    return {"prompt": "a lighthouse", "sandbox": {"duration_s": 0.1, **directive}}
