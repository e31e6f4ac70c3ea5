"""What may befall the arq door: workers that stall or die amid an entry, foreign keys, clocks that differ."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import arq.connections
import arq.worker
import pytest
from arq.connections import ArqRedis
from harness import Bench, directed, eventually

from jobs.states import Status
from worker import actions, arq_queue
from worker.arq_queue import ArqQueue
from worker.client import NotPossible, WorkerClient, WorkerClientError
from worker.intake import Intake
from worker.link import RedisAway

QUEUE = "onysoft:jobs"
IMAGE = {"kind": "image", "input": directed(duration_s=60)}
SHORT_LOCK_MS = 100
SKEW_MS = 20_000
SOON_S = 3.0

Make = Callable[[], ArqQueue]


@pytest.fixture
async def make(bench: Bench) -> AsyncIterator[Make]:
    """Make workers of the arq door alone, driven by hand."""
    made: list[ArqQueue] = []

    def one() -> ArqQueue:
        door = Intake(bench.store, bench.door, bench.redis_url, bench.settings)
        made.append(ArqQueue(door, ArqRedis.from_url(bench.redis_url)))
        return made[-1]

    yield one
    for worker in made:
        await worker.close()


async def queued(bench: Bench) -> list[bytes]:
    """Name the entries of the queue."""
    return list(await bench.raw.zrange(QUEUE, 0, -1))


async def run_out(bench: Bench) -> None:
    """Wait until no entry is locked."""

    async def check() -> bool:
        return not [key async for key in bench.raw.scan_iter("arq:in-progress:*")]

    await eventually(check)


def stall_before(worker: ArqQueue, monkeypatch: pytest.MonkeyPatch) -> tuple[asyncio.Event, asyncio.Event]:
    """Have a worker stall when it has read what it locked: events for when it does so, and when it may go on."""
    stalled, go_on = asyncio.Event(), asyncio.Event()
    real = worker._take

    async def take(calls: Any) -> None:
        if not stalled.is_set():
            stalled.set()
            await go_on.wait()
        await real(calls)

    monkeypatch.setattr(worker, "_take", take)
    return stalled, go_on


async def test_a_worker_that_stalled_carries_no_wish_out_again(
    bench: Bench, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lock has run out and another has carried the wish out: the job, opened again since, is left alone."""
    await bench.submit(id="a")
    await bench.pool.enqueue_job("cancel", "a")
    slow = make()
    stalled, go_on = stall_before(slow, monkeypatch)
    monkeypatch.setattr(arq_queue, "LOCK_MS", SHORT_LOCK_MS)
    taking = asyncio.create_task(slow.start_jobs(await queued(bench)))
    await stalled.wait()
    await run_out(bench)
    await make().start_jobs(await queued(bench))
    assert (await bench.job("a")).status is Status.CANCELED
    assert await queued(bench) == []
    await actions.retry(bench.store, "a")
    go_on.set()
    await taking
    assert (await bench.job("a")).status is Status.QUEUED


@pytest.mark.parametrize(("wish", "left"), [("retry", Status.CANCELED), ("cancel", Status.QUEUED)])
async def test_a_wish_whose_worker_died_over_it_is_not_repeated(
    wish: str, left: Status, bench: Bench, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Carried out and not deleted, its entry is taken again: the job has since been acted on, and stays as it is."""
    await bench.submit(id="a")
    if wish == "retry":
        await actions.cancel(bench.store, "a")
    await bench.pool.enqueue_job(wish, "a")
    doomed = make()

    async def die(_: Any) -> list[bytes]:
        raise RedisAway("dead")

    with monkeypatch.context() as patch:
        patch.setattr(doomed, "_delete", die)
        with pytest.raises(RedisAway, match="dead"):
            await doomed.start_jobs(await queued(bench))
    await doomed._unlock(list(doomed._locked))
    if wish == "retry":
        await actions.cancel(bench.store, "a")
    else:
        await actions.retry(bench.store, "a")
    assert (await bench.job("a")).round == 2
    await make().start_jobs(await queued(bench))
    job = await bench.job("a")
    assert (job.status, job.round) == (left, 2)
    assert await queued(bench) == []
    assert await bench.raw.keys("arq:*") == []


async def test_a_wish_interrupted_before_it_was_carried_out_is_carried_out(bench: Bench, make: Make) -> None:
    """What a dead worker noted of it, what is left of another of its id, or rubbish in that place keeps none undone."""
    for job_id, noted in (("a", "{score!r} 1"), ("b", "7.0 0"), ("c", "rubbish"), ("d", None)):
        await bench.submit(id=job_id)
        await bench.pool.enqueue_job("cancel", job_id, _job_id=f"wish-{job_id}")
        [(_, score)] = await bench.raw.zrange(QUEUE, 0, -1, withscores=True)
        key = f"arq:retry:wish-{job_id}"
        await (bench.raw.set(key, noted.format(score=score)) if noted else bench.raw.lpush(key, "x"))  # type: ignore[misc]
        await make().start_jobs(await queued(bench))
        assert (await bench.job(job_id)).status is Status.CANCELED
    assert await queued(bench) == []
    assert await bench.raw.keys("arq:*") == []


async def test_a_lock_is_let_go_by_its_holder_only(bench: Bench, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that stalled neither unlocks nor deletes what another holds by now, at its end or before."""
    await bench.pool.enqueue_job("generate", IMAGE, _job_id="a")
    [entry] = await queued(bench)
    slow, holder = make(), make()
    stalled, go_on = stall_before(slow, monkeypatch)
    monkeypatch.setattr(arq_queue, "LOCK_MS", SHORT_LOCK_MS)
    taking = asyncio.create_task(slow.start_jobs([entry]))
    await stalled.wait()
    await run_out(bench)
    monkeypatch.setattr(arq_queue, "LOCK_MS", 60_000)
    assert await holder._lock([entry]) == [[entry]]
    go_on.set()
    await taking
    assert await queued(bench) == [entry]
    await slow._lock([entry])
    await slow._unlock([entry])
    assert await bench.raw.exists(b"arq:in-progress:" + entry)
    await holder._delete([entry])
    assert await queued(bench) == []
    assert (await bench.job("a")).status is Status.QUEUED


async def test_an_entry_queued_again_under_its_id_is_another(
    bench: Bench, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that stalled over the first deletes it no more: the second is taken as well."""
    await bench.pool.enqueue_job("generate", {**IMAGE, "id": "first"}, _job_id="same")
    slow = make()
    stalled, go_on = stall_before(slow, monkeypatch)
    monkeypatch.setattr(arq_queue, "LOCK_MS", SHORT_LOCK_MS)
    taking = asyncio.create_task(slow.start_jobs(await queued(bench)))
    await stalled.wait()
    await run_out(bench)
    await make().start_jobs(await queued(bench))
    await bench.pool.enqueue_job("generate", {**IMAGE, "id": "second"}, _job_id="same")
    go_on.set()
    await taking
    await make().start_jobs(await queued(bench))
    assert (await bench.job("second")).status is Status.QUEUED


@pytest.mark.parametrize("key", ["onysoft:job:evil", "onysoft:timeline:evil"])
async def test_a_foreign_key_in_a_jobs_place_stops_no_entry(key: str, bench: Bench) -> None:
    """A request and wishes for it are rejected and answered; all others are carried out, and the queue is emptied."""
    await bench.raw.set(key, "foreign")
    await bench.submit(id="victim", input=directed(duration_s=60))
    async with bench.worker(), WorkerClient(bench.redis_url) as client:
        await eventually(lambda: bench.raw.hlen("onysoft:workers"))  # type: ignore[arg-type,return-value]
        await bench.pool.enqueue_job("generate", {**IMAGE, "id": "evil"})
        await bench.pool.enqueue_job("cancel", "evil")
        await bench.pool.enqueue_job("cancel", "victim")
        await bench.standing("victim", "canceled")
        for number in range(20):
            await bench.pool.enqueue_job("generate", {**IMAGE, "id": f"n{number}"})
        if key == "onysoft:job:evil":
            with pytest.raises(WorkerClientError, match=r"none of ours|cannot be read"):
                await client.submit({**IMAGE, "id": "evil"})
            with pytest.raises(WorkerClientError, match=r"none of ours|cannot be read"):
                await client.cancel("evil")

        async def emptied() -> bool:
            return await queued(bench) == []

        await eventually(emptied)
        for number in range(20):
            assert await bench.store.get(f"n{number}") is not None


async def test_a_foreign_key_in_an_answers_place_stops_no_entry(bench: Bench) -> None:
    """The answer goes nowhere, and the request is taken."""
    token = "a" * 32
    await bench.raw.set(f"onysoft:reply:{token}", "foreign")
    async with bench.worker():
        await bench.pool.enqueue_job("generate", {**IMAGE, "id": "a"}, reply_to=token)
        await bench.pool.enqueue_job("generate", {**IMAGE, "id": "b", "prompt": "x"}, reply_to=token)
        assert (await bench.ended("b"))["failure"]["code"] == "invalid_request"
        assert await bench.store.get("a") is not None


async def test_one_entry_that_must_wait_keeps_no_other(
    bench: Bench, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where Redis was away for one entry of a batch, what was done of it is deleted, and the one is taken again."""
    for name in ("a", "away", "b"):
        await bench.pool.enqueue_job("generate", {**IMAGE, "id": name}, _job_id=name)
    real = bench.door.take

    async def take(raw: Any, **how: Any) -> Any:
        if raw["id"] == "away":
            raise RedisAway("away")
        return await real(raw, **how)

    worker = make()
    with monkeypatch.context() as patch:
        patch.setattr(bench.door, "take", take)
        with pytest.raises(RedisAway):
            await worker.start_jobs(await queued(bench))
    assert await queued(bench) == [b"away"]
    await worker._unlock(list(worker._locked))
    await make().start_jobs(await queued(bench))
    assert await queued(bench) == []
    assert (await bench.job("away")).status is Status.QUEUED


@pytest.mark.parametrize("skew_ms", [SKEW_MS, -SKEW_MS], ids=["ahead", "behind"])
@pytest.mark.parametrize("whose", [arq.connections, arq.worker], ids=["client", "worker"])
async def test_clocks_that_differ_delay_nothing(
    whose: Any, skew_ms: int, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client's or a worker's machine whose clock is off: what is queued is due by Redis's clock, at once."""
    right = arq.utils.timestamp_ms
    monkeypatch.setattr(whose, "timestamp_ms", lambda: right() + skew_ms)
    async with bench.worker(), WorkerClient(bench.redis_url, answer_timeout_s=SOON_S) as client:
        await eventually(lambda: bench.raw.hlen("onysoft:workers"))  # type: ignore[arg-type,return-value]
        assert (await client.submit({**IMAGE, "id": "a"})).created_at
        assert (await client.cancel("a")).status == "canceled"
        with pytest.raises(NotPossible):
            await client.cancel((await completed(client)).id)


async def completed(client: WorkerClient) -> Any:
    """Have a job done."""
    job = await client.submit({"kind": "image", "input": directed()})
    return await client.wait(job.id, timeout_s=20)


async def test_what_is_deferred_on_purpose_waits(bench: Bench) -> None:
    """A plain arq client may still have a request taken later."""
    async with bench.worker():
        asked_at_ms = bench.store.now_ms()
        await bench.pool.enqueue_job("generate", {**IMAGE, "id": "later"}, _defer_by=0.7)
        job = await eventually(lambda: bench.store.get("later"))
    assert job.spec.created_at_ms - asked_at_ms >= 650  # the clocks of the two are read a moment apart


async def test_a_submit_that_its_caller_cancels_leaves_word(bench: Bench) -> None:
    """Nobody hears the answer, so an invalid request becomes a failed job; and the client can be closed at once."""
    await bench.store.fleet.beat({"id": "ghost", "seen_at_ms": bench.store.now_ms()})
    async with WorkerClient(bench.redis_url) as client:
        asking = asyncio.create_task(client.submit({**IMAGE, "id": "a", "prompt": "x"}))
        await eventually(lambda: queued(bench))
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asking
        assert asking.cancelled()
    async with bench.worker():
        assert (await bench.ended("a"))["failure"]["code"] == "invalid_request"


async def test_a_damaged_key_of_the_deployment_loses_no_request(bench: Bench) -> None:
    """Where the fault is not in an entry's own place, entries wait until what lies there has been moved aside."""
    await bench.raw.set("onysoft:events", "rubbish")
    async with bench.worker():
        await bench.pool.enqueue_job("generate", {"kind": "video", "input": directed(), "id": "waits"})
        assert (await bench.ended("waits"))["status"] == "completed"
    assert not [name for name, *_ in await bench.store.counters() if name == "enqueues_rejected_total"]
    assert await bench.raw.get("onysoft:aside:events") == b"rubbish"
