"""What is kept beyond its time, and for how long: jobs with a pending webhook, and what a dead worker leaves."""

import asyncio

import pytest
from harness import Bench, Receiver, directed, eventually

from worker.upkeep import PRUNE_BATCH, Prune

HOURS_MS = 3 * 3_600_000


@pytest.mark.env(WEBHOOK_SCHEDULE_S="0,3600")
async def test_a_job_with_a_pending_webhook_is_kept_and_looked_at_later(bench: Bench, receiver: Receiver) -> None:
    """It stands in nobody's way meanwhile, is kept for as long from the delivery on, and then goes whole."""
    receiver.statuses += [500]
    prune = Prune(bench.store, retention_s=60)
    async with bench.worker():
        await bench.ended(await bench.submit(id="kept", input=directed()))
        await eventually(lambda: attempted(bench, "kept"))
        later_ms = bench.store.now_ms() + 61_000
        assert await prune.run_once(later_ms) == 0
        others = await asyncio.gather(
            *(bench.door.refuse({}, "none", fallback_id=f"gone-{n}") for n in range(PRUNE_BATCH + 1))
        )
        await bench.raw.zadd("onysoft:ended", {job.id: 1 for job in others if job}, xx=True)
        await eventually(lambda: told(bench, len(others)))
        await bench.raw.zadd("onysoft:ended", {job.id: 1 for job in others if job}, xx=True)
        await bench.raw.zadd("onysoft:ended", {"kept": 0}, xx=True)
        assert await prune.run_once(bench.store.now_ms()) == len(others)
        score = await bench.raw.zscore("onysoft:ended", "kept")
        assert score > bench.store.now_ms() - 60_000  # not looked at again before its time
        [delivery] = await bench.store.outbox.of_job("kept")
        await bench.store.dispatch.replay(delivery)
        await eventually(lambda: told(bench, 1))
    assert await prune.run_once(bench.store.now_ms() + 59_000) == 0
    assert await prune.run_once(bench.store.now_ms() + 61_000) == 1
    assert await bench.raw.keys("onysoft:*kept*") == []
    assert await bench.raw.keys("onysoft:delivery:*") == []


async def attempted(bench: Bench, job_id: str) -> bool:
    """Tell whether a webhook of a job has been tried."""
    return any(delivery.attempts for delivery in await bench.store.outbox.of_job(job_id))


async def told(bench: Bench, count: int) -> bool:
    """Tell whether so many webhooks are delivered."""
    return bool(await bench.raw.zcard("onysoft:deliveries:delivered") >= count)


async def test_the_probe_of_a_dead_worker_goes(bench: Bench) -> None:
    """A model that nobody asks for again leaves nothing behind; a probe under way, a pause and a hold stay."""
    now_ms = bench.store.now_ms()
    gate = {"probing:dead": now_ms, "probing:rubbish": "x", "probing:alive": now_ms + HOURS_MS, "paused:video": 1}
    await bench.raw.hset("onysoft:gate", mapping=gate)
    await Prune(bench.store, retention_s=60).run_once(now_ms + HOURS_MS)
    assert await bench.raw.hkeys("onysoft:gate") == [b"probing:alive", b"paused:video"]
