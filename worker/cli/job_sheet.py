"""Owns how one job, and one delivery of a webhook, are shown in full: standing, attempts, webhooks, timeline."""

import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from jobs.delivering import GONE
from jobs.destinations import Destination
from jobs.job import Job, to_form
from worker.cli.terminal import ahead, clock, cut, duration, ms_of, plain, print_json, show, styled, table
from worker.dispatch import FailingDestination
from worker.fleet import Overview
from worker.hindrances import hindrances
from worker.outbox import Delivery
from worker.record import rfc3339, view

Entry = Mapping[str, Any]
INDENT = (0, 0, 0, 2)
LISTED_CHARS, SHOWN_CHARS = 24, 200  # of what a destination answered
REDIRECTS = range(300, 400)


def print_job(job: Job, *, as_json: bool, short: bool = False) -> None:
    """Print a job as it stands; ``short`` is its id and status only."""
    shown = view(to_form(job))
    if as_json:
        print_json(shown)
    elif short:
        sys.stdout.write(f"{job.id} {job.status}\n")
    else:
        show(*_head(shown, ms_of(shown["updated_at"]) or 0), *_attempts(shown["attempts"]))


def print_story(
    job: Job, timeline: Sequence[Entry], deliveries: Sequence[Delivery], overview: Overview, *, as_json: bool
) -> None:
    """Print a job with all that happened to it, and what holds it up as the fleet stands."""
    shown, told, now_ms = view(to_form(job)), [delivery.view() for delivery in deliveries], overview.at_ms
    held_up_by = hindrances(shown, overview)
    if as_json:
        print_json({**shown, "timeline": list(timeline), "deliveries": told, "hindrances": held_up_by})
        return
    show(
        *_head(shown, now_ms),
        *(Text(f"  held up: {plain(words)}", style="yellow") for words in held_up_by),
        *_attempts(shown["attempts"]),
        *_deliveries(told, now_ms, {destination.name for destination in overview.failing}),
        *_timeline(timeline, ms_of(shown["created_at"]) or 0),
    )


def _head(shown: Entry, now_ms: int) -> Iterator[RenderableType]:
    yield Text.assemble(
        (shown["id"], "bold"), "  ", shown["kind"], "  ", styled(shown["status"]), "  ", plain(shown["model"])
    )
    for words, style in _standing(shown, now_ms):
        yield Text(f"  {words}", style=style)


def _standing(shown: Entry, now_ms: int) -> Iterator[tuple[str, str]]:
    if shown["degraded"]:
        yield f"degraded: {plain(shown['requested_model'])} was asked for", "yellow"
    if failure := shown["failure"]:
        yield f"{failure['code']} ({failure['action']}): {plain(failure['message'])}", "red"
        yield f"rule {failure['rule']}", "dim"
    if shown["next_action_at"]:
        yield f"next action {ahead(shown['next_action_at'], now_ms)}, at {clock(shown['next_action_at'], day=True)}", ""
    result = shown["result"] or {}
    yield from ((plain(url), "") for url in result.get("urls", []))
    if text := result.get("text"):
        yield plain(text), ""
    took = _took(shown["created_at"], shown["completed_at"])
    ended = f", ended {clock(shown['completed_at'], day=True)} after {took}" if took else ""
    yield f"created {clock(shown['created_at'], day=True)}{ended}", "dim"


def _took(start: str | None, end: str | None) -> str:
    from_ms, to_ms = ms_of(start), ms_of(end)
    return duration((to_ms - from_ms) / 1000) if from_ms is not None and to_ms is not None else ""


def _section(name: str, body: RenderableType) -> Iterator[RenderableType]:
    yield Text(name, style="bold")
    yield Padding(body, INDENT)


def _attempts(attempts: Sequence[Entry]) -> Iterator[RenderableType]:
    if not attempts:
        return
    rows = table(
        ["#", "model", "outcome", "took", "task", "look-ups", "cost", "failure"],
        right=["#", "took", "look-ups"],
        whole=["task"],
    )
    for attempt in attempts:
        failure, cost = attempt["failure"], attempt["cost"]
        late = attempt.get("late_result")
        rows.add_row(
            str(attempt["number"]),
            cut(attempt["model"]),
            attempt["outcome"] or "under way",
            _took(attempt["started_at"], attempt["ended_at"]),
            plain(attempt["task_id"]),
            str(attempt["polls"]),
            cut(f"{cost['amount']} {cost['currency']}{' refunded' if cost.get('refunded') else ''}") if cost else "",
            " ".join([failure["code"] if failure else "", f"late result: {late['status']}" if late else ""]).strip(),
        )
    yield from _section("attempts", rows)
    for attempt in attempts:
        if refusal := attempt.get("last_refusal"):
            words = f"{refusal['code']} (rule {refusal['rule']}): {plain(refusal['message'])}"
            yield Text(
                f"  #{attempt['number']} last refused look-up {clock(refusal['at'], day=True)}: {words}", "yellow"
            )
        yield from (Text(f"  #{attempt['number']} late: {plain(url)}") for url in _late_urls(attempt))


def _late_urls(attempt: Entry) -> Sequence[str]:
    late = attempt.get("late_result")
    return late["urls"] if late else ()


def _deliveries(deliveries: Sequence[Entry], now_ms: int, failing: Collection[str]) -> Iterator[RenderableType]:
    if not deliveries:
        return
    rows = table(["webhook", "state", "tries", "last answer", "next", "to"], right=["tries"], whole=["webhook"])
    for delivery in deliveries:
        rows.add_row(
            delivery["type"],
            styled(delivery["state"]),
            str(len(delivery["attempts"])),
            cut(last_answer(delivery)),
            next_try(delivery, now_ms, failing),
            cut(delivery["url"]),
        )
    yield from _section("webhooks", rows)


def last_answer(delivery: Entry) -> str:
    """Say what a delivery's destination answered last, in a few characters."""
    if not delivery["attempts"]:
        return "none yet"
    last = delivery["attempts"][-1]
    words = plain(last["status"] or last["answer"])
    return words if len(words) <= LISTED_CHARS else f"{words[: LISTED_CHARS - 1]}…"


def next_try(delivery: Entry, now_ms: int, failing: Collection[str]) -> str:
    """Say when a delivery is attempted next; one that is due "waits" where its destination is among the failing."""
    due_ms = ms_of(delivery["next_attempt_at"]) or 0
    if delivery["state"] == "pending" and due_ms <= now_ms and Destination.of(delivery["url"]).name in failing:
        return "waits"
    return ahead(delivery["next_attempt_at"], now_ms)


def _timeline(timeline: Sequence[Entry], created_ms: int) -> Iterator[RenderableType]:
    if not timeline:
        return
    rows = table(["at", "after", "event", ""], right=["after"], whole=["at", "event"])
    day = None
    for entry in timeline:
        if day not in {None, entry["at"][:10]}:
            rows.add_row(entry["at"][:10])
        day = entry["at"][:10]
        rest = "  ".join(f"{name}={plain(value)}" for name, value in entry.items() if name not in {"at", "event"})
        after_s = ((ms_of(entry["at"]) or created_ms) - created_ms) / 1000
        rows.add_row(Text(clock(entry["at"]), style="dim"), f"+{duration(after_s)}", plain(entry["event"]), rest)
    rows.columns[-1].overflow = "fold"
    yield from _section("timeline", rows)


def print_delivery(delivery: Delivery, failing: FailingDestination | None, *, now_ms: int, as_json: bool) -> None:
    """Print a delivery with each of its attempts; ``failing``: the destination it waits for, where that fails."""
    shown = delivery.view() | {"failing_destination": failing.view() if failing else None}
    if as_json:
        print_json(shown)
        return
    head = Text.assemble((shown["id"], "bold"), "  ", shown["type"], "  ", styled(shown["state"]))
    words = [
        f"job {shown['job_id']}",
        f"to {plain(shown['url'])}",
        f"webhook-id {shown['event_id']}",
        f"created {clock(shown['created_at'], day=True)}",
    ]
    if shown["next_attempt_at"] and not (failing and (delivery.next_at_ms or 0) <= now_ms):
        words.append(
            f"next attempt {ahead(shown['next_attempt_at'], now_ms)}, at {clock(shown['next_attempt_at'], day=True)}"
        )
    if failing:
        words.append(
            f"waits: the destination has failed {failing.failures} times in a row; it is tried "
            f"{ahead(rfc3339(failing.next_try_ms), now_ms)}, `webhooks replay {delivery.id}` tries it at once"
        )
    attempts = _section("attempts", _tries(shown["attempts"])) if shown["attempts"] else (Text("  not attempted yet"),)
    show(head, *(Text(f"  {word}") for word in words), *attempts, *_advice(shown["attempts"]))


def _tries(attempts: Sequence[Entry]) -> Table:
    rows = table(["#", "at", "took", "status", "next", "answer"], right=["#", "took", "status"], whole=["at", "next"])
    for number, attempt in enumerate(attempts, start=1):
        answer = plain(attempt["answer"])
        rows.add_row(
            str(number),
            clock(attempt["at"], day=True),
            duration(attempt["duration_ms"] / 1000),
            plain(attempt["status"] or "-"),
            clock(attempt.get("next_at"), day=True),
            answer if len(answer) <= SHOWN_CHARS else f"{answer[:SHOWN_CHARS]} … --json has all of it",
        )
    return rows


def _advice(attempts: Sequence[Entry]) -> Iterator[Text]:
    """Say what to do about the last answer, where it is not the receiver that is to be mended."""
    status = attempts[-1]["status"] if attempts else None
    if status in REDIRECTS:
        yield Text(f"  {status}: redirects are not followed: give the final URL", style="yellow")
    elif status == GONE:
        words = f"{GONE}: the receiver wants no more of this job; `webhooks replay` sends it all the same"
        yield Text(f"  {words}", style="yellow")
