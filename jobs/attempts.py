"""Owns how an attempt ends: what it came to, what its look-ups have seen, and when its task is looked at next."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from jobs.decide import Decision, Fail, Hold
from jobs.job import Attempt, Job, Outcome
from jobs.polling import LATE_GAP_MS
from jobs.verdict import Category, Failure


def end_current(
    job: Job, shown: Mapping[str, Any], failure: Failure, decision: Decision, outcome: Outcome | None, now_ms: int
) -> tuple[Job, dict[int, int | None]]:
    """End the attempt under way as was decided, or take it back where it costs none; give job and looks."""
    attempt = job.current
    if attempt is None or outcome is None:
        return job, {}
    if outcome is Outcome.REFUSED and not failure.counts_as_attempt and not _is_verdict(failure, decision):
        return replace(job, attempts=job.attempts[:-1]), {}
    counted = failure.counts_as_attempt or outcome is not Outcome.REFUSED
    ended = ended_as(job, attempt, outcome, now_ms, failure=shown, counted=counted)
    return job.with_attempt(ended), watch(ended, now_ms)


def watch(ended: Attempt, now_ms: int) -> dict[int, int | None]:
    """Say when an attempt that has ended is next on the track wheel: for its task, or for an answer that may come."""
    if ended.may_be_answered:
        return {ended.number: max(ended.answered_by_ms or now_ms, now_ms)}
    return {ended.number: now_ms + LATE_GAP_MS if ended.watched else None} if ended.task_id else {}


def _is_verdict(failure: Failure, decision: Decision) -> bool:
    """Whether a refusal says something about the request or the model that its reader wants to see kept."""
    return isinstance(decision, Fail) or (failure.category is Category.TERMINAL and not isinstance(decision, Hold))


def ended_as(job: Job, attempt: Attempt, outcome: Outcome, now_ms: int, **more: Any) -> Attempt:
    """End an attempt, with the number of its look-ups and ``more`` of its fields."""
    look = job.looks.get(attempt.number)
    polls = look.polls if look else attempt.polls
    return replace(attempt, outcome=outcome, ended_at_ms=now_ms, polls=polls, **more)


def abandon_current(job: Job, shown: Mapping[str, Any], now_ms: int) -> tuple[Job, dict[int, int | None]]:
    """Give up what is under way, if anything: its task runs on, or its submission may be answered yet."""
    attempt = job.current
    if attempt is None:
        return job, {}
    outcome = Outcome.ABANDONED if attempt.task_id else Outcome.UNKNOWN
    ended = ended_as(job, attempt, outcome, now_ms, failure=shown)
    return job.with_attempt(ended), watch(ended, now_ms)
