"""Which deliveries are sent when: shares, caps, the circuit of a destination, claims lost and given back."""

from collections import Counter
from collections.abc import Sequence

import pytest
from harness import Bench

from jobs.changes import cancel
from jobs.delivering import GIVEN_UP, Outcome
from jobs.destinations import Destination
from worker.claims import LEASE_MS, Claim
from worker.dispatch import MOST_AT_A_HOST, MOST_AT_ONCE
from worker.outbox import Delivery
from worker.store import Store

A, B = "http://127.0.0.1:1/a", "http://127.0.0.1:1/b"
ILL, WELL = Outcome("pending", "ill", 0.0), Outcome("delivered", "well")
OPENS_AT = 10
DAY_MS = 86_400_000

pytestmark = pytest.mark.env(WEBHOOK_SCHEDULE_S="0,1,2")


async def pending(bench: Bench, url: str, count: int) -> list[str]:
    """Make so many deliveries that are due to a URL now, of jobs that were canceled; name them."""
    store, found = bench.store, []
    for _ in range(count):
        job = await bench.job(await bench.submit(webhook_url=url))
        await store.apply(cancel(job, now_ms=store.now_ms(), rev=store.new_rev()))
        found += [delivery.id for delivery in await store.outbox.of_job(job.id)]
    return found


async def claimed(store: Store, limit: int = 100) -> list[Claim]:
    """Claim what is due."""
    return list((await store.dispatch.claim(limit)).items)


async def delivery_of(store: Store, claim: Claim) -> Delivery:
    """Read a claimed delivery."""
    found = await store.outbox.delivery(claim.member)
    assert found is not None
    return found


async def settled(store: Store, claims: Sequence[Claim], outcome: Outcome, *, wait_ms: int = 0) -> None:
    """Record the same outcome for each of the claims; those that stay pending are due after a time."""
    for claim in claims:
        due_ms = store.now_ms() + wait_ms if outcome.state == "pending" else None
        delivery = await delivery_of(store, claim)
        attempts = [*delivery.attempts, {"at": "", "status": None}]
        assert await store.dispatch.settle(claim, delivery, attempts, outcome, due_ms=due_ms, counted="failed")


async def fail(bench: Bench, url: str) -> list[str]:
    """Have a destination fail for as many times as open its circuit; name its deliveries."""
    found = await pending(bench, url, OPENS_AT)
    claims = await claimed(bench.store)
    assert [claim.wheel for claim in claims] == [Destination.of(url).id] * OPENS_AT
    await settled(bench.store, claims, ILL)
    return found


async def hash_of(bench: Bench, url: str) -> dict[bytes, bytes]:
    """Read what is known of a destination."""
    return dict(await bench.raw.hgetall(f"onysoft:destination:{Destination.of(url).id}"))  # type: ignore[misc]


async def reopen(bench: Bench, url: str) -> None:
    """Have the time for the next try of a failing destination be now."""
    key = Destination.of(url).id
    await bench.raw.hset(f"onysoft:destination:{key}", "shut_until_ms", "0")  # type: ignore[misc]
    await bench.raw.zadd("onysoft:wheel:deliver", {key: 0})


async def test_a_destination_is_given_no_more_than_its_cap(bench: Bench) -> None:
    """Over the whole fleet: what is claimed counts until it is settled, and the next is due at once then."""
    await pending(bench, A, MOST_AT_ONCE + 3)
    first = await claimed(bench.store)
    assert len(first) == MOST_AT_ONCE
    assert await claimed(bench.store) == []
    await settled(bench.store, first[:2], WELL)
    assert len(await claimed(bench.store)) == 2
    assert await claimed(bench.store) == []


async def test_a_host_is_given_no_more_than_its_cap(bench: Bench) -> None:
    """Many destinations of one host share four times what one may have; another host's go out beside them."""
    for number in range(6):
        await pending(bench, f"http://127.0.0.1:1/{number}", MOST_AT_ONCE)
    await pending(bench, "http://127.0.0.2:1/", 2)
    claims = await claimed(bench.store)
    per_destination = Counter(claim.wheel for claim in claims)
    other = per_destination.pop(Destination.of("http://127.0.0.2:1/").id)
    assert (sum(per_destination.values()), other) == (MOST_AT_A_HOST, 2)
    assert max(per_destination.values()) == MOST_AT_ONCE
    await settled(bench.store, [claim for claim in claims if claim.wheel in per_destination], WELL)
    left: list[Claim] = []
    while len(left) < 6 * MOST_AT_ONCE - MOST_AT_A_HOST:  # those who found the host full look again soon
        left += await claimed(bench.store)


async def test_a_place_at_a_full_host_goes_to_whoever_waits_longest_for_one(bench: Bench) -> None:
    """Destinations with backlogs do not hand it round among themselves."""
    for number in range(MOST_AT_A_HOST // MOST_AT_ONCE):
        await pending(bench, f"http://one.example/{number}", MOST_AT_ONCE + 3)
    first = await claimed(bench.store)
    assert len(first) == MOST_AT_A_HOST
    late = [f"http://one.example/late/{number}" for number in range(3)]
    for url in late:
        await pending(bench, url, 2)
        assert await claimed(bench.store) == []
    for number, url in enumerate(late):
        await settled(bench.store, first[number : number + 1], WELL)
        assert [claim.wheel for claim in await claimed(bench.store)] == [Destination.of(url).id]


async def test_where_room_is_short_each_destination_has_its_share(bench: Bench) -> None:
    """A backlog due for longer does not come before everybody else's."""
    await pending(bench, A, 20)
    await pending(bench, B, 1)
    claims = await claimed(bench.store, limit=4)
    assert Counter(claim.wheel for claim in claims) == {Destination.of(A).id: 3, Destination.of(B).id: 1}


async def test_room_for_one_goes_round(bench: Bench) -> None:
    """Even where only one can be claimed at a time, nobody is always the last."""
    await pending(bench, A, 5)
    await pending(bench, B, 5)
    turns: list[str] = []
    while len(turns) < 4:
        turns += [claim.wheel for claim in await claimed(bench.store, limit=1)]
    assert Counter(turns) == {Destination.of(A).id: 2, Destination.of(B).id: 2}


async def test_a_failing_destination_is_tried_by_one_at_growing_gaps(bench: Bench) -> None:
    """The others wait at no attempt of theirs; each failed try doubles the gap, up to the schedule's longest."""
    store = bench.store
    await fail(bench, A)
    await pending(bench, B, 1)
    assert [claim.wheel for claim in await claimed(store)] == [Destination.of(B).id]
    gaps = []
    for _ in range(3):
        gaps.append(int((await hash_of(bench, A))[b"gap_ms"]))
        await reopen(bench, A)
        tries = await claimed(store)
        assert len(tries) == 1
        assert await claimed(store) == []
        await settled(store, tries, ILL, wait_ms=60_000)
    assert gaps == [1000, 2000, 2000]
    [failing] = (await store.dispatch.standing()).failing
    assert (failing.name, failing.failures, failing.waiting) == (Destination.of(A).name, OPENS_AT + 3, OPENS_AT)


async def test_the_first_success_opens_a_destination_again(bench: Bench) -> None:
    """Everything that waited flows, up to the cap."""
    await fail(bench, A)
    await reopen(bench, A)
    await settled(bench.store, await claimed(bench.store), WELL)
    assert (await bench.store.dispatch.standing()).failing == ()
    assert len(await claimed(bench.store)) == OPENS_AT - 1
    assert b"failures" not in await hash_of(bench, A)


async def test_successes_between_failures_keep_a_destination_open(bench: Bench) -> None:
    """Only failures in a row count."""
    await pending(bench, A, OPENS_AT)
    claims = await claimed(bench.store)
    await settled(bench.store, claims[:-1], ILL)
    await settled(bench.store, claims[-1:], WELL)
    assert len(await claimed(bench.store)) == OPENS_AT - 1


async def test_a_pause_asked_for_is_kept_by_all_of_a_failing_destination(bench: Bench) -> None:
    """Retry-After counts where it is longer than the gap."""
    await pending(bench, A, OPENS_AT)
    await settled(bench.store, await claimed(bench.store), Outcome("pending", "ill", 5.0, asked_s=5.0))
    ahead_ms = int((await hash_of(bench, A))[b"shut_until_ms"]) - bench.store.now_ms()
    assert 3000 < ahead_ms <= 5100  # by this clock or that


async def test_a_try_that_was_not_made_is_another_delivery_s(bench: Bench) -> None:
    """A probe given back, or given up unsent, leaves the turn to the next at once."""
    store = bench.store
    await fail(bench, A)
    await reopen(bench, A)
    [probe] = await claimed(store)
    assert await store.dispatch.release(probe, store.now_ms() + 60_000)
    [probe] = await claimed(store)
    await settled(store, [probe], GIVEN_UP)
    assert len(await claimed(store)) == 1


async def test_what_waited_longer_than_the_schedule_is_told_apart(bench: Bench) -> None:
    """It is claimed beside the one that tries the destination, to be given up."""
    store, key = bench.store, Destination.of(A).id
    found = await fail(bench, A)
    long_ago = store.now_ms() - DAY_MS - 1000
    await bench.raw.zadd(f"onysoft:waiting:{key}", dict.fromkeys(found[:3], long_ago))
    await bench.raw.zadd("onysoft:wheel:deliver", {key: 0})
    claims = await claimed(store)
    assert {(claim.member, claim.overdue) for claim in claims} == {(name, True) for name in found[:3]}
    await settled(store, claims, GIVEN_UP)
    assert (await store.counters())[("webhook_dead_letters_total",)] == 3
    assert [d.state for d in [await store.outbox.delivery(name) for name in found] if d].count("dead") == 3


async def test_a_replay_tries_a_failing_destination_at_once(bench: Bench) -> None:
    """Whoever asks for it takes the receiver for mended."""
    found = await fail(bench, A)
    assert await claimed(bench.store) == []
    delivery = await bench.store.outbox.delivery(found[4])
    assert delivery is not None
    assert await bench.store.dispatch.replay(delivery)
    assert len(await claimed(bench.store)) == 1


async def test_a_claim_whose_lease_has_run_out_is_taken_over(bench: Bench) -> None:
    """Before a backlog that is due for longer; what its first holder writes then is refused."""
    store, key = bench.store, Destination.of(A).id
    await pending(bench, A, MOST_AT_ONCE + 5)
    first = await claimed(store)
    await bench.raw.hdel("onysoft:gate", "takeover_from_ms")  # type: ignore[misc]
    await bench.raw.zadd(f"onysoft:sending:{key}", {first[0].member: store.now_ms() - 1})
    await bench.raw.zadd("onysoft:wheel:deliver", {key: 0})
    [again] = await claimed(store)
    assert (again.member, again.took_over) == (first[0].member, True)
    delivery = await delivery_of(store, again)
    assert not await store.dispatch.settle(first[0], delivery, [], WELL, due_ms=None, counted="succeeded")
    assert await store.dispatch.settle(again, delivery, [], WELL, due_ms=None, counted="succeeded")


async def test_nobody_is_taken_over_right_after_redis_was_away(bench: Bench) -> None:
    """Its holder could not renew meanwhile; one lease period later it is taken over."""
    store, key = bench.store, Destination.of(A).id
    await pending(bench, A, 1)
    [first] = await claimed(store)
    await bench.raw.zadd(f"onysoft:sending:{key}", {first.member: store.now_ms() - 1})
    await bench.raw.zadd("onysoft:wheel:deliver", {key: 0})
    store._link.interrupted = True
    assert await claimed(store) == []
    lease_ends_ms = await bench.raw.zscore(f"onysoft:sending:{key}", first.member)
    assert lease_ends_ms is not None
    assert LEASE_MS - 2000 < lease_ends_ms - store.now_ms() <= LEASE_MS


async def test_a_renewed_claim_is_nobody_elses(bench: Bench) -> None:
    """Its lease ends one period later; a lost one stays lost."""
    store, key = bench.store, Destination.of(A).id
    await pending(bench, A, 2)
    mine, lost = await claimed(store)
    await bench.raw.hset("onysoft:leases:deliver", lost.member, "another's")  # type: ignore[misc]
    await bench.raw.zadd(f"onysoft:sending:{key}", {mine.member: 1, lost.member: 1})
    before_s = lost.valid_until_s
    await store.dispatch.renew([mine, lost])
    assert (await bench.raw.zscore(f"onysoft:sending:{key}", mine.member) or 0) > store.now_ms()
    assert await bench.raw.zscore(f"onysoft:sending:{key}", lost.member) == 1
    assert lost.valid_until_s == before_s


async def test_nothing_is_left_of_a_destination_that_has_everything(bench: Bench) -> None:
    """No key stays behind but the records of its deliveries; one that failed is remembered for a day."""
    store, key = bench.store, Destination.of(A).id
    await pending(bench, A, 2)
    await settled(store, await claimed(store), WELL)
    places = [f"onysoft:{name}:{key}" for name in ("destination", "waiting", "sending")]
    assert await bench.raw.exists(*places, "onysoft:sending-to:127.0.0.1", "onysoft:wheel:deliver") == 0
    assert await bench.raw.hlen("onysoft:leases:deliver") == 0  # type: ignore[misc]
    await fail(bench, A)
    await reopen(bench, A)
    await bench.raw.hset(f"onysoft:destination:{key}", "probe", "")  # type: ignore[misc]
    while claims := await claimed(store):
        await settled(store, claims, GIVEN_UP)
        await reopen(bench, A)
    assert 0 < await bench.raw.pttl(f"onysoft:destination:{key}") <= DAY_MS


@pytest.mark.parametrize("what", ["waiting", "sending", "destination"])
async def test_rubbish_in_the_place_of_one_destination_harms_no_other(bench: Bench, what: str) -> None:
    """Its turn is put off; the others' deliveries are claimed."""
    await pending(bench, A, 1)
    await pending(bench, B, 1)
    key = f"onysoft:{what}:{Destination.of(A).id}"
    await bench.raw.delete(key)
    await bench.raw.set(key, "rubbish")
    assert [claim.wheel for claim in await claimed(bench.store)] == [Destination.of(B).id]
    assert (await bench.store.dispatch.standing()).entries == 1


async def test_how_the_sending_stands(bench: Bench) -> None:
    """Entries, what is due and for how long; what waits for a failing destination is no lateness of ours."""
    store = bench.store
    await fail(bench, A)
    await pending(bench, B, 3)
    standing = await store.dispatch.standing()
    assert (standing.entries, standing.due) == (OPENS_AT + 3, OPENS_AT + 3)
    assert standing.oldest_ms is not None
    assert standing.oldest_ms <= store.now_ms()
    [*_] = await claimed(store)
    assert (await store.dispatch.standing()).oldest_ms is None
    assert (await store.fleet.overview(store.now_ms())).view()["failing_destinations"][0]["waiting"] == OPENS_AT
