"""Owns what is heard about how many requests the gateway takes: whether one passed, and what a refusal says.

What the fleet learns from it, and when the next request may go out, is decided in one place for all workers: the script
``pace`` in Redis. A refusal counts no attempt of a job.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from jobs.verdict import Code, Failure, Reset, Scope

SUBMISSIONS, LOOK_UPS = "submit", "look"  # the lanes: each is paced by itself (assumed: the gateway counts them apart)
# As long as the limit's window is said to be. doc: requests a minute. kie: new tasks in ten seconds, look-ups a second.
WINDOWS_MS: Mapping[Reset | None, int] = {Reset.MINUTE: 60_000, Reset.BURST: 10_000}


@dataclass(frozen=True, slots=True)
class Heard:
    """What became of a request: ``passed`` (answered, whatever else was said), ``refused`` (429) or ``lost``.

    ``pause_ms`` is for how long the gateway wants silence, 0 where it does not say. ``lifts`` where a submission's
    answer shows that its model is not at its quota any more.
    """

    lane: str
    what: str
    model: str = ""
    lifts: bool = False
    pause_ms: int = 0
    window_ms: int = WINDOWS_MS[Reset.MINUTE]


def heard(lane: str, failure: Failure | None, *, model: str = "") -> Heard:
    """Say what an answer tells; ``failure`` is None for a good one."""
    if failure is None:
        return Heard(lane, "passed", model, lifts=True)
    if failure.code is Code.RATE_LIMITED:
        pause_ms = round((failure.retry_after_s or 0) * 1000)
        window_ms = WINDOWS_MS.get(failure.resets, WINDOWS_MS[Reset.MINUTE])
        return Heard(lane, "refused", model, pause_ms=pause_ms, window_ms=window_ms)
    unheard = failure.http_status is None or failure.code in {Code.GATEWAY_UNAVAILABLE, Code.SUBMIT_UNKNOWN}
    lifts = failure.scope is not Scope.ACCOUNT and failure.code is not Code.MODEL_QUOTA_EXCEEDED
    return Heard(lane, "lost", model) if unheard else Heard(lane, "passed", model, lifts)
