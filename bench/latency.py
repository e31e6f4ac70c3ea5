"""How soon a new job reaches the gateway when nothing else is going on, through HTTP and through plain arq.

From just before the enqueue call to the gateway's note of the submission (``at_ms`` of the sandbox, in whole
milliseconds: half of one is added), same machine and clock. Jobs go one at a time: the next waits for the webhook of
the last, and then a random while, so that it meets the worker's own rhythms at any point. Against: nothing; the target
is p50 < 20 ms.
"""

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from arq.connections import ArqRedis
from processes import Broken, Process
from queueing import to_json
from stage import KIND, MODEL, QUEUE, Http, RedisServer, Stage, request_body

WARM_UP = 5
PAUSE_MAX_S = 0.05


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds from enqueue to submission."""

    door: str
    jobs: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float


def by_http(stage: Stage, up: Process, url: str, *, jobs: int, label: str) -> Latency:
    """Enqueue by ``POST /v1/jobs`` over a kept connection."""
    api = Http(url)

    async def enqueue(request: dict[str, object]) -> None:
        status, answer = api.call("POST", "/v1/jobs", json.dumps(request).encode())
        if status != 202:
            raise Broken(f"POST /v1/jobs answered {status}: {answer}")

    try:
        return asyncio.run(_measure(stage, up, enqueue, jobs, f"HTTP{label}"))
    finally:
        api.close()


def by_arq(stage: Stage, up: Process, redis: RedisServer, *, jobs: int, label: str) -> Latency:
    """Enqueue by arq's own ``enqueue_job``."""

    async def measure() -> Latency:
        pool = ArqRedis.from_url(redis.url)
        pool.job_serializer, pool.default_queue_name = to_json, QUEUE

        async def enqueue(request: dict[str, object]) -> None:
            await pool.enqueue_job("generate", request)

        try:
            return await _measure(stage, up, enqueue, jobs, f"plain arq{label}")
        finally:
            await pool.aclose()

    return asyncio.run(measure())


async def _measure(
    stage: Stage, up: Process, enqueue: Callable[[dict[str, object]], Awaitable[None]], jobs: int, door: str
) -> Latency:
    rng = random.Random(1)
    stage.reset()
    sent_ms: dict[str, float] = {}
    for number in range(WARM_UP + jobs):
        tag = f"{door}-{number}"
        wanted = request_body(tag, 0)
        request = {"kind": KIND, "model": MODEL, "input": wanted, "webhook_url": stage.webhook_url}
        await asyncio.sleep(rng.uniform(0, PAUSE_MAX_S))  # the pace of the load; nothing is waited for by it
        sent_ms[tag] = time.time_ns() / 1e6
        await enqueue(request)
        stage.await_webhooks(number + 1, up)
    arrived_ms = stage.arrivals_ms()
    took_ms = sorted(arrived_ms[tag] + 0.5 - at_ms for tag, at_ms in list(sent_ms.items())[WARM_UP:])
    return Latency(door, jobs, *(_share(took_ms, share) for share in (0.5, 0.95, 0.99, 1.0)))


def _share(ordered: list[float], share: float) -> float:
    return ordered[min(round(share * len(ordered)), len(ordered) - 1)]
