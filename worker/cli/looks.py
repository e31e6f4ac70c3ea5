"""Owns the commands that look and change nothing: jobs, show, watch, queues, models, doctor."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.entry import AsJson, Kind, Limit, Model, a_model, an_id, app, one_of, quiet_settings, with_store
from worker.exits import Failed, WrongUsage

if TYPE_CHECKING:
    from config.models import Models
    from config.settings import Settings
    from worker.store import Store

FAILED_SHOWN = 5


@app.command("jobs")
def list_jobs(
    status: Annotated[str | None, typer.Option(help="Such as queued, processing, waiting, failed.")] = None,
    kind: Kind = None,
    model: Model = None,
    limit: Limit = 50,
    cursor: Annotated[str | None, typer.Option(help="next_cursor of the page before.")] = None,
    as_json: AsJson = False,
) -> None:
    """List jobs, newest first."""
    from jobs.states import Status
    from worker.cli import tables, terminal
    from worker.listing import INDEXED_KINDS, Filter

    one_of("--status", status, list(Status))
    one_of("--kind", kind, INDEXED_KINDS)
    a_model(model)
    if cursor is not None and not re.fullmatch("[0-9]{1,15}", cursor):
        raise WrongUsage("--cursor: must be the next_cursor of the page before")

    async def do(store: "Store", _settings: "Settings", _models: "Models") -> None:
        before = None if cursor is None else int(cursor)
        page = await store.listing.page(Filter(status, kind, model), before=before, limit=limit)
        following = None if page.next_before is None else str(page.next_before)
        if as_json:
            terminal.print_json({"jobs": page.jobs, "next_cursor": following})
            return
        screen = terminal.console()
        if page.jobs:
            terminal.show(tables.jobs_table(page.jobs, store.now_ms(), columns=screen.width), on=screen)
        else:
            typer.echo("no job matches", err=True)
        if following:
            typer.echo(f"there are more: --cursor {following}, or a higher --limit", err=True)

    with_store(do)


@app.command()
def show(job_id: Annotated[str, typer.Argument(metavar="ID")], as_json: AsJson = False) -> None:
    """Tell what happened to a job."""
    from worker.actions import NoSuchJob
    from worker.cli import job_sheet

    an_id(job_id)

    async def do(store: "Store", _settings: "Settings", _models: "Models") -> None:
        job = await store.get(job_id)
        if job is None:
            raise NoSuchJob(job_id)
        timeline, deliveries, overview = await asyncio.gather(
            store.timeline(job_id), store.outbox.of_job(job_id), store.fleet.overview(store.now_ms())
        )
        job_sheet.print_story(job, timeline, deliveries, overview, as_json=as_json)

    with_store(do)


@app.command()
def watch(job_id: Annotated[str | None, typer.Argument(metavar="[ID]")] = None, as_json: AsJson = False) -> int:
    """Watch a job until it ends (exit 0 completed, 1 failed or canceled), or the fleet until Ctrl-C (exit 0)."""
    from worker.cli import watching

    an_id(job_id)

    async def do(store: "Store", _settings: "Settings", _models: "Models") -> int:
        return await watching.until_ended(store, str(job_id), as_json=as_json)

    async def fleet() -> None:
        from worker.main import stop_on_signals

        stop = asyncio.Event()
        stop_on_signals(stop)
        await watching.watch_fleet(lambda: _opened(settings, models), stop, as_json=as_json)

    if job_id is not None:
        return with_store(do)
    settings, models = quiet_settings()
    asyncio.run(fleet())
    return 0


@asynccontextmanager
async def _opened(settings: "Settings", models: "Models") -> AsyncIterator["Store"]:
    """Find the way to Redis and open the store, without holding up the event loop."""
    from worker import main

    with ExitStack() as stack:
        url = await asyncio.to_thread(stack.enter_context, main.redis_url(settings, start="if_data"))
        async with main.open_store(url, settings, models) as store:
            yield store


@app.command()
def queues(as_json: AsJson = False) -> None:
    """Show queues, jobs by kind and status, and what holds them up."""
    from rich.text import Text

    from worker.cli import tables, terminal
    from worker.listing import Filter
    from worker.money_report import money_view

    async def do(store: "Store", _settings: "Settings", _models: "Models") -> None:
        now_ms = store.now_ms()
        overview, counters = await asyncio.gather(store.fleet.overview(now_ms), store.counters())
        view = {**overview.view(), "money": money_view(counters)}
        if as_json:
            terminal.print_json(view)
            return
        screen = terminal.console()
        failed = (await store.listing.page(Filter("failed"), limit=FAILED_SHOWN)).jobs
        lines = [Text("failed (`jobs --status failed`)", style="bold"), *tables.ended_lines(failed, now_ms)]
        sheet = tables.fleet_sheet(view, now_ms, columns=screen.width)
        terminal.show(*sheet, *([Text(), *lines] if failed else []), on=screen)

    with_store(do)


@app.command("models")
def list_models(as_json: AsJson = False) -> None:
    """Show the models of the models file: chains, health, cooldowns, measured durations."""
    from worker.cli import tables, terminal
    from worker.models_report import models_view

    async def do(store: "Store", _settings: "Settings", models: "Models") -> None:
        now_ms = store.now_ms()
        overview, counters, health = await asyncio.gather(
            store.fleet.overview(now_ms), store.counters(), store.fleet.health()
        )
        view = models_view(models, overview, counters, health)
        if as_json:
            terminal.print_json(view)
            return
        screen = terminal.console()
        terminal.show(tables.models_table(view, now_ms, columns=screen.width), on=screen)

    with_store(do)


@app.command()
def doctor(as_json: AsJson = False) -> int:
    """Check the set-up and say what is wrong, and how to mend it. Exit 1 where there is a problem."""
    from worker.cli import tables, terminal
    from worker.doctor.diagnosis import diagnose

    findings = [finding.view() for finding in diagnose()]
    problems = sum(finding["level"] == "problem" for finding in findings)
    if as_json:
        terminal.print_json({"ok": not problems, "findings": findings})
        return 1 if problems else 0
    warnings = sum(finding["level"] == "warning" for finding in findings)
    terminal.show(tables.findings_sheet(findings))
    if problems:
        told = f"{terminal.counted(problems, 'problem')}, {terminal.counted(warnings, 'warning')}"
        raise Failed(f"{told}: what to do is said with each")
    typer.echo(f"no problem, {terminal.counted(warnings, 'warning')}" if warnings else "all is well")
    return 0
