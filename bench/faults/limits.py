"""The account's limits: requests a minute, a model's daily quota, an empty balance; how often each is run into."""

import time
from typing import Any

from ground import WORKERS, Ground, Rows, ground
from refusals import cooldowns, refused_by_minute, under_way
from scenarios import Found, Told
from table import Row

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
    limit, minute_s, jobs, within_s = (20, 6.0, 60, 40.0) if told.short else (60, 60.0, 180, 420.0)
    name = f"{limit} a minute"
    with ground(told.halt) as here:
        here.control(faults="none", requests_per_minute=limit, minute_s=minute_s)
        here.enqueue([_request(f"m-{number}") for number in range(jobs)])
        began_s = time.monotonic()
        here.until(here.all_ended, within_s=within_s)
        took_s = time.monotonic() - began_s
        refused = refused_by_minute(here.submissions(), minute_s)
        scaled = f"; a minute is {minute_s:g} s here" if told.short else ""
        rows = [
            Row(name, "jobs", jobs, note=f"in {took_s:.0f} s{scaled}"),
            Row(name, "refused in the first minute", refused[0]),
            Row(name, "refused in any later minute, at the most", max(refused[1:], default=0), 5, f"{refused}"),
            *_ends(here, name, jobs),
        ]
        return Found(rows)


# --- a model's daily quota


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
        seen = cooldowns(posts, retry_after_s, in_flight=IN_FLIGHT)
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
        sent_already = under_way(refused, in_flight=IN_FLIGHT)
        note = f"{len(refused)} refused, {sent_already} of them under way"
        rows = [
            Row(name, "jobs", jobs, note=f"empty for {empty_s:g} s, all done {took_s:.0f} s after the top-up"),
            Row(name, "refused, those under way left out", len(refused) - sent_already, 6, note),
            *_ends(here, name, jobs),
        ]
        return Found(rows)
