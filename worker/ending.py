"""Owns how a task of ours is ended for certain."""

import asyncio
from collections.abc import Iterable
from typing import Any

ASK_EVERY_S = 0.1


async def end(tasks: Iterable["asyncio.Task[Any]"]) -> None:
    """Cancel tasks until they have ended; what they raise is left in them.

    Once is not enough: ``asyncio.timeout(0)``, which redis-py uses on every connection, swallows a cancellation that
    is pending when it is entered (Python 3.11).
    """
    left = {task for task in tasks if not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=ASK_EVERY_S)
