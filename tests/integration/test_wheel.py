"""How due work is found and held: nothing lies idle for a lease, everybody has a turn, what is unused is given back."""

import asyncio
from collections import Counter

import pytest
from harness import PATIENCE_S, Bench

from jobs.pacing import SUBMISSIONS
from worker.claims import LEASE_MS, Claim, Claims
from worker.keys import submit_wheel
from worker.poison import JobBounds
from worker.store import Wheels
from worker.wheel import Wheel

KINDS = ("video", "image", "music")


async def test_work_given_back_by_a_duty_that_is_not_through_is_done_again_at_once(bench: Bench) -> None:
    """Its duty has ended the claim, and only not come to its own end: the next claim is not mixed up with it."""
    store, again, calls = bench.store, asyncio.Event(), list[str]()
    job_id = await bench.submit()

    async def duty(claim: Claim, _claims: Claims) -> None:
        calls.append(claim.token)
        if len(calls) == 1:
            await store.release(claim, store.now_ms())
            wheel.call()
            await again.wait()
        else:
            again.set()
            await store.release(claim, None)

    due = Wheels(store, (submit_wheel("video"),), SUBMISSIONS)
    wheel = Wheel(due, duty, slots=2, now_ms=store.now_ms, bounds=JobBounds(store))
    running = asyncio.create_task(wheel.run())
    async with asyncio.timeout(min(PATIENCE_S, LEASE_MS / 1000 - 2)):  # a lease later it would come by itself
        await again.wait()
    wheel.stop(grace_s=1)
    await running
    assert len(set(calls)) == 2
    assert await bench.raw.zscore("onysoft:wheel:submit:video", job_id) is None


async def test_where_there_is_room_for_one_every_kind_has_its_turn(bench: Bench) -> None:
    """A backlog of one kind does not keep the others from the last slot."""
    for kind in KINDS:
        for _ in range(12):
            await bench.submit(kind=kind)
    turns = Counter[str]()
    while turns.total() < 30:
        claims = await bench.store.claim([submit_wheel(kind) for kind in KINDS], limit=1, lane=SUBMISSIONS)
        turns.update(claim.wheel for claim in claims.items)
    assert set(turns) == {submit_wheel(kind) for kind in KINDS}


async def test_a_probe_that_sent_nothing_is_another_jobs(bench: Bench) -> None:
    """While the fleet is held one asks at a time; whoever has nothing to send leaves the turn to the next at once."""
    store = bench.store
    await bench.submit()
    await bench.submit()
    await bench.raw.hset("onysoft:gate", mapping={"hold": "unauthorized", "probe_at_ms": 0, "probe_gap_ms": 60_000})

    async def claim() -> int:
        return len((await store.claim([submit_wheel("video")], limit=5, lane=SUBMISSIONS)).items)

    assert await claim() == 1
    assert await claim() == 0
    await store.fleet.unsent(store.now_ms(), 0, is_probe=True)
    assert await claim() == 1


@pytest.mark.parametrize("per_minute", [1, 7, 11])
async def test_a_place_in_the_budget_that_was_not_used_is_given_back(bench: Bench, per_minute: int) -> None:
    """Of a few requests a minute none is lost to a job that had nothing to send."""
    store = bench.store
    for _ in range(4):
        await bench.submit()

    async def claim() -> int:
        claims = await store.claim([submit_wheel("video")], limit=5, lane=SUBMISSIONS, requests_per_minute=per_minute)
        return len(claims.items)

    assert await claim() == 1
    assert await claim() == 0
    await store.fleet.unsent(store.now_ms(), per_minute, is_probe=False)
    assert await claim() == 1


@pytest.mark.parametrize("per_minute", [1, 6, 7, 11, 13, 59, 60, 61, 1000])
async def test_any_budget_lets_something_through(bench: Bench, per_minute: int) -> None:
    """Also one whose share of a minute is no whole number of milliseconds."""
    await bench.submit()
    claims = await bench.store.claim([submit_wheel("video")], limit=5, lane=SUBMISSIONS, requests_per_minute=per_minute)
    assert len(claims.items) == 1
