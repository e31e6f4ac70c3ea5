"""Owns the commands that run until they are told to stop, and the address of the Redis they use."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from worker.cli.entry import AsJson, app, say
from worker.exits import Failed

if TYPE_CHECKING:
    from config.models import Models
    from config.settings import Settings

Faults = Literal["none", "default", "hostile"]


def _serve(process: "Callable[[str, Settings, Models], Awaitable[None]]", *, key_required: bool) -> None:
    from config.log import name_process
    from worker import main

    name_process()
    settings, models = main.load_settings(key_required=key_required)
    with main.redis_url(settings) as url, _kept(settings):
        asyncio.run(process(url, settings, models))  # type: ignore[arg-type]


def _kept(settings: "Settings") -> AbstractContextManager[None]:
    """Keep the embedded Redis alive where it is used."""
    from worker.keeper import kept_alive

    return nullcontext() if settings.redis_url else kept_alive(settings.data_dir)


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


@app.command("redis-url")
def print_redis_url(as_json: AsJson = False) -> None:
    """Print the URL of the Redis in use: what a plain arq backend connects to."""
    from worker import main

    settings, _ = main.load_settings(quiet=True)
    with main.redis_url(settings, start="if_data") as url:
        say(json.dumps({"url": url}) if as_json else url)
