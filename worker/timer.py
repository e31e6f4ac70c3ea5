"""Owns a time-out that reads first what has come: a process that stood still must not lose an answer it had by then.

A stopped or suspended process finds its time-outs over and its answers in the sockets in one turn of the event loop.
Asyncio's own time-out cancels whoever has just been woken by its answer.
"""

import asyncio
from types import TracebackType
from typing import Self

MOMENT_S = 0.1


class Timer:
    """Like ``asyncio.timeout_at``, and a moment later: long enough to read what has come."""

    def __init__(self, when_s: float | None) -> None:
        self._when_s = when_s
        self._timeout = asyncio.timeout(None)
        self._alarm: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        await self._timeout.__aenter__()
        self.reschedule(self._when_s)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._silence()
        await self._timeout.__aexit__(kind, error, trace)

    def reschedule(self, when_s: float | None) -> None:
        """Have the time be over then, by the event loop's clock; None: never."""
        self._silence()
        if when_s is not None:
            self._alarm = asyncio.get_running_loop().call_at(when_s, self._ring)

    def _ring(self) -> None:
        self._alarm = asyncio.get_running_loop().call_later(MOMENT_S, self._end)

    def _end(self) -> None:
        self._timeout.reschedule(asyncio.get_running_loop().time())

    def _silence(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
