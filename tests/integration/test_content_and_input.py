"""What a model refuses for the sake of what was asked, what nobody can read, and what an attempt's record keeps."""

from typing import Any

import pytest
from harness import Bench, Sandbox, directed
from structlog.testing import capture_logs

REVIEW = "Content review failed. Please adjust the input and try again"
BROKEN = {"code": "501", "message": "Generation failed"}
REFUSALS: dict[str, dict[str, Any]] = {
    "generation": {"result": {"veo3": [{"fail": {"code": "1501", "message": REVIEW}}]}},
    "submission": {"submit": {"veo3": [{"status": 400, "message": REVIEW}] * 3}},
    "submission_500": {"submit": {"veo3": [{"status": 500, "message": REVIEW}] * 3}},
}
refused_content = pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)


@refused_content
async def test_refused_content_goes_to_the_next_model(refusal: dict[str, Any], bench: Bench, sandbox: Sandbox) -> None:
    """The model that refused is not asked again; the next one completes the job."""
    async with bench.worker():
        job_id = await bench.submit(input=directed(tag="t", **refusal), fallbacks=["sora-2", "kling"])
        view = await bench.ended(job_id)
    assert [row["model"] for row in sandbox.submissions("t")] == ["veo3", "sora-2"]
    assert (view["status"], view["model"], view["degraded"]) == ("completed", "sora-2", True)
    failure = view["attempts"][0]["failure"]
    assert (failure["code"], failure["action"], failure["message"]) == ("content_rejected", "fail_over", REVIEW)


@refused_content
async def test_refused_content_without_another_model_fails(
    refusal: dict[str, Any], bench: Bench, sandbox: Sandbox
) -> None:
    """The model that refused is not asked again, whatever attempts are left."""
    async with bench.worker():
        view = await bench.ended(await bench.submit(input=directed(tag="t", **refusal), fallbacks=[]))
    assert len(sandbox.submissions("t")) == 1
    assert (view["status"], view["failure"]["code"]) == ("failed", "content_rejected")
    assert (view["failure"]["action"], view["failure"]["message"]) == ("fail", REVIEW)


@pytest.mark.env(FAILOVER_ON="model_blocked")
async def test_which_refusals_go_to_the_next_model_is_a_setting(bench: Bench, sandbox: Sandbox) -> None:
    """Where content is not among them it fails at once, and a blocked model has its job go on with the next."""
    sandbox.control(blocked_models=["runway"])
    async with bench.worker():
        job_id = await bench.submit(input=directed(tag="content", **REFUSALS["generation"]), fallbacks=["sora-2"])
        refused = await bench.ended(job_id)
        job_id = await bench.submit(model="runway", input=directed(tag="blocked"), fallbacks=["sora-2"])
        blocked = await bench.ended(job_id)
    assert [row["model"] for row in sandbox.submissions("content")] == ["veo3"]
    assert (refused["status"], refused["failure"]["code"]) == ("failed", "content_rejected")
    assert [row["model"] for row in sandbox.submissions("blocked")] == ["runway", "sora-2"]
    assert blocked["status"] == "completed"
    assert [attempt["outcome"] for attempt in blocked["attempts"]] == ["refused", "succeeded"]


RANGE, EMPTY = "duration is not within the range of allowed options", "Prompt cannot be empty."
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "submission_500": ({"submit": [{"status": 500, "message": EMPTY}]}, EMPTY),
    "submission_422": ({"submit": [{"status": 422, "message": RANGE}]}, RANGE),
    "generation_500": ({"result": [{"fail": {"code": "500", "message": RANGE}}]}, RANGE),
}


@pytest.mark.parametrize(("refusal", "words"), WRONG.values(), ids=WRONG)
async def test_wrong_input_ends_the_job_in_the_gateways_words(
    refusal: dict[str, Any], words: str, bench: Bench, sandbox: Sandbox
) -> None:
    """Asked once, of one model, whatever status it was dressed in."""
    async with bench.worker():
        job_id = await bench.submit(input=directed(tag="t", **refusal), fallbacks=["sora-2"])
        view = await bench.ended(job_id)
    assert len(sandbox.submissions("t")) == 1
    assert (view["status"], view["failure"]["code"]) == ("failed", "invalid_input")
    assert (view["failure"]["category"], view["failure"]["action"]) == ("terminal", "fail")
    assert view["failure"]["message"] == view["attempts"][0]["failure"]["message"] == words


async def test_words_nobody_knows_are_retried_and_told_once(bench: Bench, sandbox: Sandbox) -> None:
    """Each kind of wording is one warning with its words, however often it comes and whatever id it quotes."""

    def strange(words: str) -> dict[str, Any]:
        return directed(tag=words, duration_s=0.02, result=[{"fail": {"code": "777", "message": words}}, "success"])

    quux = [f"the quux of job 4711{n} went sideways" for n in range(3)]
    async with bench.worker():
        with capture_logs() as logs:
            views = [await bench.ended(await bench.submit(input=strange(words))) for words in [*quux, "zorgle"]]
    for view, words in zip(views, [*quux, "zorgle"], strict=True):
        assert view["status"] == "completed"
        failed, done = view["attempts"]
        assert (failed["failure"]["code"], failed["failure"]["category"]) == ("generation_failed", "retryable")
        assert (failed["failure"]["rule"], failed["failure"]["message"]) == ("result_unrecognised", words)
        assert done["outcome"] == "succeeded"
        assert [row["model"] for row in sandbox.submissions(words)] == ["veo3", "veo3"]
    told = [line for line in logs if line["event"] == "failure.unrecognised"]
    assert [line["words"] for line in told] == [quux[0], "zorgle"]
    assert len({line["fingerprint"] for line in told}) == 2
    assert told[0]["job"] == views[0]["id"]
    assert told[0]["gateway_code"] == "777"


async def test_an_attempt_tells_all_of_its_failure(bench: Bench) -> None:
    """Code, category, action, status, the gateway's own code and words, and the rule that judged them."""
    refused = {"status": 500, "code": "internal_error", "message": "Sunucu hatasi"}
    async with bench.worker():
        job_id = await bench.submit(
            input=directed(duration_s=0.02, submit=[refused], result=[{"fail": BROKEN}, "success"]),
            fallbacks=["sora-2"],
        )
        view = await bench.ended(job_id)
    first, second, third = view["attempts"]
    assert (first["outcome"], second["outcome"], third["outcome"]) == ("refused", "failed", "succeeded")
    assert first["failure"] == {
        "code": "server_error",
        "category": "retryable",
        "action": "retry",
        "http_status": 500,
        "gateway_code": "internal_error",
        "message": "Sunucu hatasi",
        "rule": "submit_5xx",
    }
    assert second["failure"] == {
        "code": "generation_failed",
        "category": "retryable",
        "action": "fail_over",
        "http_status": 200,
        "gateway_code": "501",
        "message": "Generation failed",
        "rule": "result_failed",
    }
    assert third["failure"] is None


COSTS: dict[str, tuple[str, Any]] = {
    "veo3": ("video", {"amount": 0.4, "currency": "USD"}),
    "kling": ("video", {"amount": 56, "currency": "credits"}),
    "elevenlabs/sound-effect-v2": ("audio", {"amount": 0.01, "currency": "USD"}),
}


@pytest.mark.parametrize(("model", "kind", "cost"), [(name, *row) for name, row in COSTS.items()], ids=COSTS)
async def test_what_a_task_cost_is_kept_with_its_currency(model: str, kind: str, cost: Any, bench: Bench) -> None:
    """As the answer of that model tells it, in money or in credits."""
    async with bench.worker():
        view = await bench.ended(await bench.submit(model=model, kind=kind, input=directed(), fallbacks=[]))
    [attempt] = view["attempts"]
    assert attempt["cost"] == cost


async def test_what_a_failed_task_cost_is_kept(bench: Bench) -> None:
    """Where the gateway tells; an amount without its currency is not kept."""
    failed = {"status": "failed", "error": BROKEN}
    told = {"body": {"success": True, "data": {**failed, "cost": {"amount": 0.3, "currency": "EUR"}}}}
    bare = {"body": {"success": True, "data": {**failed, "cost": 0.3}}}
    async with bench.worker():
        job_id = await bench.submit(input=directed(duration_s=0, result=[told, bare]), fallbacks=[], max_attempts=2)
        view = await bench.ended(job_id)
    assert view["failure"]["code"] == "generation_failed"
    assert [attempt["cost"] for attempt in view["attempts"]] == [{"amount": 0.3, "currency": "EUR"}, None]
