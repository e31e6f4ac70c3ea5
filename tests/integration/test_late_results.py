"""What is paid for is never dropped: tasks given up are looked at until they end, their results used or told."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from harness import Bench, Receiver, Sandbox, directed, eventually

from config.models import load_models
from jobs.job import Job, to_form
from jobs.polling import FLIP_LIFETIME_MS, LATE_LIFETIME_MS
from worker.actions import cancel, retry
from worker.main import open_store
from worker.money_report import money_view
from worker.record import view, write_part

TRACK = "onysoft:wheel:track"
EVENTS = ["job.completed", "job.failed", "job.canceled", "job.late_result"]
NEVER = {"result": ["never"]}
DAY_MS = 24 * 3600 * 1000


async def look_now(bench: Bench, job_id: str, number: int = 1) -> None:
    """Have a task that was given up looked at now instead of minutes later."""
    await bench.raw.zadd(TRACK, {f"{number}:{job_id}": bench.store.now_ms()}, xx=True)


async def turn_back(bench: Bench, job_id: str, what: str, by_ms: int) -> None:
    """Have the first attempt have started, or ended, so long before. For when nothing else writes the record."""
    form = to_form(await bench.job(job_id))["state"]
    form["attempts"][0][what] -= by_ms
    await bench.raw.hset(bench.store.keys.job(job_id), "state", write_part(form))


async def age(bench: Bench, job_id: str, by_ms: int) -> None:
    """Have the first attempt's task been given up so long ago."""
    await turn_back(bench, job_id, "ended_at_ms", by_ms)


async def overdue(bench: Bench, job_id: str) -> None:
    """Have the first attempt's task be tracked for longer than allowed at the next look."""
    await bench.standing(job_id, "processing")
    await turn_back(bench, job_id, "started_at_ms", DAY_MS)


async def shown(bench: Bench, job_id: str) -> dict[str, Any]:
    """Show a job as it stands."""
    return view(to_form(await bench.job(job_id)))


async def ended_by_looks(bench: Bench, job_id: str) -> dict[str, Any]:
    """Have the first attempt's task looked at until the job has ended; show it."""

    async def check() -> bool:
        await look_now(bench, job_id)
        return (await bench.job(job_id)).ended

    await eventually(check)
    return await shown(bench, job_id)


async def late_result(bench: Bench, job_id: str, number: int = 1) -> Mapping[str, Any]:
    """Have an attempt's task looked at until its late end is in the record; give that."""

    async def check() -> Mapping[str, Any] | None:
        await look_now(bench, job_id, number)
        attempt = (await bench.job(job_id)).attempt(number)
        return attempt.late if attempt else None

    found: Mapping[str, Any] = await eventually(check)
    return found


async def money(bench: Bench) -> dict[str, Any]:
    """Read what was paid for nothing."""
    return money_view(await bench.store.counters())


async def told(receiver: Receiver, job_id: str, kind: str) -> dict[str, Any]:
    """Wait for an event about a job."""

    async def check() -> dict[str, Any] | None:
        return next((event for event in receiver.of(job_id) if event["type"] == kind), None)

    found: dict[str, Any] = await eventually(check)
    return found


async def reached(bench: Bench, job_id: str, attempts: int) -> Job:
    """Wait until a job has so many attempts, the last of them accepted."""

    async def check() -> Job | None:
        job = await bench.job(job_id)
        return job if len(job.attempts) == attempts and job.attempts[-1].task_id else None

    found: Job = await eventually(check)
    return found


# --- recorded and announced


async def test_a_late_success_after_the_tracking_time_is_recorded_and_announced(
    bench: Bench, receiver: Receiver
) -> None:
    """The job failed by time; its task ends well, is told with its URLs and what it cost, and counted once."""
    async with bench.worker():
        job_id = await bench.submit(
            model="veo3", input=directed(duration_s=2.0), max_attempts=1, fallbacks=[], webhook_events=EVENTS
        )
        await overdue(bench, job_id)
        failed = await bench.ended(job_id)
        assert failed["attempts"][0]["outcome"] == "timed_out"
        await late_result(bench, job_id)
        event = await told(receiver, job_id, "job.late_result")
        seen = await shown(bench, job_id)
        assert await bench.raw.zscore(TRACK, f"1:{job_id}") is None
    [attempt] = event["data"]["attempts"]
    assert attempt["late_result"]["status"] == "succeeded"
    assert attempt["late_result"]["urls"]
    assert attempt["cost"]["currency"] == "USD"
    assert (seen["status"], seen["failure"]["code"]) == ("failed", "generation_timeout")
    unused = (await money(bench))["paid_unused"]
    assert (unused["total"], unused["reasons"]["late_success"]) == (1, 1)
    assert unused["models"] == {"veo3": 1}
    assert unused["cost"] == {"USD": attempt["cost"]["amount"]}
    assert [event["type"] for event in receiver.of(job_id)] == ["job.failed", "job.late_result"]


async def test_a_late_result_is_announced_only_to_who_asked(bench: Bench, receiver: Receiver) -> None:
    """It is in the record all the same."""
    async with bench.worker():
        job_id = await bench.submit(input=directed(duration_s=0.6))
        await bench.standing(job_id, "processing")
        await cancel(bench.store, job_id)
        late = await late_result(bench, job_id)
        await told(receiver, job_id, "job.canceled")
    assert late["urls"]
    assert await bench.outbox_states(job_id) in (["pending"], ["delivered"])


async def test_a_text_that_comes_late_is_kept(bench: Bench) -> None:
    """Speech-to-text has no URL: its late result is the text."""
    async with bench.worker():
        job_id = await bench.submit(kind="audio", model="speech-to-text", input=directed(duration_s=0.6))
        await bench.standing(job_id, "processing")
        await cancel(bench.store, job_id)
        await late_result(bench, job_id)
        late = (await shown(bench, job_id))["attempts"][0]["late_result"]
    assert late["status"] == "succeeded"
    assert late["text"]


# --- used


@pytest.mark.env(RETRY_BASE_S="60", RETRY_CAP_S="60")
async def test_a_late_success_completes_a_job_that_waits_for_its_next_try(bench: Bench, sandbox: Sandbox) -> None:
    """It is what the job is for: nothing more is submitted, and nothing was paid for nothing."""
    async with bench.worker():
        job_id = await bench.submit(input=directed(tag="t", duration_s=2.0), fallbacks=[], max_attempts=3)
        await overdue(bench, job_id)
        await bench.standing(job_id, "waiting")
        seen = await ended_by_looks(bench, job_id)
    assert seen["status"] == "completed"
    assert seen["result"]["urls"]
    assert seen["attempts"][0]["outcome"] == "succeeded"
    assert len(sandbox.submissions("t")) == 1
    assert (await money(bench))["paid_unused"]["total"] == 0


async def test_a_late_success_saves_a_job_whose_next_model_fails(bench: Bench) -> None:
    """Failed over while the first task ran on: its result is used when the second comes to nothing."""
    error = {"code": "501", "message": "Generation failed"}
    fails = {"body": {"success": True, "data": {"status": "failed", "error": error}}}
    directive = directed(lookups={"sora-2": [{**fails, "delay_s": 4}, fails]}, duration_s=2.0)
    async with bench.worker():
        job_id = await bench.submit(model="veo3", fallbacks=["sora-2"], max_attempts=2, input=directive)
        await overdue(bench, job_id)
        await reached(bench, job_id, 2)
        await late_result(bench, job_id)
        seen = await bench.ended(job_id)
    assert seen["status"] == "completed"
    assert [attempt["outcome"] for attempt in seen["attempts"]] == ["succeeded", "failed"]
    assert seen["attempts"][1]["failure"]["code"] == "generation_failed"
    assert (await money(bench))["paid_unused"]["total"] == 0


async def test_a_late_success_of_an_earlier_round_completes_a_job_that_is_tried_again(
    bench: Bench, sandbox: Sandbox
) -> None:
    """Its task flips while the job, opened again, is held up: what is paid for is taken instead of paid once more."""
    async with bench.worker():
        directive = directed(tag="t", result=[{"false_524": 3.0}])
        job_id = await bench.submit(input=directive, max_attempts=1, fallbacks=[])
        await doubted_for_long(bench, job_id)
        await bench.ended(job_id)
        await bench.store.fleet.pause("video", bench.store.now_ms())
        again = await retry(bench.store, job_id)
        assert (again.status, again.round) == ("queued", 2)
        seen = await ended_by_looks(bench, job_id)
    assert seen["status"] == "completed"
    assert seen["result"]["urls"]
    assert seen["attempts"][0]["outcome"] == "succeeded"
    assert len(sandbox.submissions("t")) == 1
    assert (await money(bench))["paid_unused"]["total"] == 0


# --- failures that turn into a success


@pytest.mark.env(TRACK_TIMEOUT_S="600")
async def test_a_failure_that_was_believed_and_turns_into_a_success_is_recorded(
    bench: Bench, receiver: Receiver
) -> None:
    """The task is said to have timed out, twice and for long enough; after the job's end it is a success after all."""
    async with bench.worker():
        job_id = await bench.submit(
            input=directed(result=[{"false_524": 1.5}]), max_attempts=1, fallbacks=[], webhook_events=EVENTS
        )
        await doubted_for_long(bench, job_id)
        failed = await bench.ended(job_id)
        assert failed["failure"]["code"] == "generation_timeout"
        assert failed["attempts"][0]["outcome"] == "failed"
        assert await bench.raw.zscore(TRACK, f"1:{job_id}") is not None
        late = await late_result(bench, job_id)
        await told(receiver, job_id, "job.late_result")
    assert late["status"] == "succeeded"
    assert late["urls"]
    assert (await money(bench))["paid_unused"]["reasons"]["late_success"] == 1


async def doubted_for_long(bench: Bench, job_id: str) -> None:
    """Wait until a failure is doubted, and have it been so for longer than the patience with it."""
    key = bench.store.keys.job(job_id)

    async def check() -> bool:
        look = json.loads(await bench.raw.hget(key, "look:1") or b"{}")
        if not look.get("doubts"):
            return False
        look["doubted_at_ms"] -= 200_000
        await bench.raw.hset(key, "look:1", json.dumps(look))
        return True

    await eventually(check)


async def test_a_failure_that_stays_one_is_looked_at_for_an_hour(bench: Bench) -> None:
    """The same failure again ends nothing before that; then it is a failure for good, and not one of money."""
    async with bench.worker():
        job_id = await bench.submit(input=directed(result=[{"false_524": 3600}]), max_attempts=1, fallbacks=[])
        await doubted_for_long(bench, job_id)
        await bench.ended(job_id)

        async def looked(times: int) -> bool:
            await look_now(bench, job_id)
            look = (await bench.job(job_id)).looks.get(1)
            return look is not None and look.polls >= times

        await eventually(lambda: looked(6))
        assert (await bench.job(job_id)).attempts[0].late is None
        await age(bench, job_id, FLIP_LIFETIME_MS)
        late = await late_result(bench, job_id)
        assert await bench.raw.zscore(TRACK, f"1:{job_id}") is None
    assert late["status"] == "failed"
    assert (await money(bench))["paid_unused"]["total"] == 0


async def test_a_failure_of_its_own_words_is_not_looked_at_again(bench: Bench) -> None:
    """A plainly failed generation has ended."""
    fails = {"fail": {"code": "501", "message": "Generation failed"}}
    async with bench.worker():
        job_id = await bench.submit(input=directed(result=[fails]), max_attempts=1, fallbacks=[])
        await bench.ended(job_id)
        assert await bench.raw.zscore(TRACK, f"1:{job_id}") is None


# --- never ended, maybe paid


async def test_a_task_that_never_ends_is_given_up_after_a_day(bench: Bench) -> None:
    """Its end is unknown and stays so, and it is counted as paid for nothing."""
    async with bench.worker():
        job_id = await bench.submit(input=directed(**NEVER), webhook_events=EVENTS)
        await bench.standing(job_id, "processing")
        await cancel(bench.store, job_id)
        await age(bench, job_id, LATE_LIFETIME_MS)
        late = await late_result(bench, job_id)
        assert await bench.raw.zscore(TRACK, f"1:{job_id}") is None
    assert late["status"] == "unknown"
    assert (await money(bench))["paid_unused"]["reasons"] == {"late_success": 0, "never_ended": 1, "maybe_paid": 0}


async def test_no_refused_look_ends_the_watch(bench: Bench, sandbox: Sandbox) -> None:
    """After a day in which nobody looked: what is refused then says nothing of the task, the next look does."""
    async with bench.worker():
        job_id = await bench.submit(input=directed(**NEVER), webhook_events=EVENTS)
        await bench.standing(job_id, "processing")
        await cancel(bench.store, job_id)
        sandbox.control(outage="503")
        before = sandbox.stats()["lookups"]
        await age(bench, job_id, LATE_LIFETIME_MS)

        async def is_looked_at() -> bool:
            await look_now(bench, job_id, 1)
            return bool(sandbox.stats()["lookups"] > before)

        await eventually(is_looked_at)
        attempt = (await bench.job(job_id)).attempts[0]
        assert attempt.watched
        sandbox.control(outage=None)
        assert (await late_result(bench, job_id))["status"] == "unknown"


async def test_a_late_failure_ends_the_watch(bench: Bench) -> None:
    """What is known to have failed is not looked at any more."""
    fails = {"fail": {"code": "501", "message": "Generation failed"}}
    async with bench.worker():
        job_id = await bench.submit(input=directed(duration_s=0.6, result=[fails]))
        await bench.standing(job_id, "processing")
        await cancel(bench.store, job_id)
        late = await late_result(bench, job_id)
    assert late["status"] == "failed"
    assert (await money(bench))["paid_unused"]["total"] == 0


@pytest.mark.parametrize("policy", ["retry", "fail"])
async def test_a_lost_answer_is_told_with_what_was_done(policy: str, bench: Bench) -> None:
    """Resent or failed; either way the first submission may have been paid."""
    async with bench.worker():
        job_id = await bench.submit(
            input=directed(submit=["accept_then_close"]), on_unknown_submit=policy, fallbacks=[]
        )
        await bench.ended(job_id)
    told = await money(bench)
    assert told["paid_unused"]["reasons"]["maybe_paid"] == 1
    assert told["unknown_submits"]["total"] == 1
    assert told["unknown_submits"]["resent" if policy == "retry" else "failed"] == 1


async def test_a_submission_canceled_under_way_and_accepted_is_watched(bench: Bench, sandbox: Sandbox) -> None:
    """The answer comes after the cancel: its task is kept, and its result is a late one."""
    async with bench.worker():
        slow = {"do": "accept", "delay_s": 0.5}
        job_id = await bench.submit(input=directed(tag="t", submit=[slow]), fallbacks=[])
        await bench.standing(job_id, "submitting")
        await eventually(lambda: _submitted(sandbox))
        await cancel(bench.store, job_id)
        assert (await money(bench))["unknown_submits"]["canceled"] == 1
        late = await late_result(bench, job_id)
    assert late["status"] == "succeeded"
    told = await money(bench)
    assert told["unknown_submits"]["accepted"] == 1
    assert told["paid_unused"]["reasons"] == {"late_success": 1, "never_ended": 0, "maybe_paid": 0}


DUE_WHILE_SUBMITTING = """
if redis.call('HGET', KEYS[1], 'status') == 'submitting' then redis.call('ZADD', KEYS[2], 'XX', ARGV[1], ARGV[2]) end
"""


@pytest.mark.env(CONCURRENCY="2", RETRY_BASE_S="60", RETRY_CAP_S="60", SUBMIT_TIMEOUT_S="20")
async def test_an_acceptance_on_a_claim_that_went_stale_is_what_its_job_waits_for(
    bench: Bench, sandbox: Sandbox
) -> None:
    """Another worker takes the job over as of unknown acceptance; then the answer comes, and nothing is sent again."""
    async with bench.worker(), open_store(bench.redis_url, bench.settings, load_models()) as others:
        slow = {"do": "accept", "delay_s": 4}
        job_id = await bench.submit(input=directed(tag="t", submit=[slow]), fallbacks=[])
        await eventually(lambda: _submitted(sandbox))
        keys = (f"onysoft:job:{job_id}", "onysoft:wheel:submit:video")
        async with replace(bench, store=others).worker():

            async def taken_over() -> bool:
                await bench.raw.hdel("onysoft:gate", "takeover_from_ms")
                await bench.raw.eval(DUE_WHILE_SUBMITTING, 2, *keys, bench.store.now_ms(), job_id)
                return (await bench.job(job_id)).attempts[0].outcome == "unknown"

            await eventually(taken_over)
            await bench.store.fleet.pause("video", bench.store.now_ms())
            assert (await money(bench))["unknown_submits"]["resent"] == 1
            assert (await bench.job(job_id)).attempts[0].may_be_answered
            seen = await bench.ended(job_id)
    assert seen["status"] == "completed"
    assert len(sandbox.submissions("t")) == 1
    told = await money(bench)
    assert told["unknown_submits"]["accepted"] == 1
    assert told["paid_unused"]["total"] == 0


async def test_a_submission_canceled_under_way_and_refused_cost_nothing(bench: Bench, sandbox: Sandbox) -> None:
    """The refusal comes after the cancel, and the record tells of it."""
    async with bench.worker():
        slow = {"status": 422, "message": "no", "delay_s": 0.5}
        job_id = await bench.submit(input=directed(tag="t", submit=[slow]), fallbacks=[])
        await bench.standing(job_id, "submitting")
        await eventually(lambda: _submitted(sandbox))
        await cancel(bench.store, job_id)

        async def refused() -> bool:
            return (await bench.job(job_id)).attempts[0].outcome == "refused"

        await eventually(refused)
        assert await bench.raw.zscore(TRACK, f"1:{job_id}") is None
    told = await money(bench)
    assert (told["unknown_submits"]["canceled"], told["unknown_submits"]["refused"]) == (1, 1)
    assert told["paid_unused"]["total"] == 0


@pytest.mark.env(SUBMIT_TIMEOUT_S="1")
async def test_a_submission_canceled_under_way_and_never_answered_may_have_been_paid(
    bench: Bench, sandbox: Sandbox
) -> None:
    """When its answer cannot come any more, that is told."""
    async with bench.worker():
        job_id = await bench.submit(input=directed(tag="t", submit=["accept_then_hang"]), fallbacks=[])
        await bench.standing(job_id, "submitting")
        await eventually(lambda: _submitted(sandbox))
        await cancel(bench.store, job_id)
        assert (await money(bench))["paid_unused"]["total"] == 0
        until_ms = (await bench.job(job_id)).attempts[0].answered_by_ms
        assert await bench.raw.zscore(TRACK, f"1:{job_id}") == until_ms

        async def told_of() -> bool:
            return bool((await money(bench))["paid_unused"]["reasons"]["maybe_paid"])

        await eventually(told_of)
        assert await bench.raw.zscore(TRACK, f"1:{job_id}") is None


async def _submitted(sandbox: Sandbox) -> bool:
    return bool(sandbox.submissions("t"))


# --- told while it runs


async def test_the_last_refused_look_up_is_shown(bench: Bench) -> None:
    """Where look-ups are refused the job says what with, as long as its task is looked at."""
    refusal = {"status": 402, "code": "insufficient_balance", "message": "Yetersiz bakiye"}
    async with bench.worker():
        job_id = await bench.submit(input=directed(lookups=[refusal], **NEVER), fallbacks=[])

        async def refused() -> dict[str, Any] | None:
            attempts = (await shown(bench, job_id))["attempts"]
            return attempts[0].get("last_refusal") if attempts else None

        told = await eventually(refused)
        assert (await bench.job(job_id)).status == "processing"
        await cancel(bench.store, job_id)
    assert told["at"]
    assert {name: value for name, value in told.items() if name != "at"} == {
        "code": "insufficient_balance",
        "rule": "poll_insufficient_balance",
        "http_status": 402,
        "gateway_code": "insufficient_balance",
        "message": "Yetersiz bakiye",
    }
