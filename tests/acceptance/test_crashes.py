"""Workers killed and stopped in the midst of their work: nothing lost, nothing paid twice, an orderly end."""

import asyncio
import time

import pytest
from arq.connections import ArqRedis
from harness import Sandbox, eventually
from product import QUEUE, Api, Command, Place, Receiver, directed, plain_arq, task_ids, tell

TASKS = 40
LEASE_S = 12
TERM_LIMIT_S = 5.0  # the contract's is 2 s; a loaded machine gets more


async def accepted(sandbox: Sandbox, count: int) -> None:
    """Wait until the gateway has accepted that many tasks."""

    async def check() -> bool:
        return sandbox.stats()["accepted"] >= count

    await eventually(check)


async def test_tasks_of_a_killed_worker_are_tracked_to_their_end(
    place: Place, sandbox: Sandbox, api: Api, receiver: Receiver
) -> None:
    """A worker killed with 40 tasks in flight loses none: the next one ends them all, each paid once and told of."""
    jobs = [f"flight-{number}" for number in range(TASKS)]
    first = await place.started("work")
    await asyncio.gather(*(api.submit(job, input=directed(job, duration_s=3)) for job in jobs))
    await asyncio.gather(*(api.standing(job, "processing") for job in jobs))
    await first.kill()
    assert len(receiver.received) < TASKS
    await place.start("work")
    # A look-up that was under way when its worker died is repeated when the lease has run out.
    await receiver.has_all(jobs, within_s=LEASE_S + 10)
    views = await asyncio.gather(*(api.view(job) for job in jobs))
    assert {view["status"] for view in views} == {"completed"}
    assert [sum(1 for _ in view["attempts"]) for view in views] == [1] * TASKS
    assert task_ids(sandbox) == {view["id"]: [view["task_id"]] for view in views}
    assert sandbox.stats()["submissions"] == TASKS


async def test_what_a_killed_worker_was_at_is_resolved_by_the_next(
    place: Place, sandbox: Sandbox, api: Api, receiver: Receiver
) -> None:
    """Killed while it submits and takes jobs in: each is resolved by the policy or taken in, all within a lease."""
    resent, given_up = ["resent-0", "resent-1"], ["given-up-0", "given-up-1"]
    burst = [f"burst-{number}" for number in range(80)]
    slow = [{"do": "accept", "delay_s": 15}]
    pool = await plain_arq(place.embedded_url())
    try:
        first = await place.started("work")
        for job in resent:
            await api.submit(job, input=directed(job, submit=slow, duration_s=0.2), on_unknown_submit="retry")
        for job in given_up:
            await api.submit(job, input=directed(job, submit=slow, duration_s=0.2), on_unknown_submit="fail")
        await accepted(sandbox, 4)
        torn = await kill_while_taking(first, pool, burst)
        killed_s = time.monotonic()
        await place.start("work")
        await receiver.has_all(resent, within_s=LEASE_S + 10)
        await receiver.has_all(given_up, within_s=5, kind="job.failed")
        tell(f"submissions of the dead were resolved {time.monotonic() - killed_s:.1f} s after it")
        await receiver.has_all(burst, within_s=10)
        tell(f"all that it was taking in was done {time.monotonic() - killed_s:.1f} s after it: {len(torn)} were torn")
    finally:
        await pool.aclose()
    for job in resent:
        view, sent = await api.view(job), sandbox.submissions(job)
        assert [attempt["outcome"] for attempt in view["attempts"]] == ["unknown", "succeeded"]
        assert len(sent) == 2
        assert len({row["idempotency_key"] for row in sent}) == 1
        assert view["task_id"] == sent[1]["task_id"]
    for job in given_up:
        assert (await api.view(job))["failure"]["code"] == "submit_unknown"
        assert len(sandbox.submissions(job)) == 1
    sent_burst = [[row["idempotency_key"] for row in sandbox.submissions(job)] for job in burst]
    assert all(len(keys) <= 2 and len(set(keys)) == 1 for keys in sent_burst)


async def kill_while_taking(worker: Command, pool: ArqRedis, jobs: list[str]) -> list[str]:
    """Put jobs on the queue and kill the worker while it takes them; name those it was at that are no jobs yet."""
    bulk = "x" * 300_000  # large, so that it dies while it is at some of them
    for job in jobs:
        request = {"kind": "video", "input": directed(job, duration_s=0.2) | {"bulk": bulk}}
        await pool.enqueue_job("generate", request, _job_id=job)

    async def some_taken() -> bool:
        return len([1 async for _ in pool.scan_iter("onysoft:job:burst-*", count=1000)]) >= len(jobs) // 10

    await eventually(some_taken)
    await worker.kill()
    assert await pool.zcard(QUEUE) > 0
    locked = [key.decode().rpartition(":")[2] for key in await pool.keys("arq:in-progress:*")]
    return [job for job in locked if not await pool.exists(f"onysoft:job:{job}")]


async def test_sigterm_waits_for_the_submission_and_leaves_the_tasks_to_the_next(
    place: Place, sandbox: Sandbox, api: Api, receiver: Receiver
) -> None:
    """SIGTERM in the midst of work ends well: a running submission is waited for, and the next worker tracks on."""
    jobs = [f"tracked-{number}" for number in range(10)]
    first = await place.started("work")
    await asyncio.gather(*(api.submit(job, input=directed(job, duration_s=4)) for job in jobs))
    await accepted(sandbox, len(jobs))
    await api.submit("slow", input=directed("slow", submit=[{"do": "accept", "delay_s": 2}], duration_s=2))
    await accepted(sandbox, len(jobs) + 1)
    took_s = await first.stop()
    tell(f"SIGTERM with a submission of 2 s under way: {took_s:.2f} s")
    assert 1 < took_s < 2 + TERM_LIMIT_S
    held = await api.view("slow")
    assert held["status"] == "processing"
    assert [held["task_id"]] == task_ids(sandbox)["slow"]
    assert len(receiver.received) == 0
    second = await place.start("work")
    # Handed back at once, so no lease is waited for.
    await receiver.has_all([*jobs, "slow"], within_s=LEASE_S - 4)
    views = await asyncio.gather(*(api.view(job) for job in [*jobs, "slow"]))
    assert task_ids(sandbox) == {view["id"]: [view["task_id"]] for view in views}
    assert sandbox.stats()["submissions"] == len(views)
    await second.stop()


async def test_sigterm_while_jobs_are_taken_in_is_heeded(
    place: Place, sandbox: Sandbox, receiver: Receiver, redis_url: str
) -> None:
    """A worker told to end while it empties the queue takes no more, ends, and strands nothing for the next."""
    pool = await plain_arq(redis_url)
    jobs = [f"queued-{number}" for number in range(300)]
    try:
        for job in jobs:
            await pool.enqueue_job("generate", {"kind": "video", "input": directed(job, duration_s=0.2)}, _job_id=job)
        worker = await place.start("work", REDIS_URL=redis_url)

        async def some_taken() -> bool:
            return await pool.zcard(QUEUE) < len(jobs) - 20

        await eventually(some_taken)
        tell(f"SIGTERM while it takes jobs in: {await worker.stop(within_s=TERM_LIMIT_S):.2f} s")
        await place.start("work", REDIS_URL=redis_url)
        await receiver.has_all(jobs, within_s=LEASE_S)  # all was handed back, so no lease is waited for
        assert sandbox.stats()["submissions"] == len(jobs)
    finally:
        await pool.aclose()


async def test_sigterm_gives_up_a_submission_after_the_grace(place: Place, sandbox: Sandbox, api: Api) -> None:
    """A submission that outlasts SHUTDOWN_GRACE_S does not hold the process up, nor is it sent twice unasked."""
    worker = await place.started("work", SHUTDOWN_GRACE_S="1")
    stuck = directed("stuck", submit=[{"do": "accept", "delay_s": 8}], duration_s=0.1)
    await api.submit("stuck", input=stuck, on_unknown_submit="fail")
    await accepted(sandbox, 1)
    took_s = await worker.stop()
    assert 0.9 < took_s < 1 + TERM_LIMIT_S
    assert len(sandbox.submissions("stuck")) == 1
    assert (await api.view("stuck"))["status"] == "submitting"  # of unknown acceptance: for the next worker to settle


@pytest.mark.parametrize("redis", ["embedded", "given"])
async def test_sigterm_of_an_idle_process_is_quick(
    place: Place, sandbox: Sandbox, receiver: Receiver, redis: str, redis_url: str
) -> None:
    """Every process of the product that has nothing to do ends well and soon, kept-alive clients or not."""
    environ = {"REDIS_URL": redis_url} if redis == "given" else {}
    commands = [await place.start(name, **environ) for name in ("up", "work", "web")]
    commands.append(await place.start("sandbox", "--port", "0"))
    clients = [Api(await command.address() or sandbox.url) for command in commands]
    try:
        jobs = [f"before-{number}" for number in range(20)]  # idle is what has done its work
        await asyncio.gather(*(clients[0].submit(job, input=directed(job, duration_s=0.1)) for job in jobs))
        await receiver.has_all(jobs, within_s=10)
        for client in clients:
            await client.http.get("/healthz")
        took = await asyncio.gather(*(command.stop() for command in commands))
    finally:
        for client in clients:
            await client.http.aclose()
    each = ", ".join(f"{command.name} {took_s:.2f} s" for command, took_s in zip(commands, took, strict=True))
    tell(f"idle SIGTERM, all at once, Redis {redis}: {each}")
    assert max(took) < TERM_LIMIT_S
    assert not (place.data_dir / "socket.path").exists()


@pytest.mark.parametrize("name", ["work", "up"])
async def test_sigterm_right_after_the_start_is_heeded(place: Place, sandbox: Sandbox, name: str) -> None:  # noqa: ARG001
    """A process that is told to end in the moment in which it says that it has started does end."""
    took_s = await (await place.started(name)).stop(within_s=TERM_LIMIT_S)
    tell(f"SIGTERM of {name} right after its start: {took_s:.2f} s")
