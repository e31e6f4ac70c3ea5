"""Owns how one job is shown in a terminal: its standing, its attempts, its timeline, and its progress until it ends."""

import asyncio
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape

from jobs.job import Job, view
from jobs.states import Status
from worker.store import Delivery, Store

WATCH_EVERY_S = 0.2
HINT_AFTER_S = 5.0
COLORS = {"completed": "green", "failed": "red", "canceled": "yellow", "waiting": "magenta", "processing": "cyan"}


def print_job(
    job: Job,
    timeline: Sequence[Mapping[str, Any]] = (),
    deliveries: Sequence[Delivery] = (),
    *,
    as_json: bool,
    short: bool = False,
) -> None:
    """Print a job; ``short`` is its id and status only."""
    shown = view(job)
    if as_json:
        told = {"timeline": list(timeline), "deliveries": [_shown(delivery) for delivery in deliveries]}
        sys.stdout.write(json.dumps({**shown, **(told if timeline else {})}) + "\n")
        return
    if short:
        sys.stdout.write(f"{job.id} {job.status}\n")
        return
    console = Console(highlight=False, soft_wrap=True)
    for line in (*_head(shown), *_attempts(shown["attempts"]), *map(_delivery, deliveries), *map(_entry, timeline)):
        console.print(line)


def _head(shown: Mapping[str, Any]) -> Iterator[str]:
    color = COLORS.get(shown["status"], "white")
    yield f"[bold]{escape(shown['id'])}[/]  {shown['kind']}  [{color}]{shown['status']}[/]  {escape(shown['model'])}"
    if shown["degraded"]:
        yield f"  degraded: {escape(shown['requested_model'])} was asked for"
    if failure := shown["failure"]:
        yield f"  [red]{failure['code']}[/] ({failure['action']}): {escape(str(failure['message']))}"
    if shown["next_action_at"]:
        yield f"  next action at {shown['next_action_at']}"
    result = shown["result"] or {}
    yield from (f"  {escape(url)}" for url in result.get("urls", []))
    if text := result.get("text"):
        yield f"  {escape(text)}"


def _attempts(attempts: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for attempt in attempts:
        words = [
            f"  attempt {attempt['number']}  {escape(attempt['model'])}  {attempt['outcome'] or 'under way'}",
            *([f"task {escape(attempt['task_id'])}, {attempt['polls']} look-ups"] if attempt["task_id"] else []),
            *([f"{attempt['failure']['code']}"] if attempt["failure"] else []),
            *([f"cost {attempt['cost']['amount']} {attempt['cost']['currency']}"] if attempt["cost"] else []),
        ]
        yield "  ".join(words)


def _delivery(delivery: Delivery) -> str:
    last = delivery.attempts[-1] if delivery.attempts else {"status": None, "answer": "not attempted yet"}
    said = last["status"] or escape(str(last["answer"]))
    tries = f"{len(delivery.attempts)} tried" if len(delivery.attempts) != 1 else "first try"
    return f"  webhook {delivery.type} {delivery.state} ({tries}) to {escape(delivery.url)}: {said}"


def _shown(delivery: Delivery) -> dict[str, Any]:
    return {
        "id": delivery.id,
        "event_id": delivery.event_id,
        "type": delivery.type,
        "url": delivery.url,
        "state": delivery.state,
        "attempts": list(delivery.attempts),
    }


def _entry(entry: Mapping[str, Any]) -> str:
    rest = "  ".join(f"{name}={value}" for name, value in entry.items() if name not in {"at", "event"})
    return f"  [dim]{entry['at']}[/]  {entry['event']:16} {escape(rest)}"


async def until_ended(store: Store, job_id: str, *, as_json: bool) -> int:
    """Show a job's progress on standard error until it ends; return the exit status for its outcome."""
    started_s, last, hinted = time.monotonic(), "", False
    while True:
        job = await store.get(job_id)
        if job is None:
            sys.stderr.write(f"{job_id} is no longer kept\n")
            return 1
        line = _progress(job)
        if line != last:
            sys.stderr.write(f"{time.monotonic() - started_s:6.1f} s  {line}\n")
            last = line
        if job.ended:
            print_job(job, as_json=as_json)
            return 0 if job.status is Status.COMPLETED else 1
        if job.status is Status.QUEUED and not hinted and time.monotonic() - started_s > HINT_AFTER_S:
            sys.stderr.write("          still queued: is a worker running? (onysoft-worker up, or work)\n")
            hinted = True
        await asyncio.sleep(WATCH_EVERY_S)


def _progress(job: Job) -> str:
    current = job.current
    words = [f"{job.id} {job.status}", job.model]
    if current is not None:
        words.append(f"attempt {current.number}")
        if current.task_id:
            words.append(f"task {current.task_id}")
    if job.failure and not job.ended:
        words.append(f"{job.failure['code']}, {job.failure['action']} at {view(job)['next_action_at']}")
    return "  ".join(words)
