"""What a look-up may meet while a paid task goes on: refusals, a missing record, a false failure, an outage."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from harness import Bench, Sandbox, directed, eventually

from jobs.failures import MISSING_PATIENCE
from jobs.job import Job, to_form
from worker import gateway
from worker.record import view

TRACK = "onysoft:wheel:track"
SLOW_LOOK = {"word": "generating", "delay_s": 0.3}
LIMIT_S = 0.4
OUTAGE_S = 1.0

REFUSED: dict[str, tuple[Any, dict[str, Any]]] = {
    "401": (
        {"status": 401, "code": "invalid_api_key", "message": "no"},
        {"code": "unauthorized", "rule": "poll_invalid_api_key", "http_status": 401, "gateway_code": "invalid_api_key"},
    ),
    "402": (
        {"status": 402, "code": "insufficient_balance", "message": "no"},
        {"code": "insufficient_balance", "rule": "poll_insufficient_balance", "http_status": 402},
    ),
    "403": (
        {"status": 403, "code": "model_blocked", "message": "no"},
        {"code": "model_blocked", "rule": "poll_model_blocked", "http_status": 403},
    ),
    "429": (
        {"status": 429, "code": "rate_limit_exceeded", "message": "no", "retry_after_s": 0.1},
        {"code": "rate_limited", "rule": "poll_minute_limit", "http_status": 429},
    ),
    "500": ({"status": 500, "message": "no"}, {"code": "server_error", "rule": "poll_5xx", "http_status": 500}),
    "502_page": ({"status": 502, "html": True}, {"code": "gateway_unavailable", "http_status": 502}),
    "200_page": ({"status": 200, "html": True}, {"code": "gateway_unavailable", "http_status": 200}),
    "200_truncated": ("truncated", {"code": "gateway_unavailable", "http_status": 200}),
    "closed": ("close", {"code": "gateway_unavailable", "rule": "poll_unreachable", "http_status": None}),
    "reset": ("reset", {"code": "gateway_unavailable", "rule": "poll_unreachable", "http_status": None}),
}


async def last_refusal(bench: Bench, job_id: str) -> dict[str, Any]:
    """Wait until a job under way shows what its last look-up was refused with."""

    async def check() -> dict[str, Any] | None:
        attempts = view(to_form(await bench.job(job_id)))["attempts"]
        return attempts[0].get("last_refusal") if attempts else None

    told: dict[str, Any] = await eventually(check)
    assert told["at"]
    return told


@pytest.mark.parametrize(("look", "shown"), REFUSED.values(), ids=REFUSED)
async def test_a_refused_look_up_is_shown_and_the_task_completes(
    look: Any, shown: dict[str, Any], bench: Bench, sandbox: Sandbox
) -> None:
    """What a look-up is refused with ends nothing: it is told as ``last_refusal``, and the one task completes."""
    async with bench.worker():
        # Twice where the connection drops: a look-up is sent once more by itself when a kept one turns out broken.
        looks = [look] * (2 if isinstance(look, str) else 1)
        job_id = await bench.submit(input=directed(tag="t", lookups=[*looks, SLOW_LOOK]), fallbacks=["sora-2"])
        told = await last_refusal(bench, job_id)
        done = await bench.ended(job_id)
    assert told | shown == told
    [attempt] = done["attempts"]
    assert (done["status"], done["model"], attempt["outcome"]) == ("completed", "veo3", "succeeded")
    assert attempt["failure"] is None
    assert len(sandbox.submissions("t")) == 1


MISSING: dict[str, Any] = {
    "404": "missing_404",
    "410": {"status": 410, "message": "gone"},
    "record_null": "record_null",
}


@pytest.mark.parametrize("look", MISSING.values(), ids=MISSING)
async def test_a_record_that_is_missing_for_a_while_ends_nothing(look: Any, bench: Bench, sandbox: Sandbox) -> None:
    """More often than the patience counts, but not for as long: the task is found in the end and completes."""
    times = MISSING_PATIENCE.count + 2
    async with bench.worker():
        done = await bench.ended(await bench.submit(input=directed(tag="t", lookups=[look] * times)))
    [attempt] = done["attempts"]
    assert (done["status"], done["model"]) == ("completed", "veo3")
    assert attempt["polls"] > times
    assert len(sandbox.submissions("t")) == 1


async def doubted(bench: Bench, job_id: str, times: int) -> dict[str, Any]:
    """Wait until a task was missing so often in a row; give what the last look left."""

    async def check() -> dict[str, Any] | None:
        found = json.loads(await bench.raw.hget(bench.store.keys.job(job_id), "look:1") or b"{}")
        return found if found.get("doubts", 0) >= times else None

    look: dict[str, Any] = await eventually(check)
    return look


async def missing_since(bench: Bench, job_id: str, ago_s: float, until: Callable[[Job], bool]) -> Job:
    """Have a task been missing since so long ago, at every look, until something is true of its job."""
    key = bench.store.keys.job(job_id)

    async def check() -> Job | None:
        job = await bench.job(job_id)
        if until(job):
            return job
        look = json.loads(await bench.raw.hget(key, "look:1") or b"{}")
        recent_ms = bench.store.now_ms() - round(ago_s * 500)
        if look.get("doubts") and look["doubted_at_ms"] > recent_ms:  # a look under way writes the time it had read
            look["doubted_at_ms"] -= round(ago_s * 1000)
            await bench.raw.hset(key, "look:1", json.dumps(look))
        return None

    job: Job = await eventually(check)
    return job


async def test_a_vanished_task_is_lost_only_after_a_time(bench: Bench, sandbox: Sandbox) -> None:
    """However often it is missing, it is looked for until the time is over, too; then it is lost for good."""
    async with bench.worker():
        job_id = await bench.submit(input=directed(tag="t", duration_s=0, result=["vanish"]), fallbacks=["sora-2"])
        await doubted(bench, job_id, MISSING_PATIENCE.count + 3)
        assert (await bench.job(job_id)).status == "processing"
        await missing_since(bench, job_id, MISSING_PATIENCE.duration_s, lambda job: job.ended)
        done = await bench.ended(job_id)
        assert await bench.raw.zscore(TRACK, f"1:{job_id}") is not None
    [attempt] = done["attempts"]
    assert (done["status"], attempt["outcome"]) == ("failed", "failed")
    lost = {"code": "task_lost", "category": "terminal", "action": "fail", "http_status": 404}
    assert done["failure"] | lost == done["failure"] == attempt["failure"]
    assert len(sandbox.submissions("t")) == 1


async def test_a_vanished_task_is_lost_only_after_a_count(bench: Bench, sandbox: Sandbox) -> None:
    """However long it has been missing, it has to be so a number of times."""
    async with bench.worker():
        job_id = await bench.submit(input=directed(duration_s=0, result=["vanish"]), fallbacks=[])
        await missing_since(bench, job_id, MISSING_PATIENCE.duration_s, lambda job: job.ended)
        done = await bench.ended(job_id)
    assert done["failure"]["code"] == "task_lost"
    assert sandbox.stats()["lookups"] >= MISSING_PATIENCE.count


async def test_a_false_time_out_turns_into_a_success(bench: Bench, sandbox: Sandbox) -> None:
    """A task that is said to have timed out (524), again and again, and succeeds after all is paid for once."""
    async with bench.worker():
        job_id = await bench.submit(input=directed(tag="t", duration_s=0, result=[{"false_524": 0.4}]))
        told = await last_refusal(bench, job_id)
        done = await bench.ended(job_id)
    assert (told["code"], told["gateway_code"]) == ("generation_timeout", "524")
    [attempt] = done["attempts"]
    assert (done["status"], done["model"], attempt["outcome"]) == ("completed", "veo3", "succeeded")
    assert len(sandbox.submissions("t")) == 1
    assert sandbox.stats()["billed_tasks"] == 1


@pytest.mark.env(TRACK_TIMEOUT_S=str(LIMIT_S))
@pytest.mark.parametrize("outage", ["503", "refuse", "hang"])
async def test_an_outage_longer_than_the_tracking_time_times_nothing_out(
    outage: str, bench: Bench, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a look that succeeds can find a task too old: what ended during the outage completes after it."""
    monkeypatch.setattr(gateway, "LOOK_TIMEOUT_S", 0.2)
    async with bench.worker():
        job_id = await bench.submit(input=directed(tag="t", duration_s=0.3), fallbacks=["sora-2"])
        await bench.standing(job_id, "processing")
        sandbox.control(outage=outage, outage_s=OUTAGE_S)
        started_ms = (await bench.job(job_id)).attempts[0].started_at_ms

        async def overdue() -> bool:
            assert (await bench.job(job_id)).status == "processing"
            return bench.store.now_ms() > started_ms + 1000 * OUTAGE_S

        told = await last_refusal(bench, job_id)
        if outage != "refuse":  # that one ends by itself; nothing listens until then
            await eventually(overdue)
            sandbox.control(outage=None)
        done = await bench.ended(job_id)
        job = await bench.job(job_id)
    assert told["code"] == "gateway_unavailable"
    [attempt] = done["attempts"]
    assert (done["status"], attempt["outcome"]) == ("completed", "succeeded")
    assert (job.completed_at_ms or 0) > started_ms + 1000 * LIMIT_S
    assert len(sandbox.submissions("t")) == 1
