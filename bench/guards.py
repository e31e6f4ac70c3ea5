"""The limits that what was measured is held against, all of them, in one table."""

from collections.abc import Mapping
from dataclasses import dataclass

LIMITS: Mapping[str, tuple[float, str]] = {
    "CPU per job, worker alone, over the bare loop, instant": (1.5, "x"),
    "CPU per job, worker and Redis, over the bare loop, instant": (1.5, "x"),
    "CPU per job, worker and Redis, over naive arq and Redis, instant": (1.0, "x"),
    "CPU per job, worker alone, over the bare loop, lifelike": (1.5, "x"),
    "CPU per job, worker and Redis, over naive arq and Redis, lifelike": (1.0, "x"),
    "enqueue to submission, HTTP, p50": (20.0, "ms"),
    "enqueue to submission, plain arq, p50": (20.0, "ms"),
    "idle CPU of up": (1.0, "%"),
    "peak memory of the worker, instant": (200.0, "MB"),
    "the slowest look at 100,000 jobs": (300.0, "ms"),
    "POST /v1/jobs with 100,000 jobs there, p50": (5.0, "ms"),
    "commands that went through the keys": (0.0, ""),
}


@dataclass(frozen=True, slots=True)
class Guard:
    """One value against its limit."""

    name: str
    measured: float
    limit: float
    unit: str

    @property
    def ok(self) -> bool:
        """Whether it is within."""
        return self.measured <= self.limit


def judge(measured: Mapping[str, float]) -> list[Guard]:
    """Hold every value against its limit; what was not measured is left out."""
    return [Guard(name, measured[name], *row) for name, row in LIMITS.items() if name in measured]
