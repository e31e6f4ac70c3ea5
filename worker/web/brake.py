"""Owns how wrong tokens are answered at the sign-in form: after a moment, and only so many at a time.

A good one is answered at once, whatever the others do: nobody can be locked out by somebody who guesses. Guessing is
held off by the length of tokens; the moment only keeps a form from being the fastest place to try.
"""

import asyncio

from worker.web.refusals import RefusalLog

PLACES = 20
WRONG_TOKEN_S = 0.5


class Busy(Exception):  # noqa: N818 - named after what it says
    """Too many wrong tokens are being answered."""


class Brake:
    """What holds up the answers of one web process. Safe to use from any number of coroutines of one event loop."""

    def __init__(self) -> None:
        self._held_up = 0
        self._wrong = RefusalLog("wrong_token")

    async def hold_up(self) -> None:
        """Wait before a wrong token is told so; raise ``Busy`` where many wait already."""
        self._wrong.add()
        if self._held_up >= PLACES:
            raise Busy
        self._held_up += 1
        try:
            await asyncio.sleep(WRONG_TOKEN_S)
        finally:
            self._held_up -= 1
