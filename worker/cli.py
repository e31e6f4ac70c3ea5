"""Owns the command line: reads arguments, calls what does the work, prints, and chooses the exit status.

0 done, 1 the thing asked for failed, 2 wrong usage. An error is one line on standard error that says what to do.
Modules are imported by the command that needs them, so that ``--help`` is quick.
"""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn, TypeVar

import typer

from worker.exits import Failed, WrongUsage

if TYPE_CHECKING:
    from config.models import Models
    from config.settings import Settings
    from worker.main import Start
    from worker.store import Store

T = TypeVar("T")

# typer carries a click of its own, and names of its errors only this one: the rest share its base.
ALONE = "onysoft-worker: nobody else is using {data_dir}: the job waits there until a worker runs on it"
UsageError: Any = typer.BadParameter.__mro__[1]

app = typer.Typer(
    name="onysoft-worker",
    help="Runs AI media generations on the Onysoft gateway: nothing lost, nothing stuck, nothing paid twice.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
webhooks = typer.Typer(help="Webhook deliveries and their secret.", no_args_is_help=True)
app.add_typer(webhooks, name="webhooks")

Faults = Literal["none", "default", "hostile"]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def run() -> NoReturn:
    """Run the command line and exit."""
    from rich.console import Console  # noqa: F401 - a broken terminal set-up shows here, before any work

    from config.log import redact
    from config.settings import SettingsError

    lines: list[str] = []
    status = 0
    try:
        result = app(standalone_mode=False)
        status = result if isinstance(result, int) else 0
    except SettingsError as error:
        lines, status = error.faults, 2
    except WrongUsage as error:
        lines, status = [str(error)], 2
    except KeyboardInterrupt:
        status = 130
    except BrokenPipeError:
        sys.stderr.close()
        status = 1
    except Exception as error:  # noqa: BLE001 - what is a bug is raised again
        lines, status = _said(error)
    for line in lines:
        sys.stderr.write(f"onysoft-worker: {redact(line)}\n")
    sys.exit(status)


def _said(error: Exception) -> tuple[list[str], int]:
    """Give the line and the exit status for an exception that is no bug; raise the others."""
    from redis.exceptions import RedisError

    from jobs.job import UnreadableRecord
    from worker.embedded import EmbeddedRedisError
    from worker.link import RedisAway, RedisRefused
    from worker.main import CannotStart
    from worker.web.server import CannotListen

    if isinstance(error, typer.Exit):
        return [], error.exit_code
    if isinstance(error, typer.Abort):
        return [], 130
    if isinstance(error, UsageError):
        command = f" (see: {error.ctx.command_path} --help)" if error.ctx else ""
        return [f"{error.format_message()}{command}"], 2
    foreseen = (Failed, CannotStart, CannotListen, EmbeddedRedisError, RedisAway, RedisRefused, UnreadableRecord)
    if isinstance(error, foreseen):
        return [str(error)], 1
    if isinstance(error, RedisError):
        return [f"Redis refused a command: {error}"], 1
    raise error


def _serve(process: "Callable[[str, Settings, Models], Awaitable[None]]", *, key_required: bool) -> None:
    from worker import main

    settings, models = main.load_settings(key_required=key_required)
    with main.redis_url(settings) as url:
        asyncio.run(process(url, settings, models))  # type: ignore[arg-type]


def _with_store(do: "Callable[[Store, Settings, Models], Awaitable[T]]", *, start: "Start" = "if_data") -> T:
    """Open the store for one command. Reading commands join or start what has data, and never an empty Redis."""
    from worker import main

    settings, models = main.load_settings()

    async def opened(url: str) -> T:
        async with main.open_store(url, settings, models) as store:
            return await do(store, settings, models)

    with main.redis_url(settings, start=start, alone=ALONE if start == "always" else None) as url:
        return asyncio.run(opened(url))


# --- processes


@app.command()
def up() -> None:
    """Run everything in one process: embedded Redis unless REDIS_URL is set, worker, web."""
    from worker import main

    _serve(main.up, key_required=True)


@app.command()
def work() -> None:
    """Run a worker: takes jobs, tracks tasks, delivers webhooks. Run as many as you like."""
    from worker import main

    _serve(main.work, key_required=True)


@app.command()
def web() -> None:
    """Run the HTTP API."""
    from worker import main

    _serve(main.web, key_required=False)


@app.command()
def sandbox(
    port: Annotated[int, typer.Option(min=0, max=65535)] = 9400,
    faults: Annotated[Faults, typer.Option()] = "default",
    seed: Annotated[int, typer.Option(help="The same seed gives the same faults.")] = 1,
    speed: Annotated[float, typer.Option(min=0.1, help="How many times faster than life.")] = 10.0,
) -> None:
    """Run the sandbox gateway: it speaks the gateway's API, fails as it does, and costs nothing."""
    from worker.sandbox.server import run as run_sandbox

    try:
        run_sandbox(port=port, faults=faults, seed=seed, speed=speed)
    except OSError as error:
        raise Failed(f"--port: {port} cannot be used ({error.strerror}); choose another") from error


@app.command()
def demo() -> int:
    """Run about thirty jobs of every kind against the sandbox, with a live view, and check the outcome."""
    from worker.demo.run import run_demo

    return run_demo()


# --- jobs


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
    from worker import watching
    from worker.enqueue import Conflict, Door

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
        except Conflict as error:
            raise Failed(str(error)) from error
        if wait:
            return await watching.until_ended(store, taken.job.id, as_json=as_json)
        watching.print_job(taken.job, as_json=as_json, short=True)
        return 0

    return _with_store(do, start="always")


def _read_inputs(pairs: list[str], file: str | None) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if file is not None:
        try:
            values = json.loads(sys.stdin.read() if file == "-" else Path(file).read_text())
        except OSError as error:
            raise WrongUsage(f"--input-file: cannot be read ({error.strerror}): {file}") from error
        except ValueError as error:
            raise WrongUsage(f"--input-file: is not JSON ({error})") from error
        if not isinstance(values, dict):
            raise WrongUsage("--input-file: must hold a JSON object")
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise WrongUsage(f"--input: {pair!r} is not K=V, such as prompt='a lighthouse'")
        values[name] = _read_value(text)
    return values


def _read_value(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=lambda name: name)
    except ValueError:
        return text


@app.command()
def show(job_id: Annotated[str, typer.Argument(metavar="ID")], as_json: AsJson = False) -> None:
    """Tell what happened to a job."""
    from worker import watching

    async def do(store: "Store", _settings: "Settings", _models: "Models") -> None:
        job = await store.get(job_id)
        if job is None:
            raise Failed(f"there is no job {job_id}")
        timeline, deliveries = await store.timeline(job_id), await store.deliveries_of(job_id)
        watching.print_job(job, timeline, deliveries, as_json=as_json)

    _with_store(do)


@app.command()
def explain(
    stage: Annotated[str | None, typer.Option(help="submit, poll or result")] = None,
    status: Annotated[int | None, typer.Option(help="HTTP status")] = None,
    code: Annotated[str | None, typer.Option(help="The gateway's or provider's code")] = None,
    message: Annotated[str | None, typer.Option(help="Its words")] = None,
    file: Annotated[Path | None, typer.Option(help="JSON lines of failures; rows with 'expect' are compared.")] = None,
    as_json: AsJson = False,
) -> int:
    """Give the verdict on a failure, and the rule that gave it."""
    from worker.explain import explain_file, explain_one

    if (file is None) == (stage is None):
        raise WrongUsage("explain: give --stage (with --status, --code, --message) or --file")
    if file is not None:
        return explain_file(file, as_json=as_json)
    assert stage is not None
    return explain_one(stage, status, code, message, as_json=as_json)


@app.command("redis-url")
def print_redis_url() -> None:
    """Print the URL of the Redis in use: what a plain arq backend connects to."""
    from worker import main

    settings, _ = main.load_settings()
    with main.redis_url(settings, start="if_data") as url:
        sys.stdout.write(f"{url}\n")


@webhooks.command("secret")
def webhooks_secret(as_json: AsJson = False) -> None:
    """Print the secret that webhooks are signed with."""

    async def do(store: "Store", settings: "Settings", _models: "Models") -> tuple[str, ...]:
        from worker.main import webhook_secrets

        return await webhook_secrets(store, settings)

    secrets = _with_store(do)
    sys.stdout.write(json.dumps({"secrets": secrets}) + "\n" if as_json else "".join(f"{s}\n" for s in secrets))


__all__ = ["app", "run"]
