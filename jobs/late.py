"""Owns what becomes of tasks that came too late: given up before they ended, or accepted on a claim gone stale.

They are paid for, so they are never dropped: a late result completes a job that still tries, and is announced
otherwise; a late acceptance is what its job waits for, or is looked at rarely until it ends.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from jobs.changes import ON_SUBMIT_WHEEL, Change, accept, complete, next_number, shown_failure
from jobs.expiry import expires_at_ms
from jobs.job import Attempt, Job, Outcome, rfc3339
from jobs.polling import LATE_GAP_MS
from jobs.states import Event, advance
from jobs.verdict import Code, Failure


def rescued(
    job: Job, *, outcome: Outcome | None, now_ms: int, rev: str, failure: Failure | None = None
) -> Change | None:
    """Complete a job that has just met a failure with a result that came late this round, where there is one.

    ``outcome`` and ``failure`` are what the current attempt came to, where there is one.
    """
    found = next((attempt for attempt in job.attempts if job.may_use(attempt)), None)
    if found is None or found.late is None:
        return None
    result = {name: found.late[name] for name in RESULT_FIELDS if name in found.late}
    result = {"expires_at": rfc3339(expires_at_ms((), found.late["at_ms"])), **result, "raw": None}
    ended = outcome or Outcome.ABANDONED
    return complete(job, found.number, result, now_ms=now_ms, rev=rev, current_outcome=ended, current_failure=failure)


RESULT_FIELDS = ("urls", "text", "expires_at")  # what is kept of a late result


def end_late(
    job: Job,
    number: int,
    *,
    status: str,
    urls: list[str],
    now_ms: int,
    rev: str,
    cost: Any = None,
    more: Mapping[str, Any] | None = None,
) -> Change:
    """Record how a task ended that had been given up, with the result's ``urls`` and ``more`` of it.

    ``status``: succeeded, failed, or unknown when it was looked at for long enough. ``cost`` is what was told with it.
    """
    attempt = job.attempt(number)
    assert attempt is not None
    kept = {name: value for name, value in (more or {}).items() if name in RESULT_FIELDS}
    if status == "succeeded":
        kept = {"expires_at": rfc3339(expires_at_ms((), now_ms)), **kept}
    ended = replace(attempt, late={**kept, "status": status, "at_ms": now_ms, "urls": urls})
    ended = replace(ended, cost=attempt.cost if cost is None else cost)
    after = replace(job.with_attempt(ended), rev=rev, updated_at_ms=now_ms)
    return Change(
        job,
        after,
        None,
        {"event": "task.ended_late", "attempt": number, "model": attempt.model, "code": status},
        webhooks=("job.late_result",) if status == "succeeded" else (),
        looks={number: None},
    )


def last_word(attempt: Attempt) -> str:
    """Say how a task ended that was looked at for long enough and says nothing new."""
    if attempt.outcome is not Outcome.FAILED or attempt.failure is None:
        return "unknown"
    return "unknown" if attempt.failure["code"] == Code.TASK_LOST else "failed"


def give_up_answer(job: Job, number: int, *, now_ms: int, rev: str) -> Change:
    """Record that the answer to a submission that was given up has not come while it could."""
    attempt = job.attempt(number)
    assert attempt is not None
    ended = replace(attempt, late={"status": "unknown", "at_ms": now_ms, "urls": []})
    after = replace(job.with_attempt(ended), rev=rev, updated_at_ms=now_ms)
    note = {"event": "attempt.never_answered", "attempt": number, "model": attempt.model}
    return Change(job, after, None, note, looks={number: None})


def note_refusal(job: Job, sent: Attempt, failure: Failure, *, now_ms: int, rev: str) -> Change | None:
    """Note that a submission that was given up was refused after all; None where the record does not wait for it."""
    found = next((a for a in job.attempts if (a.number, a.key) == (sent.number, sent.key) and a.may_be_answered), None)
    if found is None:
        return None
    refused = replace(found, outcome=Outcome.REFUSED, failure=shown_failure(failure))
    after = replace(job.with_attempt(refused), rev=rev, updated_at_ms=now_ms)
    note = {"event": "attempt.refused", "attempt": found.number, "model": found.model, "code": str(failure.code)}
    return Change(job, after, None, note, looks={found.number: None})


def keep_task(
    job: Job, sent: Attempt, task_id: str, *, first_look_ms: int, now_ms: int, rev: str, cost: Any = None
) -> Change:
    """Keep a task id whose submission was overtaken: canceled meanwhile, or taken for dead. It is paid for.

    Where the job still waits for just this submission, or would send it again, it waits for the task instead; else
    the task is looked at rarely until it ends.
    """
    current, last = job.current, job.attempts[-1] if job.attempts else None
    if current is not None and current.key == sent.key and current.task_id is None:
        return accept(job, task_id, first_look_ms=first_look_ms, now_ms=now_ms, rev=rev, cost=cost)
    is_last = last is not None and last.key == sent.key and last.outcome is Outcome.UNKNOWN
    if last is not None and is_last and job.status in ON_SUBMIT_WHEEL:  # also where it was opened again meanwhile
        running = replace(last, task_id=task_id, cost=cost, outcome=None, ended_at_ms=None, failure=None, late=None)
        running = replace(running, round=job.round, adopted_at_ms=now_ms)
        after = replace(
            job.with_attempt(running),
            rev=rev,
            status=advance(job.status, Event.ADOPT),
            updated_at_ms=now_ms,
            next_action_at_ms=None,
            failure=None,
            model_index=last.model_index,
        )
        note = {"event": "task.accepted", "attempt": last.number, "model": last.model, "task_id": task_id}
        looks = {last.number: now_ms + first_look_ms}
        return Change(job, after, Event.ADOPT, note, webhooks=("job.processing",), looks=looks)
    return _keep_aside(job, sent, task_id, now_ms=now_ms, rev=rev, cost=cost)


def _keep_aside(job: Job, sent: Attempt, task_id: str, *, now_ms: int, rev: str, cost: Any) -> Change:
    lost = next((a for a in job.attempts if a.number == sent.number and a.key == sent.key and not a.task_id), None)
    if lost is None:
        lost = replace(sent, number=next_number(job))
    attempt = replace(
        lost, task_id=task_id, cost=cost, ended_at_ms=lost.ended_at_ms or now_ms, outcome=Outcome.ABANDONED, late=None
    )
    number, current = attempt.number, job.current
    after = replace(job.with_attempt(attempt), rev=rev, updated_at_ms=now_ms)
    if current is not None:  # the attempt under way stays the last one: it is found there
        after = replace(after, attempts=(*(a for a in after.attempts if a.number != current.number), current))
    return Change(
        job,
        after,
        None,
        {"event": "task.kept", "attempt": number, "model": attempt.model, "task_id": task_id},
        looks={number: now_ms + LATE_GAP_MS},
    )
