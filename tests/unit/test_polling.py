"""When a task is looked at next, and what is doubted for how long."""

from dataclasses import replace
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from config.settings import Settings
from jobs.failures import classify
from jobs.job import Attempt, Look, Outcome, look_form
from jobs.polling import (
    FLIP_LIFETIME_MS,
    LATE_LIFETIME_MS,
    REFUSAL_CHARS,
    clear,
    late_lifetime_ms,
    next_look_ms,
    refused,
    weigh,
)
from jobs.verdict import Signal, Stage

SETTINGS = Settings.from_env({})
MISSING = classify(Signal(Stage.POLL, 404))
TIMED_OUT = classify(Signal(Stage.RESULT, 200, "524", "generate task timeout."))
AWAY = classify(Signal(Stage.POLL, 503, None, "x" * 400))
FAILED = classify(Signal(Stage.RESULT, 200, "501", "Generation failed"))


@given(age_ms=st.integers(0, 10**9), refusals=st.integers(0, 10_000), seed=st.integers())
def test_the_gap_stays_within_the_operators_bounds(age_ms: int, refusals: int, seed: int) -> None:
    """However old the task and however often refused."""
    gap_ms = next_look_ms(Look(refused=refusals), age_ms=age_ms, settings=SETTINGS, rng=Random(seed))
    assert 1000 * SETTINGS.poll_min_s <= gap_ms <= 1000 * SETTINGS.poll_max_s


def test_the_gap_grows_with_age_and_with_refusals() -> None:
    """Young tasks are looked at often, old or refused ones less so."""

    def gap(age_s: int, refusals: int = 0) -> float:
        return next_look_ms(Look(refused=refusals), age_ms=age_s * 1000, settings=SETTINGS, rng=Random(1)) / 1000

    assert gap(5) < gap(60) < gap(250)
    assert gap(30) < gap(30, refusals=2)


def test_a_plain_failure_is_believed_at_once() -> None:
    """No grace where none is due."""
    look, certain = weigh(Look(), FAILED, 1)
    assert certain
    assert look.doubts == 0


def test_a_doubtful_failure_needs_a_count_and_a_time() -> None:
    """A timed-out task is believed only when it was seen again after the grace."""
    look, certain = weigh(Look(), TIMED_OUT, 0)
    assert not certain
    look, certain = weigh(look, TIMED_OUT, 89_000)
    assert not certain
    _, certain = weigh(look, TIMED_OUT, 91_000)
    assert certain


def test_many_sightings_at_once_are_no_proof() -> None:
    """Ten 404s in a second do not lose a task."""
    look = Look()
    for at_ms in range(0, 1000, 100):
        look, certain = weigh(look, MISSING, at_ms)
        assert not certain


def test_another_answer_in_between_starts_the_doubt_anew() -> None:
    """A task that was seen running is not lost; a refused look-up in between changes nothing."""
    look, _ = weigh(Look(), MISSING, 0)
    assert clear(look).doubts == 0
    assert refused(look, AWAY, 5).doubts == 1
    other, _ = weigh(look, TIMED_OUT, 10)
    assert (other.doubts, other.doubted_at_ms) == (1, 10)


@given(st.lists(st.sampled_from(["clear", "refused", "missing"]), max_size=50))
def test_every_look_is_counted(steps: list[str]) -> None:
    """Whatever a look sees, it is one poll more."""
    look = Look()
    for step in steps:
        match step:
            case "clear":
                look = clear(look)
            case "refused":
                look = refused(look, AWAY, 1)
            case _:
                look, _ = weigh(look, MISSING, 1)
    assert look.polls == len(steps)
    assert (look.refusal is None) == (set(steps) <= {"clear"})


def test_the_last_refusal_is_kept_in_short() -> None:
    """What a look-up met last stays to be seen, cut short, also after a plain answer; a bare record has none of it."""
    look = clear(refused(Look(), AWAY, 7))
    assert look.refusal is not None
    assert (look.refusal["at_ms"], look.refusal["code"], look.refusal["http_status"]) == (7, "gateway_unavailable", 503)
    assert len(look.refusal["message"]) == REFUSAL_CHARS
    assert weigh(look, MISSING, 9)[0].refusal is not None
    assert "refusal" not in look_form(Look(3))
    assert Look(**look_form(look)) == look


def test_what_failed_is_looked_at_for_a_shorter_while() -> None:
    """A task that failed may have flipped within minutes; one that was given up may run for long."""
    given_up = Attempt(1, "a", 0, 1, "k", 0, task_id="t", outcome=Outcome.TIMED_OUT)
    assert late_lifetime_ms(given_up) == LATE_LIFETIME_MS
    assert late_lifetime_ms(replace(given_up, outcome=Outcome.FAILED)) == FLIP_LIFETIME_MS
