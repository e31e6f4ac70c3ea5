"""How models fare, as it is made of what the fleet has counted."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from config.models import load_models
from jobs.counters import BUCKETS_S, observe
from worker.fleet import Overview
from worker.models_report import DURATIONS, FAILING_IN_A_ROW, models_view, quantile

BOUNDS = BUCKETS_S[DURATIONS]
NOW_MS = 1_800_000_000_000


def overview(**cooldowns: int) -> Overview:
    """Make a fleet in which nothing happens."""
    return Overview(NOW_MS, {}, {}, {}, 0, None, None, None, cooldowns, (), {})


def row(
    model: str, counters: dict[tuple[str, ...], int], health: dict[str, int], **cooldowns: int
) -> dict[str, object]:
    """Give what is told of a model."""
    shown = models_view(load_models(), overview(**cooldowns), counters, {model: health} if health else {})
    return next(found for found in shown["models"] if found["model"] == model)


def test_a_quantile_lies_within_its_bucket() -> None:
    """It is interpolated between the bucket's bounds; beyond the last bound it is that bound."""
    buckets = [0] * (len(BOUNDS) + 1)
    buckets[4] = 10  # 20 to 30 s
    assert quantile(0.5, buckets, BOUNDS) == 25
    assert quantile(1.0, buckets, BOUNDS) == 30
    buckets[-1] = 1000
    assert quantile(0.95, buckets, BOUNDS) == BOUNDS[-1]


@given(st.lists(st.integers(0, 50), min_size=len(BOUNDS) + 1, max_size=len(BOUNDS) + 1).filter(any))
def test_quantiles_grow(buckets: list[int]) -> None:
    """Whatever was measured, a higher quantile is no shorter, and all lie within the bounds."""
    found = [quantile(share, buckets, BOUNDS) for share in (0.0, 0.25, 0.5, 0.95, 1.0)]
    assert all(low <= high for low, high in pairwise(found))
    assert found[0] >= 0
    assert found[-1] <= BOUNDS[-1]


def test_a_model_shows_what_was_counted_of_it() -> None:
    """Attempts and failures by outcome, and durations as the counters keep them."""
    counters = {("attempts_total", "veo3", "succeeded"): 2, ("failures_total", "veo3", "server_error"): 1}
    for ms in (22_000, 24_000):
        for counter in observe(DURATIONS, "veo3", ms=ms):
            name = (counter.name, *counter.labels)
            counters[name] = counters.get(name, 0) + counter.by
    shown = row("veo3", counters, {"in_a_row": 0, "ok_at_ms": NOW_MS})
    assert (shown["attempts"], shown["failures"]) == ({"succeeded": 2}, {"server_error": 1})
    assert shown["generation_s"] == {"count": 2, "mean": 23.0, "p50": 25.0, "p95": 29.5}
    assert (shown["chain"], shown["position"], shown["alternates"]) == ("text-to-video", 1, ["sora-2", "kling"])


def test_a_model_has_one_status() -> None:
    """Unused, well, failing after three failures in a row; a cooldown outshines the rest, also of unknown models."""
    assert row("veo3", {}, {})["status"] == "unused"
    assert row("veo3", {}, {"in_a_row": 2})["status"] == "ok"
    assert row("veo3", {}, {"in_a_row": 3})["status"] == "failing"
    assert row("veo3", {}, {"in_a_row": 3}, veo3=NOW_MS + 1)["status"] == "cooling"
    assert row("newest", {}, {}, newest=NOW_MS + 1)["chain"] is None
    assert row("other", {("attempts_total", "other", "failed"): 1}, {})["attempts"] == {"failed": 1}


def test_a_model_with_attempts_is_not_unused() -> None:
    """Where nothing is known of its latest ones, those that were counted tell how it fares."""
    attempts = [("failed", 1), ("failed", FAILING_IN_A_ROW), ("succeeded", 1)]
    rows = [row("other", {("attempts_total", "other", outcome): times}, {}) for outcome, times in attempts]
    assert [(shown["status"], shown["failures_in_a_row"]) for shown in rows] == [("ok", 1), ("failing", 3), ("ok", 0)]
