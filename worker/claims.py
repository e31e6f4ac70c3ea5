"""Owns what it is to hold due work: a claim, its token and its lease, and the clock leases are measured by."""

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from config.log import log
from jobs.counters import Counter
from jobs.pacing import Heard

LEASE_MS = 12_000


def clock_s() -> float:
    """Tell the time leases are measured by: it goes on while the machine is suspended, where the system has such."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Clock:
    """Redis's clock, carried on between two readings of it."""

    def __init__(self) -> None:
        self._offset_ms = 0.0

    def set(self, now_ms: int, *, asked_s: float) -> None:
        """Note what Redis's clock said, in milliseconds since 1970, when it was asked at ``asked_s`` (``clock_s``).

        It said so some time between then and now: what is known better already stays, however late the answer is read.
        """
        at_least, at_most = now_ms - clock_s() * 1000, now_ms - asked_s * 1000
        self._offset_ms = min(max(self._offset_ms, at_least), at_most)

    def now_ms(self) -> int:
        """Tell the time by Redis's clock, in milliseconds since 1970."""
        return round(clock_s() * 1000 + self._offset_ms)


class Holder:
    """Whoever claims work: ``id`` names this process, and each batch of claims has a token of its own."""

    def __init__(self) -> None:
        self.id = f"{secrets.randbits(48):012x}"
        self._made = 0

    def next_token(self) -> str:
        """Make a token nobody else makes."""
        self._made += 1
        return f"{self.id}.{self._made}"

    @staticmethod
    def of(token: str) -> str:
        """Name the process that a token was made by."""
        return token.partition(".")[0]


@dataclass(slots=True)
class Claim:
    """A member of a wheel that is ours until ``valid_until_s`` (``clock_s``), unless renewed.

    ``former`` is the token of the holder it was taken over from, whose lease had run out; '' where it was free.
    ``counters`` and ``heard`` are of what was done under it: the write that ends the claim tells them. ``number`` is
    that of its request among those of its lane; ``limited`` where the lane has to hear of every one. ``overdue`` where
    it has waited for too long to be done; ``ending`` once its holder has set out to give it back.
    """

    wheel: str
    member: str
    token: str
    former: str
    valid_until_s: float
    counters: list[Counter] = field(default_factory=list)
    heard: Heard | None = None
    number: int = 0
    limited: bool = True
    overdue: bool = False
    ending: bool = False

    def renewed(self, at_s: float, *, lost: bool) -> None:
        """Note that its lease was prolonged at a time (``clock_s``), or was found to be another's."""
        if lost and not self.ending:
            log.warning("lease.lost", wheel=self.wheel, member=self.member)
        elif not lost:
            self.valid_until_s = at_s + LEASE_MS / 1000

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
