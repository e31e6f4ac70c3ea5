"""Owns the commands about deliveries of webhooks: to look at them, and to send them again."""

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.delivering import GONE
from worker.cli.entry import (
    AsJson,
    Limit,
    Yes,
    an_id,
    app,
    confirm,
    help_alone,
    one_of,
    progress,
    say,
    session,
    with_store,
)
from worker.exits import WrongUsage

if TYPE_CHECKING:
    from config.models import Models
    from config.settings import Settings
    from worker.cli.bulk import Tally
    from worker.outbox import Delivery
    from worker.store import Store

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}

ID_HELP = "A delivery's id (dlv_…), or the webhook-id that the receiver saw (evt_…)."
DEAD_HELP = "All that were given up, but for those whose receiver wants no more (410): give their ID or --job."
One = Annotated[str, typer.Argument(metavar="ID", help=ID_HELP)]

webhooks = typer.Typer(help="Webhook deliveries and their secret.")
app.add_typer(webhooks, name="webhooks")


@webhooks.callback(invoke_without_command=True)
def deliveries(ctx: typer.Context) -> None:
    """Webhook deliveries and their secret."""
    help_alone(ctx)


@webhooks.command("list")
def list_deliveries(
    state: Annotated[str | None, typer.Option(help="pending, delivered or dead")] = None,
    job: Annotated[str | None, typer.Option(metavar="ID", help="Only those of a job.")] = None,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """List deliveries, newest first."""
    from worker.actions import NoSuchJob
    from worker.cli import tables, terminal
    from worker.outbox import STATES

    one_of("--state", state, STATES)
    an_id(job, name="--job")

    async def do(store: "Store", _settings: "Settings", _models: "Models") -> None:
        if job is None:
            found = await store.outbox.page(state, limit=limit)
        else:
            of_job = reversed(await store.outbox.of_job(job))
            found = [delivery for delivery in of_job if state in {None, delivery.state}][:limit]
            if not found and await store.get(job) is None:
                raise NoSuchJob(job)
        views = [delivery.view() for delivery in found]
        if as_json:
            terminal.print_json({"deliveries": views})
            return
        screen = terminal.console()
        if views:
            failing = {destination.name for destination in (await store.dispatch.standing()).failing}
            rows = tables.deliveries_table(views, store.now_ms(), failing=failing, columns=screen.width)
            terminal.show(rows, on=screen)
        else:
            typer.echo("no webhook matches", err=True)

    with_store(do)


@webhooks.command("show")
def show_delivery(delivery_id: One, as_json: AsJson = False) -> None:
    """Show a delivery, named by its own id or by its webhook-id, with each of its attempts."""
    from worker.cli import job_sheet

    an_id(delivery_id)

    async def do(store: "Store", _settings: "Settings", _models: "Models") -> None:
        delivery = await _delivery(store, delivery_id)
        failing = await store.dispatch.hindrance(delivery)
        job_sheet.print_delivery(delivery, failing, now_ms=store.now_ms(), as_json=as_json)

    with_store(do)


@webhooks.command("replay")
def replay(
    delivery_id: Annotated[str | None, typer.Argument(metavar="[ID]", help=ID_HELP)] = None,
    job: Annotated[str | None, typer.Option(metavar="ID", help="All of a job.")] = None,
    dead: Annotated[bool, typer.Option("--dead", help=DEAD_HELP)] = False,
    since: Annotated[
        str | None, typer.Option(metavar="T", help="All made since: a time (RFC 3339), or as long ago as 30m, 2h, 1d.")
    ] = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> int:
    """Send webhooks again, under the same webhook-id: one, all of a job, all dead ones, or all made since a time."""
    if sum((delivery_id is not None, job is not None, dead, since is not None)) != 1:
        raise WrongUsage("webhooks replay: give one of ID, --job ID, --dead, --since T")
    an_id(delivery_id)
    an_id(job, name="--job")
    if delivery_id is not None:
        return _replay_one(delivery_id, as_json=as_json)
    if job is not None:
        return _replay_all(_OfJob(job), yes=yes, as_json=as_json)
    return _replay_all(_Since(_read_since(since)) if since is not None else _Dead(), yes=yes, as_json=as_json)


def _read_since(text: str) -> tuple[str, int]:
    """Read a time: how long ago ("ago", ms), or when ("at", ms)."""
    if match := re.fullmatch(r"([0-9]{1,6})([smhd])", text):
        return "ago", int(match[1]) * UNITS_S[match[2]] * 1000
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise WrongUsage(
            f"--since: {text!r} is neither a time such as 2026-11-22T16:00:00Z nor as long ago as 30m, 2h or 1d"
        ) from None
    return "at", ((at if at.tzinfo else at.replace(tzinfo=UTC)) - EPOCH) // timedelta(milliseconds=1)


async def _delivery(store: "Store", delivery_id: str) -> "Delivery":
    from worker.actions import NotPossible

    found = await store.outbox.delivery(delivery_id) or await _of_event(store, delivery_id)
    if found is not None:
        return found
    if await store.get(delivery_id) is not None:
        raise NotPossible(f"{delivery_id} is no delivery. A job? `onysoft-worker webhooks list --job {delivery_id}`")
    raise NotPossible(f"there is no delivery {delivery_id}: it was never made, or is gone with its job")


async def _of_event(store: "Store", event_id: str) -> "Delivery | None":
    """Find the newest delivery under a webhook-id, by going through all that are kept."""
    if event_id.startswith("evt_"):
        async for delivery in store.outbox.every(None):
            if delivery.event_id == event_id:
                return delivery
    return None


def _replay_one(delivery_id: str, *, as_json: bool) -> int:
    from worker.cli.terminal import print_json

    async def do(store: "Store", _settings: "Settings", _models: "Models") -> "Delivery":
        found = await _delivery(store, delivery_id)
        await _again(store, found)
        return await _delivery(store, found.id)

    delivery = with_store(do)
    if as_json:
        print_json(delivery.view())
    else:
        say(f"{delivery.id} {delivery.state}: {delivery.type} of {delivery.job_id} goes out again")
    return 0


async def _again(store: "Store", delivery: "Delivery") -> None:
    from worker.actions import NotPossible
    from worker.dispatch import EventTrimmed

    try:
        replayed = await store.dispatch.replay(delivery)
    except EventTrimmed as error:
        raise NotPossible(str(error)) from None
    if not replayed:
        raise NotPossible(f"{delivery.id} is gone with its job {delivery.job_id}")


class _OfJob:
    """The deliveries of a job."""

    def __init__(self, job_id: str) -> None:
        self._job_id = job_id

    @property
    def words(self) -> str:
        return f"of {self._job_id}"

    async def count(self, store: "Store") -> int:
        from worker.actions import NoSuchJob

        found = len([1 async for _ in self.ids(store)])
        if not found and await store.get(self._job_id) is None:
            raise NoSuchJob(self._job_id)
        return found

    async def ids(self, store: "Store") -> AsyncIterator[str]:
        for delivery in await store.outbox.of_job(self._job_id):
            yield delivery.id


class _Dead:
    """The deliveries that were given up, but for those whose receiver wants no more of their job: it has said so."""

    words = "given up"

    def __init__(self) -> None:
        self.left_out = 0

    async def count(self, store: "Store") -> int:
        return len([1 async for _ in self.ids(store)])

    async def ids(self, store: "Store") -> AsyncIterator[str]:
        self.left_out = 0
        async for delivery in store.outbox.every("dead"):
            if await _unwanted(store, delivery):
                self.left_out += 1
            else:
                yield delivery.id


async def _unwanted(store: "Store", delivery: "Delivery") -> bool:
    """Tell whether a delivery was answered 410, or another of its job to the same URL was."""
    answered = bool(delivery.attempts) and delivery.attempts[-1]["status"] == GONE
    return answered or await store.outbox.gone_url(delivery.job_id) == delivery.url


class _Since:
    """The deliveries made since a time (see ``_read_since``), which is fixed once counted."""

    def __init__(self, since: tuple[str, int]) -> None:
        self._how, self._ms = since

    @property
    def words(self) -> str:
        from worker.cli.terminal import clock
        from worker.record import rfc3339

        return f"made since {clock(rfc3339(self._ms), day=True)}"

    async def count(self, store: "Store") -> int:
        ms = store.now_ms() - self._ms if self._how == "ago" else self._ms
        self._how, self._ms = "at", max(ms, 0)  # no webhook is older than 1970
        return len([1 async for _ in self.ids(store)])

    async def ids(self, store: "Store") -> AsyncIterator[str]:
        async for delivery in store.outbox.every(None, since_ms=self._ms):
            yield delivery.id


def _replay_all(which: _OfJob | _Dead | _Since, *, yes: bool, as_json: bool) -> int:
    """Count the deliveries, ask, and have each sent again."""
    from worker.cli.bulk import Tally, do_to_each
    from worker.cli.terminal import counted, print_json

    async def count(store: "Store", _settings: "Settings", _models: "Models") -> int:
        return await which.count(store)

    async def do(store: "Store", _settings: "Settings", _models: "Models") -> "Tally":
        async def again(delivery_id: str) -> None:
            await _again(store, await _delivery(store, delivery_id))

        return await do_to_each(which.ids(store), again, told=progress(matched))

    with session() as way:
        matched = way.run(count)
        if matched:
            confirm(f"replay: {counted(matched, 'webhook')} {which.words}", yes=yes)
        tally = way.run(do) if matched else Tally()
    if as_json:
        print_json(tally.view("replayed"))
    else:
        say(tally.words("replayed"))
    if isinstance(which, _Dead) and which.left_out:
        words = f"{which.left_out} left out: the receiver wants no more of the job (410); ID or --job ID sends them"
        typer.echo(words, err=True)
    return 1 if tally.refused else 0
