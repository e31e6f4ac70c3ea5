"""The table of figures and bounds: as text, as JSON, and as Markdown between two comments of a file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


def marks(part: str) -> tuple[str, str]:
    """Give the comments that stand around a bench's table."""
    return f"<!-- {part}:begin -->", f"<!-- {part}:end -->"


BEGIN, END = marks("faults")


@dataclass(frozen=True, slots=True)
class Row:
    """One figure and the most it may be; without a bound it only tells. `note` says how it came about."""

    scenario: str
    what: str
    figure: float
    bound: float | None = None
    note: str = ""

    @property
    def verdict(self) -> str:
        """OK, OVER, or nothing where there is no bound."""
        if self.bound is None:
            return ""
        return "OK" if self.figure <= self.bound else "OVER"

    def cells(self) -> tuple[str, str, str, str, str]:
        """Give what stands in the columns."""
        bound = "" if self.bound is None else f"{self.bound:g}"
        return self.scenario, self.what, f"{self.figure:g}", bound, self.verdict

    def form(self) -> dict[str, Any]:
        """Give the row in JSON types."""
        names = ("scenario", "what", "figure", "bound", "note", "verdict")
        return {name: getattr(self, name) for name in names}


HEADS = ("scenario", "what", "figure", "bound", "")


def text(rows: Sequence[Row]) -> str:
    """Lay the rows out for a terminal."""
    table = [HEADS, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in table) for column in range(len(HEADS))]
    lines = []
    for cells, note in zip(table, ["", *(row.note for row in rows)], strict=True):
        left = [cells[column].ljust(widths[column]) for column in (0, 1)]
        right = [cells[column].rjust(widths[column]) for column in (2, 3)]
        lines.append("  ".join([*left, *right, cells[4].ljust(widths[4]), note]).rstrip())
    return "\n".join(lines)


def markdown(rows: Sequence[Row], said: str) -> str:
    """Lay the rows out as Markdown under a sentence."""
    lines = [said, "", "| scenario | what is counted | figure | bound | |", "|---|---|--:|--:|---|"]
    lines += [f"| {' | '.join(row.cells())} |" for row in rows]
    return "\n".join(lines)


class Unwritable(Exception):  # noqa: N818 - named after what it says
    """The table cannot be put into the file; the message says why."""


def write(path: Path, table: str, part: str = "faults") -> None:
    """Replace what stands between the two comments of a file. Raises ``Unwritable``."""
    begin, end = marks(part)
    found = readable(path, part)
    before, after = found.split(begin, 1)[0], found.split(end, 1)[1]
    path.write_text(f"{before}{begin}\n{table}\n{end}{after}")


def readable(path: Path, part: str = "faults") -> str:
    """Read a file that the table can be put into. Raises ``Unwritable``."""
    begin, end = marks(part)
    try:
        found = path.read_text()
    except OSError as error:
        raise Unwritable(f"{path}: {error.strerror}; make it, with {begin} and {end} where the table goes") from error
    if found.count(begin) != 1 or found.count(end) != 1 or found.index(begin) > found.index(end):
        raise Unwritable(f"{path}: put {begin} and, after it, {end} into it once each, where the table goes")
    return found
