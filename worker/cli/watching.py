"""Owns watching: one job until it ends, or the fleet until the watcher has seen enough.

Both outlast an absent Redis: they say so and look again. The fleet's view is live on a terminal, and a line a refresh
elsewhere. It opens the store anew after each loss: an embedded Redis may come back at another address.
"""

import asyncio
import re
import sys
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from typing import Any, Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from jobs.job import Job, to_form
from jobs.states import Status
from worker.actions import NoSuchJob
from worker.cli.job_sheet import print_job
from worker.cli.tables import ended_lines, fleet_line, fleet_sheet
from worker.cli.terminal import clock, console, plain, print_json
from worker.hindrances import hindrances
from worker.link import RedisAway
from worker.money_report import money_view
from worker.record import rfc3339, view
from worker.store import Store

WATCH_EVERY_S = 0.2
HELD_UP_AFTER_S = 5.0
REFRESH_S = 1.0
ANSWER_S = 3.0
LAST_ENDED = 5

Opened = Callable[[], AbstractAsyncContextManager[Store]]


# --- one job


async def until_ended(store: Store, job_id: str, *, as_json: bool) -> int:
    """Show a job's progress on standard error until it ends; return the exit status for its outcome.

    Where it stands still for a while, what holds it up is said, each thing once.
    """
    started_s, last, held_up_by = time.monotonic(), "", _HeldUpBy()

    def tell(line: str) -> None:
        sys.stderr.write(f"{time.monotonic() - started_s:6.1f} s  {line}\n")

    while True:
        try:
            job = await store.get(job_id)
            reasons = await held_up_by.new(store, job)
        except RedisAway:
            if last != "away":
                tell("Redis is away; looking again until it is back")
            last = "away"
            await asyncio.sleep(REFRESH_S)
            continue
        if job is None:
            raise NoSuchJob(job_id)
        line = _progress(job)
        if line != last:
            tell(line)
            last = line
        if job.ended:
            print_job(job, as_json=as_json)
            return 0 if job.status is Status.COMPLETED else 1
        for reason in reasons:
            sys.stderr.write(f"          held up: {plain(reason)}\n")
        await asyncio.sleep(WATCH_EVERY_S)


class _HeldUpBy:
    """What holds a job up, asked for now and then while it stands still."""

    def __init__(self) -> None:
        self._stood_at = ""
        self._ask_at_s = 0.0
        self._told: set[str] = set()

    async def new(self, store: Store, job: Job | None) -> list[str]:
        """Give what has not been told yet; numbers and times in it do not make it new."""
        now_s = time.monotonic()
        if job is None or job.rev != self._stood_at:
            self._stood_at, self._ask_at_s = job.rev if job else "", now_s + HELD_UP_AFTER_S
        if job is None or job.ended or now_s < self._ask_at_s:
            return []
        self._ask_at_s = now_s + HELD_UP_AFTER_S
        reasons = hindrances(view(to_form(job)), await store.fleet.overview(store.now_ms()))
        fresh = [reason for reason in reasons if re.sub("[0-9]+", "", reason) not in self._told]
        self._told |= {re.sub("[0-9]+", "", reason) for reason in fresh}
        return fresh


def _progress(job: Job) -> str:
    current = job.current
    words = [f"{job.id} {job.status}", job.model]
    if current is not None:
        words.append(f"attempt {current.number}")
        if current.task_id:
            words.append(f"task {current.task_id}")
    if job.failure and not job.ended:
        due = view(to_form(job))["next_action_at"]
        words.append(f"{job.failure['code']}, {job.failure['action']} at {due}")
    return plain("  ".join(words))


# --- the fleet


class Screen(Protocol):
    """Where the fleet is shown."""

    def fleet(self, shown: dict[str, Any], ended: tuple[dict[str, Any], ...], now_ms: int) -> None:
        """Show how it stands."""

    def away(self, why: str) -> None:
        """Show that this is unknown."""

    def close(self) -> None:
        """Leave the screen as it should be left."""


async def watch_fleet(opened: Opened, stop: asyncio.Event, *, as_json: bool) -> None:
    """Show the fleet, once a second, until ``stop`` is set; raise what keeps the store from opening at first."""
    screen = _screen(as_json=as_json)
    watching = asyncio.create_task(_watch(opened, screen))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([watching, stopping], return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        watching.cancel()
        await asyncio.gather(watching, stopping, return_exceptions=True)
        screen.close()
    if not watching.cancelled() and (error := watching.exception()):
        raise error


async def _watch(opened: Opened, screen: Screen) -> None:
    seen = False
    while True:
        try:
            async with opened() as store:
                while True:
                    await _look(store, screen)
                    seen = True
                    await asyncio.sleep(REFRESH_S)
        except Exception as error:
            if not seen or not _means_away(error):
                raise
            screen.away(str(error) or "Redis does not answer")
        await asyncio.sleep(REFRESH_S)


def _means_away(error: Exception) -> bool:
    from worker.embedded import EmbeddedRedisError
    from worker.main import CannotStart

    return isinstance(error, RedisAway | CannotStart | EmbeddedRedisError | TimeoutError)


async def _look(store: Store, screen: Screen) -> None:
    async with asyncio.timeout(ANSWER_S):
        await store.sync_clock()
        now_ms = store.now_ms()
        overview, counters, ended = await asyncio.gather(
            store.fleet.overview(now_ms), store.counters(), store.listing.ended_last(LAST_ENDED)
        )
    screen.fleet({**overview.view(), "money": money_view(counters)}, ended, now_ms)


def _screen(*, as_json: bool) -> Screen:
    if as_json:
        return _JsonLines()
    terminal = console()
    return _LiveView(terminal) if terminal.is_terminal and not terminal.is_dumb_terminal else _Lines()


class _JsonLines:
    """One JSON object a refresh."""

    def fleet(self, shown: dict[str, Any], ended: tuple[dict[str, Any], ...], now_ms: int) -> None:  # noqa: ARG002
        print_json(shown)

    def away(self, why: str) -> None:
        print_json({"at": _now(), "away": why})

    def close(self) -> None:
        pass


class _Lines:
    """One line of text a refresh."""

    def fleet(self, shown: dict[str, Any], ended: tuple[dict[str, Any], ...], now_ms: int) -> None:  # noqa: ARG002
        sys.stdout.write(fleet_line(shown) + "\n")
        sys.stdout.flush()

    def away(self, why: str) -> None:
        sys.stdout.write(f"{clock(_now(), day=True)}  away: {why}; trying again\n")
        sys.stdout.flush()

    def close(self) -> None:
        pass


class _LiveView:
    """A picture that is drawn anew at each refresh; the last one is left standing."""

    def __init__(self, terminal: Console) -> None:
        self._terminal = terminal
        self._live = Live(console=terminal, auto_refresh=False, vertical_overflow="crop")
        self._live.start()
        self._parts: list[RenderableType] = []

    def fleet(self, shown: dict[str, Any], ended: tuple[dict[str, Any], ...], now_ms: int) -> None:
        sheet = fleet_sheet(shown, now_ms, columns=self._terminal.width)
        head = Text.assemble(("onysoft-worker", "bold"), f"  {clock(shown['at'], day=True)}  ", ("Ctrl-C ends", "dim"))
        self._parts = [
            *sheet,
            *([Text(), Text("ended last", style="bold"), *ended_lines(ended, now_ms)] if ended else []),
        ]
        self._draw(head)

    def away(self, why: str) -> None:
        self._draw(Text(f"{clock(_now(), day=True)}  {why}; trying again. What follows is how it stood.", "bold red"))

    def close(self) -> None:
        self._live.stop()

    def _draw(self, head: Text) -> None:
        self._live.update(Group(head, *self._parts), refresh=True)


def _now() -> str | None:
    """Tell this machine's time: Redis's is not to be had."""
    return rfc3339(round(datetime.now(UTC).timestamp() * 1000))
