"""Owns the record of a job: what was asked (``Spec``), how it stands (``Job``), and its attempts.

A record's form is plain JSON: ``spec`` (written once) and ``state`` (rewritten by every change), beside the few scalars
that scripts compare. Times are integer milliseconds.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from config.models import KINDS
from jobs.states import ENDED, Status
from jobs.verdict import Code

REFUSED_KIND = "unknown"  # of a request that was refused for its kind
REJECTED = "rejected"  # in the place of the fingerprint of a request that never was one
RAW_RESULT_LIMIT_BYTES = 64 * 1024


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
    ``answered_by_ms`` is when its submission is answered at the latest.
    ``late`` tells how a task ended that had been given up before, or a submission that was never answered:
    ``{"status", "at_ms", "urls"}``, ``expires_at`` of a result, and its ``text`` where it has one.
    ``partial`` is what its task showed of the result before the end: ``{"urls", "at_ms"}``.
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
    partial: Mapping[str, Any] | None = None
    adopted_at_ms: int | None = None
    answered_by_ms: int | None = None

    @property
    def tracked_from_ms(self) -> int:
        """Since when the task has been tracked as the one its job waits for."""
        return self.adopted_at_ms or self.started_at_ms

    @property
    def may_run(self) -> bool:
        """Whether a task of this attempt may still run: accepted, and its end not seen."""
        return self.task_id is not None and self.late is None and self.outcome in _TASK_MAY_RUN

    @property
    def watched(self) -> bool:
        """Whether the task is looked at: it may run, or what it failed of has turned into a success before."""
        return self.may_run or (self.task_id is not None and self.late is None and self._may_flip)

    @property
    def _may_flip(self) -> bool:
        """Whether the failure was only believed after a grace: a time-out, a task gone, a refused look-up's word."""
        if self.outcome is not Outcome.FAILED or self.failure is None:
            return False
        status = self.failure["http_status"]
        return self.failure["code"] in _MAY_FLIP or not (status is None or 200 <= status < 300)

    @property
    def may_be_answered(self) -> bool:
        """Whether its submission may be answered yet although it was given up: canceled, or its worker taken for dead.

        Every other unknown submission was given up by its own sender, who has stopped listening.
        """
        if self.outcome is not Outcome.UNKNOWN or self.task_id is not None or self.late is not None:
            return False
        return self.failure is None or self.failure["code"] == Code.CANCELED or self.failure["rule"] == TAKEN_OVER


TAKEN_OVER = f"own_{Code.SUBMIT_UNKNOWN}"  # the rule of a submission whose worker was taken for dead
_TASK_MAY_RUN = (None, Outcome.TIMED_OUT, Outcome.ABANDONED)
_MAY_FLIP = frozenset({Code.GENERATION_TIMEOUT, Code.TASK_LOST})


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
    said the thing that is believed only after a grace (``doubt``, a rule's name). ``refusal`` is the last answer that
    was not plainly good, in short: ``{"at_ms", "code", "rule", "http_status", "gateway_code", "message"}``.
    """

    polls: int = 0
    refused: int = 0
    doubt: str | None = None
    doubts: int = 0
    doubted_at_ms: int = 0
    refusal: Mapping[str, Any] | None = None


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

    @property
    def round_began_at_ms(self) -> int:
        """When this round of attempts began."""
        return self.deadline_at_ms - self.spec.deadline_ms

    def may_use(self, attempt: Attempt) -> bool:
        """Whether a late success of an attempt is this round's: its own, or come to light since the round began.

        One that was there before was announced; whoever opened the job again knew of it.
        """
        if attempt.late is None or attempt.late["status"] != "succeeded":
            return False
        return attempt.round == self.round or bool(attempt.late["at_ms"] > self.round_began_at_ms)

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


_SPEC_FIELDS = tuple(f.name for f in fields(Spec))
_STATE_FIELDS = tuple(f.name for f in fields(Job) if f.name not in {"spec", "rev", "status", "result", "looks"})


def to_form(job: Job) -> dict[str, Any]:
    """Give the record in plain JSON types: as it is written, and as its view is made from."""
    state = {name: getattr(job, name) for name in _STATE_FIELDS}
    state["attempts"] = [attempt_form(attempt) for attempt in job.attempts]
    return {
        "spec": {name: getattr(job.spec, name) for name in _SPEC_FIELDS},
        "state": state,
        "status": str(job.status),
        "rev": job.rev,
        "result": job.result,
        "looks": {number: look_form(look) for number, look in job.looks.items()},
    }


def attempt_form(attempt: Attempt) -> dict[str, Any]:
    """Give an attempt in plain JSON types; what there is none of is left out."""
    return {name: value for name in _ATTEMPT_FIELDS if (value := getattr(attempt, name)) is not None}


def look_form(look: Look) -> dict[str, Any]:
    """Give what look-ups have seen in plain JSON types; what there is none of is left out."""
    return {name: value for name in _LOOK_FIELDS if (value := getattr(look, name)) is not None}


_ATTEMPT_FIELDS = tuple(f.name for f in fields(Attempt))
_LOOK_FIELDS = tuple(f.name for f in fields(Look))


class UnreadableRecord(Exception):  # noqa: N818 - named after what it says
    """What lies in Redis is damaged: nothing that this version or a newer one has written so."""

    why = ""

    def __init__(self, name: str, why: str, *, what: str = "job") -> None:
        self.why = why
        super().__init__(f"the record of {what} {name} cannot be read: {why}; {MEND_IT}")


class NewerRecord(UnreadableRecord):
    """The record was written by a newer version, which runs beside this one: it is left alone."""

    def __init__(self, name: str, *, what: str = "job") -> None:
        Exception.__init__(self, f"{what} {name} was written by a newer version: ask one of that version")


MEND_IT = "it is left as it is, and deleted RETENTION_S later: mend it by hand, or go on under a new id"


def from_form(job_id: str, form: Mapping[str, Any]) -> Job:
    """Read a record's form; raise ``UnreadableRecord`` for anything that is none."""
    try:
        job = Job(
            spec=read_spec(job_id, form["spec"]),
            rev=form["rev"],
            status=Status(form["status"]),
            result=form["result"],
            looks={number: Look(**_known(look, _LOOK_FIELDS)) for number, look in form["looks"].items()},
            **_read_state(form["state"]),
        )
        _check(job)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise UnreadableRecord(job_id, f"{type(error).__name__}: {error}") from error
    return job


def read_spec(job_id: str, form: Mapping[str, Any]) -> Spec:
    """Read what was asked; raise ``KeyError``, ``ValueError`` or the like for what is damaged."""
    models, events = tuple(form["models"]), tuple(form["webhook_events"])
    spec = Spec(**{**_known(form, _SPEC_FIELDS), "models": models, "webhook_events": events})
    texts = (spec.kind, spec.fingerprint, spec.on_unknown_submit, spec.webhook_url or "", *models, *events)
    numbers = (spec.created_at_ms, spec.deadline_ms, spec.max_attempts)
    if (
        spec.id != job_id
        or spec.kind not in {*KINDS, REFUSED_KIND}
        or not models
        or not _are(str, texts)
        or not _are(int, numbers)
    ):
        raise ValueError("spec: is none of this job's")
    "".join(texts).encode()  # what is no Unicode fits in no key
    return spec


def _read_state(form: Mapping[str, Any]) -> dict[str, Any]:
    return {**_known(form, _STATE_FIELDS), "attempts": tuple(read_attempt(attempt) for attempt in form["attempts"])}


def _check(job: Job) -> None:
    """Raise ``ValueError`` for a record that reads well and could not be gone on with."""
    times = (job.updated_at_ms, job.deadline_at_ms, job.next_action_at_ms or 0, job.completed_at_ms or 0)
    if not _are(int, (*times, job.round, job.deferrals, job.model_index)):
        raise ValueError("state: a number is none")
    if not 0 <= job.model_index < len(job.spec.models):
        raise ValueError("state: model_index is beyond the models")
    if not job.rev:
        raise ValueError("rev: there is none")
    if not all(part is None or isinstance(part, dict) for part in (job.failure, job.result)):
        raise ValueError("state: failure or result is no object")


def _are(kind: type, values: Collection[object]) -> bool:
    return all(type(value) is kind for value in values)


def read_attempt(form: Mapping[str, Any]) -> Attempt:
    """Read an attempt's form; raise ``TypeError`` or ``ValueError`` for anything that is none."""
    outcome = form.get("outcome")
    attempt = Attempt(**{**_known(form, _ATTEMPT_FIELDS), "outcome": Outcome(outcome) if outcome else None})
    times = (attempt.started_at_ms, attempt.ended_at_ms or 0, attempt.adopted_at_ms or 0, attempt.answered_by_ms or 0)
    if not _are(int, (attempt.number, attempt.model_index, attempt.round, attempt.polls, *times)):
        raise ValueError("attempt: a number is none")
    if not _are(str, (attempt.model, attempt.key, attempt.task_id or "")):
        raise ValueError("attempt: a text is none")
    for name, needed in _PARTS_OF_ATTEMPTS.items():
        part = getattr(attempt, name)
        if part is not None and not (isinstance(part, dict) and needed <= part.keys()):
            raise ValueError(f"attempt: {name} is incomplete")
    return attempt


_PARTS_OF_ATTEMPTS = {
    "failure": {"code", "http_status", "rule"},
    "late": {"status", "at_ms", "urls"},
    "partial": {"urls", "at_ms"},
}


def readable_attempts(form: object) -> tuple[Attempt, ...]:
    """Read what can be read of the attempts of a damaged state."""
    found = form.get("attempts") if isinstance(form, dict) else None
    read: dict[int, Attempt] = {}
    for each in found if isinstance(found, list) else ():
        try:
            attempt = read_attempt(each)
        except (KeyError, ValueError, TypeError, AttributeError):
            continue
        read[attempt.number] = attempt
    return tuple(read.values())


def _known(form: Mapping[str, Any], fields_known: Collection[str]) -> dict[str, Any]:
    """Leave out what an older version had and this one needs no more."""
    return {name: value for name, value in form.items() if name in fields_known}


def rfc3339(at_ms: int | None) -> str | None:
    """Write a time as RFC 3339 in UTC with milliseconds."""
    if at_ms is None:
        return None
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
