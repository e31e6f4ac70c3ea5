"""Counts how often a limit was run into, from the books' submissions in their order. Pure.

Refusals that were under way when a limit was first heard of are nobody's fault. They are those that reached the sandbox
before the first refusal's answer was recorded, for which `RECORDED_MS` after it was sent are allowed, and no more than
the fleet has requests in flight.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

RECORDED_MS = 500  # a busy machine takes its time; the bound by what is in flight holds all the same
SLACK_MS = 50
Posts = Sequence[Mapping[str, Any]]


def refused_by_minute(posts: Posts, minute_s: float) -> list[int]:
    """Count the refusals of each minute, the first beginning with the first submission; `minute_s` long."""
    first_ms = posts[0]["at_ms"]
    minutes = [int((post["at_ms"] - first_ms) / 1000 / minute_s) for post in posts]
    refused = [0] * (max(minutes) + 1)
    for post, number in zip(posts, minutes, strict=True):
        refused[number] += post["status"] == 429
    return refused


@dataclass(frozen=True, slots=True)
class Cooldowns:
    """How often a quota was run into: cooldowns, refusals under way when one began, and refusals beyond both."""

    cooldowns: int
    under_way: int
    beyond: int


def cooldowns(posts: Posts, cooldown_s: float, *, in_flight: int) -> Cooldowns:
    """Read them from a model's submissions, in order.

    A refusal begins a cooldown where none holds, or where the model has accepted since. One refusal a cooldown is what
    it costs; others may have been under way where the model had accepted just before, and else are beyond.
    """
    begun, under_way, beyond, here = 0, 0, 0, 0
    accepting, recorded_ms, over_ms = True, 0.0, 0.0
    for post in posts:
        if post["status"] != 429:
            accepting = accepting or post["task_id"] is not None
        elif accepting or post["at_ms"] >= over_ms - SLACK_MS:
            begun, here = begun + 1, 0
            sent_ms = post["sent_at_ms"] or post["at_ms"]
            recorded_ms = sent_ms + RECORDED_MS if accepting else 0.0
            over_ms, accepting = sent_ms + cooldown_s * 1000, False
        elif post["at_ms"] <= recorded_ms and here < in_flight - 1:
            under_way, here = under_way + 1, here + 1
        else:
            beyond += 1
    return Cooldowns(begun, under_way, beyond)


def under_way(refused: Posts, *, in_flight: int) -> int:
    """Count the refusals that were under way when the first of them was recorded, itself among them."""
    if not refused:
        return 0
    recorded_ms = (refused[0]["sent_at_ms"] or refused[0]["at_ms"]) + RECORDED_MS
    return min(in_flight, sum(post["at_ms"] <= recorded_ms for post in refused))
