"""Owns the commands that enqueue jobs and act on them: submit, cancel, retry."""

import json
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.cli.entry import (
    AsJson,
    Kind,
    Model,
    Yes,
    a_model,
    an_id,
    app,
    confirm,
    one_of,
    progress,
    say,
    session,
    with_store,
)
from worker.exits import Failed, WrongUsage

if TYPE_CHECKING:
    from config.models import Models
    from config.settings import Settings
    from jobs.job import Job
    from worker.cli.bulk import Tally
    from worker.listing import Filter
    from worker.store import Store


@app.command()
def submit(
    kind: Annotated[str, typer.Argument(help="video, image, music, audio or voice")],
    model: Annotated[str | None, typer.Option(help="Default: the kind's first model.")] = None,
    fallback: Annotated[list[str] | None, typer.Option(help="Alternate model; repeat for more.")] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", metavar="K=V", help="A parameter; V is JSON where it reads as such, else text."),
    ] = None,
    input_file: Annotated[str | None, typer.Option(help="JSON object with parameters; - for standard input.")] = None,
    webhook: Annotated[str | None, typer.Option(metavar="URL")] = None,
    job_id: Annotated[str | None, typer.Option("--id", help="Idempotency key.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Show progress until the job ends.")] = False,
    as_json: AsJson = False,
) -> int:
    """Enqueue one job. With --wait: exit 0 when it completed, 1 when it failed or was canceled."""
    from jobs.request import InvalidRequest, read_request
    from worker.cli import job_sheet, watching
    from worker.enqueue import Conflict, Door, StorageFull

    request: dict[str, Any] = {"kind": kind, "input": _read_inputs(inputs or [], input_file)}
    given = {"model": model, "fallbacks": fallback, "webhook_url": webhook, "id": job_id}
    request |= {name: value for name, value in given.items() if value is not None}
    try:  # before a Redis is started for it
        read_request(request, allow_private=True)
    except InvalidRequest as error:
        raise WrongUsage("; ".join(map(str, error.faults))) from error

    async def do(store: "Store", settings: "Settings", models: "Models") -> int:
        try:
            taken = await Door(store, settings, models, announce=True).take(request)
        except InvalidRequest as error:
            raise WrongUsage("; ".join(map(str, error.faults))) from error
        except (Conflict, StorageFull) as error:
            raise Failed(str(error)) from error
        if wait:
            return await watching.until_ended(store, taken.job.id, as_json=as_json)
        job_sheet.print_job(taken.job, as_json=as_json, short=True)
        return 0

    return with_store(do, start="always")


def _read_inputs(pairs: list[str], file: str | None) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if file is not None:
        try:
            values = json.loads(sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8"))
        except OSError as error:
            raise WrongUsage(f"--input-file: cannot be read ({error.strerror}): {file}") from error
        except ValueError as error:
            raise WrongUsage(f"--input-file: is not JSON ({error})") from error
        except RecursionError:
            raise WrongUsage("--input-file: is nested too deep") from None
        if not isinstance(values, dict):
            raise WrongUsage("--input-file: must hold a JSON object")
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise WrongUsage(f"--input: {pair!r} is not K=V, such as prompt='a lighthouse'")
        try:
            values[name] = _read_value(text)
        except RecursionError:
            raise WrongUsage(f"--input: {name!r} is nested too deep") from None
    return values


def _read_value(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=lambda name: name)
    except ValueError:
        return text


Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Jobs, or options that say which.")]
CANCELABLE = ("queued", "waiting", "processing", "submitting")
RETRIABLE = ("failed", "canceled")


@app.command()
def cancel(
    ids: Ids = None,
    status: Annotated[str | None, typer.Option(help=f"All that are {', '.join(CANCELABLE)}.")] = None,
    kind: Kind = None,
    model: Model = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> int:
    """Cancel jobs: by id, or all of a status. One that is not submitted never will be."""
    from worker import actions

    if ids:
        _only_ids("cancel", status, kind, model)
        return _act_on_ids(ids, actions.cancel, "canceled", as_json=as_json)
    wanted = _filter("cancel", status, CANCELABLE, kind, model)
    return _act_on_all(wanted, None, actions.cancel, ("cancel", "canceled"), yes=yes, as_json=as_json)


@app.command()
def retry(
    ids: Ids = None,
    status: Annotated[str | None, typer.Option(help="All that are failed, or canceled.")] = None,
    code: Annotated[str | None, typer.Option(help="All that failed with this code.")] = None,
    kind: Kind = None,
    model: Model = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> int:
    """Open failed or canceled jobs for a new round of attempts: by id, or all of a status or failure code."""
    from jobs.verdict import Code
    from worker import actions

    if ids:
        _only_ids("retry", status, code, kind, model)
        return _act_on_ids(ids, actions.retry, "retried", as_json=as_json)
    one_of("--code", code, list(Code))
    wanted = _filter("retry", status or ("failed" if code else None), RETRIABLE, kind, model)
    return _act_on_all(wanted, code, actions.retry, ("retry", "retried"), yes=yes, as_json=as_json)


def _only_ids(command: str, *filters: str | None) -> None:
    if any(value is not None for value in filters):
        raise WrongUsage(f"{command}: give ids or options that say which jobs, not both")


def _filter(
    command: str, status: str | None, allowed: tuple[str, ...], kind: str | None, model: str | None
) -> "Filter":
    from worker.listing import INDEXED_KINDS, Filter

    one_of("--status", status, allowed)
    one_of("--kind", kind, INDEXED_KINDS)
    if status is None:
        raise WrongUsage(f"{command}: say which jobs, by ID or by --status ({', '.join(allowed)})")
    a_model(model)
    return Filter(status, kind, model)


def _act_on_ids(ids: list[str], act: "Callable[[Store, str], Any]", done: str, *, as_json: bool) -> int:
    """Act on jobs by id: one is shown as it is then, of several each is told."""
    an_id(*ids)

    async def one(store: "Store", _settings: "Settings", _models: "Models") -> "Job":
        job: Job = await act(store, ids[0])
        return job

    if len(ids) == 1:
        from worker.cli import job_sheet

        job_sheet.print_job(with_store(one), as_json=as_json, short=True)
        return 0

    async def several(store: "Store", _settings: "Settings", _models: "Models") -> "Tally":
        from worker.cli.bulk import do_to_each

        return await do_to_each(_given(ids), lambda job_id: act(store, job_id), told=progress(0))

    return _told(with_store(several), done, as_json=as_json)


async def _given(ids: list[str]) -> AsyncIterator[str]:
    for job_id in dict.fromkeys(ids):
        yield job_id


def _act_on_all(
    wanted: "Filter",
    code: str | None,
    act: "Callable[[Store, str], Any]",
    words: tuple[str, str],
    *,
    yes: bool,
    as_json: bool,
) -> int:
    """Count the jobs, ask, and act on each of them."""
    from worker.cli.bulk import Tally, do_to_each
    from worker.cli.terminal import counted

    async def count(store: "Store", _settings: "Settings", _models: "Models") -> int:
        if code is None:
            return await store.listing.count(wanted)
        return sum([1 async for _ in _named(store, wanted, code)])

    async def do(store: "Store", _settings: "Settings", _models: "Models") -> Tally:
        return await do_to_each(_named(store, wanted, code), lambda job_id: act(store, job_id), told=progress(matched))

    verb, done = words
    with session() as way:  # twice: while a question waits for its answer, Ctrl-C must end the command
        matched = way.run(count)
        if matched:
            confirm(f"{verb}: {counted(matched, f'{wanted.status} job')}{_where(wanted, code)}", yes=yes)
        return _told(way.run(do) if matched else Tally(), done, as_json=as_json)


def _where(wanted: "Filter", code: str | None) -> str:
    named = {"of kind": wanted.kind, "at model": wanted.model, "with code": code}
    return "".join(f" {words} {value}" for words, value in named.items() if value)


async def _named(store: "Store", wanted: "Filter", code: str | None) -> AsyncIterator[str]:
    async for job in store.listing.every(wanted):
        if code is None or (job["failure"] and job["failure"]["code"] == code):
            yield job["id"]


def _told(tally: "Tally", done: str, *, as_json: bool) -> int:
    """Print what came of it; 1 where it could not be done to all."""
    if as_json:
        from worker.cli.terminal import print_json

        print_json(tally.view(done))
    elif tally.refused and not tally.done:
        raise Failed(tally.words(done))
    else:
        say(tally.words(done) if tally.done else f"0 {done}: no job matches")
    return 1 if tally.refused else 0
