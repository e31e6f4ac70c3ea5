"""Owns the demo's judgement: did every job, every webhook and every billed task end as it must. Pure.

The bill is checked task by task. Needed is the one task that answered a completed job; whatever else the gateway kept
the money for must have a reason that the job's own attempts show, or it is a fault.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from worker.demo.jobs import COMPLETED
from worker.demo.progress import Progress
from worker.demo.receiver import Inbox

LOST = "lost"
EMPTY = "empty"
EMPTY_CODE = "done_without_url"


@dataclass(slots=True)
class Bill:
    """What was billed and kept, in tasks and money. ``extras`` is what no job needed, as (job, reason) of each task."""

    kept: int = 0
    needed: int = 0
    refunded: int = 0
    amount: float = 0.0
    extra_amount: float = 0.0
    currency: str = ""
    extras: list[tuple[str, str]] = field(default_factory=list)


@dataclass(slots=True)
class Verdict:
    """What came of it all. The lists name jobs; a fault is a whole sentence."""

    completed: list[str] = field(default_factory=list)
    failed: list[Progress] = field(default_factory=list)
    retried: list[str] = field(default_factory=list)
    failed_over: list[Progress] = field(default_factory=list)
    parked: list[str] = field(default_factory=list)
    hooks: int = 0
    repeats: int = 0
    bill: Bill = field(default_factory=Bill)
    faults: list[str] = field(default_factory=list)


def judge(jobs: Sequence[Progress], inbox: Inbox, books: dict[str, Any]) -> Verdict:
    """Check everything there is to check."""
    verdict = Verdict(hooks=len(inbox.taken), repeats=inbox.repeats)
    sent: dict[str, list[str]] = defaultdict(list)
    for submission in books["submissions"]:
        sent[submission["tag"]].append(submission["model"])
    for job in jobs:
        _judge_job(verdict, job, sent[job.job.id])
        verdict.faults += _hook_faults(job, inbox)
    known = {job.job.id for job in jobs}
    verdict.faults += [
        *dict.fromkeys(inbox.bad),
        *(f"webhook {h.id} is of no job of ours" for h in _strangers(inbox, known)),
    ]
    verdict.bill = _bill(jobs, books, verdict.faults)
    return verdict


def _judge_job(verdict: Verdict, job: Progress, models_sent: list[str]) -> None:
    name = job.job.id
    seen: set[str] = set()
    if not job.ended:
        verdict.faults.append(f"{name}: is stuck, {job.status or 'not enqueued'} ({job.step() or 'never sent'})")
        return
    if not job.as_expected:
        words = (job.view["failure"] or {}).get("message", "")
        verdict.faults.append(f"{name}: ended {job.end}, must end {job.job.ends}" + (f" ({words})" if words else ""))
    if job.view["degraded"]:
        seen.add("failed over")
        verdict.failed_over.append(job)
    if any(action == "park" for action, _ in job.waits):
        seen.add("parked")
        verdict.parked.append(name)
    elif max(Counter(models_sent).values(), default=0) > 1:
        seen.add("retried")
        verdict.retried.append(name)
    seen.update(_further_marks(job, models_sent))
    verdict.faults += [f"{name}: was not {mark} on its way" for mark in sorted(job.job.marks - seen)]
    (verdict.completed.append(name) if job.status == COMPLETED else verdict.failed.append(job))


def _further_marks(job: Progress, models_sent: list[str]) -> Iterable[str]:
    result = job.view["result"] or {}
    if any(attempt["outcome"] == "unknown" for attempt in job.attempts):
        yield "resent"
    if result.get("text"):
        yield "text"
    if len(models_sent) == 1:
        yield "once"


def _hook_faults(job: Progress, inbox: Inbox) -> list[str]:
    if not job.ended:
        return []
    name, wanted, hooks = job.job.id, f"job.{job.status}", inbox.of(job.job.id)
    faults = []
    if not any(hook.type == wanted for hook in hooks):
        faults.append(f"{name}: its webhook {wanted} did not come")
    if len(hooks) > 1:
        faults.append(f"{name}: {len(hooks)} webhooks came, under ids of their own, where one is due")
    if job.job.first_webhook_refused and name not in inbox.refused.values():
        faults.append(f"{name}: no delivery of its webhook was there to be refused")
    return faults


def _strangers(inbox: Inbox, known: set[str]) -> list[Any]:
    return [hook for hook in inbox.taken.values() if hook.job_id not in known]


def _bill(jobs: Sequence[Progress], books: dict[str, Any], faults: list[str]) -> Bill:
    stats = books["stats"]
    bill = Bill(
        refunded=stats["refunded_tasks"],
        amount=stats["billed"]["amount"] - stats["refunded"]["amount"],
        currency=stats["billed"]["currency"],
    )
    kept: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for task in books["tasks"]:
        if not task["refunded"]:
            kept[task["tag"]].append(task)
            bill.kept += 1
    if bill.kept != stats["billed_tasks"] - stats["refunded_tasks"]:
        faults.append("the gateway's books do not add up: it lists other tasks than it billed")
    for job in jobs:
        _explain(job, kept.pop(job.job.id, []), bill, faults)
    faults += [f"billed for a job that is none of ours: {tag or 'without a name'}" for tag in kept]
    return bill


def _explain(job: Progress, tasks: list[dict[str, Any]], bill: Bill, faults: list[str]) -> None:
    """Find the reason for every task of a job that was billed and kept."""
    attempts = {attempt["task_id"]: attempt for attempt in job.attempts if attempt["task_id"]}
    lost = sum(attempt["outcome"] == "unknown" for attempt in job.attempts)
    answered = job.view.get("task_id") if job.status == COMPLETED else None
    for task in tasks:
        attempt = attempts.get(task["task_id"])
        if answered is not None and task["task_id"] == answered:
            bill.needed += 1
            continue
        bill.extra_amount += task["billed"]["amount"]
        if attempt is None and lost:
            lost -= 1
            bill.extras.append((job.job.id, LOST))
        elif attempt and (attempt["failure"] or {}).get("gateway_code") == EMPTY_CODE:
            bill.extras.append((job.job.id, EMPTY))
        elif job.ended:
            faults.append(f"{job.job.id}: task {task['task_id']} on {task['model']} was billed and nothing explains it")
    if answered is not None and answered not in {task["task_id"] for task in tasks}:
        faults.append(f"{job.job.id}: completed by task {answered}, which the gateway does not bill")
