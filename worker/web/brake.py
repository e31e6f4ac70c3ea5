"""Owns how fast tokens can be tried at the sign-in form.

A token is compared only by who holds one of a few places, and who was wrong keeps the place for a moment: there are
never more than ``PLACES / WRONG_TOKEN_S`` guesses a second. Nobody waits for a place but while others guess; the wait
is in turn and, as few may wait, for seconds at most. Beyond that nothing is compared at all.
"""

import asyncio
from collections.abc import Callable

from worker.web.refusals import RefusalLog

PLACES = 20
WRONG_TOKEN_S = 0.5
MOST_WAITING = 100


class Busy(Exception):  # noqa: N818 - named after what it says
    """Too many are waiting to try a token."""


class Brake:
    """The places of one web process. Safe to use from any number of coroutines of one event loop."""

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(PLACES)
        self._waiting = 0
        self._wrong = RefusalLog("wrong_token")
        self._busy = RefusalLog("too_many_sign_ins")

    async def admits(self, is_good: Callable[[], bool]) -> bool:
        """Tell whether a token is good, if it is not only after a moment; raise ``Busy`` without looking at it."""
        if self._waiting >= MOST_WAITING:
            self._busy.add()
            raise Busy
        self._waiting += 1
        try:
            await self._places.acquire()
        finally:
            self._waiting -= 1
        try:
            if is_good():
                return True
            self._wrong.add()
            await asyncio.sleep(WRONG_TOKEN_S)
            return False
        finally:
            self._places.release()
