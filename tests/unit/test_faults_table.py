"""The faults bench's table, and how refusals at a model's limit are counted."""

from pathlib import Path
from typing import Any

import pytest
from refusals import Cooldowns, cooldowns, refused_by_minute, under_way
from table import BEGIN, END, Row, Unwritable, markdown, text, write

ROWS = [Row("minute", "refused", 7, 5, "in all"), Row("minute", "jobs", 60), Row("minute", "failed", 0, 0)]
AROUND = f"# Failures\n\n{BEGIN}\nold\n{END}\n\nmore\n"


def test_figures_are_held_against_their_bounds() -> None:
    """Over its bound, at it, and without one."""
    assert [row.verdict for row in ROWS] == ["OVER", "", "OK"]
    lines = text(ROWS).splitlines()
    assert lines[1].split() == ["minute", "refused", "7", "5", "OVER", "in", "all"]
    assert lines[2].split() == ["minute", "jobs", "60"]


def test_the_table_goes_between_its_comments(tmp_path: Path) -> None:
    """What stands around it stays, and it can be written again."""
    path = tmp_path / "failures.md"
    path.write_text(AROUND)
    for said in ("once", "again"):
        write(path, markdown(ROWS, said))
        found = path.read_text()
        assert found.startswith(f"# Failures\n\n{BEGIN}\n{said}\n")
        assert found.endswith(f"{END}\n\nmore\n")
        assert "| minute | refused | 7 | 5 | OVER |" in found
    assert "once" not in found
    assert "old" not in found


@pytest.mark.parametrize("found", [None, "# Failures\n", f"{END}\n{BEGIN}\n", AROUND + AROUND])
def test_a_file_without_a_place_for_it_is_left_alone(tmp_path: Path, found: str | None) -> None:
    """One line says what is missing."""
    path = tmp_path / "failures.md"
    if found is not None:
        path.write_text(found)
    with pytest.raises(Unwritable, match=BEGIN):
        write(path, "table")
    assert not path.exists() or path.read_text() == found


def post(at_ms: int, status: int = 429) -> dict[str, Any]:
    """Make a submission of the model, answered after 5 ms."""
    return {"at_ms": at_ms, "sent_at_ms": at_ms + 5, "status": status, "task_id": "t" if status == 202 else None}


@pytest.mark.parametrize(
    ("posts", "found"),
    [
        ([], Cooldowns(0, 0, 0)),
        ([post(0, 202), post(10), post(20), post(90)], Cooldowns(1, 2, 0)),
        ([post(0), post(700)], Cooldowns(1, 0, 1)),
        ([post(0), post(2010), post(4020)], Cooldowns(3, 0, 0)),
        ([post(0), post(2010), post(2011)], Cooldowns(2, 0, 1)),  # the limit was known: none were under way
        ([post(0), post(2010, 202), post(2020), post(2030)], Cooldowns(2, 1, 0)),
        ([post(0)] * 12, Cooldowns(1, 9, 2)),
    ],
)
def test_refusals_are_under_way_one_a_cooldown_or_beyond(posts: list[dict[str, Any]], found: Cooldowns) -> None:
    """Two seconds of cooldown; only where the model has accepted since can others be under way."""
    assert cooldowns(posts, 2.0, in_flight=10) == found


def test_refusals_are_counted_by_the_minute() -> None:
    """Minutes begin with the first submission; acceptances count for none."""
    posts = [post(5000, 202), post(5010), post(10_999), post(11_000), post(23_500)]
    assert refused_by_minute(posts, 6.0) == [2, 1, 0, 1]


def test_refusals_under_way_are_those_before_the_first_was_recorded() -> None:
    """So close to the first, and no more than can be in flight."""
    assert under_way([], in_flight=10) == 0
    assert under_way([post(0), post(90), post(700)], in_flight=10) == 2
    assert under_way([post(0)] * 12, in_flight=10) == 10
