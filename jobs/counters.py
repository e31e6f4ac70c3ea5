"""Owns the counters that move with the jobs: their names, labels and the buckets of histograms.

A counter is written in the same Redis step as what it counts, so that it cannot drift. A histogram is two counters: one
a bucket, and one for the sum. Source of names and labels: the project's contract.
"""

from bisect import bisect_left
from collections.abc import Mapping
from typing import NamedTuple

COUNTERS: Mapping[str, tuple[str, ...]] = {
    "jobs_total": ("kind", "status"),
    "enqueues_rejected_total": ("via", "reason"),
    "attempts_total": ("model", "outcome"),
    "failures_total": ("model", "code"),
    "failovers_total": ("from_model", "to_model"),
    "gateway_requests_total": ("operation", "status"),
    "webhook_attempts_total": ("outcome",),
    "webhook_dead_letters_total": (),
    "unknown_submits_total": ("resolution",),
    "paid_unused_total": ("model", "reason"),
    "paid_unused_cost_total": ("currency", "reason"),
    "upkeep_repairs_total": ("what",),
}
MICRO = 1_000_000
SCALES: Mapping[str, int] = {"paid_unused_cost_total": MICRO}
"""Counters kept in so many parts of their unit: what is counted in Redis is a whole number."""

HISTOGRAMS: Mapping[str, tuple[str, ...]] = {
    "gateway_request_seconds": ("operation",),
    "generation_seconds": ("model",),
}
BUCKETS_S: Mapping[str, tuple[float, ...]] = {
    "gateway_request_seconds": (0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20),
    "generation_seconds": (5, 10, 15, 20, 30, 45, 60, 90, 120, 180, 300, 600, 1200, 1800, 3600),
}
MODEL_LABELS = frozenset({"model", "from_model", "to_model"})


class Counter(NamedTuple):
    """A counter to raise ``by`` so much; ``labels`` are values, in the order of the tables above."""

    name: str
    labels: tuple[str, ...]
    by: int = 1


def count(name: str, *labels: str) -> Counter:
    """Raise a counter by one."""
    return Counter(name, labels)


def observe(name: str, *labels: str, ms: int) -> tuple[Counter, Counter]:
    """Enter a duration into a histogram: its bucket by the number of bounds below it, and the sum in milliseconds."""
    bucket = bisect_left(BUCKETS_S[name], ms / 1000)
    return Counter(f"{name}_bucket", (*labels, str(bucket))), Counter(f"{name}_sum", labels, ms)


def labels_of(name: str) -> tuple[str, ...]:
    """Name the labels of a counter, or of one of the two a histogram consists of."""
    histogram, _, part = name.rpartition("_")
    if histogram in HISTOGRAMS:
        return (*HISTOGRAMS[histogram], "bucket") if part == "bucket" else HISTOGRAMS[histogram]
    return COUNTERS[name]
