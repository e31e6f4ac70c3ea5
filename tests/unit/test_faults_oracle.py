"""The oracle of the faults bench: which end of a job is right, told from the gateway's books alone."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from oracle import Fleet, Request, Story, Verdict, judge

A, B, C = "veo3", "sora-2", "kling"
FLEET = Fleet(submit_timeout_s=2.5, used_up={})
GAP_MS, RUNS_MS = 1000, 400
CREATED_MS = 1_700_000_000_000
CREATED_AT = "2023-11-14T22:13:20.000Z"
UNKNOWN = ("accept_then_close", "accept_then_reset", "accept_then_hang", "accept_half_body", "accept_garbage")
BUSY = {"outcome": "fail", "code": "500", "message": "Internal Error, Please try again later."}
REFUSED = {"outcome": "fail", "code": "1501", "message": "Content review failed. Please adjust the input and try again"}

Met = tuple[str, dict[str, Any]]  # the model, and what the submission was met with


def accepted(model: str = A, step: str = "accept", **fate: Any) -> Met:
    """Make a submission whose task exists; it ended well unless told."""
    return model, {"step": step, "fate": {"outcome": "success", "code": "", "message": "", **fate}}


def refused(status: int, code: str = "", model: str = A, step: str = "refuse", **more: Any) -> Met:
    """Make a submission without a task."""
    return model, {"step": step, "status": status, "code": code, **more}


def story(
    *met: Met,
    models: Sequence[str] = (A,),
    status: str = "completed",
    code: str = "",
    policy: str = "fail",
    most: int = 5,
    **view: Any,
) -> Story:
    """Write the books of a job that went this way, and a view that agrees with them unless told otherwise."""
    posts, tasks, attempts, keys = [], {}, [], 0
    for number, (model, what) in enumerate(met):
        fate = what.get("fate")
        at_ms = CREATED_MS + number * GAP_MS
        keys += not what.get("resend", False)
        lost = what["step"] in UNKNOWN or what["step"].endswith("_before") or what.get("status") == 502
        task_id = f"t{number}" if fate else None
        posts.append(
            {
                "at_ms": at_ms, "sent_at_ms": at_ms + 5, "client_left": False, "model": model, "code": "",
                "status": 202, "task_id": task_id, "idempotency_key": f"key-{keys}", "retry_after_s": None, **what,
            }
        )  # fmt: skip
        if fate:
            ends_ms = at_ms + RUNS_MS
            told = {"told_fail_at_ms": ends_ms + 10 if fate["outcome"] in {"fail", "false_fail"} else None}
            tasks[f"t{number}"] = {"ends_at_ms": ends_ms, **told, **fate}
        if fate or lost:
            attempts.append({"task_id": None if lost else task_id, "outcome": "unknown" if lost else "failed"})
    last = met[-1][0] if met else models[0]
    shown: dict[str, Any] = {
        "id": "j", "status": status, "failure": {"code": code} if code else None, "model": last,
        "task_id": posts[-1]["task_id"] if posts else None, "degraded": last != models[0], "attempts": attempts,
        "result": {"urls": ["https://cdn.invalid/1"]}, "created_at": CREATED_AT, **view,
    }  # fmt: skip
    return Story(Request(tuple(models), most, policy), posts, tasks, shown)


def failed(code: str, *met: Met, **more: Any) -> Story:
    """Write the books of a job that failed."""
    return story(*met, status="failed", code=code, **more)


def resent(met: Met) -> Met:
    """Put a submission under the key of the one before."""
    return met[0], {**met[1], "resend": True}


ERROR_500 = refused(500, "internal_error")
HTML = refused(502, step="html")
DAILY = "daily_request_limit_exceeded"

RIGHT: Mapping[str, Story] = {
    "a result": story(accepted()),
    "a result in another shape": story(accepted(step="accept_camel")),
    "an error that carries a task": story(accepted(step="error_with_task", status=500)),
    "limits and outages cost no attempt": story(
        refused(429, "rate_limit_exceeded"), refused(503, step="html"), refused(200, "455", step="inside_200"),
        refused(200, "429", step="inside_200"), accepted(), most=1,
    ),
    "a 500 is tried again": story(ERROR_500, accepted()),
    "a failed generation is tried again on its model": story(accepted(**BUSY), accepted(), models=(A, B)),
    "then on the next": story(accepted(**BUSY), accepted(**BUSY), accepted(B), models=(A, B)),
    "the last model takes the rest": story(*[accepted(**BUSY)] * 4, accepted()),
    "no attempt is left": failed("generation_failed", *[accepted(**BUSY)] * 2, most=2),
    "the last code counts": failed("server_error", accepted(**BUSY), ERROR_500, most=2),
    "every alternate gets one": story(
        accepted(**BUSY), accepted(B, **BUSY), accepted(C), models=(A, B, C), most=3
    ),
    "a quota moves a job on": story(refused(429, DAILY), accepted(B), models=(A, B)),
    "a quota of the last model is waited for": story(refused(429, "free_model_rate_limit"), accepted()),
    "the balance ends it": failed("insufficient_balance", refused(402, "insufficient_balance"), models=(A, B)),
    "a content refusal tries one more model": story(accepted(**REFUSED), accepted(B), models=(A, B)),
    "and one only": failed("content_rejected", accepted(**REFUSED), accepted(B, **REFUSED), models=(A, B, C)),
    "a content refusal on the last model": failed("content_rejected", accepted(**REFUSED)),
    "moderation that breaks down is no refusal": story(
        accepted(outcome="fail", code="500", message="Internal server error in moderation service"), accepted()
    ),
    "an empty result is a failure": story(accepted(outcome="done_without_url"), accepted()),
    "a vanished task": failed("task_lost", accepted(outcome="vanish")),
    "a false timeout turns out well": story(accepted(outcome="false_fail", code="524")),
    "a false failure that was told": story(accepted(outcome="false_fail", code="500"), accepted()),
    "a false failure that nobody was told": story(
        accepted(outcome="false_fail", code="500", told_fail_at_ms=None)
    ),
    "unknown, and not sent again": failed("submit_unknown", accepted(step="accept_then_close"), models=(A, B)),
    "a proxy's page is unknown": failed("submit_unknown", HTML),
    "unknown, and sent once more": story(HTML, resent(accepted()), policy="retry"),
    "the resend is unknown too": failed("submit_unknown", HTML, resent(HTML), policy="retry"),
    "no attempt is left for a resend": failed("submit_unknown", HTML, policy="retry", most=1),
}  # fmt: skip
WRONG: Mapping[str, Story] = {
    "completed without a task": story(refused(503, step="html")),
    "not ended": story(ERROR_500, status="waiting"),
    "never submitted": story(status="queued"),
    "another code": failed("generation_failed", refused(402, "insufficient_balance")),
    "tried on after a definite refusal": story(refused(402, "insufficient_balance"), accepted()),
    "given up too early": failed("generation_failed", accepted(**BUSY)),
    "tried more often than allowed": story(accepted(**BUSY), accepted(), most=1),
    "moved on without a retry": story(accepted(**BUSY), accepted(B), models=(A, B)),
    "never moved on": story(*[accepted(**BUSY)] * 2, accepted(), models=(A, B)),
    "stayed on a model at its quota": story(refused(429, DAILY), accepted(), models=(A, B)),
    "content refused, and the same model again": story(accepted(**REFUSED), accepted(), models=(A, B)),
    "a running task given up": story(accepted(**BUSY, ends_at_ms=CREATED_MS + 2 * GAP_MS), accepted()),
    "a good task, and one more": story(accepted(), accepted()),
    "a false timeout believed": story(accepted(outcome="false_fail", code="524"), accepted()),
    "unknown, and sent again": story(accepted(step="accept_then_hang"), resent(accepted())),
    "unknown, and not sent again although told to": failed("submit_unknown", HTML, policy="retry"),
    "resent under another key": story(HTML, accepted(), policy="retry"),
    "resent twice": story(HTML, resent(HTML), resent(accepted()), policy="retry"),
    "another task's result": story(accepted(), task_id="t9"),
    "not said to be degraded": story(refused(429, DAILY), accepted(B), models=(A, B), degraded=False),
    "no result": story(accepted(), result={"urls": []}),
    "a task it was told of is missing": story(accepted(), attempts=[]),
    "unknown, and said to be known": failed("submit_unknown", HTML, attempts=[]),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_ends_are_right(name: str) -> None:
    """Each way a job rightly goes is found right."""
    verdict = judge(RIGHT[name], FLEET)
    assert verdict.right, verdict.why
    assert not verdict.pending


@pytest.mark.parametrize("name", WRONG)
def test_wrong_ends_are_wrong(name: str) -> None:
    """Each way a job must not go is found wrong, with words."""
    verdict = judge(WRONG[name], FLEET)
    assert not verdict.right
    assert verdict.why


def test_a_vanished_task_is_waited_for() -> None:
    """A job that still looks for a task that has vanished is right, and pending."""
    verdict = judge(story(accepted(outcome="vanish"), status="processing"), FLEET)
    assert (verdict.right, verdict.pending) == (True, True)


def test_a_model_at_its_limit_may_be_passed_over() -> None:
    """Only in the time in which the fleet knew of the limit."""
    way = story(accepted(B), models=(A, B))
    assert not judge(way, FLEET).right
    assert judge(way, Fleet(2.5, {A: [(CREATED_MS - 500, CREATED_MS + 500)]})).right
    assert not judge(way, Fleet(2.5, {A: [(CREATED_MS - 9000, CREATED_MS - 5000)]})).right
    assert not judge(way, Fleet(2.5, {A: [(CREATED_MS + 500, CREATED_MS + 900)]})).right


@pytest.mark.parametrize(("waited_ms", "right"), [(1000, False), (2400, True), (2600, True)])
def test_an_answer_near_the_timeout_may_be_read_either_way(waited_ms: int, right: bool) -> None:  # noqa: FBT001
    """Within the doubt about the timeout a job may have taken an answer for lost; before it, not."""
    attempts = [{"task_id": None, "outcome": "unknown"}]
    slow = accepted()
    slow[1]["sent_at_ms"] = CREATED_MS + waited_ms
    assert judge(failed("submit_unknown", slow, attempts=attempts), FLEET).right is right
    known = [{"task_id": "t0", "outcome": "succeeded"}]
    assert judge(story(slow, attempts=known), FLEET).right


def test_an_answer_nobody_waited_for_is_lost() -> None:
    """A client that had hung up has learned nothing."""
    left = accepted()
    left[1]["client_left"] = True
    attempts = [{"task_id": None, "outcome": "unknown"}]
    assert judge(failed("submit_unknown", left, attempts=attempts), FLEET).right
    assert not judge(story(left), FLEET).right


@pytest.mark.parametrize(
    ("way", "unsure", "hidden", "twice", "vain"),
    [
        (story(accepted(step="accept_then_close"), resent(accepted()), policy="retry"), 1, 1, 1, 1),
        (story(HTML, resent(accepted()), policy="retry"), 1, 0, 0, 0),
        (failed("submit_unknown", accepted(step="accept_garbage")), 1, 1, 0, 0),
        (story(accepted(**BUSY), accepted()), 0, 0, 0, 0),
    ],
)
def test_what_was_paid_twice_is_counted(way: Story, unsure: int, hidden: int, twice: int, vain: int) -> None:
    """A submission after a known failure is none; one after an acceptance that nobody learned of is."""
    assert judge(way, FLEET) == Verdict(right=True, unsure=unsure, hidden=hidden, twice=twice, vain=vain)


def test_a_resend_goes_to_no_other_model() -> None:
    """Also where the model is at its limit by then: it waits, or it may be paid twice."""
    way = story(accepted(step="accept_then_close"), accepted(B), models=(A, B), policy="retry")
    verdict = judge(way, Fleet(2.5, {A: [(CREATED_MS + 500, CREATED_MS + 900)]}))
    assert (verdict.right, verdict.vain, verdict.elsewhere) == (False, 1, 1)
    waited = story(accepted(step="accept_then_close"), resent(accepted()), models=(A, B), policy="retry")
    assert judge(waited, Fleet(2.5, {A: [(CREATED_MS + 500, CREATED_MS + 900)]})).right
