"""The state machine's table."""

from pathlib import Path

import pytest

from jobs.states import ENDED, LIVE, TRANSITIONS, Event, IllegalMove, Status, advance, diagram, origins


def test_every_status_has_a_row() -> None:
    """The table speaks of every status, and every status is live or ended."""
    assert set(TRANSITIONS) == set(Status)
    assert set(Status) == LIVE | ENDED
    assert not LIVE & ENDED


def test_every_event_can_happen_somewhere() -> None:
    """No event is dead, and origins tells exactly where the table allows it."""
    for event in Event:
        assert origins(event) == {status for status in Status if event in TRANSITIONS[status]}
        assert origins(event)


def test_completed_is_final_and_the_other_ends_only_reopen() -> None:
    """A completed job never moves; a failed or canceled one only by retry or adoption."""
    assert not TRANSITIONS[Status.COMPLETED]
    for status in (Status.FAILED, Status.CANCELED):
        assert set(TRANSITIONS[status]) == {Event.RETRY, Event.ADOPT}


@pytest.mark.parametrize("status", list(Status))
@pytest.mark.parametrize("event", list(Event))
def test_advance_is_the_table(status: Status, event: Event) -> None:
    """Advance follows the table, and raises with both names where it has no entry."""
    if event in TRANSITIONS[status]:
        assert advance(status, event) is TRANSITIONS[status][event]
    else:
        with pytest.raises(IllegalMove, match=f"{status}.*{event}"):
            advance(status, event)


def test_the_document_shows_the_table() -> None:
    """The diagram people read is made from the table."""
    document = (Path(__file__).parents[2] / "docs" / "states.md").read_text()
    assert f"```mermaid\n{diagram()}\n```" in document
    assert all(f"| `{status}` |" in document for status in Status)
