"""Draws what is done to whom and when, all of it from a seed and up front. Pure.

A worker that something is done to is left alone until it is back. What falls to the gateway, the receiver, the web
process and Redis has its place in the storm, a little earlier or later with the seed.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Deed = Literal["SIGKILL", "SIGTERM", "SIGSTOP", "cut"]
WORKERS = tuple(f"worker {number}" for number in (1, 2, 3))
DEEDS: Sequence[tuple[Deed, int]] = (("SIGKILL", 5), ("SIGTERM", 3), ("SIGSTOP", 3))
SETTLES_S = 3.0  # from its start until something may be done to a worker again


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is done: to whom, when, and for how long it is gone, stands still or is cut off."""

    at_s: float
    whom: str
    deed: Deed
    for_s: float

    def __str__(self) -> str:
        return f"{self.at_s:6.1f} s  {self.whom}  {self.deed}, {self.for_s:.1f} s"


@dataclass(frozen=True, slots=True)
class Size:
    """How much is played. Times are seconds; ``stops_s`` are the ranges a SIGSTOP's length is drawn from in turn."""

    jobs: int
    storm_s: float
    enqueue_s: float
    gap_s: float
    stops_s: Sequence[tuple[float, float]]
    cut_s: float
    redis_gone_s: tuple[float, float]
    redis_kills: Sequence[float]  # as parts of the storm, like the following
    redis_stop: float | None
    gateway_cut: float
    receiver_cut: float
    web_kill: float
    speed: float


LONG = Size(
    jobs=10_000,
    storm_s=240.0,
    enqueue_s=215.0,
    gap_s=4.0,
    stops_s=((2.0, 8.0), (14.0, 25.0)),  # the longer ones outlast a lease
    cut_s=20.0,
    redis_gone_s=(2.0, 6.0),
    redis_kills=(0.3, 0.7),
    redis_stop=0.5,
    gateway_cut=0.12,
    receiver_cut=0.55,
    web_kill=0.4,
    speed=15.0,
)
SHORT = Size(
    jobs=500,
    storm_s=12.0,
    enqueue_s=11.0,
    gap_s=2.0,
    stops_s=((2.0, 4.0),),
    cut_s=3.0,
    redis_gone_s=(1.0, 1.5),
    redis_kills=(0.35,),
    redis_stop=None,
    gateway_cut=0.1,
    receiver_cut=0.6,
    web_kill=0.55,
    speed=30.0,
)


def draw(seed: int, size: Size) -> list[Fault]:
    """Draw the faults of a storm, in their order."""
    rng = random.Random(seed)
    around = [
        *(_placed(rng, size, "redis", "SIGKILL", part, rng.uniform(*size.redis_gone_s)) for part in size.redis_kills),
        _placed(rng, size, "gateway", "cut", size.gateway_cut, size.cut_s),
        _placed(rng, size, "receiver", "cut", size.receiver_cut, size.cut_s),
        _placed(rng, size, "web", "SIGKILL", size.web_kill, rng.uniform(0.0, 2.0)),
    ]
    if size.redis_stop is not None:
        around.append(_placed(rng, size, "redis", "SIGSTOP", size.redis_stop, rng.uniform(4.0, 8.0)))
    return sorted([*around, *_of_workers(rng, size)], key=lambda fault: fault.at_s)


def _placed(rng: random.Random, size: Size, whom: str, deed: Deed, part: float, for_s: float) -> Fault:
    return Fault(size.storm_s * (part + rng.uniform(-0.02, 0.02)), whom, deed, for_s)


def _of_workers(rng: random.Random, size: Size) -> list[Fault]:
    """Draw what is done to workers: each deed once at first, in any order, then by chance."""
    faults: list[Fault] = []
    back_s = dict.fromkeys(WORKERS, 0.0)
    first = [deed for deed, _ in DEEDS]
    rng.shuffle(first)
    stops = 0
    at_s = rng.uniform(0.2, 1.0) * size.gap_s
    while at_s < size.storm_s:
        free = [name for name, until_s in back_s.items() if until_s <= at_s]
        if free:
            whom = rng.choice(free)
            deed = first.pop() if first else rng.choices([d for d, _ in DEEDS], [weight for _, weight in DEEDS])[0]
            for_s = rng.choice((0.0, rng.uniform(1.0, 1.5 * size.gap_s)))
            if deed == "SIGSTOP":
                for_s = rng.uniform(*size.stops_s[stops % len(size.stops_s)])
                stops += 1
            faults.append(Fault(at_s, whom, deed, for_s))
            back_s[whom] = at_s + for_s + SETTLES_S
        at_s += rng.uniform(0.5, 1.5) * size.gap_s
    return faults
