"""What follows from an attempt to deliver a webhook."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.delivering import BUSY, JITTER, Answered, Schedule, judge
from jobs.destinations import Destination

DEFAULT = Schedule((0, 5, 300, 1800, 7200, 18000, 36000, 36000))
RNG = random.Random(1)


@pytest.mark.parametrize(
    ("status", "state", "health", "gone"),
    [
        (200, "delivered", "well", False),
        (204, "delivered", "well", False),
        (299, "delivered", "well", False),
        (301, "pending", "ill", False),
        (308, "pending", "ill", False),
        (400, "pending", "ill", False),
        (401, "pending", "ill", False),
        (404, "pending", "ill", False),
        (410, "dead", "", True),
        (429, "pending", "ill", False),
        (500, "pending", "ill", False),
        (503, "pending", "ill", False),
        (None, "pending", "ill", False),
    ],
)
def test_what_an_answer_means(status: int | None, state: str, health: str, gone: bool) -> None:  # noqa: FBT001
    """Only 2xx delivers, only 410 ends at once, and that says nothing against the destination."""
    outcome = judge(Answered(status, ""), DEFAULT, made=1, rng=RNG)
    assert (outcome.state, outcome.health, outcome.gone) == (state, health, gone)


def test_after_the_schedule_it_is_dead() -> None:
    """There are as many attempts as delays."""
    states = [judge(Answered(500, ""), DEFAULT, made=made, rng=RNG).state for made in range(1, 9)]
    assert states == ["pending"] * 7 + ["dead"]


@given(
    made=st.integers(1, 7),
    status=st.sampled_from([None, 500, *BUSY]),
    retry_after_s=st.none() | st.floats(0, 1e6),
    seed=st.integers(0, 1000),
)
def test_the_next_attempt_is_within_the_schedules_bounds(
    made: int, status: int | None, retry_after_s: float | None, seed: int
) -> None:
    """Never sooner than the delay less its jitter; later than it with it only where asked to, up to the longest."""
    answered = Answered(status, "", retry_after_s)
    outcome = judge(answered, DEFAULT, made=made, rng=random.Random(seed))
    delay_s = DEFAULT.delays_s[made]
    assert outcome.wait_s >= delay_s * (1 - JITTER)
    if status in BUSY and retry_after_s is not None:
        assert outcome.wait_s >= min(retry_after_s, DEFAULT.longest_s)
        assert outcome.wait_s <= max(delay_s * (1 + JITTER), DEFAULT.longest_s)
    else:
        assert outcome.wait_s <= delay_s * (1 + JITTER)
        assert outcome.asked_s == 0


@pytest.mark.parametrize(
    ("delays_s", "gaps_s"),
    [
        (DEFAULT.delays_s, (5, 30)),
        ((0, 0.1, 0.1), (0.1, 0.1)),
        ((0,), (5, 30)),
        ((0, 2, 60), (2, 30)),
        ((3, 0), (3, 3)),
    ],
)
def test_a_failing_destination_is_tried_as_often_as_the_schedule_allows(
    delays_s: tuple[float, ...], gaps_s: tuple[float, float]
) -> None:
    """Gaps are no longer than its delays, and never more than half a minute."""
    assert Schedule(delays_s).gaps_s == gaps_s


def test_patience_outlasts_the_schedule() -> None:
    """What is due waits for a failing destination for as long as all attempts would take, and a day at least."""
    assert DEFAULT.patience_s == sum(DEFAULT.delays_s)
    assert Schedule((0, 1)).patience_s == 86_400


@pytest.mark.parametrize(
    ("url", "name", "host"),
    [
        ("https://Shop.example/hooks?token=s3cret#x", "https://shop.example:443/hooks", "shop.example"),
        ("http://shop.example.", "http://shop.example:80/", "shop.example"),
        ("http://[2001:db8::1]:81/a", "http://2001:db8::1:81/a", "2001:db8::1"),
        ("http://[", "", ""),
        ("", "://:80/", ""),
    ],
)
def test_a_destination_is_scheme_host_port_and_path(url: str, name: str, host: str) -> None:
    """What stands behind the path may be a secret, and is not told."""
    assert (Destination.of(url).name, Destination.of(url).host) == (name, host)
