"""Owns the record of a job: what was asked (``Spec``), how it stands (``Job``), its attempts, and its public view.

The record is two JSON texts in Redis, ``spec`` (written once) and ``state`` (rewritten by every change), beside the few
scalars that scripts compare. Times are integer milliseconds here, RFC 3339 in the view.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from jobs.states import ENDED, Status

SCHEMA = 1
RAW_RESULT_LIMIT_BYTES = 64 * 1024
RESULT_LIFETIME_MS = 24 * 3600 * 1000  # kie: result URLs "typically expire after 24 hours"


class Outcome(StrEnum):
    """How an attempt ended. An attempt without one is under way."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"  # the gateway took it and the generation failed
    REFUSED = "refused"  # the gateway did not take it
    UNKNOWN = "unknown"  # it may have been taken: the answer was lost
    TIMED_OUT = "timed_out"  # tracked for as long as allowed; the task is looked at rarely from then on
    ABANDONED = "abandoned"  # given up while its task ran: canceled, past the deadline, or overtaken


@dataclass(frozen=True, slots=True)
class Attempt:
    """One submission to one model, from the intent to its end.

    ``key`` is the Idempotency-Key it was sent with. ``counted`` is false for a refusal that costs no attempt.
    ``late`` tells how a task ended that had been given up before: ``{"status", "at_ms", "urls"}``.
    """

    number: int
    model: str
    model_index: int
    round: int
    key: str
    started_at_ms: int
    task_id: str | None = None
    ended_at_ms: int | None = None
    outcome: Outcome | None = None
    failure: Mapping[str, Any] | None = None
    polls: int = 0
    cost: Any = None
    counted: bool = True
    late: Mapping[str, Any] | None = None
    adopted_at_ms: int | None = None

    @property
    def tracked_from_ms(self) -> int:
        """Since when the task has been tracked as the one its job waits for."""
        return self.adopted_at_ms or self.started_at_ms

    @property
    def watched(self) -> bool:
        """Whether a task of this attempt may still run: accepted, and its end not seen."""
        return self.task_id is not None and self.late is None and self.outcome in _TASK_MAY_RUN


_TASK_MAY_RUN = (None, Outcome.TIMED_OUT, Outcome.ABANDONED)


@dataclass(frozen=True, slots=True)
class Spec:
    """What was asked, with defaults filled in. ``models`` is the requested model and its fallbacks, in order."""

    id: str
    kind: str
    models: tuple[str, ...]
    fingerprint: str
    created_at_ms: int
    deadline_ms: int
    max_attempts: int
    on_unknown_submit: str
    webhook_url: str | None = None
    webhook_events: tuple[str, ...] = ()
    metadata: Any = None


@dataclass(frozen=True, slots=True)
class Look:
    """What look-ups of one task have seen so far; kept beside the record, since it decides nothing by itself.

    ``refused`` counts refusals in a row; ``doubts`` and ``doubted_at_ms`` how often and since when the gateway has
    said the thing that is believed only after a grace (``doubt``, a rule's name).
    """

    polls: int = 0
    refused: int = 0
    doubt: str | None = None
    doubts: int = 0
    doubted_at_ms: int = 0


@dataclass(frozen=True, slots=True)
class Job:
    """A job's whole record. ``rev`` changes with every write and is what a write compares."""

    spec: Spec
    rev: str
    status: Status
    updated_at_ms: int
    round: int = 1
    deadline_at_ms: int = 0
    model_index: int = 0
    attempts: tuple[Attempt, ...] = ()
    deferrals: int = 0  # waits in a row without an accepted submission: the exponent of the backoff
    next_action_at_ms: int | None = None
    completed_at_ms: int | None = None
    failure: Mapping[str, Any] | None = None
    result: Mapping[str, Any] | None = None
    looks: Mapping[int, Look] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The job's id."""
        return self.spec.id

    @property
    def model(self) -> str:
        """The model that answered, is being tried, or is tried next."""
        return self.spec.models[self.model_index]

    @property
    def ended(self) -> bool:
        """Whether the job is completed, failed or canceled."""
        return self.status in ENDED

    @property
    def current(self) -> Attempt | None:
        """The attempt under way, if any."""
        last = self.attempts[-1] if self.attempts else None
        return last if last is not None and last.outcome is None else None

    def attempt(self, number: int) -> Attempt | None:
        """Find an attempt by its number."""
        return next((attempt for attempt in self.attempts if attempt.number == number), None)

    def with_attempt(self, attempt: Attempt) -> "Job":
        """Put an attempt in the place of the one with its number, or at the end."""
        if self.attempt(attempt.number) is None:
            return replace(self, attempts=(*self.attempts, attempt))
        return replace(self, attempts=tuple(attempt if a.number == attempt.number else a for a in self.attempts))

    def counted(self, model_index: int | None = None) -> int:
        """Count this round's attempts that count, on all models or on one of the chain."""
        return sum(
            attempt.counted and attempt.round == self.round and model_index in (None, attempt.model_index)
            for attempt in self.attempts
        )


_STATE_FIELDS = tuple(f.name for f in fields(Job) if f.name not in {"spec", "rev", "status", "result", "looks"})


def encode_spec(spec: Spec) -> str:
    """Write the part of the record that never changes."""
    return json.dumps({f.name: getattr(spec, f.name) for f in fields(Spec)}, separators=(",", ":"))


def encode_state(job: Job) -> str:
    """Write the part of the record that every change rewrites."""
    state = {name: getattr(job, name) for name in _STATE_FIELDS}
    state["attempts"] = [_attempt_state(attempt) for attempt in job.attempts]
    return json.dumps(state, separators=(",", ":"))


def _attempt_state(attempt: Attempt) -> dict[str, Any]:
    return {name: value for name in _ATTEMPT_FIELDS if (value := getattr(attempt, name)) is not None}


_ATTEMPT_FIELDS = tuple(f.name for f in fields(Attempt))


class UnreadableRecord(Exception):  # noqa: N818 - named after what it says
    """The record in Redis is not one this version can read."""

    def __init__(self, job_id: str, why: str) -> None:
        super().__init__(f"the record of job {job_id} cannot be read: {why}")


def decode_job(job_id: str, stored: Mapping[bytes, bytes]) -> Job:
    """Read a record; raise ``UnreadableRecord`` for a newer schema or anything that is not a record."""
    try:
        if int(stored[b"schema"]) > SCHEMA:
            raise UnreadableRecord(job_id, "it was written by a newer version")
        spec = json.loads(stored[b"spec"])
        state = json.loads(stored[b"state"])
        result = stored.get(b"result")
        looks = {
            int(name[5:]): Look(**json.loads(value)) for name, value in stored.items() if name.startswith(b"look:")
        }
        return Job(
            spec=Spec(
                **{**spec, "models": tuple(spec["models"]), "webhook_events": tuple(spec["webhook_events"])},
            ),
            rev=stored[b"rev"].decode(),
            status=Status(stored[b"status"].decode()),
            result=json.loads(result) if result else None,
            looks=looks,
            **{**state, "attempts": tuple(_read_attempt(attempt) for attempt in state["attempts"])},
        )
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise UnreadableRecord(job_id, f"{type(error).__name__}: {error}") from error


def _read_attempt(state: dict[str, Any]) -> Attempt:
    outcome = state.pop("outcome", None)
    return Attempt(**state, outcome=Outcome(outcome) if outcome else None)


def encode_look(look: Look) -> str:
    """Write what look-ups have seen."""
    return json.dumps(asdict(look), separators=(",", ":"))


def view(job: Job) -> dict[str, Any]:
    """Show a job as the contract's job view: plain JSON types, times in RFC 3339 UTC with milliseconds."""
    spec, last_task = job.spec, next((a.task_id for a in reversed(job.attempts) if a.task_id), None)
    completed_by = next((a for a in reversed(job.attempts) if a.outcome is Outcome.SUCCEEDED), None)
    return {
        "id": spec.id,
        "kind": spec.kind,
        "status": str(job.status),
        "requested_model": spec.models[0],
        "model": job.model,
        "fallbacks": list(spec.models[1:]),
        "task_id": completed_by.task_id if completed_by else last_task,
        "degraded": completed_by is not None and completed_by.model != spec.models[0],
        "attempts": [_attempt_view(attempt, job.looks.get(attempt.number)) for attempt in job.attempts],
        "result": job.result,
        "failure": job.failure,
        "created_at": rfc3339(spec.created_at_ms),
        "updated_at": rfc3339(job.updated_at_ms),
        "completed_at": rfc3339(job.completed_at_ms),
        "deadline_at": rfc3339(job.deadline_at_ms),
        "next_action_at": rfc3339(job.next_action_at_ms),
        "metadata": spec.metadata,
    }


def _attempt_view(attempt: Attempt, look: Look | None) -> dict[str, Any]:
    shown = {
        "number": attempt.number,
        "model": attempt.model,
        "task_id": attempt.task_id,
        "started_at": rfc3339(attempt.started_at_ms),
        "ended_at": rfc3339(attempt.ended_at_ms),
        "outcome": attempt.outcome and str(attempt.outcome),
        "failure": attempt.failure,
        "polls": look.polls if look else attempt.polls,
        "cost": attempt.cost,
    }
    if attempt.late:
        late = dict(attempt.late)
        shown["late_result"] = {"status": late["status"], "at": rfc3339(late["at_ms"]), "urls": late["urls"]}
    return shown


def rfc3339(at_ms: int | None) -> str | None:
    """Write a time as RFC 3339 in UTC with milliseconds."""
    if at_ms is None:
        return None
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
