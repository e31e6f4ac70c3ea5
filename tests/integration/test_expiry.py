"""A result carries when its URLs stop working: as the gateway says, else a day after its end."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from harness import Bench, directed, eventually

from jobs.job import to_form
from worker.actions import cancel
from worker.record import view

DAY, HOUR = timedelta(days=1), timedelta(hours=1)


def lifetime(shown: dict[str, Any], since: str) -> timedelta:
    """Say how long after a time the URLs are expected to work."""
    return datetime.fromisoformat(shown["expires_at"]) - datetime.fromisoformat(since)


@pytest.mark.parametrize(
    ("expiry", "lasts"),
    [
        ({}, DAY),
        ({"expires_in": 3600}, HOUR),
        ({"expires_at": "soon"}, DAY),
        ({"expiresAt": "2001-01-01T00:00:00Z"}, DAY),
        ({"expires_in": "3600", "expires_at": 7}, HOUR),
    ],
)
async def test_a_result_tells_how_long_it_can_be_fetched(
    bench: Bench, expiry: dict[str, Any], lasts: timedelta
) -> None:
    """What is said is kept where it can be right; all else is a day."""
    async with bench.worker():
        ended = await bench.ended(await bench.submit(input=directed(expiry=expiry)))
    assert lifetime(ended["result"], ended["completed_at"]) == lasts


async def test_a_moment_that_is_told_is_shown_in_utc(bench: Bench) -> None:
    """Whatever zone the gateway writes it in."""
    at = datetime.fromtimestamp((bench.store.now_ms() // 1000) + 7200).astimezone()
    async with bench.worker():
        ended = await bench.ended(await bench.submit(input=directed(expiry={"expires_at": at.isoformat()})))
    assert ended["result"]["expires_at"].endswith("Z")
    assert datetime.fromisoformat(ended["result"]["expires_at"]) == at


@pytest.mark.parametrize(("expiry", "lasts"), [({}, DAY), ({"expires_in": 3600}, HOUR)])
async def test_a_late_result_tells_it_too(bench: Bench, expiry: dict[str, Any], lasts: timedelta) -> None:
    """From when it was seen on."""
    async with bench.worker():
        job_id = await bench.submit(input=directed(duration_s=0.6, expiry=expiry))
        await bench.standing(job_id, "processing")
        await cancel(bench.store, job_id)

        async def late() -> dict[str, Any] | None:
            await bench.raw.zadd("onysoft:wheel:track", {f"1:{job_id}": bench.store.now_ms()}, xx=True)
            shown: dict[str, Any] | None = view(to_form(await bench.job(job_id)))["attempts"][0].get("late_result")
            return shown

        found: dict[str, Any] = await eventually(late)
    assert lifetime(found, found["at"]) == lasts
