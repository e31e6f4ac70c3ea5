"""Owns how a command begins and ends: settings, the way to Redis, the exit status, one line for whatever went wrong.

0 done, 1 the thing asked for failed, 2 wrong usage, 130 interrupted before its end. ``watch`` without a job has no end
of its own: Ctrl-C is how it ends well, with 0.
"""

import asyncio
import io
import sys
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer

from worker.exits import Failed, WrongUsage

if TYPE_CHECKING:
    from config.models import Models
    from config.settings import Settings
    from worker.main import Start
    from worker.store import Store

T = TypeVar("T")

# typer carries a click of its own, and names of its errors only this one: the rest share its base.
UsageError: Any = typer.BadParameter.__mro__[1]
ALONE = "onysoft-worker: nobody else is using {data_dir}: the job waits there until a worker runs on it"

PROMISE = "AI media generations on the Onysoft gateway: nothing lost, nothing stuck, nothing paid twice by accident."

app = typer.Typer(
    name="onysoft-worker",
    help=f"Runs {PROMISE}",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
Kind = Annotated[str | None, typer.Option(help="video, image, music, audio or voice")]
Model = Annotated[str | None, typer.Option(help="Only jobs that are at this model.")]
Limit = Annotated[int, typer.Option(min=1, max=10_000, help="How many at most.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"onysoft-worker {version('onysoft-worker')}\n")
        raise typer.Exit


def help_alone(ctx: typer.Context) -> None:
    """Print the help where no command is given, which is wrong usage all the same."""
    if ctx.invoked_subcommand is None:
        sys.stdout.write(f"{ctx.get_help()}\n")
        raise typer.Exit(2)


@app.callback(invoke_without_command=True)
def options(
    ctx: typer.Context,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Run AI media generations on the Onysoft gateway: nothing lost, nothing stuck, nothing paid twice by accident."""
    help_alone(ctx)


def run() -> NoReturn:
    """Run the command line and exit."""
    from rich.console import Console  # noqa: F401 - a broken terminal set-up shows here, before any work

    from config.log import redact
    from config.settings import SettingsError
    from worker.cli.terminal import plain

    lines: list[str] = []
    status = 0
    for stream in (sys.stdout, sys.stderr):  # what this terminal cannot show must not end the command
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        _check_words(sys.argv[1:])
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
        sys.stderr.write(f"onysoft-worker: {plain(redact(line))}\n")
    sys.exit(status)


def _check_words(words: list[str]) -> None:
    """Refuse what is no text: Python has put lone surrogates in the place of its bytes."""
    for number, word in enumerate(words, start=1):
        try:
            word.encode()
        except UnicodeEncodeError:
            raise WrongUsage(f"argument {number} is not UTF-8 text: {word!a}") from None


def _said(error: Exception) -> tuple[list[str], int]:
    """Give the line and the exit status for an exception that is no bug; raise the others."""
    from jobs.job import UnreadableRecord
    from worker.actions import NoSuchJob, NotPossible
    from worker.embedded import EmbeddedRedisError
    from worker.link import STORE_ERRORS, RedisAway, RedisRefused
    from worker.main import CannotStart
    from worker.web.server import CannotListen

    if isinstance(error, typer.Exit):
        return [], error.exit_code
    if isinstance(error, typer.Abort):
        return [], 130
    if isinstance(error, UsageError):
        command = f" (see: {error.ctx.command_path} --help)" if error.ctx else ""
        return [f"{error.format_message()}{command}"], 2
    foreseen = (Failed, NoSuchJob, NotPossible, CannotStart, CannotListen, EmbeddedRedisError, RedisAway, RedisRefused)
    if isinstance(error, (*foreseen, UnreadableRecord)):
        return [str(error)], 1
    if isinstance(error, STORE_ERRORS):
        return [f"Redis refused a command: {error}"], 1
    raise error


class Session:
    """A way to Redis for the length of one command; each ``run`` opens the store anew."""

    def __init__(self, url: str, settings: "Settings", models: "Models") -> None:
        self._url = url
        self._settings = settings
        self._models = models

    def run(self, do: "Callable[[Store, Settings, Models], Awaitable[T]]") -> T:
        """Do something with the store."""
        from worker import main

        async def opened() -> T:
            async with main.open_store(self._url, self._settings, self._models) as store:
                return await do(store, self._settings, self._models)

        return asyncio.run(opened())


def quiet_settings() -> "tuple[Settings, Models]":
    """Read the settings for a command: it prints what it does itself, so its log tells of bugs only."""
    from worker import main

    return main.load_settings(quiet=True)


@contextmanager
def session(*, start: "Start" = "if_data") -> Iterator[Session]:
    """Find the way to Redis. Reading commands join or start what has data, and never an empty Redis."""
    from worker import main

    settings, models = quiet_settings()
    with main.redis_url(settings, start=start, alone=ALONE if start == "always" else None) as url:
        yield Session(url, settings, models)


def with_store(do: "Callable[[Store, Settings, Models], Awaitable[T]]", *, start: "Start" = "if_data") -> T:
    """Do something with the store."""
    with session(start=start) as way:
        return way.run(do)


# --- what several commands check and ask


def one_of(name: str, value: str | None, allowed: Collection[str]) -> None:
    """Raise ``WrongUsage`` that names what is allowed."""
    if value is not None and value not in allowed:
        raise WrongUsage(f"{name}: {value!r} is not one of {', '.join(allowed)}")


def an_id(*values: str | None, name: str = "ID") -> None:
    """Raise ``WrongUsage`` where one of them cannot be the id of a job or a delivery."""
    from jobs.request import valid_id

    for value in values:
        if value is not None and not valid_id(value):
            raise WrongUsage(f"{name}: {value!r} is no id: 1-128 characters of A-Za-z0-9._:-")


def a_model(value: str | None) -> None:
    """Raise ``WrongUsage`` where it cannot name a model."""
    from jobs.request import valid_model

    if value is not None and not valid_model(value):
        raise WrongUsage(f"--model: {value!r} names no model: 1-200 printable ASCII characters without spaces")


def confirm(counted: str, *, yes: bool) -> None:
    """Ask before something is done to many; raise ``WrongUsage`` where nobody can be asked."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise WrongUsage(f"{counted}: add --yes to go on without being asked")
    try:
        agreed = typer.confirm(f"{counted}: go on?", err=True)
    except typer.Abort:
        sys.stderr.write("\nonysoft-worker: nothing was done\n")
        raise
    if not agreed:
        raise Failed("nothing was done")


def say(text: str) -> None:
    """Print a line."""
    sys.stdout.write(f"{text}\n")


def progress(of: int) -> Callable[[Any], None]:
    """Make what shows how far a long command is, where somebody looks on."""

    def told(tally: Any) -> None:
        if sys.stderr.isatty() and of:
            done = tally.done + tally.refused
            sys.stderr.write(f"\r{done} of {of}" + ("\n" if done >= of else ""))
            sys.stderr.flush()

    return told
