"""Enqueues jobs over time by the three doors, as a client should: again with the same id until it is answered.

Half go by HTTP, a quarter by the Python client, a quarter by plain arq. ``taken`` are the ids that were answered.
"""

import asyncio
import json
import random
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from arq import create_pool
from arq.connections import ArqRedis, RedisSettings
from redis.exceptions import RedisError
from stage import QUEUE

from worker.client import RedisUnavailable, WorkerClient

AGAIN_S = (0.2, 1.0)
HTTP_TIMEOUT_S = 15.0
SHAPES: tuple[dict[str, Any], ...] = (  # taken by chance, with the weights below
    {"kind": "image"},
    {"kind": "image", "model": "google/imagen4-fast", "fallbacks": ["flux-2/pro-text-to-image"]},
    {"kind": "image", "model": "google/nano-banana-2-1k", "fallbacks": ["google/imagen4-ultra"]},
    {"kind": "voice"},
    {"kind": "audio"},
    {"kind": "audio", "model": "speech-to-text", "fallbacks": []},
    {"kind": "video", "model": "hailuo", "fallbacks": ["wan", "sora-2-pro"]},
    {"kind": "video"},
    {"kind": "music"},
)
WEIGHTS = (20, 15, 10, 20, 10, 5, 8, 6, 6)
Request = dict[str, Any]


@dataclass
class Taken:
    """What came of enqueueing: who was answered, what was refused for good, and how it was answered while it was not.

    ``slowest_s`` is the longest anybody waited for one answer of the HTTP API, whatever it was.
    """

    ids: set[str] = field(default_factory=set)
    refused: list[str] = field(default_factory=list)
    again: dict[str, int] = field(default_factory=dict)
    slowest_s: float = 0.0

    def repeated(self, why: str) -> None:
        """Count a request that is to be sent again."""
        self.again[why] = self.again.get(why, 0) + 1


def requests(seed: int, count: int, webhook_url: str) -> list[Request]:
    """Make the jobs: mixed kinds and models, the same for the same seed."""
    rng = random.Random(seed)
    return [
        {
            "id": f"c{seed}-{number}",
            "webhook_url": webhook_url,
            "input": {"prompt": "a lighthouse at dusk", "sandbox": {"tag": f"c{seed}-{number}"}},
            **rng.choices(SHAPES, WEIGHTS)[0],
        }
        for number in range(count)
    ]


class Doors:
    """All three, for as long as ``enqueue`` runs."""

    def __init__(self, web_url: Callable[[], str], redis_url: str, *, only_arq: bool = False) -> None:
        self._web_url = web_url
        self._redis_url = redis_url
        self.only_arq = only_arq
        self._rng = random.Random(0)
        self.taken = Taken()
        self.over = False

    async def enqueue(self, jobs: list[Request], over_s: float) -> None:
        """Enqueue the jobs evenly over a time; come back when each is answered."""
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # arq leaves pipelines of a dead Redis open
        codec = {"job_serializer": lambda call: json.dumps(call).encode(), "job_deserializer": json.loads}
        settings = RedisSettings.from_dsn(self._redis_url)
        pool = await create_pool(settings, default_queue_name=QUEUE, **(codec if not self.only_arq else {}))
        timeout = aiohttp.ClientTimeout(total=HTTP_TIMEOUT_S, connect=2)
        try:
            async with aiohttp.ClientSession(timeout=timeout) as http, WorkerClient(self._redis_url) as client:
                ways = [self._by_http(http), self._by_http(http), self._by_client(client), self._by_arq(pool)]
                if self.only_arq:
                    ways = [self._by_arq(pool)]
                began_s = time.monotonic()
                async with asyncio.TaskGroup() as group:
                    for number, job in enumerate(jobs):
                        wait_s = began_s + over_s * number / len(jobs) - time.monotonic()
                        await asyncio.sleep(max(0.0, wait_s))
                        group.create_task(self._until_taken(ways[number % len(ways)], job))
        finally:
            await pool.aclose()
            self.over = True

    async def _until_taken(self, way: Callable[[Request], Coroutine[Any, Any, str]], job: Request) -> None:
        while why := await way(job):
            if why.startswith("refused"):
                self.taken.refused.append(f"{job['id']}: {why}")
                return
            self.taken.repeated(why)
            await asyncio.sleep(self._rng.uniform(*AGAIN_S))
        self.taken.ids.add(job["id"])

    def _by_http(self, http: aiohttp.ClientSession) -> Callable[[Request], Coroutine[Any, Any, str]]:
        async def way(job: Request) -> str:
            sent_s = time.monotonic()
            try:
                async with http.post(f"{self._web_url()}/v1/jobs", json=job) as response:
                    text = await response.text()
            except (aiohttp.ClientError, TimeoutError) as error:
                return f"HTTP {type(error).__name__}"
            finally:
                self.taken.slowest_s = max(self.taken.slowest_s, time.monotonic() - sent_s)
            if response.status in {200, 202}:
                return ""
            return "HTTP 503" if response.status == 503 else f"refused {response.status} {text[:200]}"

        return way

    def _by_client(self, client: WorkerClient) -> Callable[[Request], Coroutine[Any, Any, str]]:
        async def way(job: Request) -> str:
            try:
                await client.submit(job)
            except RedisUnavailable:
                return "client RedisUnavailable"
            return ""

        return way

    def _by_arq(self, pool: ArqRedis) -> Callable[[Request], Coroutine[Any, Any, str]]:
        async def way(job: Request) -> str:
            try:
                name = job["id"] if self.only_arq else None
                if await pool.enqueue_job("generate", job, _job_id=name) is not None:
                    return ""
                # None is what arq returns, too, where the connection broke as it was about to enqueue.
                return "" if name and await pool.exists(f"arq:job:{name}", f"arq:result:{name}") else "arq None"
            except (RedisError, OSError, TimeoutError) as error:
                return f"arq {type(error).__name__}"

        return way
