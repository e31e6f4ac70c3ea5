"""What follows a failure: budgets over a chain, backoff, parking, deadlines."""

from dataclasses import replace
from datetime import UTC, datetime
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.settings import Settings
from jobs import changes
from jobs.decide import Decision, Fail, FailOver, Hold, Park, Retry, backoff_ms, decide, quota_reset_ms
from jobs.failures import classify
from jobs.job import Job, Outcome, Spec
from jobs.verdict import Failure, Signal, Stage

NOW_MS = 1_800_000_000_000
GENERATION_FAILED = classify(Signal(Stage.RESULT, 200, None, "Video generation failed"))
RATE_LIMITED = classify(Signal(Stage.SUBMIT, 429, "rate_limit_exceeded"))
DAILY = classify(Signal(Stage.SUBMIT, 429, "daily_request_limit_exceeded"))
UNKNOWN = classify(Signal(Stage.SUBMIT, 502))
REJECTED = classify(Signal(Stage.RESULT, 200, "1501", "Content review failed"))
BALANCE = classify(Signal(Stage.SUBMIT, 402, "insufficient_balance"))


def job_of(models: int = 1, *, max_attempts: int = 5, deadline_s: int = 172_800, unknown: str = "retry") -> Job:
    """Make a new job with that many models in its chain."""
    names = tuple("abcdefgh"[:models])
    spec = Spec("j", "video", names, "f", NOW_MS, deadline_s * 1000, max_attempts, unknown)
    return changes.create(spec, now_ms=NOW_MS, rev="0").after


def begun(job: Job) -> Job:
    """Begin an attempt."""
    return changes.begin(job, now_ms=NOW_MS, rev="1").after


def fail(
    job: Job,
    failure: Failure,
    settings: Settings,
    outcome: Outcome = Outcome.FAILED,
    cooldowns: dict[str, int] | None = None,
) -> tuple[Job, Decision]:
    """Begin an attempt and fail it."""
    job = begun(job)
    if outcome is Outcome.FAILED:
        job = changes.accept(job, "t", first_look_ms=1, now_ms=NOW_MS, rev="2").after
    decision = decide(job, failure, settings, now_ms=NOW_MS, rng=Random(1), cooldowns=cooldowns or {})
    return changes.settle(job, failure, decision, outcome=outcome, now_ms=NOW_MS, rev="3").after, decision


@pytest.mark.parametrize(
    ("models", "max_attempts", "tried"),
    [(1, 5, "aaaaa"), (2, 5, "aabbb"), (3, 5, "aabbc"), (4, 5, "aabcd"), (5, 5, "abcde"), (7, 5, "abcde"), (3, 1, "a"),
     (2, 2, "ab"), (2, 3, "aab"), (1, 1, "a")],
)  # fmt: skip
def test_one_retry_on_a_model_then_the_next(models: int, max_attempts: int, tried: str) -> None:
    """Each model gets one retry while every alternate still gets an attempt; the last takes what is left."""
    settings, job, models_tried = Settings.from_env({}), job_of(models, max_attempts=max_attempts), ""
    while not job.ended:
        models_tried += job.model
        job, _ = fail(job, GENERATION_FAILED, settings)
    assert models_tried == tried
    assert job.failure is not None
    assert job.failure["code"] == "generation_failed"


def test_a_rate_limit_costs_no_attempt() -> None:
    """A 429 leaves no attempt behind, and backs off however often it comes."""
    settings, job = Settings.from_env({}), job_of(2, max_attempts=1)
    for _ in range(20):
        job, decision = fail(job, RATE_LIMITED, settings, Outcome.REFUSED)
        assert isinstance(decision, Retry)
    assert job.attempts == ()
    assert job.deferrals == 20


def test_a_model_quota_fails_over_at_once_and_parks_at_the_end() -> None:
    """With an alternate a daily limit fails over now; without one it parks until the reset."""
    settings = Settings.from_env({})
    job, first = fail(job_of(2), DAILY, settings, Outcome.REFUSED)
    assert first == FailOver(NOW_MS, 1)
    reset_ms = quota_reset_ms(DAILY, settings.quota_reset, NOW_MS)
    _, second = fail(job, DAILY, settings, Outcome.REFUSED, {"a": reset_ms})
    assert second == Park(reset_ms, 0)  # both reset then: the wanted one is asked first
    assert job.attempts == ()


def test_a_quota_that_was_not_reset_in_time_is_asked_again_soon() -> None:
    """The hour is assumed: a refusal right after it is no reason to wait for another day."""
    settings = Settings.from_env({})
    _, decision = fail(job_of(), DAILY, settings, Outcome.REFUSED, {"a": NOW_MS - 2})
    assert decision == Park(NOW_MS + 600_000, 0)
    told = replace(DAILY, retry_after_s=30.0)
    assert fail(job_of(), told, settings, Outcome.REFUSED, {"a": NOW_MS - 2})[1] == Park(NOW_MS + 30_000, 0)


def test_a_job_waits_for_the_first_of_its_models_to_reset() -> None:
    """Models that were left for their quota alone are asked again, at once where that is over by now."""
    settings, soon_ms = Settings.from_env({}), NOW_MS + 60_000
    job, _ = fail(job_of(3), DAILY, settings, Outcome.REFUSED, {"b": NOW_MS + 10**9})
    assert job.model == "c"  # b is not even asked
    assert fail(job, DAILY, settings, Outcome.REFUSED, {"a": soon_ms, "b": NOW_MS + 10**9})[1] == Park(soon_ms, 0)
    assert fail(job, DAILY, settings, Outcome.REFUSED, {"a": NOW_MS - 1, "b": NOW_MS + 10**9})[1] == FailOver(NOW_MS, 0)


def test_a_model_that_failed_is_not_gone_back_to() -> None:
    """Only a quota is waited out: what failed on a model stays failed this round."""
    settings = Settings.from_env({})
    job, _ = fail(job_of(2, max_attempts=2), GENERATION_FAILED, settings)
    assert job.model == "b"
    _, decision = fail(job, DAILY, settings, Outcome.REFUSED, {"b": NOW_MS + 1000})
    assert isinstance(decision, Park)
    assert decision.model_index == 1


def test_no_other_model_is_asked_while_a_submission_is_unknown() -> None:
    """It may be paid for: its resend waits for the model's limit, an alternate would be paid again."""
    settings = Settings.from_env({})
    job, _ = fail(job_of(2), UNKNOWN, settings, Outcome.UNKNOWN)
    reset_ms = quota_reset_ms(DAILY, settings.quota_reset, NOW_MS)
    for waiting in (job, begun(job)):  # known before the resend, or by its answer
        decision = decide(waiting, DAILY, settings, now_ms=NOW_MS, rng=Random(1), cooldowns={"a": NOW_MS + 1})
        assert decision == Park(reset_ms, 0)


def test_a_park_past_the_deadline_fails_at_once_and_says_so() -> None:
    """The quota's code is kept and the message names the deadline."""
    job, decision = fail(job_of(deadline_s=60), DAILY, Settings.from_env({}), Outcome.REFUSED)
    assert isinstance(decision, Fail)
    assert job.failure is not None
    assert job.failure["code"] == "model_quota_exceeded"
    assert "deadline" in job.failure["message"]


def test_an_unknown_submission_is_resent_once_with_its_key() -> None:
    """The first unknown is resent under the same idempotency key, the second fails the job."""
    settings = Settings.from_env({})
    job, first = fail(job_of(2), UNKNOWN, settings, Outcome.UNKNOWN)
    assert isinstance(first, Retry)
    job, second = fail(job, UNKNOWN, settings, Outcome.UNKNOWN)
    assert isinstance(second, Fail)
    assert [attempt.key for attempt in job.attempts] == ["j/1.1.0", "j/1.1.0"]
    assert [attempt.model for attempt in job.attempts] == ["a", "a"]


def test_an_unknown_submission_fails_where_that_is_the_policy() -> None:
    """With ``fail`` nothing is resent."""
    _, decision = fail(job_of(2, unknown="fail"), UNKNOWN, Settings.from_env({}), Outcome.UNKNOWN)
    assert isinstance(decision, Fail)


def test_a_policy_refusal_tries_one_other_model() -> None:
    """Never the same model again, one try on the next, and no third."""
    settings = Settings.from_env({})
    job, first = fail(job_of(3), REJECTED, settings)
    assert first == FailOver(NOW_MS, 1)
    _, second = fail(job, REJECTED, settings)
    assert isinstance(second, Fail)


def test_a_policy_refusal_fails_where_failover_is_not_named() -> None:
    """FAILOVER_ON decides."""
    settings = replace(Settings.from_env({}), failover_on=frozenset())
    _, decision = fail(job_of(3), REJECTED, settings)
    assert isinstance(decision, Fail)


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 413, 422])
def test_terminal_refusals_end_the_job_with_one_submission(status: int) -> None:
    """The documented terminal statuses fail at once, with one attempt to show for it."""
    job, decision = fail(job_of(3), classify(Signal(Stage.SUBMIT, status)), Settings.from_env({}), Outcome.REFUSED)
    assert isinstance(decision, Fail)
    assert [attempt.outcome for attempt in job.attempts] == [Outcome.REFUSED]


def test_account_errors_hold_where_that_is_the_policy() -> None:
    """With ``hold`` an empty balance stops submissions and costs the job nothing."""
    job, decision = fail(job_of(), BALANCE, Settings.from_env({"ACCOUNT_ERRORS": "hold"}), Outcome.REFUSED)
    assert isinstance(decision, Hold)
    assert job.attempts == ()


@given(deferrals=st.integers(0, 10_000), seed=st.integers(), after_s=st.none() | st.floats(0, 100))
def test_backoff_is_bounded_full_jitter(deferrals: int, seed: int, after_s: float | None) -> None:
    """Between what the gateway asked for and that plus the capped exponential."""
    settings = Settings.from_env({})
    failure = replace(RATE_LIMITED, retry_after_s=after_s)
    wait_ms = backoff_ms(replace(job_of(), deferrals=deferrals), failure, settings, Random(seed))
    floor_ms = 1000 * (after_s or 0)
    assert floor_ms - 1 <= wait_ms <= floor_ms + 1000 * min(300, 2 * 2 ** min(deferrals, 30)) + 1


@pytest.mark.parametrize(
    ("code", "now", "reset"),
    [
        ("daily_token_limit_exceeded", "2026-11-22T12:00", "2026-11-22T21:00"),
        ("daily_request_limit_exceeded", "2026-11-22T21:00", "2026-11-23T21:00"),
        ("monthly_token_limit_exceeded", "2026-11-22T12:00", "2026-11-30T21:00"),
        ("monthly_token_limit_exceeded", "2026-12-31T21:00", "2027-01-31T21:00"),
        ("free_model_rate_limit", "2026-11-22T12:00", "2026-11-23T12:00"),
    ],
)
def test_quotas_reset_by_the_calendar_of_istanbul(code: str, now: str, reset: str) -> None:
    """Daily at midnight, monthly on the first, the free models' after 24 hours (UTC+3 there)."""
    failure = classify(Signal(Stage.SUBMIT, 429, code))
    at_ms = quota_reset_ms(failure, Settings.from_env({}).quota_reset, _ms(now))
    assert at_ms == _ms(reset)


def _ms(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)
