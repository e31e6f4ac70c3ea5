"""Owns what all that is printed has in common: the console, colours, how times and durations read, JSON.

What comes from elsewhere (a gateway's words, a webhook's answer) is shown by ``plain``: it cannot move the cursor.
Text goes to standard output as wide as it is where that is no terminal, so that ``grep`` and ``cut`` find it whole.
"""

import json
import re
import sys
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from rich.console import Console, JustifyMethod, RenderableType
from rich.table import Table
from rich.text import Text

STYLES: Mapping[str, str] = {
    "queued": "dim",
    "submitting": "cyan",
    "processing": "blue",
    "waiting": "yellow",
    "completed": "green",
    "failed": "red",
    "canceled": "magenta",
    "pending": "yellow",
    "delivered": "green",
    "dead": "red",
    "ok": "green",
    "info": "blue",
    "warning": "yellow",
    "problem": "bold red",
    "failing": "red",
    "cooling": "yellow",
    "unused": "dim",
}
ROOMY_COLUMNS = 110
_UNBOUNDED_COLUMNS = 2000
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")
_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86400


def print_json(value: Any) -> None:
    """Print one JSON value on a line of its own."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def console() -> Console:
    """Make a console on standard output."""
    made = Console(highlight=False, markup=False, emoji=False)
    if not made.is_terminal:
        made = Console(highlight=False, markup=False, emoji=False, width=_UNBOUNDED_COLUMNS)
    return made


def show(*parts: RenderableType, on: Console | None = None) -> None:
    """Print one below the other, without the blanks that a table ends its lines with."""
    screen = on or console()
    with screen.capture() as captured:
        for part in parts:
            screen.print(part, soft_wrap=isinstance(part, Text))
    sys.stdout.write("".join(f"{line.rstrip(' ')}\n" for line in captured.get().splitlines()))


def table(columns: Iterable[str], *, right: Iterable[str] = (), whole: Iterable[str] = ()) -> Table:
    """Make a bare table; ``right`` columns hold numbers, ``whole`` ones are never cut off."""
    made = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold", show_edge=False)
    right, whole = set(right), set(whole)
    for name in columns:
        justify: JustifyMethod = "right" if name in right else "left"
        made.add_column(
            name, justify=justify, no_wrap=name in right | whole, overflow="fold" if name in whole else "ellipsis"
        )
    return made


def plain(value: Any) -> str:
    """Write a value of whatever origin as one line of visible text."""
    text = "" if value is None else str(value)
    return _CONTROL.sub(" ", text.encode("utf-8", "replace").decode())


def cut(value: Any, style: str = "") -> Text:
    """Write a value that is cut off where there is no room for it."""
    return Text(plain(value), style=style, no_wrap=True, overflow="ellipsis")


def counted(number: int, noun: str) -> str:
    """Write so many of a noun."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def styled(word: str) -> Text:
    """Write a status in its colour."""
    return Text(plain(word), style=STYLES.get(word, ""))


def ms_of(text: str | None) -> int | None:
    """Read an RFC 3339 time as milliseconds since 1970."""
    return None if text is None else round(datetime.fromisoformat(text).timestamp() * 1000)


def duration(seconds: float) -> str:
    """Write a duration in its two leading units."""
    whole = round(seconds)
    if seconds < 10:
        return f"{max(seconds, 0):.1f}s"
    if whole < _MINUTE_S:
        return f"{whole}s"
    if whole < _HOUR_S:
        return f"{whole // _MINUTE_S}m{whole % _MINUTE_S:02}s"
    if whole < _DAY_S:
        return f"{whole // _HOUR_S}h{whole % _HOUR_S // _MINUTE_S:02}m"
    return f"{whole // _DAY_S}d{whole % _DAY_S // _HOUR_S:02}h"


def ago(text: str | None, now_ms: int, *, word: str = " ago") -> str:
    """Write how long ago a time was; nothing for none."""
    at_ms = ms_of(text)
    return "" if at_ms is None else duration(max(now_ms - at_ms, 0) / 1000) + word


def ahead(text: str | None, now_ms: int) -> str:
    """Write how far ahead a time is."""
    at_ms = ms_of(text)
    if at_ms is None:
        return ""
    return f"in {duration((at_ms - now_ms) / 1000)}" if at_ms > now_ms else "now"


def clock(text: str | None, *, day: bool = False) -> str:
    """Write an RFC 3339 time in UTC to be read: with its date, or the time of day alone."""
    if text is None:
        return ""
    at = datetime.fromisoformat(text)
    return at.strftime("%Y-%m-%d %H:%M:%S UTC") if day else at.strftime("%H:%M:%S.") + f"{at.microsecond // 1000:03}"
