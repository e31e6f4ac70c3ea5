"""Owns the mark of Redis's memory above which no new jobs are taken, so that those there are have room to end.

The mark follows from Redis's own ``maxmemory``; without one there is none. Imports the standard library only: the
Python client reads the same mark.
"""

import re
from dataclasses import dataclass
from typing import Any, Self

MARK = 0.9  # of maxmemory

_NUMBER = re.compile(rb"^(used_memory|mem_not_counted_for_evict|maxmemory):(\d+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class RedisMemory:
    """What Redis uses, as it counts that itself against the most it may (0: no bound)."""

    used_bytes: int = 0
    most_bytes: int = 0

    @classmethod
    def read(cls, info: object) -> Self:
        """Read the answer to ``INFO memory``; whatever else it is tells of no bound."""
        found = dict(_NUMBER.findall(info)) if isinstance(info, bytes) else {}
        used, uncounted, most = (
            int(found.get(name, 0)) for name in (b"used_memory", b"mem_not_counted_for_evict", b"maxmemory")
        )
        return cls(max(used - uncounted, 0), most)

    @property
    def ratio(self) -> float:
        """The part of what it may use that it uses; 0 without a bound."""
        return self.used_bytes / self.most_bytes if self.most_bytes else 0.0

    @property
    def is_full(self) -> bool:
        """Whether no new jobs are to be taken."""
        return self.ratio > MARK

    @property
    def is_used_up(self) -> bool:
        """Whether Redis refuses what needs memory: no submission begins."""
        return self.ratio >= 1

    @property
    def stops(self) -> str:
        """Say what it stops by being so full; nothing where it stops nothing."""
        if self.is_used_up:
            return "new jobs are refused, and no submission begins until there is room; what was submitted ends"
        return "new jobs are refused, those there are go on" if self.is_full else ""

    def view(self) -> dict[str, Any]:
        """Show it as plain JSON."""
        return {
            "used_bytes": self.used_bytes,
            "max_bytes": self.most_bytes or None,
            "takes_jobs": not self.is_full,
            "begins_submissions": not self.is_used_up,
        }

    @property
    def words(self) -> str:
        """Say how full it is and what to do."""
        return (
            f"Redis uses {self.ratio:.0%} of its maxmemory, and above {MARK:.0%} no new job is taken: repeat the "
            "request when ended jobs have been pruned (RETENTION_S) or maxmemory is raised"
        )
