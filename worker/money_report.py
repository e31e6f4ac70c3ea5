"""Owns how money spent for nothing is told: attempts paid for and of no use, and what became of unknown submissions.

Pure: made of what the fleet has counted (``jobs.money``).
"""

from collections.abc import Mapping
from typing import Any

from jobs.counters import SCALES
from jobs.money import DONE_ABOUT, Resolution, Waste

Counters = Mapping[tuple[str, ...], int]


def money_view(counters: Counters) -> dict[str, Any]:
    """Show it as plain JSON: ``money`` of what `queues` prints and `GET /v1/queues` answers."""
    resolved = _by("unknown_submits_total", 0, counters)
    unused = _by("paid_unused_total", 1, counters)
    cost = _by("paid_unused_cost_total", 0, counters)
    return {
        "paid_unused": {
            "total": sum(unused.values()),
            "reasons": {str(waste): unused.get(waste, 0) for waste in Waste},
            "models": _by("paid_unused_total", 0, counters),
            "cost": {currency: parts / SCALES["paid_unused_cost_total"] for currency, parts in cost.items()},
        },
        "unknown_submits": {
            "total": sum(resolved.get(resolution, 0) for resolution in DONE_ABOUT),
            **{str(resolution): resolved.get(resolution, 0) for resolution in Resolution},
        },
    }


def _by(name: str, label: int, counters: Counters) -> dict[str, int]:
    """Add a counter up by one of its labels."""
    sums: dict[str, int] = {}
    for row, value in sorted(counters.items()):
        if row[0] == name and len(row) > label + 1:
            sums[row[label + 1]] = sums.get(row[label + 1], 0) + value
    return sums
