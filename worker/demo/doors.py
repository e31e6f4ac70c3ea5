"""Owns how the demo's jobs go in and are looked at: as a backend does it, over HTTP and by plain arq.

Neither way imports anything of the product. Source: the project's contract, "Enqueueing" and "HTTP API".
"""

import asyncio
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import arq
import httpx
from arq.connections import RedisSettings

from worker.demo.jobs import DemoJob, Door

QUEUE = "onysoft:jobs"
TIMEOUT_S = 15.0


class DoorShut(Exception):  # noqa: N818 - named after what it says
    """The product refused what it must take; the message says what, and what was answered."""


class Doors:
    """Both doors, open. Use as a context manager."""

    def __init__(self, api_url: str, redis_url: str) -> None:
        self._http = httpx.AsyncClient(base_url=api_url, timeout=TIMEOUT_S, trust_env=False)
        self._redis_url = redis_url
        self._pool: arq.ArqRedis | None = None

    async def __aenter__(self) -> Self:
        self._pool = await arq.create_pool(
            RedisSettings.from_dsn(self._redis_url),
            job_serializer=lambda job: json.dumps(job).encode(),
            job_deserializer=json.loads,
            default_queue_name=QUEUE,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()
        if self._pool is not None:
            await self._pool.aclose()

    async def enqueue(self, job: DemoJob) -> None:
        """Put a job in through each of its doors, all at once; raise ``DoorShut`` where one does not take it."""
        await asyncio.gather(*(self._enqueue(job.request(), door) for door in job.doors))

    async def _enqueue(self, request: dict[str, Any], door: Door) -> None:
        if door == "arq":
            await self._enqueue_by_arq(request)
            return
        with _speaking("the worker's API"):
            answer = await self._http.post("/v1/jobs", json=request)
        if answer.status_code not in {200, 202}:
            raise DoorShut(f"POST /v1/jobs refused {request['id']}: HTTP {answer.status_code} {answer.text[:200]}")

    async def _enqueue_by_arq(self, request: dict[str, Any]) -> None:
        assert self._pool is not None
        try:
            taken = await self._pool.enqueue_job("generate", request)
        except Exception as error:  # what arq raises where Redis has gone is its client's business
            raise DoorShut(f"arq could not enqueue {request['id']}: {error}") from error
        if taken is None:
            raise DoorShut(f"arq did not take {request['id']}")

    async def look(self, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Give the views of those jobs that exist by now."""
        with _speaking("the worker's API"):
            answers = await asyncio.gather(*(self._http.get(f"/v1/jobs/{job_id}") for job_id in ids))
        views = {}
        for job_id, answer in zip(ids, answers, strict=True):
            if answer.status_code == 200:
                views[job_id] = answer.json()
            elif answer.status_code != 404:  # one by arq is not there before the worker has taken it in
                raise DoorShut(f"GET /v1/jobs/{job_id}: HTTP {answer.status_code} {answer.text[:200]}")
        return views


@contextmanager
def _speaking(whom: str) -> Iterator[None]:
    try:
        yield
    except httpx.HTTPError as error:
        raise DoorShut(f"{whom} does not answer: {type(error).__name__} {error}".rstrip()) from error


async def gateway_books(sandbox_url: str) -> dict[str, Any]:
    """Read what the gateway has seen and billed: ``stats``, ``tasks`` and ``submissions``."""
    async with httpx.AsyncClient(base_url=sandbox_url, timeout=TIMEOUT_S, trust_env=False) as client:
        with _speaking("the gateway"):
            stats, tasks, submissions = [
                (await client.get(f"/sandbox/{name}")).raise_for_status().json()
                for name in ("stats", "tasks", "submissions")
            ]
    return {"stats": stats, "tasks": tasks["tasks"], "submissions": submissions["submissions"]}
