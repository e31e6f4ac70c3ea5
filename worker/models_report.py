"""Owns how the models fare: where each stands in its chain, what came of its attempts, and how long its tasks take.

Pure: made of the models file and of what the fleet has counted. Models that the file does not name are counted as one,
``other``. A quantile is interpolated within the bucket it falls into; one beyond the last bound is that bound.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from config.models import Models
from jobs.counters import BUCKETS_S
from worker.fleet import Overview
from worker.record import rfc3339

FAILING_IN_A_ROW = 3
OTHER = "other"
DURATIONS = "generation_seconds"

Counters = Mapping[tuple[str, ...], int]
Health = Mapping[str, Mapping[str, int]]


def models_view(models: Models, overview: Overview, counters: Counters, health: Health) -> dict[str, Any]:
    """Show the models as plain JSON: what `models` prints and `GET /v1/models` answers."""
    return {
        "models": [
            {
                "model": model,
                **_place(models, model),
                **_standing(model, overview, health.get(model, {}), attempts=attempts),
                "attempts": attempts,
                "failures": _by_label("failures_total", model, counters),
                "generation_s": _durations(model, counters),
            }
            for model in _named(models, overview, counters, health)
            for attempts in [_by_label("attempts_total", model, counters)]
        ],
    }


def _named(models: Models, overview: Overview, counters: Counters, health: Health) -> Iterable[str]:
    """Name the models: chains in the file's order, then those in no chain, then what turned up beside the file."""
    chained = [model for chain in models.chains.values() for model in chain]
    used = any(labels[1] == OTHER for labels in counters if labels[0] in {"attempts_total", "failures_total"})
    more = {OTHER} if used or OTHER in health else set()
    beside = sorted({*overview.cooldowns, *more} - models.known)
    return [*chained, *sorted(models.known.difference(chained)), *beside]


def _place(models: Models, model: str) -> dict[str, Any]:
    chain = next((name for name, members in models.chains.items() if model in members), None)
    return {
        "kinds": [kind for kind, name in models.default_chains.items() if name == chain],
        "chain": chain,
        "position": models.chains[chain].index(model) + 1 if chain else None,
        "alternates": list(models.alternates(model)),
    }


def _standing(
    model: str, overview: Overview, known: Mapping[str, int], *, attempts: Mapping[str, int]
) -> dict[str, Any]:
    only_failed = 0 if attempts.get("succeeded") else attempts.get("failed", 0) + attempts.get("refused", 0)
    cooldown_ms, in_a_row = overview.cooldowns.get(model), known.get("in_a_row", only_failed)
    status = "ok" if known or attempts else "unused"
    if in_a_row >= FAILING_IN_A_ROW:
        status = "failing"
    if cooldown_ms is not None:
        status = "cooling"
    return {
        "status": status,
        "cooldown_until": rfc3339(cooldown_ms),
        "failures_in_a_row": in_a_row,
        "last_success_at": rfc3339(known.get("ok_at_ms")),
        "last_failure_at": rfc3339(known.get("failed_at_ms")),
    }


def _by_label(name: str, model: str, counters: Counters) -> dict[str, int]:
    """Give the counts of a model by the counter's other label."""
    return {labels[2]: value for labels, value in sorted(counters.items()) if labels[:2] == (name, model)}


def _durations(model: str, counters: Counters) -> dict[str, Any] | None:
    bounds = BUCKETS_S[DURATIONS]
    buckets = [counters.get((f"{DURATIONS}_bucket", model, str(index)), 0) for index in range(len(bounds) + 1)]
    count = sum(buckets)
    if not count:
        return None
    mean_s = counters.get((f"{DURATIONS}_sum", model), 0) / count / 1000
    return {
        "count": count,
        "mean": round(mean_s, 3),
        "p50": round(quantile(0.5, buckets, bounds), 3),
        "p95": round(quantile(0.95, buckets, bounds), 3),
    }


def quantile(share: float, buckets: list[int], bounds: tuple[float, ...]) -> float:
    """Estimate a quantile of a histogram; ``buckets`` are not cumulative, the last is what lies beyond all bounds."""
    wanted, below = share * sum(buckets), 0
    for index, inside in enumerate(buckets[:-1]):
        if inside and below + inside >= wanted:
            low = bounds[index - 1] if index else 0.0
            return low + (bounds[index] - low) * (wanted - below) / inside
        below += inside
    return float(bounds[-1])
