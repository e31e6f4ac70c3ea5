"""How deliveries of webhooks are listed in a terminal."""

from collections.abc import Iterable
from typing import Any

import pytest
from rich.console import Console

from jobs.destinations import Destination
from worker.cli.tables import deliveries_table

NOW_MS = 1_800_000_000_000
URL = "https://shop.example/hooks/media?customer=77"
WORDS = "ConnectError: " + "x" * 500


def row(**changed: Any) -> dict[str, Any]:
    """Make a delivery that waits for its next attempt, after one that found nobody."""
    return {
        "id": f"dlv_{0:032x}",
        "event_id": f"evt_{0:032x}",
        "job_id": "order-1841",
        "type": "job.late_result",
        "url": URL,
        "state": "pending",
        "created_at": "2027-01-15T07:50:00.000Z",
        "next_attempt_at": "2027-01-15T08:05:00.000Z",
        "attempts": [{"status": None, "answer": WORDS}],
        **changed,
    }


def listed(*rows: dict[str, Any], columns: int, failing: Iterable[str] = ()) -> list[str]:
    """Print the table as wide as that."""
    screen = Console(width=columns, color_system=None)
    with screen.capture() as captured:
        screen.print(deliveries_table(rows, NOW_MS, failing=set(failing), columns=columns))
    return captured.get().splitlines()


@pytest.mark.parametrize("columns", [120, 160, 2000])
def test_a_long_answer_leaves_room(columns: int) -> None:
    """Id and type are whole however long the answer; the answer is cut to a few characters even where there is room."""
    head, line = listed(row(), columns=columns)
    assert line.split()[0] == row()["id"]
    assert "job.late_result" in line
    assert "in 5m00s" in line
    assert "https://" in line
    assert head.index("next") - head.index("last answer") <= 24 + 2 + len("10m00s  ")


def test_what_waits_for_a_failing_destination_says_so() -> None:
    """It is due, or has no time; what has a time to come, has ended or goes elsewhere does not wait for that."""
    failing = [Destination.of(URL).name]
    rows = [
        row(next_attempt_at=None),
        row(next_attempt_at="2027-01-15T07:59:00.000Z"),
        row(),
        row(next_attempt_at=None, url="https://else.example/"),
        row(state="dead", next_attempt_at=None),
    ]
    told = listed(*rows, columns=2000, failing=failing)[1:]
    assert ["waits" in line.split() for line in told] == [True, True, False, False, False]
