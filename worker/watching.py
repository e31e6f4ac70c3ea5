"""Owns how one job is shown in a terminal: its standing, its attempts, its timeline, and its progress until it ends."""

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from jobs.job import Job, view
from jobs.states import Status
from worker.store import Store

WATCH_EVERY_S = 0.2
HINT_AFTER_S = 5.0
COLORS = {"completed": "green", "failed": "red", "canceled": "yellow", "waiting": "magenta", "processing": "cyan"}


def print_job(job: Job, timeline: Sequence[dict[str, Any]], *, as_json: bool, short: bool = False) -> None:
    """Print a job; ``short`` is its id and status only."""
    shown = view(job)
    if as_json:
        sys.stdout.write(json.dumps({**shown, "timeline": list(timeline)} if timeline else shown) + "\n")
        return
    if short:
        sys.stdout.write(f"{job.id} {job.status}\n")
        return
    console = Console(highlight=False)
    color = COLORS.get(job.status, "white")
    console.print(
        f"[bold]{escape(job.id)}[/]  {shown['kind']}  [{color}]{shown['status']}[/]  {escape(shown['model'])}"
    )
    if shown["degraded"]:
        console.print(f"  degraded: {escape(shown['requested_model'])} was asked for")
    if shown["failure"]:
        failure = shown["failure"]
        console.print(f"  [red]{failure['code']}[/] ({failure['action']}): {escape(str(failure['message']))}")
    if shown["next_action_at"]:
        console.print(f"  next action at {shown['next_action_at']}")
    for url in (shown["result"] or {}).get("urls", []):
        console.print(f"  {escape(url)}", soft_wrap=True)
    if text := (shown["result"] or {}).get("text"):
        console.print(f"  {escape(text)}")
    if shown["attempts"]:
        console.print(_attempts(shown["attempts"]))
    for line in timeline:
        rest = "  ".join(f"{name}={value}" for name, value in line.items() if name not in {"at", "event"})
        console.print(f"  [dim]{line['at']}[/]  {line['event']:16} {escape(rest)}", soft_wrap=True)


def _attempts(attempts: Sequence[dict[str, Any]]) -> Table:
    table = Table("#", "model", "task", "outcome", "failure", "looks", box=None, padding=(0, 2))
    for attempt in attempts:
        failure = attempt["failure"] or {}
        table.add_row(
            str(attempt["number"]),
            escape(attempt["model"]),
            escape(attempt["task_id"] or ""),
            attempt["outcome"] or "under way",
            failure.get("code", ""),
            str(attempt["polls"]),
        )
    return table


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
            print_job(job, [], as_json=as_json)
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
