"""What has fallen out of its place in Redis is put back, counted, and ends well; what is in order is never touched."""

import asyncio
import json
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import replace
from itertools import product

import pytest
from arq.constants import in_progress_key_prefix, job_key_prefix
from harness import Bench, Receiver, Sandbox, directed, eventually, json_bytes

from config.models import load_models
from jobs import changes
from jobs.destinations import Destination
from jobs.failures import own_failure
from jobs.job import Attempt, Outcome
from jobs.pacing import SUBMISSIONS
from jobs.places import Repair, places
from jobs.verdict import Code
from worker import actions, reconcile
from worker.claims import LEASE_MS
from worker.keys import ARQ_BODY, ARQ_LOCK, submit_wheel
from worker.main import open_store
from worker.reconcile import Reconciler
from worker.store import Store
from worker.upkeep import Prune


async def walk(bench: Bench, *, rounds: int = 1) -> dict[str, int]:
    """Walk; give what was repaired, which the metrics have to tell as well."""
    before, walker, repaired = await counted(bench), Reconciler(bench.store), Counter[str]()
    for _ in range(rounds):
        repaired += await walker.run_once()
    assert await counted(bench) - before == repaired
    return dict(repaired)


async def counted(bench: Bench) -> Counter[str]:
    """Read the counters of repairs."""
    rows = await bench.store.counters()
    return Counter({row[1]: value for row, value in rows.items() if row[0] == "upkeep_repairs_total"})


async def test_a_job_that_is_on_no_submit_wheel_is_put_back(bench: Bench) -> None:
    """It would have waited for ever; now it goes through."""
    job_id = await bench.submit(input=directed())
    await bench.raw.delete("onysoft:wheel:submit:video")
    assert await walk(bench) == {Repair.SUBMIT_WHEEL: 1}
    assert await walk(bench) == {}
    async with bench.worker():
        assert (await bench.ended(job_id))["status"] == "completed"


async def test_a_job_that_is_being_submitted_is_not_taken_over_before_its_answer_can_have_come(bench: Bench) -> None:
    """Put back, it is due when its submission is answered at the latest; one that is held stays with its holder."""
    store = bench.store
    job_id = await bench.submit()
    [claim] = (await store.claim([submit_wheel("video")], limit=1, lane=SUBMISSIONS)).items
    job = await bench.job(job_id)
    change = changes.begin(job, now_ms=store.now_ms(), rev="r", patience_ms=60_000)
    await store.apply(change, claim=claim)
    await bench.raw.zrem("onysoft:wheel:submit:video", job_id)
    assert await walk(bench) == {Repair.SUBMIT_WHEEL: 1}
    due_ms = await bench.raw.zscore("onysoft:wheel:submit:video", job_id)
    assert due_ms <= store.now_ms() + LEASE_MS
    await bench.raw.delete("onysoft:wheel:submit:video", "onysoft:leases:submit:video")
    assert await walk(bench) == {Repair.SUBMIT_WHEEL: 1}
    attempt = change.after.current
    assert attempt is not None
    assert await bench.raw.zscore("onysoft:wheel:submit:video", job_id) == attempt.answered_by_ms


async def test_a_job_that_is_due_much_later_than_it_says_is_pulled_back(bench: Bench) -> None:
    """As after a clock was set back."""
    job_id = await bench.submit(input=directed())
    await bench.raw.zadd("onysoft:wheel:submit:video", {job_id: bench.store.now_ms() + 86_400_000})
    assert await walk(bench) == {Repair.SUBMIT_WHEEL: 1}
    async with bench.worker():
        await bench.ended(job_id)


async def test_a_task_that_nobody_looks_at_is_looked_at_again(bench: Bench) -> None:
    """Paid for, and forgotten: its result is fetched."""
    async with bench.worker():
        job_id = await bench.submit(input=directed(duration_s=0.5))
        await bench.standing(job_id, "processing")
    await bench.raw.delete("onysoft:wheel:track", "onysoft:leases:track")
    assert await walk(bench) == {Repair.TRACK_WHEEL: 1}
    async with bench.worker():
        assert (await bench.ended(job_id))["status"] == "completed"


async def test_a_task_that_was_given_up_is_looked_at_again(bench: Bench) -> None:
    """Its job has ended, and what it paid for is still told of."""
    async with bench.worker():
        job_id = await bench.submit(input=directed(duration_s=60))
        await bench.standing(job_id, "processing")
        await actions.cancel(bench.store, job_id)
    assert await walk(bench) == {}
    await bench.raw.zrem("onysoft:wheel:track", f"1:{job_id}")
    assert await walk(bench) == {Repair.TRACK_WHEEL: 1}
    assert await bench.raw.zscore("onysoft:wheel:track", f"1:{job_id}") is not None


async def test_a_job_is_listed_by_what_it_is_and_by_nothing_else(bench: Bench) -> None:
    """Moved by hand between indexes, dropped from one, or listed without a record."""
    job_id = await bench.submit(model="veo3", fallbacks=["sora-2"])
    sequence = await bench.raw.zscore("onysoft:index:queued:video", job_id)
    await bench.raw.delete("onysoft:index:queued:video")
    await bench.raw.zadd("onysoft:index:queued:video:veo3", {job_id: sequence + 5})
    assert await walk(bench) == {Repair.INDEX: 2}
    await bench.raw.zadd("onysoft:index:completed:video", {job_id: sequence})
    await bench.raw.zadd("onysoft:index:queued:video:sora-2", {job_id: sequence})
    assert await walk(bench) == {Repair.INDEX: 2}
    await bench.raw.zadd("onysoft:index:failed:image:x", {"never-was": 1, "nor-this": 2})
    assert await walk(bench) == {Repair.INDEX: 2}
    assert await walk(bench) == {}
    assert await bench.raw.keys("onysoft:index:*") == await bench.raw.keys("onysoft:index:queued:video*")
    assert await bench.raw.zscore("onysoft:index:queued:video:veo3", job_id) == sequence


async def test_a_deadline_that_was_lost_is_kept(bench: Bench) -> None:
    """A job that nobody takes still ends by its deadline."""
    job_id = await bench.submit(deadline_s=1, input=directed())
    await bench.store.fleet.pause("video", bench.store.now_ms())
    await bench.raw.delete("onysoft:deadlines")
    assert await walk(bench) == {Repair.DEADLINE: 1}
    async with bench.worker():
        view = await bench.ended(job_id)
    assert view["failure"]["code"] == "deadline_exceeded"


async def test_a_job_is_pruned_when_it_has_ended_and_not_before(bench: Bench) -> None:
    """One that had fallen off the list goes; one that stood there before its end stays."""
    async with bench.worker():
        ended_id = await bench.submit(input=directed())
        await bench.ended(ended_id)

        async def is_told() -> bool:
            return await bench.outbox_states(ended_id) == ["delivered"]

        await eventually(is_told)
    live_id = await bench.submit()
    await bench.raw.delete("onysoft:ended")
    await bench.raw.zadd("onysoft:ended", {live_id: 1})
    assert await walk(bench) == {Repair.ENDED: 2}
    assert await Prune(bench.store, retention_s=0).run_once(bench.store.now_ms()) == 1
    assert await bench.store.get(ended_id) is None
    assert await bench.store.get(live_id) is not None


@pytest.mark.parametrize("wrong", [0, 7])
async def test_the_number_of_pending_deliveries_is_set_right(bench: Bench, receiver: Receiver, wrong: int) -> None:
    """Too high a number would keep the job for ever, too low a one prune it with a delivery pending."""
    receiver.statuses = [500] * 2
    job_id = await bench.submit(input=directed())
    async with bench.worker():
        await bench.ended(job_id)
        await eventually(lambda: _attempted(bench, job_id))
    await bench.raw.hset(f"onysoft:job:{job_id}", "pending", wrong)
    states = await bench.outbox_states(job_id)
    repaired = await walk(bench)
    assert repaired in ({Repair.PENDING: 1}, {})
    assert int(await bench.raw.hget(f"onysoft:job:{job_id}", "pending")) == states.count("pending")
    assert repaired or states.count("pending") == wrong


async def _attempted(bench: Bench, job_id: str) -> bool:
    return any(delivery.attempts for delivery in await bench.store.outbox.of_job(job_id))


async def delivery_of(bench: Bench) -> tuple[str, str, str]:
    """Make a job that ended with a delivery pending, nobody being there to send it; give job, delivery, queue."""
    job_id = await bench.submit()
    await actions.cancel(bench.store, job_id)
    [delivery] = await bench.store.outbox.of_job(job_id)
    return job_id, delivery.id, Destination.of(delivery.url).id


async def is_received(bench: Bench, receiver: Receiver, job_id: str) -> None:
    """Have a worker deliver."""

    async def came() -> bool:
        return bool(receiver.of(job_id))

    async with bench.worker():
        await eventually(came)

        async def noted() -> bool:
            return await bench.outbox_states(job_id) == ["delivered"]

        await eventually(noted)
    assert await walk(bench) == {}


async def test_a_delivery_that_is_in_no_queue_is_put_back(bench: Bench, receiver: Receiver) -> None:
    """With all that its destination had been."""
    job_id, _, queue = await delivery_of(bench)
    await bench.raw.delete(f"onysoft:waiting:{queue}", f"onysoft:destination:{queue}", "onysoft:wheel:deliver")
    assert await walk(bench) == {Repair.DELIVERY: 1, Repair.DESTINATION: 1}
    await is_received(bench, receiver, job_id)


async def test_a_delivery_that_is_held_is_put_back_with_its_holder(bench: Bench, receiver: Receiver) -> None:
    """It is sent again only when its lease has run out."""
    job_id, delivery, queue = await delivery_of(bench)
    [claim] = (await bench.store.dispatch.claim(1)).items
    await bench.raw.delete(f"onysoft:sending:{queue}")
    assert await walk(bench) == {Repair.DELIVERY: 1}
    assert await bench.raw.zscore(f"onysoft:sending:{queue}", delivery) is not None
    assert await bench.store.dispatch.release(claim, bench.store.now_ms())
    await is_received(bench, receiver, job_id)


async def test_a_delivery_is_listed_by_its_state(bench: Bench, receiver: Receiver) -> None:
    """Dropped from the list of pending ones, put on another's, forgotten by its job, or listed though it is gone."""
    job_id, delivery, _ = await delivery_of(bench)
    await bench.raw.delete("onysoft:deliveries:pending")
    await bench.raw.zadd("onysoft:deliveries:dead", {delivery: 1})
    assert await walk(bench) == {Repair.DELIVERY_INDEX: 2}
    await bench.raw.zadd("onysoft:deliveries:pending", {"dlv_gone": 1})
    assert await walk(bench) == {Repair.DELIVERY_INDEX: 1}
    await bench.raw.delete(f"onysoft:deliveries-of:{job_id}")
    repaired = await walk(bench)
    while again := await walk(bench):
        repaired = dict(Counter(repaired) + Counter(again))
    assert repaired[Repair.DELIVERY_INDEX] == 1
    assert repaired.keys() <= {Repair.DELIVERY_INDEX, Repair.PENDING}
    assert await bench.raw.hget(f"onysoft:job:{job_id}", "pending") == b"1"
    await is_received(bench, receiver, job_id)


async def test_a_delivery_whose_job_is_gone_goes_once_it_is_sent(bench: Bench, receiver: Receiver) -> None:
    """Nobody would ever prune it; while it is pending it is sent all the same."""
    job_id, delivery, _ = await delivery_of(bench)
    await bench.raw.delete(f"onysoft:job:{job_id}")
    assert await walk(bench) == {Repair.INDEX: 2}
    async with bench.worker():

        async def came() -> bool:
            return bool(receiver.of(job_id))

        await eventually(came)

        async def noted() -> bool:
            return await bench.raw.hget(f"onysoft:delivery:{delivery}", "state") != b"pending"

        await eventually(noted)
    await walk(bench)
    assert await counted(bench) == {Repair.INDEX: 2, Repair.DELIVERY_LEFT: 1}
    assert not await bench.raw.exists(f"onysoft:delivery:{delivery}", f"onysoft:deliveries-of:{job_id}")


@pytest.mark.parametrize("later_ms", [None, 3_600_000])
async def test_a_destination_nobody_looks_at_is_looked_at(
    bench: Bench, receiver: Receiver, later_ms: int | None
) -> None:
    """It is on no wheel, or much later than its first delivery is due."""
    job_id, _, queue = await delivery_of(bench)
    await bench.raw.delete("onysoft:wheel:deliver")
    if later_ms:
        await bench.raw.zadd("onysoft:wheel:deliver", {queue: bench.store.now_ms() + later_ms})
    assert await walk(bench) == {Repair.DESTINATION: 1}
    await is_received(bench, receiver, job_id)


async def test_leases_of_nobody_are_dropped_and_endless_ones_pulled_back(bench: Bench) -> None:
    """A lease without a member is rubbish; one that ends far ahead is of a clock that was set back."""
    store = bench.store
    job_id = await bench.submit(input=directed())
    await store.claim([submit_wheel("video")], limit=1, lane=SUBMISSIONS)
    _, delivery, queue = await delivery_of(bench)
    await store.dispatch.claim(1)
    far_ms = store.now_ms() + 3_600_000
    await bench.raw.zadd("onysoft:wheel:submit:video", {job_id: far_ms})
    await bench.raw.zadd(f"onysoft:sending:{queue}", {delivery: far_ms})
    await bench.raw.hset("onysoft:leases:track", "1:gone", "t")
    await bench.raw.hset("onysoft:leases:deliver", "dlv_gone", "t")
    repaired = await walk(bench)
    assert repaired.pop(Repair.LEASE) == 4
    assert repaired.keys() <= {Repair.DESTINATION}
    assert await walk(bench) == {}
    assert not await bench.raw.exists("onysoft:leases:track")
    for key, member in (("onysoft:wheel:submit:video", job_id), (f"onysoft:sending:{queue}", delivery)):
        assert await bench.raw.zscore(key, member) <= store.now_ms() + LEASE_MS


async def test_nobody_waits_to_take_over_for_longer_than_a_lease(bench: Bench) -> None:
    """A bar to taking over that lies far ahead is of a clock that has been set back since."""
    store = bench.store
    await bench.submit()
    await delivery_of(bench)
    for claim in (store.claim([submit_wheel("video")], limit=1, lane=SUBMISSIONS), store.dispatch.claim(1)):
        await bench.raw.hset("onysoft:gate", "takeover_from_ms", store.now_ms() + 86_400_000)
        await claim
        assert int(await bench.raw.hget("onysoft:gate", "takeover_from_ms")) <= store.now_ms() + LEASE_MS


# --- arq's own traps


async def test_a_call_that_stands_on_no_queue_is_taken(bench: Bench) -> None:
    """Its id would have been blocked, and its caller waited in vain."""
    assert (ARQ_BODY.decode(), ARQ_LOCK.decode()) == (job_key_prefix, in_progress_key_prefix)
    await bench.pool.enqueue_job("generate", {"kind": "video", "input": directed()}, _job_id="lost")
    await bench.raw.delete("onysoft:jobs")
    assert await walk(bench) == {}
    assert await walk(bench, rounds=2) == {Repair.ARQ_ENTRY: 1}
    async with bench.worker():
        assert (await bench.ended("lost"))["status"] == "completed"


async def test_calls_of_others_are_left_alone(bench: Bench) -> None:
    """Another function's, one on another's queue, one that a worker of another's is at, and a pickle."""
    await bench.pool.enqueue_job("send_mail", "x", _job_id="mail", _queue_name="mail:queue")
    await bench.pool.enqueue_job("generate", {}, _job_id="theirs", _queue_name="other:jobs")
    await bench.pool.enqueue_job("generate", {}, _job_id="locked", _queue_name="nowhere")
    await bench.raw.set("arq:in-progress:locked", "1")
    await bench.raw.delete("mail:queue", "nowhere")
    await bench.raw.set("arq:job:pickled", b"\x80\x04N.")
    await bench.raw.lpush("arq:job:listed", "x")
    before = set(await bench.raw.keys())
    assert await walk(bench, rounds=3) == {}
    assert set(await bench.raw.keys()) == before


async def test_a_call_that_is_locked_for_ever_is_unlocked(bench: Bench) -> None:
    """A lock that ends by itself is its holder's, one that does not is nobody's."""
    for name in ("stuck", "held"):
        await bench.pool.enqueue_job("generate", {"kind": "video", "input": directed()}, _job_id=name)
    await bench.raw.set("arq:in-progress:stuck", "1")
    await bench.raw.set("arq:in-progress:held", "1", px=60_000)
    assert await walk(bench) == {Repair.ARQ_LOCK: 1}
    assert await bench.raw.exists("arq:in-progress:held")
    async with bench.worker():
        assert (await bench.ended("stuck"))["status"] == "completed"


async def test_a_call_that_waits_does_not_expire_unless_its_caller_asked_for_it(bench: Bench) -> None:
    """A body lives for a day by arq's default; a caller's own time-out is its wish."""
    request = {"kind": "video", "input": directed()}
    for name, more in (("waits", {}), ("asked", {"_expires": 600})):
        await bench.pool.enqueue_job("generate", {**request, "id": name}, _job_id=name, **more)
    assert await walk(bench) == {}
    call = {"t": None, "f": "generate", "a": [request], "k": {}, "et": bench.store.now_ms() - 86_000_000}
    await bench.raw.set("arq:job:waits", json_bytes(call), px=400_000)
    assert await walk(bench) == {Repair.ARQ_BODY: 1}
    assert await bench.raw.pttl("arq:job:waits") == -1
    assert await bench.raw.pttl("arq:job:asked") > 0


# --- what is left alone


async def test_a_record_of_a_newer_version_is_left_alone(bench: Bench) -> None:
    """Byte for byte, with all that belongs to it, wherever it stands."""
    job_id, _, queue = await delivery_of(bench)
    other_id = await bench.submit()
    for name in (job_id, other_id):
        await bench.raw.hset(f"onysoft:job:{name}", mapping={"schema": 99, "status": "dreaming"})
    await bench.raw.delete("onysoft:wheel:submit:video", f"onysoft:waiting:{queue}")
    before = await dump(bench)
    assert await walk(bench) == {}
    assert await dump(bench) == before


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


async def dump(bench: Bench) -> dict[bytes, bytes | None]:
    """Take all there is in Redis."""
    return {key: await bench.raw.dump(key) for key in await bench.raw.keys()}


async def test_what_is_watched_is_never_taken_for_over_at_a_glance(bench: Bench) -> None:
    """Whatever its attempt came to: where its task may yet end and is on no wheel, the whole record is judged."""
    watched, over = list[str](), list[str]()
    own = own_failure(Code.CANCELED, "")
    for number, (outcome, code, status, task_id) in enumerate(
        product((None, *Outcome), (None, *Code), (None, 200, 404, 500), (None, "task"))
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
    assert len(watched) > 50
    assert len(plainly) > 50


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
