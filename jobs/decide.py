"""Owns what a job does about a failure: retry, fail over, park, hold or fail, and at what time.

All arithmetic of waiting is here. ``decide`` is pure: the record, the verdict, the settings, the time and a source of
randomness go in, a decision comes out; the duties in ``worker/`` carry it out. What a failure means is not decided
here but in ``jobs.failures``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from types import MappingProxyType
from typing import Any

from config.settings import DailyReset, Settings
from jobs.job import Job, Outcome, rfc3339
from jobs.verdict import Action, Category, Code, Failure, Reset, Scope

ASKED_AGAIN_MS = 600_000  # how soon a model is tried again whose limit has not been reset when it should have been
SHORTEST_COOLDOWN_MS = 1_000
HOLD_PROBE_S = 5.0  # the first probe after an account failure; the gap grows from there
ROLLING_DAY_MS = 24 * 3600 * 1000
MAX_EXPONENT = 30  # 2**30 seconds is past any cap


@dataclass(frozen=True, slots=True)
class Retry:
    """Submit again to the same model, at a time."""

    at_ms: int
    action = Action.RETRY


@dataclass(frozen=True, slots=True)
class FailOver:
    """Submit to the next model of the chain, at a time."""

    at_ms: int
    model_index: int
    action = Action.FAIL_OVER


@dataclass(frozen=True, slots=True)
class Park:
    """Wait until the limit of a model of the chain resets."""

    at_ms: int
    model_index: int
    action = Action.PARK


@dataclass(frozen=True, slots=True)
class Hold:
    """Stop the fleet's submissions until a probe succeeds; ``at_ms`` is the first probe."""

    at_ms: int
    action = Action.HOLD


@dataclass(frozen=True, slots=True)
class Fail:
    """End the job. ``because`` is added to the gateway's words where the time, not the failure, ended it."""

    because: str | None = None
    action = Action.FAIL


Decision = Retry | FailOver | Park | Hold | Fail


def decide(
    job: Job,
    failure: Failure,
    settings: Settings,
    *,
    now_ms: int,
    rng: Random,
    cooldowns: Mapping[str, int] = MappingProxyType({}),
) -> Decision:
    """Decide what follows a failure. Where a wait would end past the job's deadline, the job fails at once.

    ``cooldowns`` are the models whose limits are used up, and until when (ms).
    """
    decision = _wish(job, failure, settings, now_ms, rng, cooldowns)
    match decision:
        case Fail():
            return decision
        case Retry(at) | FailOver(at) | Park(at) | Hold(at):
            if at < job.deadline_at_ms:
                return decision
            what = "the limit resets" if isinstance(decision, Park) else "the next try would be"
            return Fail(f"{what} at {rfc3339(at)}, past the job's deadline {rfc3339(job.deadline_at_ms)}")


def _wish(
    job: Job, failure: Failure, settings: Settings, now_ms: int, rng: Random, cooldowns: Mapping[str, int]
) -> Decision:
    if failure.scope is Scope.ACCOUNT and failure.code in _HOLDABLE and settings.account_errors == "hold":
        return Hold(now_ms + round(HOLD_PROBE_S * 1000))
    if failure.code is Code.SUBMIT_UNKNOWN:
        return _after_unknown(job, failure, settings, now_ms, rng)
    if failure.code is Code.MODEL_QUOTA_EXCEEDED:
        was_due = cooldowns.get(job.model, now_ms + 1) <= now_ms
        reset_ms = quota_reset_ms(failure, settings.quota_reset, now_ms, was_due=was_due)
        return _after_quota(job, {**cooldowns, job.model: reset_ms}, now_ms)
    if failure.category is Category.TERMINAL:
        return _after_terminal(job, failure, settings, now_ms)
    if not failure.counts_as_attempt:
        return Retry(now_ms + backoff_ms(job, failure, settings, rng))
    return _after_attempt(job, failure, settings, now_ms, rng)


_HOLDABLE = frozenset({Code.UNAUTHORIZED, Code.INSUFFICIENT_BALANCE})


def _after_attempt(job: Job, failure: Failure, settings: Settings, now_ms: int, rng: Random) -> Decision:
    """One retry on a model, then the next; the last takes what is left; every alternate gets at least one."""
    left = job.spec.max_attempts - job.counted()
    alternates = len(job.spec.models) - 1 - job.model_index
    if left <= 0:
        return Fail()
    if alternates and (job.counted(job.model_index) > 1 or left <= alternates):
        wait_ms = backoff_ms(job, failure, settings, rng) if failure.scope is Scope.GATEWAY else 0
        return FailOver(now_ms + wait_ms, job.model_index + 1)
    return Retry(now_ms + backoff_ms(job, failure, settings, rng))


def _after_quota(job: Job, resets: Mapping[str, int], now_ms: int) -> FailOver | Park:
    """Go to the first model of the chain that may be asked now, else wait for the first that may be again.

    Models that were tried this round and left for another reason stay left. After a submission of unknown acceptance
    there is no other model: it is sent again as it was, or it may be paid twice.
    """
    untried = set(range(len(job.spec.models))) - {a.model_index for a in job.attempts if a.round == job.round}
    here = (job.round, job.model_index)
    if any(a.outcome is Outcome.UNKNOWN and (a.round, a.model_index) == here for a in job.attempts):
        untried = set()
    at_ms = {index: resets.get(job.spec.models[index], 0) for index in sorted(untried | {job.model_index})}
    first = min(at_ms, key=lambda index: (max(at_ms[index], now_ms), index))
    if first != job.model_index and at_ms[first] <= now_ms:
        return FailOver(now_ms, first)
    return Park(at_ms[first], first)


def _after_unknown(job: Job, failure: Failure, settings: Settings, now_ms: int, rng: Random) -> Decision:
    """Resend once, where the caller's or the operator's policy says so and an attempt is left."""
    keys = [attempt.key for attempt in job.attempts if attempt.round == job.round]
    resent = len(keys) != len(set(keys))
    if job.spec.on_unknown_submit == "retry" and not resent and job.counted() < job.spec.max_attempts:
        return Retry(now_ms + backoff_ms(job, failure, settings, rng))
    return Fail()


def _after_terminal(job: Job, failure: Failure, settings: Settings, now_ms: int) -> Decision:
    """Fail, but for a refusal that belongs to the model: one try on the next, once a round."""
    tried_before = sum(
        attempt.round == job.round and _code(attempt.failure) == failure.code for attempt in job.attempts
    )
    used = job.counted() - (job.current is not None and not failure.counts_as_attempt)
    if failure.code not in settings.failover_on or tried_before or used >= job.spec.max_attempts:
        return Fail()
    return _next_model(job, now_ms) or Fail()


def _code(failure: Mapping[str, Any] | None) -> str | None:
    return failure["code"] if failure else None


def _next_model(job: Job, now_ms: int) -> FailOver | None:
    if job.model_index + 1 < len(job.spec.models):
        return FailOver(now_ms, job.model_index + 1)
    return None


def backoff_ms(job: Job, failure: Failure, settings: Settings, rng: Random) -> int:
    """Full jitter over an exponential ceiling, on top of what the gateway asked for (``Retry-After``)."""
    steps = min(max(job.deferrals, job.counted() - 1), MAX_EXPONENT)
    ceiling_s = min(settings.retry_cap_s, settings.retry_base_s * 2**steps)
    return round(((failure.retry_after_s or 0.0) + rng.uniform(0, ceiling_s)) * 1000)


def quota_reset_ms(failure: Failure, reset: DailyReset, now_ms: int, *, was_due: bool = False) -> int:
    """Say when a model's limit resets: as the gateway says, else by the calendar of the limit.

    ``was_due``: it was to have been reset by now, so the calendar is not to be trusted: it is asked again soon.
    """
    if failure.retry_after_s:  # a quota that resets at once is not told truly
        return now_ms + max(round(failure.retry_after_s * 1000), SHORTEST_COOLDOWN_MS)
    if was_due:
        return now_ms + ASKED_AGAIN_MS
    if failure.resets is Reset.ROLLING_DAY:
        return now_ms + ROLLING_DAY_MS
    now = datetime.fromtimestamp(now_ms / 1000, reset.zone)
    today = now.replace(hour=reset.hour, minute=reset.minute, second=0, microsecond=0)
    if failure.resets is Reset.MONTH:
        at = today.replace(day=1)
        if at <= now:
            at = (at + timedelta(days=32)).replace(day=1)
    else:
        at = today if today > now else today + timedelta(days=1)
    return round(at.astimezone(UTC).timestamp() * 1000)
