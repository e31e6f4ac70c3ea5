"""Owns what it is to hold due work: a claim, its token and its lease, and the clock leases are measured by."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from jobs.counters import Counter
from jobs.pacing import Heard

LEASE_MS = 12_000


def clock_s() -> float:
    """Tell the time leases are measured by: it goes on while the machine is suspended, where the system has such."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


@dataclass(slots=True)
class Claim:
    """A member of a wheel that is ours until ``valid_until_s`` (``clock_s``), unless renewed.

    ``counters`` and ``heard`` are of what was done under it: the write that ends the claim tells them. ``number`` is
    that of its request among those of its lane; ``limited`` where the lane has to hear of every one.
    """

    wheel: str
    member: str
    token: str
    took_over: bool
    valid_until_s: float
    counters: list[Counter] = field(default_factory=list)
    heard: Heard | None = None
    number: int = 0
    limited: bool = True

    def told(self) -> None:
        """Note that what was done under it has been written."""
        self.counters.clear()
        self.heard = None

    @property
    def held(self) -> bool:
        """Whether the lease is still ours by our own clock."""
        return clock_s() < self.valid_until_s


@dataclass(frozen=True, slots=True)
class Claims:
    """What a claim brought: the claims, when the wheel is due next, and what the fleet knows."""

    items: tuple[Claim, ...]
    now_ms: int
    next_due_ms: int | None
    held: bool
    cooldowns: Mapping[str, int] = field(default_factory=dict)
