"""Owns waiting for a job to change: one subscription for all that wait in this process.

A change is announced by the script that writes it. An announcement may be missed while Redis is away, so whoever waits
looks again by itself now and then (``LOOK_AGAIN_S``); what is announced only makes it sooner.

Whoever waits enters its channel and interrupts the one task that uses the subscription, which then tunes it. Once the
channel is heard, whoever waits for it is called, for the job may have changed in between; so nothing is missed.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NoReturn

from config.log import log
from worker.keys import Keys
from worker.link import STORE_ERRORS, Link, Subscription

LOOK_AGAIN_S = 2.0
PAUSE_FIRST_S, PAUSE_MAX_S = 0.05, 1.0


class News:
    """Wakes those who wait for jobs. ``run`` it beside them; ``close`` wakes them all for good."""

    def __init__(self, link: Link, keys: Keys) -> None:
        self._link = link
        self._keys = keys
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._subscription: Subscription | None = None
        self._pause_s = PAUSE_FIRST_S
        self._said: type[Exception] | None = None
        self.closed = asyncio.Event()

    async def run(self) -> None:
        """Listen until cancelled; survives whatever happens to Redis. What does is logged once."""
        while True:
            try:
                await self._listen()
            except Exception as error:  # noqa: BLE001 - the boundary of this duty: waiting goes on without it
                self._say(error)
            finally:
                self._subscription = None
            await asyncio.sleep(self._pause_s)
            self._pause_s = min(self._pause_s * 2, PAUSE_MAX_S)

    def _say(self, error: Exception) -> None:
        if self._said is type(error):
            return
        self._said = type(error)
        if isinstance(error, STORE_ERRORS):
            log.warning("redis.away", error=str(error), what="news of jobs")
        else:
            log.exception("duty.crashed", duty="news")

    async def _listen(self) -> NoReturn:
        always = self._keys.changed("")  # nobody's: a subscription has to be one to something
        async with self._link.subscription() as subscription:
            self._subscription = subscription
            while True:
                await subscription.tune({always, *self._waiting})
                while (channel := await subscription.next()) is not None:
                    self._pause_s, self._said = PAUSE_FIRST_S, None
                    self._wake(channel)

    def close(self) -> None:
        """Have everybody stop waiting, now and in future."""
        self.closed.set()
        self._wake(*self._waiting)

    @asynccontextmanager
    async def of(self, job_id: str) -> AsyncIterator[asyncio.Event]:
        """Give an event that is set whenever the job has changed; whoever waits for it clears it."""
        channel, called = self._keys.changed(job_id), asyncio.Event()
        if channel not in self._waiting:
            self._waiting[channel] = set()
            self._retune()
        waiting = self._waiting[channel]
        waiting.add(called)
        try:
            yield called
        finally:
            waiting.discard(called)
            if not waiting:
                del self._waiting[channel]
                self._retune()

    def _retune(self) -> None:
        if self._subscription is not None:
            self._subscription.interrupt()

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
