"""Owns the state machine of a job: which statuses there are, and which event moves which to which.

Theory. A job waits its turn (``queued``), is being submitted (``submitting``: an intent is written, a POST may be under
way), is being generated (``processing``: the gateway holds a task of ours) or waits for a time (``waiting``: backing
off, parked until a limit resets, or held). It ends ``completed``, ``failed`` or ``canceled``. Only ``retry`` opens an
ended job again: as ``queued``, or, where a task of its still runs, by adopting that task (``processing``).

A worker that dies in ``submitting`` leaves an attempt of unknown acceptance; in every other status nothing is lost.
What is not in the table cannot happen: ``advance`` raises, and the store's scripts compare the status they find with
``origins`` before they write.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class Status(StrEnum):
    """Where a job stands, in the contract's words."""

    QUEUED = "queued"
    SUBMITTING = "submitting"
    PROCESSING = "processing"
    WAITING = "waiting"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"


class Event(StrEnum):
    """What happens to a job."""

    SUBMIT = "submit"  # an intent is written and a POST follows
    ACCEPT = "accept"  # the gateway answered with a task id
    WAIT = "wait"  # try again later: back off, fail over, park or hold
    COMPLETE = "complete"  # a result is there, of the current task or of one given up
    FAIL = "fail"
    CANCEL = "cancel"
    RETRY = "retry"  # a new round of attempts
    ADOPT = "adopt"  # a task of the job's that still runs becomes the one it waits for


LIVE = frozenset({Status.QUEUED, Status.SUBMITTING, Status.PROCESSING, Status.WAITING})
ENDED = frozenset(Status) - LIVE

_ENDING = {Event.COMPLETE: Status.COMPLETED, Event.FAIL: Status.FAILED, Event.CANCEL: Status.CANCELED}
_REOPENING = {Event.RETRY: Status.QUEUED, Event.ADOPT: Status.PROCESSING}

TRANSITIONS: Mapping[Status, Mapping[Event, Status]] = MappingProxyType(
    {
        Status.QUEUED: {
            Event.SUBMIT: Status.SUBMITTING,
            Event.WAIT: Status.WAITING,
            Event.ADOPT: Status.PROCESSING,
            **_ENDING,
        },
        Status.SUBMITTING: {Event.ACCEPT: Status.PROCESSING, Event.WAIT: Status.WAITING, **_ENDING},
        Status.PROCESSING: {Event.WAIT: Status.WAITING, **_ENDING},
        Status.WAITING: {
            Event.SUBMIT: Status.SUBMITTING,
            Event.WAIT: Status.WAITING,
            Event.ADOPT: Status.PROCESSING,
            **_ENDING,
        },
        Status.COMPLETED: {},
        Status.FAILED: _REOPENING,
        Status.CANCELED: _REOPENING,
    }
)


class IllegalMove(Exception):  # noqa: N818 - it is a move, and it is illegal
    """The event cannot happen to a job in this status."""

    def __init__(self, status: Status, event: Event) -> None:
        super().__init__(f"a {status} job cannot {event}")
        self.status = status
        self.event = event


def advance(status: Status, event: Event) -> Status:
    """Say where the event leads; raise ``IllegalMove`` where the table has no such move."""
    try:
        return TRANSITIONS[status][event]
    except KeyError:
        raise IllegalMove(status, event) from None


def origins(event: Event) -> frozenset[Status]:
    """Name the statuses in which the event may happen."""
    return frozenset(status for status, moves in TRANSITIONS.items() if event in moves)


def diagram() -> str:
    """Draw the table as a Mermaid state diagram; the document of the states carries it word for word."""
    lines = ["stateDiagram-v2", f"    [*] --> {Status.QUEUED}"]
    for status, moves in TRANSITIONS.items():
        lines += [f"    {status} --> {target}: {event}" for event, target in moves.items()]
    return "\n".join([*lines, f"    {Status.COMPLETED} --> [*]"])
