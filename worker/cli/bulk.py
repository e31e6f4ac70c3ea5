"""Owns doing one thing to many: a chunk at a time, whatever their number, with a tally of what could not be done.

Who is to be acted on comes from a walk that nothing done here disturbs: each is met once.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from jobs.job import UnreadableRecord
from worker.actions import NoSuchJob, NotPossible
from worker.exits import Failed
from worker.link import RedisAway

CHUNK = 100
REASONS_KEPT = 100

Act = Callable[[str], Awaitable[object]]


@dataclass(slots=True)
class Tally:
    """How many it was done to, and how many it could not be done to, with the first of the reasons."""

    done: int = 0
    refused: int = 0
    reasons: list[tuple[str, str]] = field(default_factory=list)

    def view(self, verb: str) -> dict[str, Any]:
        """Show it as plain JSON."""
        reasons = [{"id": name, "why": why} for name, why in self.reasons]
        return {"matched": self.done + self.refused, verb: self.done, "refused": self.refused, "reasons": reasons}

    def words(self, verb: str) -> str:
        """Say it in one line."""
        if not self.refused:
            return f"{self.done} {verb}"
        shown = "; ".join(why for _, why in self.reasons[:3])
        more = f"; and {self.refused - 3} more" if self.refused > 3 else ""
        return f"{self.done} {verb}, {self.refused} could not be: {shown}{more}"


async def do_to_each(names: AsyncIterator[str], act: Act, *, told: Callable[[Tally], None]) -> Tally:
    """Act on all of them, ``told`` after each chunk; raise ``Failed`` where Redis goes away midway."""
    tally = Tally()
    async for chunk in _chunks(names):
        outcomes = await asyncio.gather(*(act(name) for name in chunk), return_exceptions=True)
        _enter(tally, zip(chunk, outcomes, strict=True))
        told(tally)
    return tally


def _enter(tally: Tally, outcomes: Iterable[tuple[str, object]]) -> None:
    broken: BaseException | None = None
    for name, outcome in outcomes:
        match outcome:
            case NoSuchJob() | NotPossible() | UnreadableRecord():
                tally.refused += 1
                if len(tally.reasons) < REASONS_KEPT:
                    tally.reasons.append((name, str(outcome)))
            case BaseException():
                broken = outcome
            case _:
                tally.done += 1
    if isinstance(broken, RedisAway):
        raise Failed(f"Redis went away after {tally.done} were done: run the same command again for the rest")
    if broken is not None:
        raise broken


async def _chunks(names: AsyncIterator[str]) -> AsyncIterator[list[str]]:
    chunk: list[str] = []
    async for name in names:
        chunk.append(name)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
