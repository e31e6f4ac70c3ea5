"""What a job is told to be held up by."""

from dataclasses import replace
from typing import Any

import pytest

from jobs.states import Status
from worker.fleet import ALIVE_MS, Depth, Overview
from worker.hindrances import hindrances
from worker.memory import RedisMemory

NOW_MS = 1_800_000_000_000
SINCE = "2027-01-15T08:00:00.000Z"
ALIVE = {"id": "w", "host": "h", "pid": 1, "seen_at_ms": NOW_MS}
WELL = Overview(NOW_MS, {}, {}, {}, 0, None, None, None, {}, (ALIVE,), {})

HELD: list[tuple[dict[str, Any], str]] = [
    ({"paused": {"video": NOW_MS}}, f"video is paused since {SINCE}: `onysoft-worker resume video` starts it again"),
    ({"paused": {"video": 0}}, "video is paused: `onysoft-worker resume video` starts it again"),
    (
        {"hold": "unauthorized", "hold_since_ms": NOW_MS, "probe_at_ms": NOW_MS},
        f"submissions are held since {SINCE}: unauthorized; next probe {SINCE}",
    ),
    ({"hold": "unauthorized"}, "submissions are held: unauthorized"),
    (
        {"pause_until_ms": NOW_MS + 1},
        f"the account's requests a minute are used up until {SINCE.replace('.000', '.001')}",
    ),
    ({"cooldowns": {"veo3": NOW_MS}}, f"veo3 is at its limit until {SINCE}"),
    (
        {"memory": RedisMemory(10, 10), "queues": {"submit:video": Depth(9, 7, 31.4)}},
        "Redis is at its maxmemory: no submission begins until there is room (raise maxmemory)",
    ),
    (
        {"memory": RedisMemory(91, 100), "queues": {"submit:video": Depth(9, 7, 31.4)}},
        "7 video jobs are due, the oldest for 31 s",
    ),
]
DEAD = {"workers": ({**ALIVE, "seen_at_ms": NOW_MS - ALIVE_MS - 1},)}
NO_WORKER = "no worker is alive: start `onysoft-worker work` (or `up`)"


def job(status: str) -> dict[str, Any]:
    """Make as much of a job's view as matters."""
    return {"id": "a", "kind": "video", "status": status, "model": "veo3"}


@pytest.mark.parametrize(("how", "said"), HELD)
def test_what_stops_submissions_is_told_of_a_queued_job(how: dict[str, Any], said: str) -> None:
    """One sentence for each thing, with its times."""
    assert hindrances(job("queued"), replace(WELL, **how)) == [said]


def test_nothing_is_told_where_nothing_is_wrong() -> None:
    """Whatever concerns other kinds, other models or the past holds nothing up."""
    others = replace(
        WELL,
        paused={"image": 1},
        pause_until_ms=NOW_MS,
        cooldowns={"kling": NOW_MS + 1},
        queues={"submit:video": Depth(1, 1, 0.0), "submit:image": Depth(5, 5, 9.0)},
    )
    assert hindrances(job("queued"), others) == []


@pytest.mark.parametrize("status", Status)
def test_each_status_has_its_own_hindrances(status: Status) -> None:
    """Without a worker nothing moves; what stops submissions stops the queued and the waiting; an end needs nothing."""
    held = replace(WELL, paused={"video": NOW_MS}, **DEAD)
    told = hindrances(job(status), held)
    match status:
        case Status.COMPLETED | Status.FAILED | Status.CANCELED:
            assert told == []
        case Status.QUEUED | Status.WAITING:
            assert told == [NO_WORKER, HELD[0][1]]
        case _:
            assert told == [NO_WORKER]


def test_everything_is_told_at_once() -> None:
    """What concerns everything comes first."""
    whole = replace(WELL, **{name: value for how, _ in HELD for name, value in how.items()}, **DEAD)
    told = hindrances(job("queued"), whole)
    assert told[0] == NO_WORKER
    assert len(told) == 6
