"""Submissions that may have been paid: what is sent again, when, under which key, and what is told of it."""

from typing import Any

import pytest
from harness import Bench, Sandbox, directed, eventually

from worker import gateway
from worker.money_report import money_view

LOST: dict[str, Any] = {
    "closed": "accept_then_close",
    "reset": "accept_then_reset",
    "hung": "accept_then_hang",
    "page_502": {"status": 502, "html": True},
    "garbage_202": "accept_garbage",
}
OUTAGE_S = 1.0
QUOTA = {"code": "daily_request_limit_exceeded", "limit": 0, "retry_after_s": 1}
short = pytest.mark.env(SUBMIT_TIMEOUT_S="0.4")
every_loss = pytest.mark.parametrize("step", LOST.values(), ids=LOST)


async def money(bench: Bench) -> tuple[int, dict[str, int]]:
    """Read how many attempts may have been paid for nothing, and what became of unknown submissions."""
    told = money_view(await bench.store.counters())
    resolved = {name: count for name, count in told["unknown_submits"].items() if count}
    return told["paid_unused"]["reasons"]["maybe_paid"], resolved


@short
@every_loss
async def test_a_second_unknown_answer_ends_the_job(step: Any, bench: Bench, sandbox: Sandbox) -> None:
    """It is sent again once, under the same key and on the same model, however many attempts are left."""
    async with bench.worker():
        job_id = await bench.submit(input=directed(tag="t", submit=[step, step]), fallbacks=["sora-2"], max_attempts=5)
        view = await bench.ended(job_id)
        timeline = await bench.store.timeline(job_id)
    rows = sandbox.submissions("t")
    assert [row["model"] for row in rows] == ["veo3", "veo3"]
    assert len({row["idempotency_key"] for row in rows}) == 1
    assert (view["status"], view["failure"]["code"]) == ("failed", "submit_unknown")
    assert [attempt["outcome"] for attempt in view["attempts"]] == ["unknown", "unknown"]
    assert [attempt["failure"]["action"] for attempt in view["attempts"]] == ["retry", "fail"]
    unsure = [line["event"] for line in timeline if line.get("code") == "submit_unknown"]
    assert unsure == ["job.backed_off", "job.failed"]
    assert await money(bench) == (2, {"total": 2, "resent": 1, "failed": 1})


@pytest.mark.env(SUBMIT_TIMEOUT_S="0.4", UNKNOWN_SUBMIT="fail")
@every_loss
async def test_where_the_operator_wants_nothing_is_sent_again(step: Any, bench: Bench, sandbox: Sandbox) -> None:
    """One submission, a failed job, and the timeline and the books tell that it may have been paid."""
    async with bench.worker():
        job_id = await bench.submit(input=directed(tag="t", submit=[step]), fallbacks=["sora-2"])
        view = await bench.ended(job_id)
        timeline = await bench.store.timeline(job_id)
    assert len(sandbox.submissions("t")) == 1
    assert (view["status"], view["failure"]["code"]) == ("failed", "submit_unknown")
    assert view["failure"]["action"] == "fail"
    [attempt] = view["attempts"]
    assert (attempt["outcome"], attempt["failure"]["code"]) == ("unknown", "submit_unknown")
    assert (timeline[-1]["event"], timeline[-1]["code"]) == ("job.failed", "submit_unknown")
    assert await money(bench) == (1, {"total": 1, "failed": 1})


@short
@pytest.mark.parametrize("step", ["accept_then_reset", "accept_then_hang"])
async def test_a_lost_answer_is_sent_again_under_its_key(step: str, bench: Bench, sandbox: Sandbox) -> None:
    """The second answer arrives, and the job completes with what it paid for last."""
    async with bench.worker():
        view = await bench.ended(await bench.submit(input=directed(tag="t", submit=[step]), fallbacks=["sora-2"]))
    rows = sandbox.submissions("t")
    assert len(rows) == 2
    assert len({row["idempotency_key"] for row in rows}) == 1
    assert (view["status"], view["model"]) == ("completed", "veo3")
    assert view["task_id"] == rows[1]["task_id"]
    assert [attempt["outcome"] for attempt in view["attempts"]] == ["unknown", "succeeded"]
    assert await money(bench) == (1, {"total": 1, "resent": 1})


@pytest.mark.parametrize("outage", ["503", "refuse", "hang"])
async def test_nothing_is_sent_again_before_the_gateway_answers(
    outage: str, bench: Bench, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An outage begins while the answer is awaited: the gateway is asked for its models until it answers, no more."""
    monkeypatch.setattr(gateway, "LOOK_TIMEOUT_S", 0.2)
    lost = {"do": "accept_then_close", "delay_s": 0.3}
    async with bench.worker():
        job_id = await bench.submit(input=directed(tag="t", submit=[lost]), fallbacks=["sora-2"])

        async def submitted() -> bool:
            return bool(sandbox.submissions())

        await eventually(submitted)
        sandbox.control(outage=outage, outage_s=OUTAGE_S)
        await bench.standing(job_id, "waiting")
        if outage != "refuse":  # that one ends by itself; nothing listens until then

            async def asked() -> bool:
                requests = await bench.store.counters()
                return any(row[:2] == ("gateway_requests_total", "models") for row in requests)

            # It has been asked, in vain, where the job is due later than its backoff alone would have it.
            async def put_off() -> bool:
                due_ms = await bench.raw.zscore("onysoft:wheel:submit:video", job_id)
                leased = await bench.raw.hexists("onysoft:leases:submit:video", job_id)
                planned_ms = (await bench.job(job_id)).next_action_at_ms or 0
                return bool(not leased and due_ms and due_ms > planned_ms + 500) and await asked()

            await eventually(put_off)
            assert len(sandbox.submissions()) == 1
            sandbox.control(outage=None)
        view = await bench.ended(job_id)
    first, again = sandbox.submissions()
    assert again["at_ms"] >= first["at_ms"] + 1000 * (OUTAGE_S if outage == "refuse" else 0)
    assert first["idempotency_key"] == again["idempotency_key"]
    assert (view["status"], view["model"]) == ("completed", "veo3")
    assert len(view["attempts"]) == 2


async def test_while_unknown_a_model_at_its_quota_is_waited_for(bench: Bench, sandbox: Sandbox) -> None:
    """Another model's submission would be another generation: the job parks, and the same one is sent again."""
    lost = {"do": "accept_then_close", "delay_s": 0.3}
    async with bench.worker():
        job_id = await bench.submit(input=directed(tag="t", submit=[lost]), fallbacks=["sora-2"])

        async def submitted() -> bool:
            return bool(sandbox.submissions("t"))

        await eventually(submitted)
        sandbox.control(quotas={"veo3": QUOTA})

        async def parked() -> dict[str, Any] | None:
            view = await bench.standing(job_id, "waiting")
            return view if view["failure"]["code"] == "model_quota_exceeded" else None

        waiting = await eventually(parked)
        sandbox.control(quotas={})
        view = await bench.ended(job_id)
    assert (waiting["failure"]["action"], waiting["model"]) == ("park", "veo3")
    assert waiting["next_action_at"]
    rows = sandbox.submissions("t")
    assert [(row["model"], row["status"]) for row in rows] == [("veo3", None), ("veo3", 429), ("veo3", 202)]
    assert len({row["idempotency_key"] for row in rows}) == 1
    assert (view["status"], view["model"]) == ("completed", "veo3")
    assert [attempt["outcome"] for attempt in view["attempts"]] == ["unknown", "succeeded"]


NOT_READY = {"page": {"status": 503, "html": True}, "enveloped": {"status": 503, "message": "maintenance"}}


@pytest.mark.parametrize("step", NOT_READY.values(), ids=NOT_READY)
async def test_a_gateway_that_is_not_ready_has_accepted_nothing(
    step: dict[str, Any], bench: Bench, sandbox: Sandbox
) -> None:
    """A 503 costs no attempt and is sent again, as often as it comes, without anything to doubt."""
    async with bench.worker():
        view = await bench.ended(
            await bench.submit(
                input=directed(tag="t", submit=[step, step]), max_attempts=1, on_unknown_submit="fail", fallbacks=[]
            )
        )
    assert view["status"] == "completed"
    assert [attempt["outcome"] for attempt in view["attempts"]] == ["succeeded"]
    assert [row["status"] for row in sandbox.submissions("t")] == [503, 503, 202]
    assert await money(bench) == (0, {})


@pytest.mark.parametrize("status", [400, 402, 422])
async def test_a_refusal_in_the_envelope_has_cost_nothing(status: int, bench: Bench, sandbox: Sandbox) -> None:
    """It is certain that nothing was accepted: the attempt is told as refused, and there is nothing to doubt."""
    async with bench.worker():
        job_id = await bench.submit(input=directed(tag="t", submit=[{"status": status, "message": "no"}]))
        view = await bench.ended(job_id)
    [attempt] = view["attempts"]
    assert (view["status"], attempt["outcome"], attempt["task_id"]) == ("failed", "refused", None)
    assert view["failure"]["code"] != "submit_unknown"
    assert await money(bench) == (0, {})
    assert len(sandbox.submissions("t")) == 1


WITH_TASK: dict[str, Any] = {"named": "error_with_task", "502": {"status": 502, "message": "oops", "accepted": True}}


@pytest.mark.parametrize("step", WITH_TASK.values(), ids=WITH_TASK)
async def test_an_error_that_carries_a_task_is_an_acceptance(step: Any, bench: Bench, sandbox: Sandbox) -> None:
    """The task it names is tracked, and the job completes with one submission."""
    async with bench.worker():
        view = await bench.ended(await bench.submit(input=directed(tag="t", submit=[step]), fallbacks=["sora-2"]))
    [row] = sandbox.submissions("t")
    assert view["status"] == "completed"
    assert view["task_id"] == row["task_id"]
    assert [attempt["outcome"] for attempt in view["attempts"]] == ["succeeded"]
    assert await money(bench) == (0, {})
