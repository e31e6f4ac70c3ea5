"""Owns the command about the secret that webhooks are signed with: to show it, and to rotate it."""

import asyncio
import contextlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.entry import AsJson, quiet_settings, say, with_store
from worker.cli.webhooks import webhooks
from worker.exits import Failed

if TYPE_CHECKING:
    from config.models import Models
    from config.settings import Settings
    from worker.signing_secrets import Secret
    from worker.store import Store

PATIENCE_S = 10.0


@webhooks.command("secret")
def secret(
    rotate: Annotated[
        bool, typer.Option("--rotate", help="Make a new one first; the one before signs beside it for 24 hours.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Print the secret that webhooks are signed with; while rotating all that are valid, the newest first.

    Where standard output is no terminal the newest alone goes there, and those before to standard error.
    """
    from worker.signing_secrets import Secret

    settings, _ = quiet_settings()
    if settings.webhook_secret and rotate:
        raise Failed(
            "WEBHOOK_SECRET is set, and is what webhooks are signed with: to rotate it put a new secret (whsec_ and "
            "what `openssl rand -base64 32` prints) in front of the old one, a space between them, restart the "
            "workers, and take the old one out a day later"
        )
    if settings.webhook_secret:
        _print([Secret(text) for text in settings.webhook_secret], "environment", now_ms=0, as_json=as_json)
        _compare_with_workers(settings.webhook_secret)
        return

    async def do(store: "Store", _settings: "Settings", _models: "Models") -> None:
        found = await (_rotate(store) if rotate else store.secrets.valid())
        _print(found, "redis", now_ms=store.now_ms(), as_json=as_json)
        if rotate and not as_json:
            typer.echo(_next_step(len(found)), err=True)
        await _warn(store, [secret.text for secret in found], is_set_here=False)

    with_store(do)


def _compare_with_workers(given: "Sequence[str]") -> None:
    """Warn where the workers sign with another secret; where there is no Redis there is nobody to compare with."""
    from worker.embedded import EmbeddedRedisError
    from worker.main import CannotStart

    async def do(store: "Store", _settings: "Settings", _models: "Models") -> None:
        async with asyncio.timeout(PATIENCE_S):
            await _warn(store, given, is_set_here=True)

    with contextlib.suppress(CannotStart, EmbeddedRedisError, TimeoutError):
        with_store(do)


async def _warn(store: "Store", ours: "Sequence[str]", *, is_set_here: bool) -> None:
    from worker.link import STORE_ERRORS
    from worker.signing_secrets import DIFFERS, signed_otherwise

    with contextlib.suppress(*STORE_ERRORS):  # the secret has been printed, which is what was asked for
        overview = await store.fleet.overview(store.now_ms())
        if signed_otherwise(overview.alive, ours, is_set_here=is_set_here):
            typer.echo(f"onysoft-worker: {DIFFERS}", err=True)


async def _rotate(store: "Store") -> "list[Secret]":
    """Rotate once, however often the answer is lost on the way."""
    from worker.link import patiently
    from worker.signing import make_secret
    from worker.signing_secrets import TooManySecrets

    fresh = make_secret()
    try:
        async with asyncio.timeout(PATIENCE_S):
            return await patiently(lambda: store.secrets.rotate(fresh))
    except TooManySecrets as error:
        raise Failed(str(error)) from error
    except TimeoutError as error:
        raise Failed("Redis went away: `webhooks secret` shows whether the secret was rotated") from error


def _next_step(valid: int) -> str:
    if valid == 1:
        return "there was none before: webhooks are signed with this one"
    each, other = ("both", "the other") if valid == 2 else (f"all {valid}", "theirs")
    return f"webhooks are signed with {each} from now on: give receivers the first one before {other} ends"


def _print(secrets: "Sequence[Secret]", source: str, *, now_ms: int, as_json: bool) -> None:
    from worker.cli.terminal import ahead, clock, print_json
    from worker.record import rfc3339

    ends = [rfc3339(secret.until_ms) for secret in secrets]
    if as_json:
        print_json({"secrets": [secret.text for secret in secrets], "until": ends, "source": source})
        return
    for number, (secret, end) in enumerate(zip(secrets, ends, strict=True)):
        line = secret.text if end is None else f"{secret.text}  until {clock(end, day=True)}, {ahead(end, now_ms)}"
        if number == 0 or sys.stdout.isatty():
            say(line)
        else:
            typer.echo(line, err=True)
    sys.stdout.flush()
