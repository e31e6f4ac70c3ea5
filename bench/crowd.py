"""How fast the eyes of operators are with many jobs in Redis: lists, filters, queues, models, metrics.

The jobs come in through ``POST /v1/jobs:batch`` of a web process without a worker; then every look is taken again and
again over one kept connection, and the slowest counts. What Redis was asked is read from its own statistics: nothing
may have gone through the keys. ``POST /v1/jobs`` is timed at the same time. Against: nothing; the target is 300 ms a
look and 5 ms a request.
"""

import json
import statistics
import time
from dataclasses import dataclass
from typing import Any

from processes import Broken, Process
from stage import Http, RedisServer, is_started

BATCH = 1000
TIMES = 15
CANCELED = 200
SCANNING = ("keys", "scan", "hscan", "sscan", "zscan", "sort")
KINDS = ("video", "image", "music", "audio", "voice")
MODELS = ("veo3", "sora-2", "some/model-of-ours")
LOOKS = {
    "newest 50": "/v1/jobs",
    "newest 500": "/v1/jobs?limit=500",
    "by status": "/v1/jobs?status=queued",
    "by status, few": "/v1/jobs?status=canceled",
    "by kind and model": "/v1/jobs?kind=video&model=veo3",
    "by all three, none": "/v1/jobs?status=failed&kind=voice&model=sora-2",
    "from the middle": "/v1/jobs?cursor={middle}",
    "queues": "/v1/queues",
    "models": "/v1/models",
    "metrics": "/metrics",
}


@dataclass(frozen=True, slots=True)
class Crowd:
    """What was measured with so many jobs there, in milliseconds."""

    jobs: int
    filled_per_s: float
    slowest_ms: dict[str, float]
    p50_ms: dict[str, float]
    post_p50_ms: float
    memory_mb: float
    scans: int


def measure(web: Process, redis: RedisServer, *, jobs: int) -> Crowd:
    """Fill Redis and look."""
    http = Http(web.said(is_started) or "")
    began_s = time.monotonic()
    for start in range(0, jobs, BATCH):
        batch = {"jobs": [_request(number) for number in range(start, start + BATCH)]}
        status, answer = http.call("POST", "/v1/jobs:batch", json.dumps(batch).encode())
        if status != 200 or {row["status"] for row in answer["results"]} != {202}:
            raise Broken(f"a batch was not taken: {status}")
    filled_s = time.monotonic() - began_s
    for number in range(CANCELED):
        http.call("POST", f"/v1/jobs/crowd-{number}/cancel")
    redis.client.config_resetstat()
    took = {name: [_timed(http, path.format(middle=jobs // 2)) for _ in range(TIMES)] for name, path in LOOKS.items()}
    posts = [_timed(http, "/v1/jobs", json.dumps(_request(jobs + n)).encode()) for n in range(100)]
    stats: Any = redis.client.info("commandstats")
    scans = sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in SCANNING)
    http.close()
    return Crowd(
        jobs,
        jobs / filled_s,
        {name: max(times) for name, times in took.items()},
        {name: statistics.median(times) for name, times in took.items()},
        statistics.median(posts),
        redis.client.info("memory")["used_memory"] / 1e6,
        scans,
    )


def _request(number: int) -> dict[str, Any]:
    prompt = "a lighthouse at dusk, " * 4
    model = MODELS[number % 3]
    return {"id": f"crowd-{number}", "kind": KINDS[number % 5], "model": model, "input": {"prompt": prompt}}


def _timed(http: Http, path: str, body: bytes | None = None) -> float:
    began_s = time.perf_counter()
    status, _ = http.call("POST" if body else "GET", path, body)
    if status not in {200, 202}:
        raise Broken(f"{path} answered {status}")
    return (time.perf_counter() - began_s) * 1000
