"""Owns the answer to "why is it not moving?": what keeps a job that has not ended from its next step.

Pure: made of the job's view and of how the fleet stands, a sentence each, so that every door gives the same answer.
What the job itself waits for (a backoff, a quota) is told by its ``failure`` and ``next_action_at``, not here.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from jobs.states import ENDED, Status
from worker.fleet import Overview
from worker.keys import submit_wheel
from worker.record import rfc3339

UNSUBMITTED = (Status.QUEUED, Status.WAITING)


def hindrances(job_view: Mapping[str, Any], overview: Overview) -> list[str]:
    """Say what holds a job up now, what concerns everything first; nothing for one that has ended."""
    if job_view["status"] in ENDED:
        return []
    found = [] if overview.alive else ["no worker is alive: start `onysoft-worker work` (or `up`)"]
    if job_view["status"] in UNSUBMITTED:
        found += _of_submissions(job_view, overview)
    return found


def _of_submissions(job_view: Mapping[str, Any], overview: Overview) -> Iterator[str]:
    kind, model = job_view["kind"], job_view["model"]
    if kind in overview.paused:
        yield f"{kind} is paused{_since(overview.paused[kind])}: `onysoft-worker resume {kind}` starts it again"
    if overview.hold:
        probe = f"; next probe {rfc3339(overview.probe_at_ms)}" if overview.probe_at_ms else ""
        yield f"submissions are held{_since(overview.hold_since_ms)}: {overview.hold}{probe}"
    if overview.pause_until_ms > overview.at_ms:
        yield f"the account's requests a minute are used up until {rfc3339(overview.pause_until_ms)}"
    if until_ms := overview.cooldowns.get(model):
        yield f"{model} is at its limit until {rfc3339(until_ms)}"
    if overview.memory.is_used_up:
        yield "Redis is at its maxmemory: no submission begins until there is room (raise maxmemory)"
        return
    depth = overview.queues.get(submit_wheel(kind))
    if depth and job_view["status"] == Status.QUEUED and depth.due > 1:
        yield f"{depth.due} {kind} jobs are due, the oldest for {depth.oldest_s:.0f} s"


def _since(at_ms: int | None) -> str:
    return f" since {rfc3339(at_ms)}" if at_ms else ""
