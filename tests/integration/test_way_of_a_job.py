"""The way of one job, end to end: a real worker, Redis, sandbox and receiver."""

import asyncio
from typing import Any

import pytest
from harness import Bench, Receiver, Sandbox, directed, eventually

from jobs import changes

KINDS = ["video", "image", "music", "audio", "voice"]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_job_completes_and_its_webhook_arrives(kind: str, bench: Bench, receiver: Receiver) -> None:
    """Each kind goes from enqueue to a verified webhook with the result."""
    async with bench.worker():
        job_id = await bench.submit(kind=kind, input=directed(), metadata={"customer": 77})
        view = await bench.ended(job_id)
        await eventually(lambda: _came(receiver, job_id))
    assert view["status"] == "completed"
    assert view["result"]["urls"]
    assert view["result"]["expires_at"]
    assert not view["degraded"]
    [attempt] = view["attempts"]
    assert attempt["outcome"] == "succeeded"
    assert attempt["polls"] >= 1
    [event] = receiver.of(job_id)
    assert event["type"] == "job.completed"
    assert event["data"]["metadata"] == {"customer": 77}
    assert event["data"]["result"]["urls"] == view["result"]["urls"]


async def _came(receiver: Receiver, job_id: str) -> bool:
    return bool(receiver.of(job_id))


async def test_the_same_id_ten_times_is_one_job_and_one_submission(bench: Bench, sandbox: Sandbox) -> None:
    """Through the store's door and plain arq at once, the same request under one id is submitted once."""
    request = {"kind": "image", "input": directed(tag="once")}
    async with bench.worker():
        await asyncio.gather(
            *(bench.submit(id="once", **request) for _ in range(5)),
            *(bench.pool.enqueue_job("generate", {"id": "once", **request}) for _ in range(5)),
        )
        await bench.ended("once")
        await eventually(lambda: _empty(bench))
    assert len(sandbox.submissions("once")) == 1
    assert sandbox.stats()["accepted"] == 1
    assert not await bench.store.counters() or ("enqueues_rejected_total", "arq", "conflict") not in (
        await bench.store.counters()
    )


async def _empty(bench: Bench) -> bool:
    return await bench.raw.zcard("onysoft:jobs") == 0


@pytest.mark.parametrize(
    ("status", "code", "verdict"),
    [
        (400, None, "invalid_request"),
        (401, "invalid_api_key", "unauthorized"),
        (402, "insufficient_balance", "insufficient_balance"),
        (403, "model_blocked", "model_blocked"),
        (404, "model_not_found", "model_not_found"),
        (413, "payload_too_large", "payload_too_large"),
        (422, None, "model_unsupported"),
    ],
)
async def test_terminal_refusals_end_the_job_at_once(
    status: int, code: str | None, verdict: str, bench: Bench, sandbox: Sandbox, receiver: Receiver
) -> None:
    """The documented terminal errors: one submission, one failed job, one webhook, alternates or not."""
    refusal = {"status": status, "message": "no", **({"code": code} if code else {})}
    async with bench.worker():
        job_id = await bench.submit(input=directed(tag="t", submit=[refusal]), fallbacks=["sora-2"])
        view = await bench.ended(job_id)
        await eventually(lambda: _came(receiver, job_id))
    assert view["status"] == "failed"
    assert view["failure"]["code"] == verdict
    assert view["failure"]["http_status"] == status
    assert len(sandbox.submissions("t")) == 1
    assert [event["type"] for event in receiver.of(job_id)] == ["job.failed"]


async def test_server_errors_are_retried_and_then_fail_over(bench: Bench, sandbox: Sandbox) -> None:
    """Two 500s on the first model, then the alternate completes: degraded."""
    error = {"status": 500, "code": "internal_error", "message": "Server error"}
    async with bench.worker():
        job_id = await bench.submit(input=directed(tag="t", submit=[error, error]), model="veo3", fallbacks=["sora-2"])
        view = await bench.ended(job_id)
    assert view["status"] == "completed"
    assert view["degraded"]
    assert view["model"] == "sora-2"
    assert [attempt["model"] for attempt in view["attempts"]] == ["veo3", "veo3", "sora-2"]
    assert [row["model"] for row in sandbox.submissions("t")] == ["veo3", "veo3", "sora-2"]


async def test_failed_generations_use_up_the_attempts(bench: Bench, sandbox: Sandbox) -> None:
    """A generation that always fails ends the job after MAX_ATTEMPTS, each attempt with the gateway's words."""
    always = {"fail": {"code": "501", "message": "Generation failed"}}
    async with bench.worker():
        job_id = await bench.submit(input=directed(tag="t", duration_s=0.02, result=[always]), fallbacks=["sora-2"])
        view = await bench.ended(job_id)
    assert view["status"] == "failed"
    assert view["failure"]["code"] == "generation_failed"
    assert [attempt["model"] for attempt in view["attempts"]] == ["veo3", "veo3", "sora-2", "sora-2", "sora-2"]
    assert all(attempt["failure"]["message"] == "Generation failed" for attempt in view["attempts"])
    assert sandbox.stats()["double_billed"] == 0


async def test_a_rate_limit_is_waited_out_without_costing_an_attempt(bench: Bench, sandbox: Sandbox) -> None:
    """429 per minute: no attempt, another submission after Retry-After."""
    limited = {"status": 429, "code": "rate_limit_exceeded", "message": "slow", "retry_after_s": 0.2}
    async with bench.worker():
        job_id = await bench.submit(input=directed(tag="t", submit=[limited, limited]), max_attempts=1, fallbacks=[])
        view = await bench.ended(job_id)
    assert view["status"] == "completed"
    assert len(view["attempts"]) == 1
    assert len(sandbox.submissions("t")) == 3


async def test_a_model_quota_fails_over_at_once(bench: Bench, sandbox: Sandbox) -> None:
    """A daily limit with an alternate: one refused request, then the alternate; and the fleet spares the model."""
    limit = {"veo3": {"code": "daily_request_limit_exceeded", "limit": 0}}
    sandbox.control(quotas=limit)
    async with bench.worker():
        first = await bench.ended(await bench.submit(input=directed(tag="a"), fallbacks=["sora-2"]))
        second = await bench.ended(await bench.submit(input=directed(tag="b"), fallbacks=["sora-2"]))
    assert first["model"] == second["model"] == "sora-2"
    assert [row["model"] for row in sandbox.submissions("a")] == ["veo3", "sora-2"]
    assert [row["model"] for row in sandbox.submissions("b")] == ["sora-2"]


async def test_a_model_quota_without_alternate_parks_until_the_reset(bench: Bench, sandbox: Sandbox) -> None:
    """The job waits with the time of its next action, and completes after the reset."""
    limit = {"code": "daily_request_limit_exceeded", "limit": 0, "retry_after_s": 0.5}
    sandbox.control(quotas={"veo3": limit})
    async with bench.worker():
        job_id = await bench.submit(input=directed(tag="t"), fallbacks=[])
        waiting = await bench.standing(job_id, "waiting")
        sandbox.control(quotas={})
        view = await bench.ended(job_id)
    assert waiting["failure"]["code"] == "model_quota_exceeded"
    assert waiting["failure"]["action"] == "park"
    assert waiting["next_action_at"]
    assert view["status"] == "completed"


async def test_a_park_past_the_deadline_fails_at_once(bench: Bench, sandbox: Sandbox) -> None:
    """A reset after the deadline is not waited for, and the message says so."""
    sandbox.control(quotas={"veo3": {"code": "monthly_token_limit_exceeded", "limit": 0}})
    async with bench.worker():
        view = await bench.ended(await bench.submit(input=directed(), fallbacks=[], deadline_s=30))
    assert view["failure"]["code"] == "model_quota_exceeded"
    assert "deadline" in view["failure"]["message"]


LOST_ANSWERS = ["accept_then_close", "accept_garbage", "accept_half_body", {"status": 502, "html": True}]


@pytest.mark.parametrize("step", LOST_ANSWERS, ids=str)
async def test_an_unknown_submission_is_resent_once_with_the_same_key(
    step: Any, bench: Bench, sandbox: Sandbox
) -> None:
    """A lost answer is resent under the same Idempotency-Key, and the timeline tells."""
    async with bench.worker():
        job_id = await bench.submit(input=directed(tag="t", submit=[step]), fallbacks=[])
        view = await bench.ended(job_id)
    rows = sandbox.submissions("t")
    assert len(rows) == 2
    assert len({row["idempotency_key"] for row in rows}) == 1
    assert view["status"] == "completed"
    assert view["attempts"][0]["failure"]["code"] == "submit_unknown"
    assert any(line.get("code") == "submit_unknown" for line in await bench.store.timeline(job_id))


async def test_an_unknown_submission_fails_where_asked(bench: Bench, sandbox: Sandbox) -> None:
    """With ``on_unknown_submit: fail`` nothing is sent again."""
    async with bench.worker():
        job_id = await bench.submit(
            input=directed(tag="t", submit=["accept_then_close"]), on_unknown_submit="fail", fallbacks=["sora-2"]
        )
        view = await bench.ended(job_id)
    assert view["failure"]["code"] == "submit_unknown"
    assert len(sandbox.submissions("t")) == 1


async def test_a_connection_never_opened_costs_no_attempt(bench: Bench, sandbox: Sandbox) -> None:
    """While the gateway refuses connections the job waits; afterwards it completes with one submission."""
    async with bench.worker():
        sandbox.control(outage="refuse", outage_s=1.5)
        job_id = await bench.submit(input=directed(tag="t"), max_attempts=1)
        waiting = await bench.standing(job_id, "waiting")
        view = await bench.ended(job_id)
    assert waiting["failure"]["code"] == "gateway_unavailable"
    assert waiting["attempts"] == []
    assert view["status"] == "completed"
    assert len(sandbox.submissions("t")) == 1


@pytest.mark.parametrize(
    "look",
    ["html", "empty", "truncated", "half_body", "big", {"word": "simmering"}, "missing_404", "record_null", "close",
     {"status": 401, "code": "invalid_api_key"}, {"status": 402, "code": "insufficient_balance"}, {"status": 500},
     {"status": 429, "code": "rate_limit_exceeded"}],
    ids=str,
)  # fmt: skip
async def test_a_strange_look_up_never_ends_a_task(look: Any, bench: Bench, sandbox: Sandbox) -> None:
    """Whatever a look-up says that is no end, the task is looked at again and completes with one submission."""
    async with bench.worker():
        view = await bench.ended(await bench.submit(input=directed(tag="t", lookups=[look, look]), fallbacks=[]))
    assert view["status"] == "completed"
    assert len(view["attempts"]) == 1
    assert len(sandbox.submissions("t")) == 1


@pytest.mark.parametrize("step", ["accept_camel", "accept_bare", "big"])
async def test_an_acceptance_in_any_form_is_read(step: str, bench: Bench, sandbox: Sandbox) -> None:
    """Camel case, a bare integer id and three megabytes of JSON around it are all acceptances."""
    async with bench.worker():
        view = await bench.ended(await bench.submit(input=directed(tag="t", submit=[step]), fallbacks=[]))
    assert view["status"] == "completed"
    assert len(sandbox.submissions("t")) == 1


async def test_done_without_url_is_a_failed_generation(bench: Bench) -> None:
    """Done without a result is retried like any failed generation."""
    async with bench.worker():
        job_id = await bench.submit(
            input=directed(tag="t", duration_s=0.02, result=["done_without_url", "success"]), fallbacks=[]
        )
        view = await bench.ended(job_id)
    assert [attempt["outcome"] for attempt in view["attempts"]] == ["failed", "succeeded"]
    assert view["attempts"][0]["failure"]["code"] == "generation_failed"


async def test_text_is_a_result_for_a_text_model(bench: Bench) -> None:
    """speech-to-text completes with text and no URL."""
    async with bench.worker():
        view = await bench.ended(await bench.submit(kind="audio", model="speech-to-text", input=directed()))
    assert view["status"] == "completed"
    assert view["result"]["text"]


async def test_a_policy_refusal_tries_one_other_model(bench: Bench, sandbox: Sandbox) -> None:
    """Never twice on the same model, once on the next."""
    refusal = {"fail": {"code": "1501", "message": "Content review failed. Please adjust the input and try again"}}
    async with bench.worker():
        job_id = await bench.submit(
            input=directed(tag="t", duration_s=0.02, result=[refusal]), fallbacks=["sora-2", "kling"]
        )
        view = await bench.ended(job_id)
    assert view["failure"]["code"] == "content_rejected"
    assert [row["model"] for row in sandbox.submissions("t")] == ["veo3", "sora-2"]


async def test_wrong_input_dressed_as_a_500_is_terminal(bench: Bench, sandbox: Sandbox) -> None:
    """A 500 that names a parameter is not retried, and its words are kept."""
    words = "aspect_ratio is not within the range of allowed options"
    async with bench.worker():
        job_id = await bench.submit(input=directed(tag="t", submit=[{"status": 500, "message": words}]))
        view = await bench.ended(job_id)
    assert view["failure"]["code"] == "invalid_input"
    assert view["failure"]["message"] == words
    assert len(sandbox.submissions("t")) == 1


@pytest.mark.env(TRACK_TIMEOUT_S="0.3")
async def test_a_task_given_up_by_time_is_watched_and_its_late_result_completes(bench: Bench, sandbox: Sandbox) -> None:
    """Tracking ends after its limit as generation_timeout; the task stays on the track wheel."""
    async with bench.worker():
        job_id = await bench.submit(input=directed(tag="t", result=["never"]), max_attempts=1, fallbacks=[])
        view = await bench.ended(job_id)
        watched = await bench.raw.zscore("onysoft:wheel:track", f"1:{job_id}")
    assert view["failure"]["code"] == "generation_timeout"
    assert view["attempts"][0]["outcome"] == "timed_out"
    assert watched is not None
    assert len(sandbox.submissions("t")) == 1


async def test_a_live_task_at_the_deadline_becomes_a_late_task(bench: Bench) -> None:
    """The job fails with deadline_exceeded, its task is still watched."""
    async with bench.worker():
        job_id = await bench.submit(input=directed(result=["never"]), deadline_s=0.5)
        view = await bench.ended(job_id)
        watched = await bench.raw.zscore("onysoft:wheel:track", f"1:{job_id}")
    assert view["failure"]["code"] == "deadline_exceeded"
    assert view["attempts"][0]["outcome"] == "abandoned"
    assert watched is not None


async def test_a_late_result_is_recorded_and_announced(bench: Bench, receiver: Receiver) -> None:
    """A task that ends well after its job was canceled is kept on the attempt and announced on request."""
    async with bench.worker():
        events = ["job.canceled", "job.late_result"]
        job_id = await bench.submit(input=directed(tag="t", duration_s=0.4), webhook_events=events)
        await bench.standing(job_id, "processing")
        job = await bench.job(job_id)
        await bench.store.apply(changes.cancel(job, now_ms=bench.store.now_ms(), rev=bench.store.new_rev()))
        await bench.raw.zadd("onysoft:wheel:track", {f"1:{job_id}": bench.store.now_ms() + 500})
        await eventually(lambda: _types(receiver, job_id, 2))
    view = await bench.ended(job_id)
    assert view["status"] == "canceled"
    assert view["attempts"][0]["late_result"]["urls"]
    assert [event["type"] for event in receiver.of(job_id)] == ["job.canceled", "job.late_result"]


async def _types(receiver: Receiver, job_id: str, count: int) -> bool:
    return len(receiver.of(job_id)) >= count


@pytest.mark.env(ACCOUNT_ERRORS="hold")
async def test_hold_stops_submissions_until_a_probe_succeeds(bench: Bench, sandbox: Sandbox) -> None:
    """An empty balance holds the fleet: nothing fails, few are refused, all complete after the top-up."""
    sandbox.control(balance=0)
    async with bench.worker():
        ids = [await bench.submit(kind="image", input=directed(tag=f"t{n}")) for n in range(3)]
        waiting = await bench.standing(ids[0], "waiting")
        assert waiting["failure"]["action"] == "hold"
        sandbox.control(balance=1000)
        views = [await bench.ended(job_id) for job_id in ids]
    assert {view["status"] for view in views} == {"completed"}
    assert all(len(view["attempts"]) == 1 for view in views)


async def test_a_failing_consumer_gets_the_same_id_again(bench: Bench, receiver: Receiver) -> None:
    """A 500 from the consumer is retried by the schedule under the same webhook-id."""
    receiver.statuses = [500, 500]
    async with bench.worker():
        job_id = await bench.submit(input=directed())
        await bench.ended(job_id)
        await eventually(lambda: _types(receiver, job_id, 3))
        [delivery] = await eventually(lambda: _settled(bench, job_id))
    assert len({event["webhook-id"] for event in receiver.of(job_id)}) == 1
    assert delivery.state == "delivered"
    assert [attempt["status"] for attempt in delivery.attempts] == [500, 500, 200]


async def _settled(bench: Bench, job_id: str) -> Any:
    deliveries = await bench.store.outbox.of_job(job_id)
    return deliveries if deliveries and all(d.state != "pending" for d in deliveries) else None


@pytest.mark.parametrize(("statuses", "made"), [([410], 1), ([302, 302, 302], 3)])
async def test_a_destination_that_is_gone_or_redirects_ends_dead(
    statuses: list[int], made: int, bench: Bench, receiver: Receiver
) -> None:
    """410 ends the deliveries at once; a redirect is not followed and counts as a failure."""
    receiver.statuses = list(statuses)
    async with bench.worker():
        job_id = await bench.submit(input=directed())
        [delivery] = await eventually(lambda: _settled(bench, job_id))
    assert delivery.state == "dead"
    assert len(delivery.attempts) == made == len(receiver.of(job_id))


async def test_private_destinations_are_refused(bench: Bench) -> None:
    """Where private destinations are not allowed, a literal is refused at enqueue and named as the field at fault."""
    from dataclasses import replace

    from jobs.request import InvalidRequest
    from worker.enqueue import Door

    door = Door(bench.store, replace(bench.settings, webhook_allow_private=False), bench.door.models, announce=False)
    with pytest.raises(InvalidRequest, match="webhook_url"):
        await door.take({"kind": "video", "input": {}, "webhook_url": "http://169.254.169.254/latest"})


async def test_the_books_agree_after_many_jobs(bench: Bench, sandbox: Sandbox, receiver: Receiver) -> None:
    """After a run of fifty jobs under the sandbox's default faults, nothing is pending and nothing was paid twice."""
    sandbox.control(faults="default")
    async with bench.worker():
        ids = [f"many-{n}" for n in range(50)]
        for number, tag in enumerate(ids):
            await bench.submit(kind=KINDS[number % 5], id=tag, input={"prompt": "p", "sandbox": {"tag": tag}})
        views = [await bench.ended(job_id, within_s=60) for job_id in ids]
        await eventually(lambda: _delivered(bench))
    assert {view["status"] for view in views} == {"completed"}
    counters = await bench.store.counters()
    ended = sum(value for (name, *_), value in counters.items() if name == "jobs_total")
    assert ended == 50
    attempts = sum(value for (name, *_), value in counters.items() if name == "attempts_total")
    assert attempts == sum(len(view["attempts"]) for view in views)
    assert sandbox.stats()["double_billed"] == 0
    assert {event["data"]["id"] for event in receiver.received} == set(ids)
    for wheel in ("submit:video", "submit:image", "submit:music", "submit:audio", "submit:voice", "track", "deliver"):
        assert await bench.raw.zcard(f"onysoft:wheel:{wheel}") == 0
        assert await bench.raw.hlen(f"onysoft:leases:{wheel}") == 0


async def _delivered(bench: Bench) -> bool:
    return await bench.raw.zcard("onysoft:deliveries:pending") == 0


async def test_pruning_leaves_nothing_of_a_job(bench: Bench) -> None:
    """A pruned job takes all its keys along, and its id may be used again."""
    from worker.upkeep import Prune

    async with bench.worker():
        job_id = await bench.submit(input=directed())
        await eventually(lambda: _settled(bench, job_id))
    later_ms = bench.store.now_ms() + 10_000
    assert await Prune(bench.store, retention_s=60).run_once(later_ms) == 0
    assert await Prune(bench.store, retention_s=5).run_once(later_ms) == 1
    left = [key.decode() for key in await bench.raw.keys("*") if job_id in key.decode()]
    assert left == []
    assert await bench.raw.xlen("onysoft:events") == 0
    assert await bench.raw.zcard("onysoft:ended") == 0


@pytest.mark.env(CONCURRENCY="2")
async def test_more_work_than_slots_is_worked_off(bench: Bench) -> None:
    """With every slot taken by slow submissions the rest waits its turn, and the process stays responsive."""
    slow = {"do": "accept", "delay_s": 0.2}
    async with bench.worker():
        ids = [await bench.submit(kind="image", input=directed(tag=f"t{n}", submit=[slow])) for n in range(8)]
        views = [await bench.ended(job_id) for job_id in ids]
    assert {view["status"] for view in views} == {"completed"}
