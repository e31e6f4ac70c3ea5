"""Owns how a job's record changes: one pure function a step, each returning the whole ``Change``.

A change carries the record before and after, the webhook events it makes, the counters it moves, what the fleet learns
from it (a pause, a hold, a cooldown) and a line of the job's timeline. The store writes all of it in one Redis step or
nothing. Which wheels the job is on follows from the record after, so that no step can forget it: a job that waits its
turn is on the submit wheel at its time, and a task that may still run is on the track wheel.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from jobs.attempts import abandon_current, end_current, ended_as, watch
from jobs.counters import Counter, count, observe
from jobs.decide import Decision, Fail, FailOver, Hold, Park, Retry
from jobs.expiry import expires_at_ms
from jobs.failures import own_failure
from jobs.job import Attempt, Job, Look, Outcome, Spec, rfc3339
from jobs.money import money_counters
from jobs.states import Event, Status, advance
from jobs.verdict import Acceptance, Code, Failure

MOST_WITH_ONE_KEY = 3  # a gateway that answers a key the same way each time would never make the generation
MARGIN_MS = 5_000  # from the intent to the POST, and from its answer to the record
# Failures that speak of the model, and not of what was asked of it.
ILLNESSES = frozenset({Code.GENERATION_FAILED, Code.GENERATION_TIMEOUT, Code.SERVER_ERROR, Code.TASK_LOST})
ON_SUBMIT_WHEEL = frozenset({Status.QUEUED, Status.WAITING})


@dataclass(frozen=True, slots=True)
class Lesson:
    """What all workers learn from one answer."""

    hold: str | None = None  # no submissions until a probe succeeds, with the failure's code
    release_hold: bool = False
    cool_model: str | None = None
    cool_until_ms: int = 0


@dataclass(frozen=True, slots=True)
class Change:
    """One step of a job. ``before`` is None for a new one; ``event`` is None where the status does not move."""

    before: Job | None
    after: Job
    event: Event | None
    note: Mapping[str, Any]
    webhooks: tuple[str, ...] = ()
    counters: tuple[Counter, ...] = ()
    lesson: Lesson = Lesson()
    looks: Mapping[int, int | None] = field(default_factory=dict)  # attempt -> next look (ms), None: never again

    @property
    def counted(self) -> tuple[Counter, ...]:
        """Everything this step counts: what its maker named, each attempt's first outcome, the job's end, money."""
        before, after = self.before, self.after
        known = {attempt.number: attempt.outcome for attempt in before.attempts} if before else {}
        reached = [
            count("attempts_total", attempt.model, attempt.outcome)
            for attempt in after.attempts
            if attempt.outcome is not None and known.get(attempt.number) is None and attempt.adopted_at_ms is None
        ]
        if after.ended and (before is None or not before.ended):
            reached.append(count("jobs_total", after.spec.kind, after.status))
        return (*self.counters, *reached, *money_counters(before, after))

    @property
    def model_health(self) -> tuple[str, bool] | None:
        """Name the model this step says something about, and whether it is well; None where it says nothing."""
        known = {attempt.number: attempt.outcome for attempt in self.before.attempts} if self.before else {}
        for attempt in reversed(self.after.attempts):
            if attempt.outcome is None or attempt.outcome is known.get(attempt.number):
                continue
            if attempt.outcome is Outcome.SUCCEEDED:
                return attempt.model, True
            if attempt.failure and attempt.failure["code"] in ILLNESSES:
                return attempt.model, False
        return None

    @property
    def submit_at_ms(self) -> int | None:
        """When the submit wheel has the job due, or None where it is not to be on it."""
        if self.after.status not in ON_SUBMIT_WHEEL:
            return None
        return self.after.next_action_at_ms or self.after.updated_at_ms


def create(spec: Spec, *, now_ms: int, rev: str) -> Change:
    """Make a new job, due at once."""
    job = Job(spec, rev, Status.QUEUED, now_ms, deadline_at_ms=now_ms + spec.deadline_ms)
    return Change(None, job, None, {"event": "job.created", "model": job.model})


def reject(spec: Spec, failure: Mapping[str, Any], *, now_ms: int, rev: str) -> Change:
    """Make a job that failed before it began, so that its caller finds out why."""
    job = Job(spec, rev, Status.FAILED, now_ms, deadline_at_ms=now_ms, completed_at_ms=now_ms, failure=failure)
    return Change(
        None,
        job,
        None,
        {"event": "job.rejected", "code": failure["code"], "message": failure["message"]},
        webhooks=("job.failed",),
        counters=(count("failures_total", job.model, failure["code"]),),
    )


def begin(job: Job, *, now_ms: int, rev: str, patience_ms: int = 0) -> Change:
    """Write the intent of a submission.

    A resend after an unknown answer keeps that attempt's idempotency key, also in a later round: a gateway that heeds
    it makes one generation of the two. ``patience_ms``: for how long its answer is waited for.
    """
    number = next_number(job)
    # The model is part of the key: another model's submission is another generation, whatever its number.
    key = _unresolved_key(job) or f"{job.id}/{job.round}.{number}.{job.model_index}"
    attempt = Attempt(
        number, job.model, job.model_index, job.round, key, now_ms, answered_by_ms=now_ms + patience_ms + MARGIN_MS
    )
    after = replace(
        job.with_attempt(attempt),
        rev=rev,
        status=advance(job.status, Event.SUBMIT),
        updated_at_ms=now_ms,
        next_action_at_ms=None,
    )
    return Change(job, after, Event.SUBMIT, {"event": "attempt.begun", "attempt": number, "model": job.model})


def _unresolved_key(job: Job) -> str | None:
    """Give the key of the model's last submission of unknown acceptance, while no task has come of it."""
    unknown = next((a for a in reversed(job.attempts) if a.outcome is Outcome.UNKNOWN), None)
    if unknown is None or unknown.model_index != job.model_index:
        return None
    of_key = [attempt for attempt in job.attempts if attempt.key == unknown.key]
    taken = any(attempt.task_id is not None for attempt in of_key)
    return None if taken or len(of_key) >= MOST_WITH_ONE_KEY else unknown.key


def withdraw(job: Job, *, now_ms: int, rev: str) -> Change:
    """Take back an intent that was not followed by a POST: the attempt never was, and the job is due again."""
    after = replace(
        job,
        rev=rev,
        status=advance(job.status, Event.WAIT),
        attempts=job.attempts[:-1],
        updated_at_ms=now_ms,
        next_action_at_ms=now_ms,
    )
    return Change(job, after, Event.WAIT, {"event": "attempt.withdrawn", "attempt": _current(job).number})


def accept(job: Job, task_id: str, *, first_look_ms: int, now_ms: int, rev: str, cost: Any = None) -> Change:
    """Record the gateway's task id: the task is paid for, and tracked from now on."""
    attempt = _current(job)
    after = replace(
        job.with_attempt(replace(attempt, task_id=task_id, cost=cost)),
        rev=rev,
        status=advance(job.status, Event.ACCEPT),
        updated_at_ms=now_ms,
        failure=None,
        deferrals=0,
    )
    return Change(
        job,
        after,
        Event.ACCEPT,
        {"event": "task.accepted", "attempt": attempt.number, "model": attempt.model, "task_id": task_id},
        webhooks=("job.processing",),
        lesson=Lesson(release_hold=True),
        looks={attempt.number: now_ms + first_look_ms},
    )


def settle(job: Job, failure: Failure, decision: Decision, *, outcome: Outcome | None, now_ms: int, rev: str) -> Change:
    """Carry out a decision. ``outcome`` ends the attempt under way; None where none was begun.

    A refusal that costs no attempt and is not the job's end leaves none: its number is used again.
    """
    shown = _shown(failure, decision)
    job_after, looks = end_current(job, shown, failure, decision, outcome, now_ms)
    event = Event.FAIL if isinstance(decision, Fail) else Event.WAIT
    after = replace(
        job_after,
        rev=rev,
        status=advance(job.status, event),
        updated_at_ms=now_ms,
        failure=shown,
        deferrals=job.deferrals + 1,
        next_action_at_ms=None if isinstance(decision, Fail) else decision.at_ms,
        completed_at_ms=now_ms if isinstance(decision, Fail) else None,
        model_index=decision.model_index if isinstance(decision, FailOver | Park) else job.model_index,
    )
    counters = [count("failures_total", job.model, failure.code)]
    note = {"event": _NOTE[type(decision)], "attempt": job.current and job.current.number, "model": job.model}
    note |= {"code": shown["code"], "message": shown["message"], "next_action_at": rfc3339(after.next_action_at_ms)}
    webhooks: tuple[str, ...] = ("job.waiting",)
    match decision:
        case Fail():
            webhooks = ("job.failed",)
        case FailOver():
            webhooks = ("job.failed_over", "job.waiting")
            counters += [count("failovers_total", job.model, after.model)]
            note["to_model"] = after.model
        case Retry() | Park() | Hold():
            pass
    heard = job.status is Status.SUBMITTING and outcome is Outcome.REFUSED
    lesson = _lesson(failure, decision, heard=heard)
    return Change(job, after, event, note, webhooks, tuple(counters), lesson, looks)


_NOTE: Mapping[type, str] = {
    Retry: "job.backed_off",
    FailOver: "job.failed_over",
    Park: "job.parked",
    Hold: "job.held",
    Fail: "job.failed",
}


def _lesson(failure: Failure, decision: Decision, *, heard: bool) -> Lesson:
    """Say what all workers learn. ``heard``: the gateway has just refused a submission."""
    match decision:
        case Hold():
            return Lesson(hold=str(failure.code))
        case _:
            # What judges the input has let the account pass; anything else may stand before it.
            return Lesson(release_hold=heard and failure.code in {Code.INVALID_INPUT, Code.CONTENT_REJECTED})


def cooled(change: Change, model: str, until_ms: int) -> Change:
    """Tell the fleet that a model is at its limit until a time."""
    return replace(change, lesson=replace(change.lesson, cool_model=model, cool_until_ms=until_ms))


def complete(
    job: Job,
    number: int,
    result: Mapping[str, Any],
    *,
    now_ms: int,
    rev: str,
    cost: Any = None,
    current_outcome: Outcome = Outcome.ABANDONED,
    current_failure: Failure | None = None,
) -> Change:
    """End a job well with the result of one of its attempts: the current one, or a late one that got there first.

    ``current_outcome`` and ``current_failure`` are what becomes of the current attempt where it is another.
    """
    attempt = job.attempt(number)
    assert attempt is not None
    done = ended_as(job, attempt, Outcome.SUCCEEDED, now_ms, failure=None)
    done = replace(done, cost=attempt.cost if cost is None else cost)
    after, looks = job.with_attempt(done), dict[int, int | None]()
    dropped = job.current
    if dropped is not None and dropped.number != number:
        shown = shown_failure(current_failure) if current_failure else None
        dropped = ended_as(job, dropped, current_outcome, now_ms, failure=shown)
        after, looks = after.with_attempt(dropped), watch(dropped, now_ms)
    after = replace(
        after,
        rev=rev,
        status=advance(job.status, Event.COMPLETE),
        model_index=attempt.model_index,
        updated_at_ms=now_ms,
        completed_at_ms=now_ms,
        next_action_at_ms=None,
        failure=None,
        result={"urls": [], "expires_at": rfc3339(expires_at_ms((), now_ms)), **result},
    )
    return Change(
        job,
        after,
        Event.COMPLETE,
        {"event": "job.completed", "attempt": number, "model": attempt.model},
        webhooks=("job.completed",),
        counters=_duration(attempt, now_ms),
        looks={**looks, number: None},
    )


def _duration(attempt: Attempt, now_ms: int) -> tuple[Counter, ...]:
    """Measure a generation from its submission to our learning of its end; not where we had stopped looking between."""
    if attempt.outcome is not None or attempt.adopted_at_ms is not None:
        return ()
    return observe("generation_seconds", attempt.model, ms=max(now_ms - attempt.started_at_ms, 0))


def cancel(job: Job, *, now_ms: int, rev: str) -> Change:
    """End a job at its caller's wish. A task under way cannot be stopped: it is looked at rarely until it ends."""
    failure = shown_failure(own_failure(Code.CANCELED, "canceled on request"))
    after, looks = abandon_current(job, failure, now_ms)
    after = replace(
        after,
        rev=rev,
        status=advance(job.status, Event.CANCEL),
        updated_at_ms=now_ms,
        completed_at_ms=now_ms,
        next_action_at_ms=None,
        failure=failure,
    )
    return Change(
        job,
        after,
        Event.CANCEL,
        {"event": "job.canceled"},
        webhooks=("job.canceled",),
        looks=looks,
    )


def retry(job: Job, *, now_ms: int, rev: str) -> Change:
    """Open an ended job for a new round of attempts, or adopt a task of its that still runs.

    A submission that was under way when the job was canceled may be answered yet: the job waits for that first.
    """
    running = next((attempt for attempt in reversed(job.attempts) if attempt.may_run), None)
    event = Event.ADOPT if running else Event.RETRY
    after = replace(
        job,
        rev=rev,
        status=advance(job.status, event),
        round=job.round + 1,
        deadline_at_ms=now_ms + job.spec.deadline_ms,
        updated_at_ms=now_ms,
        next_action_at_ms=None if running else _answered_by_ms(job, now_ms),
        completed_at_ms=None,
        failure=None,
        deferrals=0,
        model_index=running.model_index if running else 0,
    )
    looks: dict[int, int | None] = {}
    if running:
        adopted = replace(running, outcome=None, ended_at_ms=None, failure=None, round=after.round)
        adopted = replace(adopted, adopted_at_ms=now_ms)
        others = tuple(attempt for attempt in after.attempts if attempt.number != running.number)
        after = replace(after, attempts=(*others, adopted))
        looks = {running.number: now_ms}
    return Change(job, after, event, {"event": "job.retried", "adopted": running and running.task_id}, looks=looks)


def _answered_by_ms(job: Job, now_ms: int) -> int | None:
    """Say until when a submission that was given up may be answered; None where there is none such."""
    last = job.attempts[-1] if job.attempts else None
    if last is None or not last.may_be_answered:
        return None
    until_ms = last.answered_by_ms or 0
    return until_ms if until_ms > now_ms else None


def next_number(job: Job) -> int:
    """Give the number of a job's next attempt."""
    return max((attempt.number for attempt in job.attempts), default=0) + 1


def _current(job: Job) -> Attempt:
    attempt = job.current
    assert attempt is not None, "an attempt is under way"
    return attempt


def shown_failure(failure: Failure) -> dict[str, Any]:
    """Write a failure as the contract shows it, with its nominal action."""
    return {
        "code": str(failure.code),
        "category": str(failure.category),
        "action": str(failure.action),
        "http_status": failure.http_status,
        "gateway_code": failure.gateway_code,
        "message": failure.message,
        "rule": failure.rule,
    }


def _shown(failure: Failure, decision: Decision) -> dict[str, Any]:
    """Write a failure as the contract shows it, with the action that was decided."""
    because = decision.because if isinstance(decision, Fail) else None
    words = f"{failure.message} ({because})" if because else failure.message
    if failure.acceptance is Acceptance.UNKNOWN:
        words += "; it may have been accepted, and be paid"
    return shown_failure(failure) | {"action": str(decision.action), "message": words}


def look_of(job: Job, number: int) -> Look:
    """Say what look-ups of an attempt's task have seen."""
    return job.looks.get(number, Look())
