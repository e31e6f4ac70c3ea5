"""Owns the commands that steer the fleet: pause and resume the submissions of a kind."""

from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.entry import AsJson, app, one_of, say, with_store

if TYPE_CHECKING:
    from config.models import Models
    from config.settings import Settings
    from worker.store import Store

OneKind = Annotated[str, typer.Argument(metavar="KIND", help="video, image, music, audio or voice")]


@app.command()
def pause(kind: OneKind, as_json: AsJson = False) -> None:
    """Stop submissions of a kind; tasks under way are tracked on. Safe to repeat."""
    _steer(kind, paused=True, as_json=as_json)


@app.command()
def resume(kind: OneKind, as_json: AsJson = False) -> None:
    """Start submissions of a kind again. Safe to repeat."""
    _steer(kind, paused=False, as_json=as_json)


def _steer(kind: str, *, paused: bool, as_json: bool) -> None:
    from config.models import KINDS
    from worker.cli.terminal import clock, counted, print_json
    from worker.keys import submit_wheel
    from worker.record import rfc3339

    one_of("KIND", kind, KINDS)

    async def do(store: "Store", _settings: "Settings", _models: "Models") -> None:
        fleet = store.fleet
        changed = await (fleet.pause(kind, store.now_ms()) if paused else fleet.resume(kind))
        overview = await fleet.overview(store.now_ms())
        since, waiting = rfc3339(overview.paused.get(kind)), overview.queues[submit_wheel(kind)].entries
        if as_json:
            print_json({"kind": kind, "paused_since": since, "changed": changed, "waiting": waiting})
            return
        wait = f"{counted(waiting, 'job')} {'waits' if waiting == 1 else 'wait'}"
        words = {
            (True, True): f"{kind} paused; {wait}; tasks under way are tracked on",
            (True, False): f"{kind} is paused already, since {clock(since, day=True)}; {wait}",
            (False, True): f"{kind} resumed; {wait} for submission",
            (False, False): f"{kind} was not paused; {wait} for submission",
        }
        say(words[paused, changed])

    with_store(do)
