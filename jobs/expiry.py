"""Owns when the URLs of a result are taken to stop working: when the gateway says, where that can be, else in a day.

Nothing of it is published, so what is told is read in every form that others use, and believed only where it lies in
the future and within a year.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

RESULT_LIFETIME_MS = 24 * 3600 * 1000  # kie: result URLs "typically expire after 24 hours"
LONGEST_LIFETIME_MS = 365 * RESULT_LIFETIME_MS
MILLISECONDS_FROM = 100_000_000_000  # assumed: as seconds it would be the year 5138, as milliseconds it is 1973
LARGEST_NUMBER = 10**16

_DIGITS = re.compile(r"[0-9]{1,16}(\.[0-9]{1,9})?")


@dataclass(frozen=True, slots=True)
class ToldExpiry:
    """What an answer says of an expiry, as it stands there: a moment, or how many seconds there are until then."""

    value: Any
    is_span: bool = False


def expires_at_ms(told: Iterable[ToldExpiry], now_ms: int) -> int:
    """Give the earliest moment of those told that can be right; a day from now where there is none. Never raises."""
    moments = (_span_end_ms(one.value, now_ms) if one.is_span else _moment_ms(one.value) for one in told)
    possible = (at_ms for at_ms in moments if at_ms is not None and now_ms < at_ms <= now_ms + LONGEST_LIFETIME_MS)
    return min(possible, default=now_ms + RESULT_LIFETIME_MS)


def _span_end_ms(value: Any, now_ms: int) -> int | None:
    seconds = _number(value)
    return None if seconds is None else now_ms + round(seconds * 1000)


def _moment_ms(value: Any) -> int | None:
    """Read seconds or milliseconds since 1970, or RFC 3339; a time that names no zone is none."""
    number = _number(value)
    if number is not None:
        return round(number if number >= MILLISECONDS_FROM else number * 1000)
    if not isinstance(value, str):
        return None
    try:
        at = datetime.fromisoformat(value.strip())
    except ValueError:
        return None
    return None if at.tzinfo is None else round(at.timestamp() * 1000)


def _number(value: Any) -> float | None:
    """Read a number, also one that is written as text."""
    if isinstance(value, str) and _DIGITS.fullmatch(value.strip()):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if 0 < value < LARGEST_NUMBER else None
