"""Owns ``/metrics``: the fleet's counters and depths as Prometheus text, the same from every web process.

Counters are read as the scripts have written them. What has bounded labels is exposed from the start, at 0, so that a
first increase is seen as one; a model's series appear with its first attempt.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

from fastapi import APIRouter
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from starlette.requests import Request
from starlette.responses import Response

from config.models import KINDS
from jobs.counters import BUCKETS_S, COUNTERS, HISTOGRAMS, SCALES
from jobs.job import Outcome
from jobs.money import Resolution, Waste
from jobs.places import Repair
from jobs.states import ENDED
from jobs.verdict import Code
from worker.fleet import Overview
from worker.outbox import STATES
from worker.web.openapi import problems
from worker.web.problems import Kind
from worker.web.services import redis_answering, services

PREFIX = "onysoft_worker_"
HELP = {
    "jobs_total": "Jobs that have ended.",
    "jobs_now": "Jobs that are there, by status.",
    "queue_oldest_seconds": "How long the oldest entry that is due has been due.",
    "enqueues_rejected_total": "Requests that did not become jobs.",
    "attempts_total": "Attempts, by how they ended.",
    "failures_total": "Failures that were judged, by code.",
    "failovers_total": "Moves of a job to its next model.",
    "gateway_requests_total": "Requests to the gateway, by HTTP status or by what broke them.",
    "gateway_request_seconds": "How long requests to the gateway took.",
    "generation_seconds": "From submission to result, of attempts that succeeded.",
    "webhook_attempts_total": "Attempts to deliver webhooks.",
    "webhook_dead_letters_total": "Webhook deliveries that were given up.",
    "webhook_destinations_failing": "Destinations of webhooks that fail time after time; what is due to them waits.",
    "webhooks": "Webhook deliveries that are kept, by state.",
    "workers": "Workers that are alive.",
    "redis_memory_ratio": "What Redis uses of its maxmemory; above 0.9 no new jobs are taken. 0 without a maxmemory.",
    "unknown_submits_total": "Submissions of unknown acceptance, by what was done about them.",
    "paid_unused_total": "Attempts that are, or may be, paid for and came to nothing, by why.",
    "paid_unused_cost_total": "What they cost, of those whose cost the gateway told.",
    "upkeep_repairs_total": "What had fallen out of its place in Redis and was put back.",
    "held": "1 while submissions are held for this reason.",
}
HOLD_REASONS = (str(Code.UNAUTHORIZED), str(Code.INSUFFICIENT_BALANCE))
BOUNDED: Mapping[str, Sequence[tuple[str, ...]]] = {
    "jobs_total": [(kind, str(status)) for kind, status in product(KINDS, sorted(ENDED))],
    "webhook_attempts_total": [("succeeded",), ("failed",)],
    "webhook_dead_letters_total": [()],
    "unknown_submits_total": [(str(resolution),) for resolution in Resolution],
    "paid_unused_total": [("other", str(waste)) for waste in Waste],
    "upkeep_repairs_total": [(str(repair),) for repair in Repair],
    "enqueues_rejected_total": [("arq", "invalid_request"), ("http", "invalid_request")],
    "attempts_total": [("other", str(outcome)) for outcome in Outcome],
    "gateway_requests_total": [("submit", "202"), ("look", "200")],
}

Counters = Mapping[tuple[str, ...], int]

router = APIRouter(tags=["operations"])


@router.get(
    "/metrics",
    summary="Metrics",
    response_class=Response,
    responses={
        200: {"description": "Prometheus text.", "content": {"text/plain": {"schema": {"type": "string"}}}},
        **problems(Kind.UNAVAILABLE),
    },
)
async def show_metrics(request: Request) -> Response:
    """Expose the fleet's metrics for Prometheus: scrape any one web process, all tell the same."""
    store = services(request).store
    async with redis_answering("Redis is away: scrape again"):
        counters, overview = await store.counters(), await store.fleet.overview(store.now_ms())
    text = generate_latest(_Collected([*counted(counters), *distributed(counters), *standing(overview)]))
    return Response(text, headers={"cache-control": "no-store"}, media_type=CONTENT_TYPE_PLAIN_0_0_4)


class _Collected:
    """What prometheus_client takes for a registry."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Sequence[Metric]:
        return self._metrics


def counted(counters: Counters) -> Iterator[Metric]:
    """Make families of the counters."""
    for name, labels in COUNTERS.items():
        family = CounterMetricFamily(PREFIX + name, HELP[name], labels=labels)
        values = dict.fromkeys(BOUNDED.get(name, ()), 0) | _named(name, counters, len(labels))
        for row, value in sorted(values.items()):
            family.add_metric(row, value / SCALES[name] if name in SCALES else value)
        yield family


def distributed(counters: Counters) -> Iterator[Metric]:
    """Make families of the histograms."""
    for name, labels in HISTOGRAMS.items():
        family = HistogramMetricFamily(PREFIX + name, HELP[name], labels=labels)
        buckets = _named(f"{name}_bucket", counters, len(labels) + 1)
        for row, sum_ms in sorted(_named(f"{name}_sum", counters, len(labels)).items()):
            family.add_metric(row, cumulated(name, row, buckets), sum_ms / 1000)
        yield family


def _named(name: str, counters: Counters, width: int) -> dict[tuple[str, ...], int]:
    """Pick a counter's values by their labels; what has another number of them is none of ours."""
    return {row[1:]: value for row, value in counters.items() if row[0] == name and len(row) == width + 1}


def cumulated(name: str, row: tuple[str, ...], buckets: Mapping[tuple[str, ...], int]) -> list[tuple[str, float]]:
    """Add a histogram's buckets up, as Prometheus wants them."""
    total, added = 0, []
    for i, bound in enumerate([*map(float, BUCKETS_S[name]), "+Inf"]):
        total += buckets.get((*row, str(i)), 0)
        added.append((str(bound), float(total)))
    return added


def standing(overview: Overview) -> Iterator[Metric]:
    """Make families of how the fleet stands, and its Redis."""
    held = {(reason,): int(overview.hold == reason) for reason in (*HOLD_REASONS, *filter(None, [overview.hold]))}
    rows: dict[str, tuple[Sequence[str], Mapping[Any, float]]] = {
        "jobs_now": (("kind", "status"), {row: n for row, n in overview.jobs.items() if n or row[0] in KINDS}),
        "queue_oldest_seconds": (("queue",), {(name,): queue.oldest_s for name, queue in overview.queues.items()}),
        "webhooks": (("state",), {(state,): overview.webhooks[state] for state in STATES}),
        "webhook_destinations_failing": ((), {(): overview.all_failing}),
        "workers": ((), {(): len(overview.alive)}),
        "redis_memory_ratio": ((), {(): overview.memory.ratio}),
        "held": (("reason",), held),
    }
    for name, (labels, values) in rows.items():
        family = GaugeMetricFamily(PREFIX + name, HELP[name], labels=labels)
        for row, value in values.items():
            family.add_metric(row, value)
        yield family
