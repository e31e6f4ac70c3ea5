"""Owns what is told of a result before its task has ended: the first track, while the gateway makes the others.

Told once for each attempt, of the task its job waits for and of no other; what a task shows that was given up is kept
until its end.
"""

from collections.abc import Collection
from dataclasses import replace

from jobs.changes import Change
from jobs.job import Attempt, Job, Look

KINDS = frozenset({"music"})


def is_news(job: Job, attempt: Attempt, urls: Collection[str]) -> bool:
    """Whether what a task that still runs shows is to be told."""
    return bool(urls) and job.spec.kind in KINDS and attempt is job.current and attempt.partial is None


def show(
    job: Job, attempt: Attempt, urls: Collection[str], *, look: Look, next_look_at_ms: int, now_ms: int, rev: str
) -> Change:
    """Record and announce what a task shows, with what its look-ups have seen; it goes on, and is looked at again."""
    shown = replace(attempt, partial={"urls": list(urls), "at_ms": now_ms})
    after = replace(job.with_attempt(shown), rev=rev, updated_at_ms=now_ms)
    after = replace(after, looks={**job.looks, attempt.number: look})
    note = {"event": "task.partial", "attempt": attempt.number, "model": attempt.model}
    return Change(job, after, None, note, webhooks=("job.partial",), looks={attempt.number: next_look_at_ms})
