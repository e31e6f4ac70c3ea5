"""Owns when a task is looked at next, and how long a doubtful answer is doubted.

Source of the rhythm: the provider's advice (every 2-3 s for half a minute, 5-10 s until two minutes, then 15-30 s) as
one line, a tenth of the task's age, within the operator's bounds.
"""

from random import Random

from config.settings import Settings
from jobs.job import Look
from jobs.verdict import Failure

AGE_SHARE = 0.1
JITTER = 0.1
LATE_GAP_MS = 300_000  # a task given up is looked at every five minutes ...
LATE_LIFETIME_MS = 24 * 3600 * 1000  # ... for a day
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
    return _looked(look, refused=look.refused, doubt=failure.rule, doubts=doubts, doubted_at_ms=since), believed


def clear(look: Look) -> Look:
    """Note a look-up that was answered plainly: nothing is doubted, nothing refused."""
    return _looked(look, refused=0)


def refused(look: Look) -> Look:
    """Note a look-up that was refused or not answered; what was doubted stays doubted."""
    return _looked(
        look, refused=look.refused + 1, doubt=look.doubt, doubts=look.doubts, doubted_at_ms=look.doubted_at_ms
    )


def _looked(look: Look, *, refused: int, doubt: str | None = None, doubts: int = 0, doubted_at_ms: int = 0) -> Look:
    return Look(look.polls + 1, refused, doubt, doubts, doubted_at_ms)
