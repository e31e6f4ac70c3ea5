"""What a job costs: CPU of the worker and of its Redis, against two peers that do the same requests in the same run.

Against: a bare loop of httpx over httpx-aiohttp (``bare_loop.py``), which does the requests and nothing else, and an
arq job that submits, sleeps, looks and posts with plain httpx (``naive_arq.py``). How: each is one process; fifty jobs
warm it up; its queue is filled while it is stopped; then its CPU clock and that of Redis are read before and after.
Gateway and receiver are shared and not counted. ``instant``: tasks are done at the first look. ``lifelike``: a
submission is answered after 0.5 s, a task takes two seconds and is looked at every half second; the peers then have all
jobs in flight at once, as they must.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from arq.constants import default_queue_name
from errand import Place
from processes import Broken, Process, python
from queueing import enqueue_all, to_json
from stage import API_KEY, BENCH, KIND, MODEL, QUEUE, SECRET, Fsync, RedisServer, Stage, is_started, request_body

from worker.keys import Keys

WARM_UP = 50


@dataclass(frozen=True, slots=True)
class Load:
    """How many jobs, how long a submission and a task take, and the gap of looks (0: at once, where one can)."""

    name: str
    jobs: int
    answer_s: float
    duration_s: float
    poll_s: float
    concurrency: int


@dataclass(frozen=True, slots=True)
class Cost:
    """What one contender used. ``requests`` are submissions, look-ups and webhooks."""

    load: str
    who: str
    jobs: int
    jobs_per_s: float
    cpu_ms: float
    redis_ms: float
    submissions: float
    lookups: float
    webhooks: float
    peak_mb: float

    @property
    def requests(self) -> float:
        """Count the requests of a job."""
        return self.submissions + self.lookups + self.webhooks


def onysoft(stage: Stage, load: Load, fsync: Fsync = "always") -> Cost:
    """Measure ``onysoft-worker work``."""
    poll = {"POLL_MIN_S": str(load.poll_s or 0.01), "POLL_MAX_S": str(load.poll_s or 0.01)}
    with stage.redis(fsync) as redis, stage.worker("work", redis, **poll) as process:
        process.said(is_started)
        delivered = Keys(QUEUE.partition(":")[0]).deliveries("delivered")

        def feed(first: int, count: int) -> None:
            jobs = [
                (f"job-{number}", (_request(stage, f"job-{number}", load),)) for number in range(first, first + count)
            ]
            enqueue_all(redis.client, QUEUE, "generate", jobs, to_json)

        who = "onysoft-worker" + ("" if fsync == "always" else f", fsync {fsync}")
        return _measure(stage, load, who, process, feed, lambda n: redis.client.zcard(delivered) >= n, redis)


def _request(stage: Stage, tag: str, load: Load) -> dict[str, object]:
    wanted = request_body(tag, load.duration_s, load.answer_s)
    return {"kind": KIND, "model": MODEL, "input": wanted, "webhook_url": stage.webhook_url}


def bare_loop(stage: Stage, load: Load) -> Cost:
    """Measure the loop that does nothing but the requests."""
    with stage.running(python(str(BENCH / "bare_loop.py"), to_json(asdict(_place(stage, load))).decode())) as process:
        process.said(lambda line: line if line == "ready" else None)

        def feed(first: int, count: int) -> None:
            process.tell(f"{first} {count} {load.duration_s} {load.answer_s}")

        def settled(total: int) -> bool:
            return f"done {0 if total == WARM_UP else WARM_UP}" in process.log.read_text().splitlines()

        return _measure(stage, load, "bare loop", process, feed, settled)


def naive_arq(stage: Stage, load: Load) -> Cost:
    """Measure the arq job that does it all."""
    with stage.redis() as redis:
        place = _place(stage, load, redis.url)
        with stage.running(python(str(BENCH / "naive_arq.py"), to_json(asdict(place)).decode())) as process:
            process.said(lambda line: line if line == "ready" else None)

            def feed(first: int, count: int) -> None:
                jobs = [
                    (f"naive-{n}", (request_body(f"naive-{n}", load.duration_s, load.answer_s),))
                    for n in range(first, first + count)
                ]
                enqueue_all(redis.client, default_queue_name, "generate", jobs)

            def settled(_total: int) -> bool:
                return redis.client.zcard(default_queue_name) == 0

            return _measure(stage, load, "naive arq", process, feed, settled, redis)


def _place(stage: Stage, load: Load, redis_url: str = "") -> Place:
    return Place(
        stage.gateway_url, stage.webhook_url, API_KEY, SECRET, KIND, MODEL, load.poll_s, load.concurrency, redis_url
    )


def _measure(
    stage: Stage,
    load: Load,
    who: str,
    process: Process,
    feed: Callable[[int, int], None],
    settled: Callable[[int], bool],
    redis: RedisServer | None = None,
) -> Cost:
    stage.reset()
    feed(0, WARM_UP)
    stage.await_webhooks(WARM_UP, process)
    process.until(lambda: settled(WARM_UP), 10)
    stage.reset()
    with process.held():
        feed(WARM_UP, load.jobs)
        cpu_s, redis_s = process.cpu_s(), redis.process.cpu_s() if redis else 0.0
        started_s = time.monotonic()
    stage.await_webhooks(load.jobs, process)
    took_s = time.monotonic() - started_s
    process.until(lambda: settled(WARM_UP + load.jobs), 10)
    cpu_s = process.cpu_s() - cpu_s
    redis_s = redis.process.cpu_s() - redis_s if redis else 0.0
    counts = stage.counts()
    if counts["accepted"] != load.jobs or counts["webhooks"] != load.jobs or counts["unsigned"]:
        raise Broken(f"{who}, {load.name}: {load.jobs} jobs made {dict(counts)}")
    return Cost(
        load=load.name,
        who=who,
        jobs=load.jobs,
        jobs_per_s=load.jobs / took_s,
        cpu_ms=cpu_s * 1000 / load.jobs,
        redis_ms=redis_s * 1000 / load.jobs,
        submissions=counts["submissions"] / load.jobs,
        lookups=counts["lookups"] / load.jobs,
        webhooks=counts["webhooks"] / load.jobs,
        peak_mb=process.peak_mb(),
    )
