"""Owns telling of what is refused in floods: a line in some seconds, with how many it stands for."""

import time
from typing import Any

from config.log import log

EVERY_S = 5.0


class RefusalLog:
    """Logs refusals of one sort, however many there are."""

    def __init__(self, reason: str, **fields: Any) -> None:
        self._reason = reason
        self._fields = fields
        self._count = 0
        self._said_s: float | None = None

    def add(self) -> None:
        """Count a refusal, and say so where nothing was said for a while."""
        self._count += 1
        now_s = time.monotonic()
        if self._said_s is None or now_s - self._said_s >= EVERY_S:
            log.warning("request.refused", reason=self._reason, count=self._count, **self._fields)
            self._count, self._said_s = 0, now_s
