"""Which deliveries are sent when: shares, caps, the circuit of a destination, claims lost and given back."""

import json
from collections import Counter
from collections.abc import Sequence

import pytest
from harness import Bench

from jobs.changes import cancel
from jobs.delivering import GIVEN_UP, Outcome
from jobs.destinations import Destination
from worker.claims import LEASE_MS, Claim
from worker.dispatch import MOST_AT_A_HOST, MOST_AT_ONCE, MOST_ATTEMPTS_KEPT, EventTrimmed
from worker.outbox import Delivery
from worker.store import Store

A, B = "http://127.0.0.1:1/a", "http://127.0.0.1:1/b"
ILL, WELL = Outcome("pending", "ill", 0.0), Outcome("delivered", "well")
OPENS_AT = 10
DAY_MS = 86_400_000

pytestmark = pytest.mark.env(WEBHOOK_SCHEDULE_S="0,1,2")


async def pending(bench: Bench, url: str, count: int, *, is_known: bool = True) -> list[str]:
    """Make so many deliveries that are due to a URL now, of jobs that were canceled; name them.

    ``is_known``: its host has answered well before.
    """
    store, found = bench.store, list[str]()
    if is_known:
        await bench.raw.hset(f"onysoft:host:{Destination.of(url).host}", "trusted", "1")  # type: ignore[misc]
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
    assert (again.member, again.former) == (first[0].member, first[0].token)
    delivery = await delivery_of(store, again)
    assert not await store.dispatch.settle(first[0], delivery, [], WELL, due_ms=None, counted="succeeded")
    assert await store.dispatch.settle(again, delivery, [], WELL, due_ms=None, counted="succeeded")


async def test_whoever_gives_a_delivery_back_has_not_died_of_it(bench: Bench) -> None:
    """Deaths before it are not in a row with those after; crashes are, since they are given back as well."""
    store = bench.store
    await pending(bench, A, 1)
    [claim] = await claimed(store)
    record = f"onysoft:delivery:{claim.member}"
    await bench.raw.hset(record, mapping={"crashes": 3, "deaths": 9})  # type: ignore[misc]
    assert await store.dispatch.release(claim, store.now_ms())
    assert await bench.raw.hmget(record, ["crashes", "deaths"]) == [b"3", None]  # type: ignore[misc]


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
    assert (await bench.store.dispatch.standing()).entries == 2  # pending all the same


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


async def test_a_host_that_is_not_known_to_answer_has_few_places(bench: Bench) -> None:
    """Even where each job has a path of its own; a success gives it all of them, many failures take them again."""
    store = bench.store
    paths = [f"http://127.0.0.1:1/orders/{number}" for number in range(30)]
    for path in paths:
        await pending(bench, path, 1, is_known=False)
    first = await claimed(store)
    assert len(first) == MOST_AT_A_HOST // 5
    await settled(store, first[:1], WELL)
    assert len(first) + len(await claimed(store)) == len(paths)
    for path in paths:
        await pending(bench, path, 1, is_known=False)
    again: list[Claim] = []
    while len(again) < 20:
        again += await claimed(store)
    await settled(store, again, ILL, wait_ms=60_000)
    assert await bench.raw.hexists("onysoft:host:127.0.0.1", "trusted") == 0  # type: ignore[misc]


async def test_after_a_long_absence_of_all_workers_a_try_comes_first(bench: Bench) -> None:
    """What waited too long meanwhile is not given up for it: the destination may be well."""
    store, key = bench.store, Destination.of(A).id
    found = await fail(bench, A)
    long_ago = store.now_ms() - 3 * DAY_MS
    await bench.raw.zadd(f"onysoft:waiting:{key}", dict.fromkeys(found, long_ago))
    await bench.raw.hset(f"onysoft:destination:{key}", "shut_until_ms", long_ago)  # type: ignore[misc]
    await bench.raw.zadd("onysoft:wheel:deliver", {key: long_ago})
    [probe] = await claimed(store)
    assert not probe.overdue
    assert await claimed(store) == []
    await settled(store, [probe], WELL)
    rest = await claimed(store)
    assert (len(rest), {claim.overdue for claim in rest}) == (OPENS_AT - 1, {False})


async def test_a_replay_during_an_attempt_is_heeded_when_that_fails(bench: Bench) -> None:
    """It is due at once, from the start of its schedule, even after its last attempt, and counts as no dead one."""
    store = bench.store
    await pending(bench, A, 1)
    [claim] = await claimed(store)
    delivery = await delivery_of(store, claim)
    assert await store.dispatch.replay(delivery)
    attempts = [{"at": "", "status": 500}] * 3
    dead = Outcome("dead", "ill")
    state = await store.dispatch.settle(claim, delivery, attempts, dead, due_ms=None, counted="failed")
    assert state == "pending"
    [again] = await claimed(store)
    found = await delivery_of(store, again)
    assert (found.schedule_from, found.state, len(found.attempts)) == (3, "pending", 3)
    assert ("webhook_dead_letters_total",) not in await store.counters()
    assert (await bench.raw.zrange("onysoft:deliveries:pending", 0, -1)) == [delivery.id.encode()]


async def test_a_replay_tries_a_failing_destination_with_itself(bench: Bench) -> None:
    """Not with whatever is due for longer."""
    found = await fail(bench, A)
    delivery = await bench.store.outbox.delivery(found[7])
    assert delivery is not None
    assert await bench.store.dispatch.replay(delivery)
    assert [claim.member for claim in await claimed(bench.store)] == [found[7]]


async def test_a_replay_keeps_the_attempts_that_ended_since_it_was_read(bench: Bench) -> None:
    """Whoever asks for it may have read the delivery before."""
    store = bench.store
    [name] = await pending(bench, A, 1)
    before = await store.outbox.delivery(name)
    assert before is not None
    await settled(store, await claimed(store), Outcome("dead", "ill"))
    assert await store.dispatch.replay(before)
    found = await store.outbox.delivery(name)
    assert found is not None
    assert (len(found.attempts), found.schedule_from, found.state) == (1, 1, "pending")


async def test_of_very_many_attempts_the_last_are_kept(bench: Bench) -> None:
    """A delivery that is sent again and again on request does not grow for ever."""
    store = bench.store
    [name] = await pending(bench, A, 1)
    log = [{"at": str(number), "status": None} for number in range(MOST_ATTEMPTS_KEPT + 7)]
    await bench.raw.hset(f"onysoft:delivery:{name}", "attempts", json.dumps(log))  # type: ignore[misc]
    delivery = await store.outbox.delivery(name)
    assert delivery is not None
    assert await store.dispatch.replay(delivery)
    found = await store.outbox.delivery(name)
    assert found is not None
    assert list(found.attempts) == log[7:]
    assert found.schedule_from == MOST_ATTEMPTS_KEPT


async def test_what_cannot_be_sent_again_is_not_said_to_be(bench: Bench) -> None:
    """Its event is no longer kept."""
    store = bench.store
    [name] = await pending(bench, A, 1)
    delivery = await store.outbox.delivery(name)
    assert delivery is not None
    await bench.raw.xtrim("onysoft:events", maxlen=0, approximate=False)
    with pytest.raises(EventTrimmed, match=name):
        await store.dispatch.replay(delivery)


async def test_a_settlement_repeated_after_a_lost_answer_is_one(bench: Bench) -> None:
    """It is told as written, and counted once."""
    store = bench.store
    await pending(bench, A, 1)
    [claim] = await claimed(store)
    delivery = await delivery_of(store, claim)
    for _ in range(2):
        assert await store.dispatch.settle(claim, delivery, [], WELL, due_ms=None, counted="succeeded") == "delivered"
    assert (await store.counters())[("webhook_attempts_total", "succeeded")] == 1


async def test_a_clock_set_back_stops_nobody(bench: Bench) -> None:
    """A time further ahead than is ever planned is not waited for, and places held until then are free."""
    store, key = bench.store, Destination.of(A).id
    await fail(bench, A)
    ahead = store.now_ms() + 10 * DAY_MS
    await bench.raw.hset(f"onysoft:destination:{key}", "shut_until_ms", ahead)  # type: ignore[misc]
    await bench.raw.zadd("onysoft:sending-to:127.0.0.1", {str(number): ahead for number in range(50)})
    await bench.raw.zadd("onysoft:wheel:deliver", {key: 0})
    assert len(await claimed(store)) == 1
    await pending(bench, B, 1)
    assert len(await claimed(store)) == 1


async def test_an_ended_delivery_keeps_its_job_for_as_long_as_an_end_does(bench: Bench) -> None:
    """However long ago the job ended: a dead letter does not vanish at once."""
    store = bench.store
    [name] = await pending(bench, A, 1)
    delivery = await store.outbox.delivery(name)
    assert delivery is not None
    await bench.raw.zadd("onysoft:ended", {delivery.job_id: 1})
    await settled(store, await claimed(store), Outcome("dead", "ill"))
    assert (await bench.raw.zscore("onysoft:ended", delivery.job_id) or 0) > store.now_ms() - 60_000
