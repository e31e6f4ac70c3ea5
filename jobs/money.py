"""Owns what is counted of money: attempts paid for and of no use, and what became of unknown submissions.

Both follow from the record before and after a change, so that they are counted in the step that makes them certain, and
each attempt once. An upper bound for ``maybe_paid``: a gateway that heeds the Idempotency-Key makes, and bills, one
generation of a lost submission and its resend.
"""

import math
import re
from collections.abc import Iterator
from enum import StrEnum

from jobs.counters import MICRO, Counter, count
from jobs.job import Attempt, Job, Outcome
from jobs.states import Status

LARGEST_AMOUNT = 1e6  # what is told to have cost more is a mistake of the reader's or the teller's
_CURRENCY = re.compile(r"[A-Z]{3}|credits")


class Waste(StrEnum):
    """Why an attempt that is, or may be, paid for is of no use."""

    LATE_SUCCESS = "late_success"  # it ended well, and the job had ended or done without it
    NEVER_ENDED = "never_ended"  # accepted; looked at for as long as is done, and its end never seen
    MAYBE_PAID = "maybe_paid"  # its answer was lost, and no task of it has turned up


class Resolution(StrEnum):
    """What became of an unknown submission.

    The first four are what was done when it was found to be unknown: one for each, so that they add up to all there
    were. The last two are what was learned of some of them afterwards, and come on top.
    """

    RESENT = "resent"  # the job goes on with another submission, under the same key on the same model
    FAILED = "failed"
    CANCELED = "canceled"  # by its caller, while the answer was awaited
    COMPLETED = "completed"  # by the late result of another attempt
    ACCEPTED = "accepted"  # its task id turned up after all: it is tracked, or watched
    REFUSED = "refused"  # its refusal did: nothing was spent


DONE_ABOUT = (Resolution.RESENT, Resolution.FAILED, Resolution.CANCELED, Resolution.COMPLETED)
_BY_STATUS = {
    Status.FAILED: Resolution.FAILED,
    Status.CANCELED: Resolution.CANCELED,
    Status.COMPLETED: Resolution.COMPLETED,
}


def waste_of(job: Job, attempt: Attempt) -> Waste | None:
    """Say why an attempt is of no use to its job as it stands; None where it is of use, may be yet, or cost nothing."""
    late = attempt.late["status"] if attempt.late else None
    if attempt.outcome is Outcome.UNKNOWN:
        return None if attempt.may_be_answered else Waste.MAYBE_PAID
    if late == "unknown":
        return Waste.NEVER_ENDED
    if late == "succeeded" and attempt.outcome is not Outcome.SUCCEEDED:
        return Waste.LATE_SUCCESS if job.ended or not job.may_use(attempt) else None
    return None


def money_counters(before: Job | None, after: Job) -> Iterator[Counter]:
    """Name what a change makes certain of money."""
    for attempt in after.attempts:
        was = before.attempt(attempt.number) if before else None
        waste = waste_of(after, attempt)
        if waste and not (before and was and waste_of(before, was)):
            yield count("paid_unused_total", attempt.model, waste)
            yield from _cost(attempt, waste)
        if resolution := _resolution(was, attempt, after.status):
            yield count("unknown_submits_total", resolution)


def _resolution(was: Attempt | None, attempt: Attempt, status: Status) -> Resolution | None:
    """Say what a change did about an unknown submission, or teaches of one; None where it is about none."""
    was_unknown = was is not None and was.outcome is Outcome.UNKNOWN
    if attempt.outcome is Outcome.UNKNOWN:
        return None if was_unknown else _BY_STATUS.get(status, Resolution.RESENT)
    if not was_unknown:
        return None
    return Resolution.REFUSED if attempt.task_id is None else Resolution.ACCEPTED


def _cost(attempt: Attempt, waste: Waste) -> Iterator[Counter]:
    """Sum what it cost in millionths, where the gateway told; what is no currency would make a label of its own."""
    told = attempt.cost
    if not isinstance(told, dict) or not _CURRENCY.fullmatch(str(told.get("currency"))):
        return
    amount = told.get("amount")
    if isinstance(amount, int | float) and math.isfinite(amount) and 0 < amount <= LARGEST_AMOUNT:
        yield Counter("paid_unused_cost_total", (told["currency"], waste), round(amount * MICRO))
