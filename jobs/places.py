"""Owns where a job has to stand, by its record: what brings it on, and under what it is found.

Each change puts a job in all its places in one step. So a place that is empty was emptied by something else: a hand, an
eviction, a crash of an older version, a restored backup. The table says when what stands there is due once it is put
back.

| the job | has to be |
|---|---|
| queued, waiting | on its kind's submit wheel, due when it next does something |
| submitting | on it as well: that is what brings it back should its worker die; not before its answer can have come |
| processing | on the track wheel, with the attempt under way |
| any | on the track wheel, with each attempt whose task may yet end, or whose submission may yet be answered |
| not ended | among the deadlines |
| ended | among the ended ones, from where it is pruned |
| any | in the indexes of its status: with its kind, and with its kind and model; in no other |
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from jobs.changes import ON_SUBMIT_WHEEL
from jobs.job import Job
from jobs.states import Status


class Repair(StrEnum):
    """What was found missing, or where it must not be, and was mended. Values of the label ``what``."""

    SUBMIT_WHEEL = "submit_wheel"  # a job was on no submit wheel
    TRACK_WHEEL = "track_wheel"  # a task was looked at by nobody
    INDEX = "index"  # a job was not listed, or under what it is not, or is gone
    DEADLINE = "deadline"  # a job would not have ended at its deadline
    ENDED = "ended"  # a job would never have been pruned, or before its end
    PENDING = "pending"  # the number of its pending deliveries was wrong
    DELIVERY = "delivery"  # a pending delivery was in no queue
    DELIVERY_INDEX = "delivery_index"  # a delivery was not listed, or under what it is not, or is gone
    DELIVERY_LEFT = "delivery_left"  # it had been sent, and its job is gone
    DESTINATION = "destination"  # a destination's queue was not looked at
    LEASE = "lease"  # held by nobody, or for too long
    ARQ_ENTRY = "arq_entry"  # the body of a call stood on no queue
    ARQ_LOCK = "arq_lock"  # a call was locked for ever
    ARQ_BODY = "arq_body"  # the body of a call that waits would have expired


@dataclass(frozen=True, slots=True)
class Places:
    """Where a job has to be on wheels: when it is due where it is missing (ms; 0: now)."""

    submit_at_ms: int | None  # None: on no submit wheel
    looks: Mapping[int, int]  # attempt -> when its task is looked at


def places(job: Job) -> Places:
    """Say on which wheels a job has to be."""
    looks = {
        attempt.number: (attempt.answered_by_ms or 0) if attempt.may_be_answered else 0
        for attempt in job.attempts
        if attempt.watched or attempt.may_be_answered
    }
    return Places(_submit_at_ms(job), looks)


def _submit_at_ms(job: Job) -> int | None:
    if job.status in ON_SUBMIT_WHEEL:
        return job.next_action_at_ms or 0
    if job.status is Status.SUBMITTING:
        return (job.current.answered_by_ms or 0) if job.current else 0
    return None
