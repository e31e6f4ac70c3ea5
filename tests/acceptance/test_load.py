"""Many jobs at once through one worker process."""

import asyncio
import time

from harness import Sandbox
from product import Api, Place, Receiver, directed, plain_arq, task_ids, tell

JOBS = 300
MEMORY_LIMIT_BYTES = 200 * 1024**2


async def test_three_hundred_jobs_at_once(place: Place, sandbox: Sandbox, receiver: Receiver, redis_url: str) -> None:
    """300 jobs of 2 s enqueued at once all complete, each paid once, in little memory."""
    worker = await place.start("work", REDIS_URL=redis_url)
    api = Api(await (await place.start("web", REDIS_URL=redis_url)).address())
    await worker.address()
    pool = await plain_arq(redis_url)
    jobs = [f"many-{number}" for number in range(JOBS)]
    started_s = time.monotonic()
    try:
        for job in jobs:
            await pool.enqueue_job("generate", {"kind": "video", "input": directed(job, duration_s=2)}, _job_id=job)
        await receiver.has_all(jobs, within_s=30)
        took_s, peak_bytes = time.monotonic() - started_s, worker.peak_bytes()
        tell(f"{JOBS} jobs of 2 s: {took_s:.1f} s in all, {peak_bytes / 1024**2:.0f} MB at the most")
        views = await asyncio.gather(*(api.view(job) for job in jobs))
        assert {view["status"] for view in views} == {"completed"}
        assert task_ids(sandbox) == {view["id"]: [view["task_id"]] for view in views}
        assert peak_bytes < MEMORY_LIMIT_BYTES
        await worker.stop()
    finally:
        await pool.aclose()
        await api.http.aclose()


async def test_more_jobs_than_slots_are_submitted_in_turn(
    place: Place, sandbox: Sandbox, receiver: Receiver, redis_url: str
) -> None:
    """Jobs that waited for a worker, with answers so slow that its slots are all taken, are submitted all the same."""
    pool = await plain_arq(redis_url)
    jobs = [f"slot-{number}" for number in range(60)]
    slow = [{"do": "accept", "delay_s": 0.2}]
    try:
        for job in jobs:
            request = {"kind": "video", "input": directed(job, submit=slow, duration_s=0.1)}
            await pool.enqueue_job("generate", request, _job_id=job)
        worker = await place.started("work", REDIS_URL=redis_url, CONCURRENCY="20")
        await receiver.has_all(jobs, within_s=12)
        assert sandbox.stats()["submissions"] == len(jobs)
        await worker.stop()
    finally:
        await pool.aclose()
