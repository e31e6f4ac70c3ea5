"""Owns what the demo shows: a live table on a terminal, a line for each change elsewhere, and the closing summary."""

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.console import Console, Group, JustifyMethod, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from worker.demo.progress import MODEL_CHARS, Progress
from worker.demo.receiver import Inbox
from worker.demo.verdict import LOST, Verdict

STYLES = {
    "sent": "dim",
    "queued": "dim",
    "submitting": "cyan",
    "processing": "blue",
    "waiting": "yellow",
    "completed": "green",
    "failed": "magenta",
}
WRONG = "bold red"
FRAME_LINES = 7  # everything around the rows
MAX_WIDTH = 116
ROOMY_WIDTH = 96
STEP = "next step, or how it went"
_JUSTIFY: dict[str, JustifyMethod] = {"try": "center", "time": "right"}


@dataclass(frozen=True, slots=True)
class Moment:
    """What there is to show at one time; ``now_s`` counts from the demo's begin."""

    jobs: Sequence[Progress]
    inbox: Inbox
    now_s: float


class Screen:
    """The demo's standard output."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, markup=False, emoji=False)
        self._live: Live | None = None

    @property
    def width(self) -> int:
        """How wide the table and the bar are, in columns."""
        return min(self.console.width, MAX_WIDTH)

    def say(self, words: str, style: str = "") -> None:
        """Print one line, however long."""
        self.console.print(Text(words, style=style), soft_wrap=True)

    def open(self) -> None:
        """Begin to show jobs."""
        if self.console.is_terminal and not self.console.is_dumb_terminal:
            self._live = Live(console=self.console, auto_refresh=False, transient=True)
            self._live.start()

    def show(self, moment: Moment, changed: Iterable[Progress]) -> None:
        """Show how things stand."""
        if self._live is not None:
            self._live.update(self._picture(moment), refresh=True)
            return
        for job in changed:
            tries = f"attempt {len(job.attempts)}" if job.attempts else ""
            words = f"{moment.now_s:5.1f} s  {job.job.id:<18} {job.job.kind:<5}  {job.status:<10}  {job.model:<30}"
            self.say(f"{words}  {tries:<9}  {job.step()}".rstrip())

    def close(self, moment: Moment | None = None) -> None:
        """Leave the live view; with a moment, leave its whole table standing. Safe to call twice."""
        live, self._live = self._live, None
        if live is not None:
            live.stop()
            if moment is not None:
                self.console.print(_table(moment.jobs, moment.now_s, self.width))

    def _picture(self, moment: Moment) -> RenderableType:
        room = max(4, self.console.height - FRAME_LINES)
        shown = _most_telling(moment.jobs, room)
        parts: list[RenderableType] = [_table(shown, moment.now_s, self.width)]
        if hidden := len(moment.jobs) - len(shown):
            parts.append(Text(f"and {hidden} more: this terminal is not high enough for all", style="dim"))
        parts += [Text(), _progress(moment, self.width)]
        return Group(*parts)


def _most_telling(jobs: Sequence[Progress], room: int) -> Sequence[Progress]:
    """Choose what fits: what is under way first, then what ended last, then what is yet to come, in table order."""
    if len(jobs) <= room:
        return jobs
    under_way = [job for job in jobs if job.entered_s is not None and not job.ended]
    ended = sorted((job for job in jobs if job.ended), key=lambda job: -(job.ended_s or 0))
    to_come = [job for job in jobs if job.entered_s is None]
    chosen = {job.job.id for job in [*under_way, *ended, *to_come][:room]}
    return [job for job in jobs if job.job.id in chosen]


def _table(jobs: Sequence[Progress], now_s: float, width: int) -> Table:
    roomy = width >= ROOMY_WIDTH
    model_width = MODEL_CHARS if roomy else MODEL_CHARS - 6
    fixed = {"job": 18, "kind": 5, "model": model_width, "state": 10, "try": 3, STEP: 0, "time": 5}
    if not roomy:
        del fixed["kind"]
    fixed[STEP] = max(16, width - sum(fixed.values()) - len(fixed) + 1)
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold", show_edge=False)
    for name, columns in fixed.items():
        justify = _JUSTIFY.get(name, "left")
        table.add_column(name, no_wrap=True, width=columns, overflow="ellipsis", justify=justify)
    for job in jobs:
        cells = _cells(job, now_s)
        table.add_row(*(cells[name] for name in fixed))
    return table


def _cells(job: Progress, now_s: float) -> dict[str, Text]:
    wrong = job.ended and not job.as_expected
    style = WRONG if wrong else STYLES.get(job.status, "")
    quiet = "dim" if job.status in {"", "sent", "queued"} else ""
    elapsed_s = job.elapsed_s(now_s)
    return {
        "job": Text(job.job.id, style=quiet),
        "kind": Text(job.job.kind, style="dim"),
        "model": Text(job.model, style="bold" if job.view.get("degraded") else quiet),
        "state": Text(job.status, style=style),
        "try": Text(str(len(job.attempts) or "")),
        STEP: Text(job.step(), style=style if wrong or job.status == "waiting" else "dim"),
        "time": Text("" if elapsed_s is None else f"{elapsed_s:.1f}s"),
    }


def _progress(moment: Moment, width: int) -> RenderableType:
    """Sum up under the table: a bar, the states, the webhooks."""
    states = Counter(job.status for job in moment.jobs)
    words = Text(f"{moment.now_s:.0f} s  ", no_wrap=True, overflow="ellipsis")
    for state in ("completed", "failed", "processing", "waiting", "submitting", "queued"):
        if states[state]:
            words.append(f"{states[state]} {state}  ", style=STYLES[state])
    inbox = moment.inbox
    words.append(f"  webhooks: {len(inbox.taken)} verified, {inbox.repeats} repeated")
    if inbox.bad:
        words.append(f", {len(inbox.bad)} WRONG", style=WRONG)
    done = states["completed"] + states["failed"]
    return Group(Padding(ProgressBar(total=len(moment.jobs), completed=done, width=width), 0), words)


# --- the summary


def print_summary(screen: Screen, verdict: Verdict, wall_s: float, logs: str) -> None:
    """Print what came of it: the counts, the bill, every fault in red, and what to do next."""
    total = len(verdict.completed) + len(verdict.failed)
    screen.say("")
    if verdict.faults:
        screen.say(f"Not everything is as expected ({wall_s:.1f} s):", WRONG)
    else:
        screen.say(f"All {total} jobs, their webhooks and their bill are as expected, in {wall_s:.1f} s.", "bold green")
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", min_width=18)
    grid.add_column(justify="right", style="bold")
    grid.add_column()
    for name, count, words in _rows(verdict):
        grid.add_row(name, count, words)
    screen.console.print(Padding(grid, (0, 0, 0, 2)), width=max(screen.console.width, 100), soft_wrap=True)
    for fault in verdict.faults:
        screen.say(f"FAULT  {fault}", WRONG)
    if verdict.faults:
        screen.say(f"What the processes said: {logs}")
    else:
        _print_next(screen)


def _rows(verdict: Verdict) -> Iterable[tuple[str, str, str]]:
    codes = Counter(job.end for job in verdict.failed)
    yield "completed", str(len(verdict.completed)), ""
    yield "failed as expected", str(len(verdict.failed)), ", ".join(codes)
    yield "retried", str(len(verdict.retried)), ", ".join(verdict.retried)
    moves = (f"{job.job.id} ({job.view['requested_model']} to {job.view['model']})" for job in verdict.failed_over)
    yield "failed over", str(len(verdict.failed_over)), ", ".join(moves)
    yield "parked", str(len(verdict.parked)), ", ".join(f"{name}, until its quota reset" for name in verdict.parked)
    again = f"{verdict.repeats} came again under the same webhook-id after a 500"
    yield "webhooks verified", str(verdict.hooks), f"one for each job; {again}"
    bill = verdict.bill
    yield (
        "tasks billed",
        str(bill.kept),
        f"{bill.amount:.2f} {bill.currency} at the sandbox's prices; {bill.refunded} more failed and were refunded",
    )
    yield "tasks needed", str(bill.needed), f"{bill.amount - bill.extra_amount:.2f} {bill.currency}"
    for job_id, reason in bill.extras:
        yield "", "+1", f"{job_id}: {_REASONS[reason]}"


_REASONS = {
    LOST: "the answer was lost after acceptance; under UNKNOWN_SUBMIT=retry that may be paid twice",
    "empty": 'the gateway said "done", sent no result and kept the money',
}


def _print_next(screen: Screen) -> None:
    screen.say("")
    screen.say("Next", "bold")
    command = sys.argv[0] if sys.argv[0].endswith("onysoft-worker") else "onysoft-worker"
    screen.say(f"  ONYSOFT_API_KEY=sk-ony-... {command} up    the same with the real gateway")
    screen.say(f"  {command} submit image --input prompt='a lighthouse at dusk' --wait    beside it")
    screen.say("  README.md: enqueue from a backend, receive webhooks; docs/states.md: the states of a job")
