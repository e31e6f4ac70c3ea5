"""What a backlog costs: CPU of the worker and of Redis per job, with 100,000 jobs waiting and with none."""

import http.client
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ground import PACE, Halt
from memory import held_bytes
from processes import Broken, Process
from stage import KIND, MODEL, PREFIX, RedisServer, Stage, is_started, request_body
from table import Row

NAME = "backlog"
LONG, MEASURED, SHORT, SHORT_MEASURED = 100_000, 2_000, 600, 80
BATCH = 500
DESTINATIONS = 4  # so that webhooks keep up with the jobs: ten at a time go to each
RATIO = 1.2
LOOKS = 30
UNENDED = ("queued", "submitting", "processing", "waiting")
WITHIN_S = 300.0
PATHS = ("/v1/queues", "/v1/jobs?limit=50", "/v1/jobs?status=queued&kind=image&limit=50", "/metrics")


@dataclass(frozen=True, slots=True)
class Cost:
    """What a job cost, in ms of CPU."""

    jobs: int
    worker_ms: float
    redis_ms: float


class Scene:
    """A worker, a web process and their Redis; the kind of the jobs is paused but while a cost is measured."""

    def __init__(self, halt: Halt, stage: Stage, redis: RedisServer, worker: Process, web: Process) -> None:
        self._halt = halt
        self._stage = stage
        self.redis = redis
        self._worker = worker
        self._host = web.said(is_started).removeprefix("http://")
        self._talk = http.client.HTTPConnection(self._host, timeout=60)
        worker.said(is_started)

    def call(self, method: str, path: str, body: Any = None) -> bytes:
        """Send the web process a request; again where it has closed the connection meanwhile, as it does idle ones."""
        try:
            return self._exchange(method, path, body)
        except (http.client.RemoteDisconnected, ConnectionError):
            self._talk.close()
            return self._exchange(method, path, body)

    def _exchange(self, method: str, path: str, body: Any) -> bytes:
        head = {} if body is None else {"content-type": "application/json"}
        self._talk.request(method, path, None if body is None else json.dumps(body).encode(), head)
        answer = self._talk.getresponse()
        said = answer.read()
        if answer.status >= 300:
            raise Broken(f"{method} {path} answered {answer.status}: {said[:300].decode(errors='replace')}")
        return said

    def enqueue(self, name: str, count: int) -> None:
        """Put jobs before the worker, over HTTP."""
        for at in range(0, count, BATCH):
            self._halt.wait(0)
            jobs = [
                {
                    "id": f"{name}-{number}", "kind": KIND, "model": MODEL, "fallbacks": [],
                    "input": request_body(f"{name}-{number}", 0.0),
                    "webhook_url": f"{self._stage.webhook_url}/{number % DESTINATIONS}",
                }
                for number in range(at, min(at + BATCH, count))
            ]  # fmt: skip
            results = json.loads(self.call("POST", "/v1/jobs:batch", {"jobs": jobs}))["results"]
            if refused := [row for row in results if row["status"] != 202]:
                raise Broken(f"{len(refused)} jobs were not taken, the first: {refused[0]}")

    def pause(self) -> None:
        """Have no job of the kind begin, and wait until those under way are done and told of."""
        self.call("POST", f"/v1/queues/{KIND}/pause")
        self.until(self._is_quiet)

    def cost(self, count: int) -> Cost:
        """Let the worker do about so many jobs, and count what it took by those that were done."""
        done = self.delivered()
        began_s, redis_s = self._worker.cpu_s(), self.redis.process.cpu_s()
        self.call("POST", f"/v1/queues/{KIND}/resume")
        self.until(lambda: self.delivered() - done >= count)
        self.pause()
        jobs = self.delivered() - done
        worker_ms = 1000 * (self._worker.cpu_s() - began_s) / jobs
        return Cost(jobs, worker_ms, 1000 * (self.redis.process.cpu_s() - redis_s) / jobs)

    def delivered(self) -> int:
        """Count the webhooks that were delivered."""
        return int(self.redis.client.zcard(f"{PREFIX}:deliveries:delivered"))

    def _is_quiet(self) -> bool:
        client = self.redis.client
        under_way = [f"{PREFIX}:index:{status}:{KIND}" for status in ("submitting", "processing")]
        return not client.exists(*under_way, f"{PREFIX}:deliveries:pending")

    def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds."""
        give_up_s = time.monotonic() + WITHIN_S
        while not holds():
            if time.monotonic() > give_up_s:
                raise Broken(f"not there after {WITHIN_S:g} s; {self.delivered()} jobs are done")
            self._halt.wait(0.02)
            self._worker.check()

    def slowest_look(self) -> tuple[str, float, float]:
        """Ask for each of some pages a few times; give that with the largest median, its median and most, in ms."""
        found = []
        for path in PATHS:
            took_ms = []
            for _ in range(LOOKS):
                began_s = time.monotonic()
                self.call("GET", path)
                took_ms.append(1000 * (time.monotonic() - began_s))
            found.append((statistics.median(took_ms), max(took_ms), path))
        median, most, path = max(found)
        return path, median, most

    def missing(self, names: set[str]) -> tuple[int, int]:
        """Count the jobs without a whole record, and the keys of theirs that would expire."""
        client, gone, mortal = self.redis.client, 0, 0
        ids = sorted(names)
        for at in range(0, len(ids), BATCH):
            with client.pipeline(transaction=False) as pipe:
                for job_id in ids[at : at + BATCH]:
                    pipe.hexists(f"{PREFIX}:job:{job_id}", "spec")
                    pipe.ttl(f"{PREFIX}:job:{job_id}")
                    pipe.ttl(f"{PREFIX}:input:{job_id}")
                answers = pipe.execute()
            gone += sum(not there for there in answers[::3]) + sum(ttl == -2 for ttl in answers[2::3])
            mortal += sum(ttl >= 0 for ttl in [*answers[1::3], *answers[2::3]])
        return gone, mortal


def backlog(halt: Halt, *, short: bool) -> list[Row]:
    """Measure with no jobs waiting, put them there, measure again, and see that all are there."""
    waiting, measured = (SHORT, SHORT_MEASURED) if short else (LONG, MEASURED)
    environ = {**PACE, "LOG_LEVEL": "info"}
    with (
        Stage() as stage,
        stage.redis("everysec") as redis,
        stage.worker("web", redis, **environ) as web,
        stage.worker("work", redis, POLL_MIN_S="0.05", POLL_MAX_S="0.05", LOG_FORMAT="json") as worker,
    ):
        return _measure(Scene(halt, stage, redis, worker, web), waiting, measured, short=short)


def _measure(scene: Scene, waiting: int, measured: int, *, short: bool) -> list[Row]:
    scene.pause()
    scene.enqueue("warm", measured // 4)
    scene.cost(measured // 4)
    empty = held_bytes(scene.redis.client, PREFIX)
    scene.enqueue("alone", measured)
    alone = scene.cost(measured)
    ended = held_bytes(scene.redis.client, PREFIX)
    began_s = time.monotonic()
    scene.enqueue("waits", waiting)
    took_s = time.monotonic() - began_s
    full = held_bytes(scene.redis.client, PREFIX)
    behind = scene.cost(measured)
    path, median_ms, most_ms = scene.slowest_look()
    names = {f"waits-{number}" for number in range(waiting)} | {f"alone-{number}" for number in range(measured)}
    gone, mortal = scene.missing(names)
    left = int(scene.redis.client.zcard(f"{PREFIX}:index:queued:{KIND}"))
    ratio = None if short else RATIO
    return [
        Row(NAME, "jobs waiting", waiting, None, f"taken over HTTP at {waiting / took_s:.0f} a second"),
        Row(NAME, "worker's CPU, ms a job, alone", round(alone.worker_ms, 2), None, f"of {alone.jobs} jobs"),
        Row(NAME, "behind the backlog, times that", round(behind.worker_ms / alone.worker_ms, 2), ratio,
            f"{behind.worker_ms:.2f} ms, of {behind.jobs} jobs"),
        Row(NAME, "Redis's CPU, ms a job, alone", round(alone.redis_ms, 2)),
        Row(NAME, "behind the backlog, times that", round(behind.redis_ms / alone.redis_ms, 2), ratio,
            f"{behind.redis_ms:.2f} ms"),
        Row(NAME, "jobs lost, or without their input", gone, 0),
        Row(NAME, "jobs neither ended nor waiting", waiting - behind.jobs - left, 0),
        Row(NAME, "keys of theirs that would expire", mortal, 0),
        Row(NAME, "KB a waiting job takes", round((full - ended) / waiting / 1000, 2), None, "its input of 0.3 KB too"),
        Row(NAME, "KB an ended job takes", round((ended - empty) / alone.jobs / 1000, 2), None,
            "one attempt, one webhook delivered, its event"),
        Row(NAME, "ms the slowest page takes", round(median_ms, 1), None, f"{path}; at most {most_ms:.0f} ms"),
    ]  # fmt: skip
