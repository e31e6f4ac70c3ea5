"""Owns waiting for a job to change: one subscription for all that wait in this process.

A change is announced by the script that writes it. An announcement may be missed while Redis is away, so whoever waits
looks again by itself now and then (``LOOK_AGAIN_S``); what is announced only makes it sooner.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from worker.keys import Keys
from worker.link import STORE_ERRORS, Link, Subscription

LOOK_AGAIN_S = 2.0
AWAY_PAUSE_S = 1.0


class News:
    """Wakes those who wait for jobs. ``run`` it beside them; ``close`` wakes them all for good."""

    def __init__(self, link: Link, keys: Keys) -> None:
        self._link = link
        self._keys = keys
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._subscription: Subscription | None = None
        self.closed = asyncio.Event()

    async def run(self) -> None:
        """Listen until cancelled; survives an absent Redis."""
        while True:
            with contextlib.suppress(*STORE_ERRORS):
                async with self._link.subscription(self._keys.changed("")) as subscription:
                    self._subscription = subscription
                    await subscription.add(*self._waiting)
                    self._wake(*self._waiting)  # what changed before the subscription stood is looked for
                    async for channel in subscription:
                        self._wake(channel)
            self._subscription = None
            await asyncio.sleep(AWAY_PAUSE_S)

    def close(self) -> None:
        """Have everybody stop waiting, now and in future."""
        self.closed.set()
        self._wake(*self._waiting)

    @asynccontextmanager
    async def of(self, job_id: str) -> AsyncIterator[asyncio.Event]:
        """Give an event that is set whenever the job has changed; whoever waits for it clears it."""
        channel, called = self._keys.changed(job_id), asyncio.Event()
        waiting = self._waiting.setdefault(channel, set())
        waiting.add(called)
        try:
            if self._subscription is not None and len(waiting) == 1:
                with contextlib.suppress(*STORE_ERRORS):
                    await self._subscription.add(channel)
            yield called
        finally:
            waiting.discard(called)
            if not waiting:
                self._waiting.pop(channel, None)
                if self._subscription is not None:
                    with contextlib.suppress(*STORE_ERRORS):
                        await self._subscription.drop(channel)

    async def wait(self, called: asyncio.Event, *, within_s: float) -> bool:
        """Wait for a change; False once ``close`` was called. Returns by itself after a while, to look again."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(within_s, LOOK_AGAIN_S)):
                await called.wait()
        called.clear()
        return not self.closed.is_set()

    def _wake(self, *channels: str) -> None:
        for channel in channels:
            for called in self._waiting.get(channel, ()):
                called.set()
