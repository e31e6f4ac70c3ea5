"""Workers that stand still for longer than their leases, and deploys that replace them one by one."""

import asyncio
import signal

from harness import Sandbox, eventually
from product import Api, Place, Receiver, directed, task_ids
from redis import Redis

LEASE_S = 12
WORKERS = 3


async def test_a_worker_that_stood_still_overwrites_nothing(
    place: Place, sandbox: Sandbox, api: Api, receiver: Receiver
) -> None:
    """Stopped over a submission for longer than its lease: the next owner's work stands, its own task is kept late."""
    first = await place.started("work")
    slow_once = [{"do": "accept", "delay_s": 1}, {"do": "accept"}]
    await api.submit("torn", input=directed("torn", submit=slow_once, duration_s=0.2), on_unknown_submit="retry")
    await has_sent(sandbox, 1)
    first.send(signal.SIGSTOP)
    await place.started("work")
    await receiver.has_all(["torn"], within_s=LEASE_S + 10)
    before = await api.view("torn")
    first.send(signal.SIGCONT)
    await first.comes_to(lambda: first.events("task.kept"))
    after = await api.view("torn")
    assert (after["status"], after["task_id"], after["result"]) == ("completed", before["task_id"], before["result"])
    assert {attempt["task_id"] for attempt in after["attempts"]} == set(task_ids(sandbox)["torn"])
    assert len(sandbox.submissions("torn")) == 2
    assert sorted(attempt["outcome"] for attempt in after["attempts"]) == ["abandoned", "succeeded"]
    assert "1:torn" in await first.comes_to(lambda: tracked(place))  # looked at rarely, until it ends
    await first.stop()


def tracked(place: Place) -> list[str]:
    """Name what is on the track wheel."""
    with Redis.from_url(place.embedded_url()) as redis:
        return [member.decode() for member in redis.zrange("onysoft:wheel:track", 0, -1)]


async def test_a_rolling_restart_costs_nothing(place: Place, sandbox: Sandbox, api: Api, receiver: Receiver) -> None:
    """Three workers replaced one by one under load: one submission a job, none of unknown acceptance, none late."""
    workers = [await place.started("work") for _ in range(WORKERS)]
    jobs: list[str] = []
    replaced = asyncio.Event()

    async def enqueue() -> None:
        while not replaced.is_set():
            jobs.append(f"roll-{len(jobs)}")
            slow = [{"do": "accept", "delay_s": 0.3}]
            await api.submit(jobs[-1], input=directed(jobs[-1], submit=slow, duration_s=1))
            await asyncio.sleep(0.04)

    enqueuing = asyncio.create_task(enqueue())
    for worker in workers:
        await has_sent(sandbox, 10 + len(sandbox.submissions()))
        await worker.stop(within_s=LEASE_S)
        await place.started("work")
    replaced.set()
    await enqueuing
    await receiver.has_all(jobs, within_s=LEASE_S - 4)  # all was handed back, so no lease is waited for
    views = [await api.view(job) for job in jobs]
    assert {view["status"] for view in views} == {"completed"}
    assert {len(view["attempts"]) for view in views} == {1}
    assert sandbox.stats()["submissions"] == len(jobs)


async def has_sent(sandbox: Sandbox, count: int) -> None:
    """Wait until the gateway has seen so many submissions."""

    async def check() -> bool:
        return bool(sandbox.stats()["submissions"] >= count)

    await eventually(check)
