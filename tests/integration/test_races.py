"""What callers do while a worker is at the same job, and what lies in Redis that no worker put there."""

import asyncio
import random
from typing import Any

import pytest
from harness import API_KEY, Bench, Sandbox, directed, eventually

from jobs.counters import Counter, count
from jobs.job import Outcome
from jobs.pacing import SUBMISSIONS
from worker import actions
from worker.acceptances import Acceptances
from worker.gateway import Accepted, Gateway
from worker.keys import submit_wheel
from worker.link import RedisAway
from worker.spool import Spool
from worker.submit import Submit
from worker.upkeep import Prune

SLOW = {"do": "accept", "delay_s": 0.5}


async def counted(bench: Bench, *names: str) -> dict[tuple[str, ...], int]:
    """Read the counters of these names."""
    return {row: value for row, value in (await bench.store.counters()).items() if row[0] in names}


async def test_canceled_and_opened_again_during_the_post_is_paid_once(bench: Bench, sandbox: Sandbox) -> None:
    """The job waits for what the overtaken submission is answered with, and adopts its task."""
    async with bench.worker():
        job_id = await bench.submit(input=directed(tag="t", submit=[SLOW], duration_s=0.3))
        await bench.standing(job_id, "submitting")
        assert (await actions.cancel(bench.store, job_id)).status == "canceled"
        opened = await actions.retry(bench.store, job_id)
        assert opened.status == "queued"
        assert opened.next_action_at_ms is not None
        view = await bench.ended(job_id)
    assert view["status"] == "completed"
    assert [attempt["outcome"] for attempt in view["attempts"]] == ["succeeded"]
    assert len(sandbox.submissions("t")) == 1
    assert (await counted(bench, "attempts_total")) == {("attempts_total", "veo3", "unknown"): 1}


async def test_a_cancel_in_the_midst_of_a_refusal_is_counted(bench: Bench, sandbox: Sandbox) -> None:
    """A submission that is refused after its job was canceled is in the books of the requests."""
    refused = {"status": 400, "code": "x", "message": "bad", "delay_s": 0.4}
    async with bench.worker():
        job_id = await bench.submit(input=directed(tag="t", submit=[refused]))
        await bench.standing(job_id, "submitting")
        await actions.cancel(bench.store, job_id)

        async def seen() -> bool:
            rows = await counted(bench, "gateway_requests_total")
            return rows == {("gateway_requests_total", "submit", "400"): 1}

        await eventually(seen)
    assert (await bench.job(job_id)).status == "canceled"
    assert len(sandbox.submissions("t")) == 1


async def test_an_acceptance_whose_writing_was_not_answered_is_one_attempt(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was written, and the job moved on before the repeat: no second attempt for the task, nothing counted twice."""
    store = bench.store
    job_id = await bench.submit()
    claims = await store.claim([submit_wheel("video")], limit=1, lane=SUBMISSIONS)

    class LosingGateway:
        async def submit(self, *_args: Any, tally: list[Counter], **_more: Any) -> Accepted:
            tally.append(count("gateway_requests_total", "submit", "202"))
            return Accepted("task_1", None)

    written, lost = store.apply, asyncio.Event()

    async def apply(change: Any, **more: Any) -> Any:
        result = await written(change, **more)
        if change.note["event"] == "task.accepted" and not lost.is_set():
            lost.set()
            await actions.cancel(store, job_id)
            raise RedisAway("the answer was lost")
        return result

    monkeypatch.setattr(store, "apply", apply)
    rng = random.Random(1)
    acceptances = Acceptances(store, Spool(bench.settings.data_dir, prefix=store.keys.prefix), bench.settings, rng)
    duty = Submit(store, LosingGateway(), acceptances, bench.settings, rng)  # type: ignore[arg-type]
    await duty(claims.items[0], claims)
    job = await bench.job(job_id)
    assert [(a.number, a.task_id, a.outcome) for a in job.attempts] == [(1, "task_1", Outcome.ABANDONED)]
    assert await bench.raw.zrange("onysoft:wheel:track", 0, -1) == [f"1:{job_id}".encode()]
    assert await counted(bench, "gateway_requests_total", "attempts_total") == {
        ("gateway_requests_total", "submit", "202"): 1,
        ("attempts_total", "veo3", "abandoned"): 1,
    }


async def test_nothing_is_posted_on_a_lease_that_ran_out(bench: Bench, sandbox: Sandbox) -> None:
    """A worker that stood still between its intent and the first byte takes the intent back: no attempt was made."""
    store, settings, rng = bench.store, bench.settings, random.Random(1)
    gateway = Gateway(base_url=sandbox.url, api_key=API_KEY, submit_timeout_s=5, connections=1)
    acceptances = Acceptances(store, Spool(settings.data_dir, prefix=store.keys.prefix), settings, rng)
    job_id = await bench.submit(input=directed(tag="t"))
    claims = await store.claim([submit_wheel("video")], limit=1, lane=SUBMISSIONS)
    claims.items[0].valid_until_s = 0.0
    await Submit(store, gateway, acceptances, settings, rng)(claims.items[0], claims)
    await gateway.aclose()
    job = await bench.job(job_id)
    assert (job.status, job.attempts) == ("waiting", ())
    assert [line["event"] for line in await store.timeline(job_id)][-1] == "attempt.withdrawn"
    assert sandbox.submissions("t") == []


@pytest.mark.env(ACCOUNT_ERRORS="hold")
async def test_a_cooldown_does_not_end_a_hold(bench: Bench, sandbox: Sandbox) -> None:
    """Only the gateway's answer to a submission shows that the account is in order: this probe sends nothing."""
    now_ms = bench.store.now_ms()
    hold = {"hold": "unauthorized", "hold_since_ms": now_ms, "probe_at_ms": now_ms, "probe_gap_ms": 60_000}
    await bench.raw.hset("onysoft:gate", mapping=hold)
    await bench.raw.hset("onysoft:cooldowns", "veo3", now_ms + 3_600_000)
    job_id = await bench.submit(model="veo3", fallbacks=[])
    async with bench.worker():
        assert (await bench.standing(job_id, "waiting"))["failure"]["code"] == "model_quota_exceeded"
    assert await bench.raw.hget("onysoft:gate", "hold") == b"unauthorized"
    assert sandbox.submissions() == []


@pytest.mark.env(ACCOUNT_ERRORS="hold")
async def test_a_failed_generation_does_not_end_a_hold(bench: Bench, sandbox: Sandbox) -> None:
    """A task of before that fails under a hold says nothing about the account."""
    async with bench.worker():
        fails = [{"fail": {"code": "501", "message": "generation failed"}}]
        job_id = await bench.submit(input=directed(tag="t", duration_s=0.6, result=fails), max_attempts=1)
        await bench.standing(job_id, "processing")
        far_ms = bench.store.now_ms() + 60_000
        hold = {"hold": "unauthorized", "hold_since_ms": 1, "probe_at_ms": far_ms, "probe_gap_ms": 60_000}
        await bench.raw.hset("onysoft:gate", mapping=hold)
        assert (await bench.ended(job_id))["status"] == "failed"
    assert await bench.raw.hget("onysoft:gate", "hold") == b"unauthorized"
    assert len(sandbox.submissions("t")) == 1


@pytest.mark.parametrize("stopped", ["paused", "held"])
async def test_a_deadline_holds_while_nothing_is_submitted(bench: Bench, sandbox: Sandbox, stopped: str) -> None:
    """A job that waits behind a pause or a hold fails at its deadline, and those with time left go on waiting."""
    if stopped == "paused":
        await bench.store.fleet.pause("video", bench.store.now_ms())
    else:
        far_ms = bench.store.now_ms() + 60_000
        await bench.raw.hset(
            "onysoft:gate", mapping={"hold": "unauthorized", "hold_since_ms": 1, "probe_at_ms": far_ms}
        )
    late_id, other_id = await bench.submit(deadline_s=0.2), await bench.submit(deadline_s=600)
    async with bench.worker():
        view = await bench.ended(late_id)
        assert (view["status"], view["failure"]["code"]) == ("failed", "deadline_exceeded")
        assert (await bench.job(other_id)).status == "queued"
    assert sandbox.submissions() == []
    assert await bench.raw.zrange("onysoft:deadlines", 0, -1) == [other_id.encode()]


async def test_one_damaged_record_does_not_suspend_the_deadlines(bench: Bench) -> None:
    """What lies in the place of the longest overdue job is passed over, and so it is by pruning."""
    await bench.store.fleet.pause("video", bench.store.now_ms())
    await bench.raw.set("onysoft:job:bad", "rubbish")
    await bench.raw.zadd("onysoft:deadlines", {"bad": 1})
    await bench.raw.zadd("onysoft:ended", {"bad": 1})
    async with bench.worker():
        job_id = await bench.submit(deadline_s=0.2)
        assert (await bench.ended(job_id))["failure"]["code"] == "deadline_exceeded"

        async def delivered() -> bool:
            return await bench.outbox_states(job_id) == ["delivered"]

        await eventually(delivered)
        assert await Prune(bench.store, retention_s=0).run_once(bench.store.now_ms() + 60_000) == 1
    assert await bench.raw.get("onysoft:job:bad") == b"rubbish"


async def test_ended_jobs_have_no_deadline_left(bench: Bench) -> None:
    """The list of deadlines holds jobs that have not ended, also those that were opened again."""
    async with bench.worker():
        done = await bench.submit(input=directed())
        await bench.ended(done)
    canceled = await bench.submit(kind="music")
    await actions.cancel(bench.store, canceled)
    assert await bench.raw.zcard("onysoft:deadlines") == 0
    opened = await actions.retry(bench.store, canceled)
    assert await bench.raw.zscore("onysoft:deadlines", canceled) == opened.deadline_at_ms


async def test_rubbish_among_the_counters_breaks_no_step(bench: Bench) -> None:
    """A counter that is no number is left as it is: the step it belongs to is written whole."""
    rubbish = {"jobs_total|video|canceled": "rubbish", "attempts_total|veo3|succeeded": "1.5", b"\xff": "1"}
    await bench.raw.hset("onysoft:counters", mapping=rubbish)
    await bench.raw.hset("onysoft:health", mapping={"veo3|in_a_row": "rubbish"})
    job_id = await bench.submit(kind="video")
    await actions.cancel(bench.store, job_id)
    assert [line["event"] for line in await bench.store.timeline(job_id)] == ["job.created", "job.canceled"]
    assert (await bench.outbox_states(job_id)) == ["pending"]
    assert await bench.raw.hget("onysoft:counters", "jobs_total|video|canceled") == b"rubbish"
    assert ("jobs_total", "video", "canceled") not in await bench.store.counters()
    async with bench.worker():
        await bench.ended(await bench.submit(input=directed()))


@pytest.mark.parametrize(
    ("key", "field"),
    [
        ("cooldowns", "veo3"),
        ("pace:submit", "pause_until_ms"),
        ("pace:look", "limit"),
        ("gate", "takeover_from_ms"),
        ("gate", "booked_ms"),
        ("gate", "probe_at_ms"),
        ("workers", "x"),
    ],
)
async def test_rubbish_in_the_fleets_notes_stops_no_job(bench: Bench, key: str, field: str) -> None:
    """What is no number counts as nothing."""
    await bench.raw.hset(f"onysoft:{key}", field, "rubbish")
    async with bench.worker():
        assert (await bench.ended(await bench.submit(input=directed())))["status"] == "completed"
