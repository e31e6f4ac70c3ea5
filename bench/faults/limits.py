"""The account's limits: requests a minute, a model's daily quota, an empty balance; how often each is run into.

Refusals that were under way when a limit was first heard of are nobody's fault. They are those that reached the sandbox
before the first refusal's answer was recorded, for which `RECORDED_MS` after it was sent are allowed, and no more than
the fleet has requests in flight.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ground import WORKERS, Ground, Rows, ground
from scenarios import Found, Told
from table import Row

RECORDED_MS = 100
SLACK_MS = 50
CONCURRENCY = 20
IN_FLIGHT = WORKERS * CONCURRENCY
MODEL, ALTERNATE = "google/imagen4", "flux-2/pro-text-to-image"
DURATION_S = 0.2


def _request(job_id: str, **more: Any) -> dict[str, Any]:
    directive = {"tag": job_id, "duration_s": DURATION_S}
    return {
        "id": job_id, "kind": "image", "model": MODEL, "fallbacks": [],
        "input": {"prompt": "a lighthouse", "sandbox": directive}, **more,
    }  # fmt: skip


def _standing(here: Ground, jobs: int) -> tuple[int, int]:
    """Count the jobs that failed, and those that neither failed nor completed."""
    views = here.views()
    completed = sum(view["status"] == "completed" for view in views)
    failed = sum(view["status"] in {"failed", "canceled"} for view in views)
    return failed, jobs - completed - failed


def _ends(here: Ground, name: str, jobs: int) -> list[Row]:
    failed, left = _standing(here, jobs)
    return [Row(name, "jobs failed", failed, 0), Row(name, "jobs that have not ended", left, 0)]


# --- requests a minute


def minute(told: Told) -> Found:
    """Queue more jobs than a minute allows, and count what is refused from the second minute on."""
    limit, minute_s, jobs, within_s = (20, 6.0, 60, 40.0) if told.short else (60, 60.0, 120, 420.0)
    name = f"{limit} a minute"
    with ground(told.halt) as here:
        here.control(faults="none", requests_per_minute=limit, minute_s=minute_s)
        here.enqueue([_request(f"m-{number}") for number in range(jobs)])
        began_s = time.monotonic()
        here.until(here.all_ended, within_s=within_s)
        took_s = time.monotonic() - began_s
        refused = _refused_by_minute(here.submissions(), minute_s)
        scaled = f"; a minute is {minute_s:g} s here" if told.short else ""
        rows = [
            Row(name, "jobs", jobs, note=f"in {took_s:.0f} s{scaled}"),
            Row(name, "refused in the first minute", refused[0]),
            Row(name, "refused in any later minute, at the most", max(refused[1:], default=0), 5, f"{refused}"),
            *_ends(here, name, jobs),
        ]
        return Found(rows)


def _refused_by_minute(posts: Rows, minute_s: float) -> list[int]:
    first_ms = posts[0]["at_ms"]
    minutes = [int((post["at_ms"] - first_ms) / 1000 / minute_s) for post in posts]
    refused = [0] * (max(minutes) + 1)
    for post, number in zip(posts, minutes, strict=True):
        refused[number] += post["status"] == 429
    return refused


# --- a model's daily quota


@dataclass(frozen=True, slots=True)
class Cooldowns:
    """How often a quota was run into: cooldowns, refusals under way when one began, and refusals beyond both."""

    cooldowns: int
    under_way: int
    beyond: int


def cooldowns(posts: Sequence[dict[str, Any]], cooldown_s: float) -> Cooldowns:
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
        elif post["at_ms"] <= recorded_ms and here < IN_FLIGHT - 1:
            under_way, here = under_way + 1, here + 1
        else:
            beyond += 1
    return Cooldowns(begun, under_way, beyond)


def quota(told: Told) -> Found:
    """Have a model's quota come back twice, each time with a few tasks, while jobs with and without fallbacks wait."""
    each, limit, retry_after_s, resets_s = (40, 10, 2.0, 5.0) if told.short else (150, 20, 4.0, 10.0)
    quota = {"code": "daily_request_limit_exceeded", "limit": limit, "retry_after_s": retry_after_s}
    name = "daily limit"
    with ground(told.halt, CONCURRENCY=str(CONCURRENCY)) as here:
        here.control(faults="none", quotas={MODEL: {**quota, "resets_in_s": resets_s}})
        began_s = time.monotonic()
        here.enqueue([_request(f"q-{number}", fallbacks=_fallbacks(number)) for number in range(2 * each)])
        here.wait(began_s + resets_s * 0.7 - time.monotonic())
        parked = _parked(here)
        for number in (1, 2):  # it comes back just before it would have for good
            here.wait(began_s + number * (resets_s - 0.1) - time.monotonic())
            here.control(quotas={MODEL: {**quota, "resets_in_s": resets_s}})
        here.until(here.all_ended, within_s=10 * resets_s)
        posts = [post for post in here.submissions() if post["model"] == MODEL]
        seen = cooldowns(posts, retry_after_s)
        refused = sum(post["status"] == 429 for post in posts)
        note = f"{refused} refused in {seen.cooldowns} cooldowns, {seen.under_way} of them under way"
        rows = [
            Row(name, "jobs", 2 * each, note=f"half with a fallback; {limit} tasks, then again, and again"),
            Row(name, "refused beyond one a cooldown and those under way", seen.beyond, 0, note),
            Row(name, "cooldowns too few to tell", max(0, 4 - seen.cooldowns), 0),
            *_waiting(name, parked),
            *_ends(here, name, 2 * each),
        ]
        return Found(rows)


def _fallbacks(number: int) -> list[str]:
    return [ALTERNATE] if number % 2 else []


def _parked(here: Ground) -> Rows:
    """List what waits for the quota, with whether it could go elsewhere."""
    return [
        view
        for view in here.views(status="waiting")
        if view["failure"] is not None and view["failure"]["code"] == "model_quota_exceeded"
    ]


def _waiting(name: str, parked: Rows) -> list[Row]:
    alone = [view for view in parked if not view["fallbacks"]]
    timeless = sum(view["next_action_at"] is None for view in alone)
    staying = sum(view["model"] == MODEL for view in parked if view["fallbacks"])
    return [
        Row(name, "jobs without a fallback, parked without a time", timeless, 0, f"{len(alone)} parked"),
        Row(name, "jobs with a fallback that waited all the same", staying, 0),
        Row(name, "nobody parked while it was used up", 0 if alone else 1, 0),
    ]


# --- an empty balance


def balance(told: Told) -> Found:
    """Queue jobs on an empty balance with ACCOUNT_ERRORS=hold, top it up after a while, count what was refused."""
    jobs, empty_s, within_s = (120, 7.0, 40.0) if told.short else (500, 20.0, 180.0)
    name = "empty balance"
    with ground(told.halt, CONCURRENCY=str(CONCURRENCY), ACCOUNT_ERRORS="hold") as here:
        here.control(faults="none", balance=0)
        here.enqueue([_request(f"b-{number}") for number in range(jobs)])
        here.wait(empty_s)
        here.control(balance=None)
        topped_up_s = time.monotonic()
        here.until(here.all_ended, within_s=within_s)
        took_s = time.monotonic() - topped_up_s
        refused = [post for post in here.submissions() if post["status"] == 402]
        under_way = _under_way(refused)
        note = f"{len(refused)} refused, {under_way} of them under way"
        rows = [
            Row(name, "jobs", jobs, note=f"empty for {empty_s:g} s, all done {took_s:.0f} s after the top-up"),
            Row(name, "refused, those under way left out", len(refused) - under_way, 6, note),
            *_ends(here, name, jobs),
        ]
        return Found(rows)


def _under_way(refused: Rows) -> int:
    if not refused:
        return 0
    recorded_ms = (refused[0]["sent_at_ms"] or refused[0]["at_ms"]) + RECORDED_MS
    return min(IN_FLIGHT, sum(post["at_ms"] <= recorded_ms for post in refused))
