"""Owns what is heard about how many requests the gateway takes: whether one passed, and what a refusal says.

What the fleet learns from it, and when the next request may go out, is decided in one place for all workers: the script
``pace`` in Redis. A refusal counts no attempt of a job.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from jobs.verdict import Code, Failure, Reset

SUBMISSIONS, LOOK_UPS = "submit", "look"  # the lanes: each is paced by itself (assumed: the gateway counts them apart)
# As long as the limit's window is said to be. doc: requests a minute. kie: new tasks in ten seconds, look-ups a second.
WINDOWS_MS: Mapping[Reset | None, int] = {Reset.MINUTE: 60_000, Reset.BURST: 10_000}


@dataclass(frozen=True, slots=True)
class Heard:
    """What became of a request: ``passed`` (answered, whatever else was said), ``refused`` (429) or ``lost``.

    ``pause_ms`` is for how long the gateway wants silence, 0 where it does not say; ``accepted`` is of submissions.
    """

    lane: str
    what: str
    model: str = ""
    accepted: bool = False
    pause_ms: int = 0
    window_ms: int = WINDOWS_MS[Reset.MINUTE]


def heard(lane: str, failure: Failure | None, *, model: str = "", accepted: bool = False) -> Heard:
    """Say what an answer tells; ``failure`` is None for a good one."""
    if failure is None:
        return Heard(lane, "passed", model, accepted)
    if failure.code is Code.RATE_LIMITED:
        pause_ms = round((failure.retry_after_s or 0) * 1000)
        window_ms = WINDOWS_MS.get(failure.resets, WINDOWS_MS[Reset.MINUTE])
        return Heard(lane, "refused", model, pause_ms=pause_ms, window_ms=window_ms)
    unheard = failure.http_status is None or failure.code in {Code.GATEWAY_UNAVAILABLE, Code.SUBMIT_UNKNOWN}
    return Heard(lane, "lost" if unheard else "passed", model)
