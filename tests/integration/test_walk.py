"""What the walk through Redis leaves alone, that a busy system gives it nothing to do, and who walks."""

import asyncio
import json
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import pytest
from harness import Bench, Receiver, Sandbox, directed, eventually
from redis.exceptions import RedisError
from walking import contents, counted, delivery_of, dump, walk

from config.models import load_models
from jobs import changes
from jobs.failures import own_failure
from jobs.job import Attempt, Outcome
from jobs.places import Repair, places
from jobs.verdict import Code
from worker import actions, reconcile
from worker.keys import TRACK_WHEEL
from worker.main import open_store
from worker.poison import JobBounds
from worker.reconcile import Reconciler
from worker.store import Store
from worker.upkeep import Prune


async def test_a_record_of_a_newer_version_is_left_alone(bench: Bench) -> None:
    """Byte for byte, with all that belongs to it, wherever it stands."""
    job_id, _, queue = await delivery_of(bench)
    other_id = await bench.submit()
    for name in (job_id, other_id):
        await bench.raw.hset(f"onysoft:job:{name}", mapping={"schema": 99, "status": "dreaming"})
    await bench.raw.delete("onysoft:wheel:submit:video", f"onysoft:waiting:{queue}")
    before = await contents(bench)
    assert await walk(bench) == {}
    assert await contents(bench) == before


async def test_a_record_that_cannot_be_read_is_left_alone(bench: Bench) -> None:
    """Its neighbours are judged all the same."""
    ids = [await bench.submit() for _ in range(4)]
    await bench.raw.hset(f"onysoft:job:{ids[0]}", "state", b'{"attempts": [')
    await bench.raw.hset(f"onysoft:job:{ids[1]}", "state", json.dumps({"model_index": 9}))
    await bench.raw.delete(f"onysoft:job:{ids[2]}")
    await bench.raw.set(f"onysoft:job:{ids[2]}", "foreign")
    await bench.raw.set("onysoft:leases:rubbish", "x")
    await bench.raw.set("onysoft:waiting:rubbish", "x")
    await bench.raw.set("onysoft:index:queued:rubbish", "x")
    await bench.raw.set(b"onysoft:job:\xff\xfe", "x")
    await bench.raw.delete("onysoft:wheel:submit:video")
    records = [await bench.raw.dump(f"onysoft:job:{name}") for name in ids]
    assert await walk(bench) == {Repair.SUBMIT_WHEEL: 1}
    assert [await bench.raw.dump(f"onysoft:job:{name}") for name in ids] == records


async def test_a_job_in_quarantine_is_left_there(bench: Bench) -> None:
    """Off all wheels and lists, round after round, whatever of its record cannot be read, or is by now mended."""
    ids = await ended_while_processing(bench, "result", "look", "mended")
    await bench.raw.hset("onysoft:job:result", "result", "{")
    await bench.raw.hset("onysoft:job:look", "look:1", json.dumps({"polls": 1, "refusal": 5}))
    before = await contents(bench)
    for job_id in ids:
        await bench.store.quarantine.take(job_id, f"1:{job_id}", bench.store.now_ms())
    taken = await contents(bench)
    assert taken != before
    assert await walk(bench, rounds=2) == {}
    assert await contents(bench) == taken
    await bench.raw.zrem("onysoft:quarantine", *ids)
    assert await bench.store.mending.mend_job("result") == []
    assert "track_wheel" in await bench.store.mending.mend_job("mended")


async def test_a_late_task_that_cannot_be_ended_in_order_is_put_back_no_more(bench: Bench) -> None:
    """It is over in its record, too, which can be read as before."""
    await ended_while_processing(bench, "j")
    state = json.loads(await bench.raw.hget("onysoft:job:j", "state"))
    state["attempts"][0]["cost"] = {"currency": "USD", "amount": 10**400}
    await bench.raw.hset("onysoft:job:j", "state", json.dumps(state))
    await bench.raw.zadd("onysoft:wheel:track", {"1:j": 0})
    [claim] = (await bench.store.claim([TRACK_WHEEL], limit=1)).items
    await JobBounds(bench.store).end(claim, "it crashed")
    assert not await bench.raw.exists("onysoft:wheel:track", "onysoft:leases:track")
    assert await walk(bench) == {}
    job = await bench.job("j")
    assert (job.status, job.attempts[0].watched, job.attempts[0].late and job.attempts[0].late["status"]) == (
        "canceled", False, "unknown",
    )  # fmt: skip


async def ended_while_processing(bench: Bench, *ids: str) -> tuple[str, ...]:
    """Make jobs that are canceled while their tasks run."""
    async with bench.worker():
        for job_id in ids:
            await bench.submit(id=job_id, webhook_events=[], input=directed(duration_s=60))
            await bench.standing(job_id, "processing")
            await actions.cancel(bench.store, job_id)
    return ids


async def test_a_queue_of_another_type_does_not_end_the_walk(bench: Bench) -> None:
    """What comes after it is put back all the same, and the queue is a queue again soon."""
    await bench.submit()
    await bench.raw.delete("onysoft:wheel:submit:video")
    await bench.raw.set("onysoft:jobs", "x")
    await bench.raw.set("arq:job:unqueued", "{}")
    assert await walk(bench, rounds=2) == {Repair.SUBMIT_WHEEL: 1}
    assert await bench.store.quarantine.clear() == 1
    assert await bench.raw.get("onysoft:aside:jobs") == b"x"


CODES = (None, Code.GENERATION_FAILED, Code.CONTENT_REJECTED, Code.GENERATION_TIMEOUT, Code.TASK_LOST, Code.CANCELED)


async def test_what_is_watched_is_never_taken_for_over_at_a_glance(bench: Bench) -> None:
    """Whatever its attempt came to: where its task may yet end and is on no wheel, the whole record is judged."""
    watched, over = list[str](), list[str]()
    own = own_failure(Code.CANCELED, "")
    for number, (outcome, code, status, task_id) in enumerate(
        product((None, *Outcome), CODES, (None, 200, 404), (None, "task"))
    ):
        spec = (await bench.job(await bench.submit(id=f"of-{number}"))).spec
        failure = {**changes.shown_failure(own), "code": str(code), "http_status": status} if code else None
        attempt = Attempt(1, spec.models[0], 0, 1, "k", 1, task_id=task_id, outcome=outcome, failure=failure)
        job = replace(await bench.job(spec.id), attempts=(attempt,), rev="r")
        await bench.store.apply(
            replace(changes.create(spec, now_ms=1, rev="r"), before=await bench.job(spec.id), after=job)
        )
        (watched if places(job).looks else over).append(job.id)
    doubtful = set(await bench.store.mending.doubtful_jobs([*watched, *over]))
    assert doubtful >= set(watched)
    plainly = [name for name in over if name not in doubtful]
    assert min(len(watched), len(plainly)) > 30


async def test_a_repair_is_made_whole_or_not_at_all(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever key a script meets holds something foreign: after an error all is as it was."""
    calls, link = list[tuple[Any, ...]](), bench.store._link
    script = link.script

    async def noted(*call: Any) -> Any:
        calls.append(call)
        return await script(*call)

    job_id, _, queue = await delivery_of(bench)
    left_by, left, _ = await delivery_of(bench)
    await bench.submit()
    await bench.raw.hset(f"onysoft:delivery:{left}", "state", "dead")
    await bench.raw.delete(f"onysoft:job:{left_by}")
    await bench.raw.hset(f"onysoft:job:{job_id}", "pending", 5)
    await bench.raw.hset("onysoft:leases:track", "1:gone", "t")
    await bench.raw.delete("onysoft:wheel:submit:video", f"onysoft:waiting:{queue}", "onysoft:wheel:deliver")
    await bench.raw.delete("onysoft:deliveries:pending", "onysoft:ended", "onysoft:deadlines")
    damaged = await dump(bench)
    monkeypatch.setattr(link, "script", noted)
    assert len(await walk(bench)) > 5
    named_within = [key for key in await bench.raw.keys() if re.search(rb":(deliver|destination|waiting|sending)", key)]
    failed = 0
    for call in calls:
        if not call[0].startswith("mend"):
            continue
        for name in {*(str(key).encode() for key in call[1]), *(named_within if call[0] in WITH_MORE_KEYS else ())}:
            failed += await fails_whole(bench, damaged, name, partial(script, *call))
    assert failed > 20


WITH_MORE_KEYS = ("mend_delivery", "mend_destination")


async def fails_whole(
    bench: Bench, stored: dict[bytes, bytes], name: bytes, call: Callable[[], Awaitable[Any]]
) -> bool:
    """Call a script where a key holds something foreign; tell whether it failed, and then nothing is changed."""
    async with bench.raw.pipeline(transaction=False) as pipe:
        pipe.flushall()
        for key, value in stored.items():
            pipe.restore(key, 0, value)
        pipe.type(name).delete(name)
        kind = (await pipe.execute())[-2]
    await (bench.raw.set(name, "x") if kind != b"string" else bench.raw.hset(name, "x", "x"))
    before = await contents(bench)
    try:
        await call()
    except RedisError:
        assert await contents(bench) == before, name
        return True
    return False


async def test_a_busy_system_has_nothing_to_repair(bench: Bench, sandbox: Sandbox, receiver: Receiver) -> None:
    """Hundreds of jobs go through two workers, fail, park, are canceled and delivered, while the walk never rests."""
    sandbox.control(faults="default")
    stop, rounds, repaired = asyncio.Event(), 0, Counter[str]()
    async with open_store(bench.redis_url, bench.settings, load_models()) as other:

        async def walk_on() -> None:
            nonlocal rounds, repaired
            walker = Reconciler(other)
            while not stop.is_set():
                repaired += await walker.run_once()
                rounds += 1

        walking = asyncio.create_task(walk_on())
        async with bench.worker(), replace(bench, store=other).worker():
            ids = []
            for number in range(300):
                receiver.statuses += [500] * (number % 10 == 0)
                kind, url = ("video", "image", "music")[number % 3], f"{receiver.url}/{number % 7}"
                events = ["job.processing", "job.waiting", "job.failed_over", "job.completed", "job.failed"]
                request = {"kind": kind, "webhook_url": url, "webhook_events": events, "input": directed()}
                if number % 2:
                    ids.append(await bench.submit(id=f"job-{number}", **request))
                else:
                    await bench.pool.enqueue_job("generate", request, _job_id=f"job-{number}")
                    ids.append(f"job-{number}")
                if number % 10 == 3:
                    await actions.cancel(bench.store, ids[-1])
                if number % 20 == 3:
                    await actions.retry(bench.store, ids[-1])
            for job_id in ids:
                await bench.ended(job_id, within_s=60)

            async def delivered() -> bool:
                return not await bench.raw.exists("onysoft:deliveries:pending")

            await eventually(delivered)
            await Prune(bench.store, retention_s=0).run_once(bench.store.now_ms())
        stop.set()
        await walking
    assert dict(repaired) == {}
    assert rounds > 3
    assert not await counted(bench)


async def test_one_worker_walks_and_another_follows_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second begins when the first has gone: at once where that said so, else when its election has run out."""
    monkeypatch.setattr(reconcile, "ASK_EVERY_S", 0.1)

    async def walks(store: Store) -> None:
        async def check() -> bool:
            return await bench.raw.get("onysoft:upkeep") == store.holder.encode()

        await eventually(check)

    await bench.raw.set("onysoft:upkeep", "one that died", px=300)
    async with open_store(bench.redis_url, bench.settings, load_models()) as other, AsyncExitStack() as first:
        await first.enter_async_context(bench.worker())
        await walks(bench.store)
        async with replace(bench, store=other).worker():
            assert not await other.mending.elect()
            assert await bench.store.mending.elect()
            await first.aclose()
            await walks(other)
        assert not await bench.raw.exists("onysoft:upkeep")
