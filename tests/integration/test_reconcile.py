"""What has fallen out of its place in Redis is put back, counted, and ends well."""

import asyncio
from collections import Counter

import pytest
from harness import Bench, Receiver, directed, eventually
from walking import counted, delivery_of, walk

from jobs import changes
from jobs.pacing import SUBMISSIONS
from jobs.places import Repair
from worker import actions, reconcile
from worker.claims import LEASE_MS
from worker.keys import submit_wheel
from worker.reconcile import Reconciler
from worker.upkeep import Prune


async def test_a_job_that_is_on_no_submit_wheel_is_put_back(bench: Bench) -> None:
    """It would have waited for ever; now it goes through."""
    job_id = await bench.submit(input=directed())
    await bench.raw.delete("onysoft:wheel:submit:video")
    assert await walk(bench) == {Repair.SUBMIT_WHEEL: 1}
    assert await walk(bench) == {}
    async with bench.worker():
        assert (await bench.ended(job_id))["status"] == "completed"


async def test_many_that_are_lost_are_put_back_some_at_a_time(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """There are far fewer rests than jobs: a wheel of ten thousand paid tasks is not lost for long."""
    rests, sleep = list[float](), asyncio.sleep

    async def noted(delay_s: float) -> None:
        rests.append(delay_s)
        await sleep(delay_s)

    for _ in range(200):
        await bench.submit()
    await bench.raw.delete("onysoft:wheel:submit:video")
    walker = Reconciler(bench.store)
    assert await bench.store.mending.elect()
    with monkeypatch.context() as patched:
        patched.setattr(reconcile.asyncio, "sleep", noted)
        assert await walker.run_once(is_paced=True) == {Repair.SUBMIT_WHEEL: 200}
    assert 10 < len(rests) < 100
    assert await bench.raw.zcard("onysoft:wheel:submit:video") == 200


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
