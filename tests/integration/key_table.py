"""Reads the table of keys in docs/redis.md: which keys there may be, of which type, and for how long."""

import re
from dataclasses import dataclass
from pathlib import Path

PAGE = (Path(__file__).parents[2] / "docs" / "redis.md").read_text(encoding="utf-8")
UNITS_S = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}
STAYS, GOES, WITH_ITS_JOB = "deployment", "while used", "job"


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A key by its pattern; ``ttl_s`` is the longest time to live its line tells of, None where it tells of none."""

    name: str
    type: str
    owner: str
    life: str

    @property
    def ttl_s(self) -> int | None:
        """Read the longest time to live."""
        told = re.findall(rf"(\d+) ({'|'.join(UNITS_S)})s?\b", self.life)
        return max((int(number) * UNITS_S[unit] for number, unit in told), default=None)

    @property
    def expires(self) -> bool:
        """Whether it always has a time to live."""
        return self.ttl_s is not None and not self.life.startswith((STAYS, GOES, WITH_ITS_JOB))

    def matches(self, key: str, prefix: str) -> bool:
        """Tell whether a key is one of these."""
        pattern = re.escape(self.name.replace("{p}", prefix))
        return re.fullmatch(re.sub(r"[A-Z]{2,}", ".+", pattern), key) is not None


def read_rows(page: str = PAGE) -> list[KeyRow]:
    """Read the table, a row for each key of a line."""
    lines = re.findall(r"^\| (`[^|]*`) \| ([\w ]+) \| `(\w+)` \| ([^|]*) \|$", page, flags=re.MULTILINE)
    return [KeyRow(name, *rest) for names, *rest in lines for name in re.findall(r"`([^`]*)`", names)]
