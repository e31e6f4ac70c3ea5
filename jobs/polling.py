"""Owns when a task is looked at next, and how long a doubtful answer is doubted.

Source of the rhythm: the provider's advice (every 2-3 s for half a minute, 5-10 s until two minutes, then 15-30 s) as
one line, a tenth of the task's age, within the operator's bounds.
"""

from collections.abc import Mapping
from dataclasses import replace
from random import Random
from typing import Any

from config.settings import Settings
from jobs.job import Attempt, Look, Outcome
from jobs.verdict import Failure

AGE_SHARE = 0.1
JITTER = 0.1
LATE_GAP_MS = 300_000  # a task given up is looked at every five minutes ...
LATE_LIFETIME_MS = 24 * 3600 * 1000  # ... for a day,
FLIP_LIFETIME_MS = 3600 * 1000  # ... one that failed for an hour: flips were seen within minutes (assumed)
REFUSAL_CHARS = 200
MAX_REFUSAL_EXPONENT = 10


def next_look_ms(look: Look, *, age_ms: int, settings: Settings, rng: Random) -> int:
    """Say in how many milliseconds to look again; refused look-ups slow down to the upper bound."""
    gap_s = min(max(age_ms / 1000 * AGE_SHARE, settings.poll_min_s), settings.poll_max_s)
    if look.refused:
        gap_s = min(gap_s * 2 ** min(look.refused, MAX_REFUSAL_EXPONENT), settings.poll_max_s)
    jittered_s = gap_s * rng.uniform(1 - JITTER, 1 + JITTER)
    return round(min(max(jittered_s, settings.poll_min_s), settings.poll_max_s) * 1000)


def late_look_ms(age_ms: int, rng: Random) -> int:
    """Say in how many milliseconds to look again at a task that was given up ``age_ms`` ago."""
    return round(min(LATE_GAP_MS, max(10_000, age_ms)) * rng.uniform(1 - JITTER, 1 + JITTER))


def late_lifetime_ms(attempt: Attempt) -> int:
    """Say for how long a task is looked at after it was given up."""
    return FLIP_LIFETIME_MS if attempt.outcome is Outcome.FAILED else LATE_LIFETIME_MS


def weigh(look: Look, failure: Failure, now_ms: int) -> tuple[Look, bool]:
    """Count a look that failed; say whether the failure is to be believed by now.

    A failure without patience is believed at once. One with it must have been seen that often and that long, without
    another answer in between.
    """
    if failure.patience is None:
        return clear(look), True
    same = look.doubt == failure.rule
    doubts, since = (look.doubts + 1, look.doubted_at_ms) if same else (1, now_ms)
    believed = doubts >= failure.patience.count and now_ms - since >= failure.patience.duration_s * 1000
    told = _refusal(failure, now_ms)
    return replace(
        _seen(look), doubt=failure.rule, doubts=doubts, doubted_at_ms=since, refusal=told, refused=look.refused
    ), believed


def clear(look: Look) -> Look:
    """Note a look-up that was answered plainly: nothing is doubted, nothing refused; the last refusal is kept."""
    return _seen(look)


def refused(look: Look, failure: Failure, now_ms: int) -> Look:
    """Note a look-up that was refused or not answered; what was doubted stays doubted."""
    return replace(look, polls=look.polls + 1, refused=look.refused + 1, refusal=_refusal(failure, now_ms))


def _seen(look: Look) -> Look:
    return Look(look.polls + 1, refusal=look.refusal)


def _refusal(failure: Failure, now_ms: int) -> Mapping[str, Any]:
    """Write down in short what a look-up met."""
    return {
        "at_ms": now_ms,
        "code": str(failure.code),
        "rule": failure.rule,
        "http_status": failure.http_status,
        "gateway_code": failure.gateway_code and failure.gateway_code[:REFUSAL_CHARS],
        "message": failure.message[:REFUSAL_CHARS],
    }
