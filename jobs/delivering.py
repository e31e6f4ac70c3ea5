"""Owns what follows from an attempt to deliver a webhook: for the delivery, and for what is known of its destination.

Pure. A delivery is attempted again on a schedule until it is taken; a destination that fails time after time is tried
by one delivery at a time, and the others wait for it without using up their schedules. Source of statuses and of the
schedule: the project's contract.
"""

import random
from dataclasses import dataclass
from typing import Literal

TAKEN = range(200, 300)
GONE = 410  # the consumer wants no more of this job at this URL
BUSY = frozenset({429, 503})  # whose Retry-After is honoured
JITTER = 0.1
FIRST_GAP_S, LONGEST_GAP_S = 5.0, 30.0
LEAST_PATIENCE_S = 86_400.0

State = Literal["pending", "delivered", "dead"]


@dataclass(frozen=True, slots=True)
class Schedule:
    """The delay before each attempt (s), and for how long an attempt may take (s)."""

    delays_s: tuple[float, ...] = (0.0,)
    timeout_s: float = 15.0

    @property
    def longest_s(self) -> float:
        """The longest delay before an attempt."""
        return max(self.delays_s)

    @property
    def gaps_s(self) -> tuple[float, float]:
        """The first and the longest time between two tries of a failing destination; short where the schedule is."""
        longest_s = min(LONGEST_GAP_S, self.longest_s) or LONGEST_GAP_S
        return min(FIRST_GAP_S, longest_s, *(delay_s for delay_s in self.delays_s if delay_s > 0)), longest_s

    @property
    def patience_s(self) -> float:
        """For how long a delivery that is due waits for a failing destination before it is given up."""
        return max(sum(self.delays_s), LEAST_PATIENCE_S)


@dataclass(frozen=True, slots=True)
class Answered:
    """What the destination said, or that it said nothing (``status`` None, ``words`` says why)."""

    status: int | None
    words: str
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What becomes of a delivery after an attempt.

    ``wait_s``: until the next one, where it is pending. ``health``: what the attempt says of the destination, '' for
    nothing. ``asked_s``: the pause the destination asked for.
    """

    state: State
    health: Literal["well", "ill", ""]
    wait_s: float = 0.0
    asked_s: float = 0.0
    gone: bool = False


def judge(answered: Answered, schedule: Schedule, *, made: int, rng: random.Random) -> Outcome:
    """Say what becomes of a delivery with this answer to the last of the ``made`` attempts of its schedule."""
    if answered.status in TAKEN:
        return Outcome("delivered", "well")
    if answered.status == GONE:
        return Outcome("dead", "", gone=True)
    asked_s = min(answered.retry_after_s or 0.0, schedule.longest_s) if answered.status in BUSY else 0.0
    if made >= len(schedule.delays_s):
        return Outcome("dead", "ill", asked_s=asked_s)
    wait_s = schedule.delays_s[made] * rng.uniform(1 - JITTER, 1 + JITTER)
    return Outcome("pending", "ill", max(wait_s, asked_s), asked_s)


GIVEN_UP = Outcome("dead", "")
"""What becomes of a delivery that is not sent any more."""
