"""Owns how answers are described to readers of the API. For the description only: no answer is checked against it."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from jobs.job import Outcome
from jobs.request import Kind
from jobs.states import Status


class Described(BaseModel):
    """An answer's object. More members may be added to any of them; those listed stay."""

    model_config = ConfigDict(extra="allow")


Time = str | None
TIME = "RFC 3339, UTC, with milliseconds."


class FailureView(Described):
    """Why something failed, and what was decided."""

    code: str = Field(description="What happened, e.g. `generation_failed`. Stable: made for programs.")
    category: Literal["retryable", "terminal"]
    action: Literal["retry", "fail_over", "park", "hold", "keep_polling", "fail"]
    http_status: int | None = Field(description="The gateway's, where it answered.")
    gateway_code: str | None = Field(description="The gateway's own code, where it gave one.")
    message: str
    rule: str = Field(description="The rule that gave this verdict; `onysoft-worker explain` shows them.")


class LateResultView(Described):
    """How a task ended that had been given up before."""

    status: Literal["succeeded", "failed", "unknown"]
    at: str = Field(description=TIME)
    urls: list[str]


class AttemptView(Described):
    """One submission to one model."""

    number: int = Field(ge=1)
    model: str
    task_id: str | None = Field(description="The gateway's, once it has accepted.")
    started_at: str = Field(description=TIME)
    ended_at: Time = Field(description="Null while it is under way.")
    outcome: Outcome | None = Field(description="Null while it is under way.")
    failure: FailureView | None
    polls: int = Field(ge=0, description="Look-ups so far.")
    cost: Any = Field(description="As the gateway gave it, where it did.")
    late_result: LateResultView | None = Field(None, description="Only there for a task that ended late.")


class ResultView(Described):
    """What was made."""

    urls: list[str]
    expires_at: Time = Field(description="When the URLs are expected to stop working.")
    raw: Any = Field(None, description="The gateway's own answer, up to 64 KiB.")


class JobView(Described):
    """A job as it stands."""

    id: str
    kind: Kind | Literal["unknown"] = Field(description="`unknown` only for a request that was refused.")
    status: Status
    requested_model: str
    model: str = Field(description="The model that answered, is being tried, or is tried next.")
    fallbacks: list[str]
    task_id: str | None
    degraded: bool = Field(description="Another model than the requested one answered.")
    attempts: list[AttemptView]
    result: ResultView | None
    failure: FailureView | None = Field(description="Why it failed, or why it waits.")
    created_at: str = Field(description=TIME)
    updated_at: str = Field(description=TIME)
    completed_at: Time = Field(description="Of a job that has ended, well or not.")
    deadline_at: Time
    next_action_at: Time = Field(description="Of a job that waits: until when.")
    metadata: dict[str, Any] | None


class TimelineEntry(Described):
    """Something that happened to a job. The other members depend on what it was."""

    at: str = Field(description=TIME)
    event: str = Field(description="E.g. `job.created`, `task.accepted`, `job.failed_over`.")


class JobDetail(JobView):
    """A job as it stands, and what happened to it: the newest 200 entries, oldest first."""

    timeline: list[TimelineEntry]


class FieldError(Described):
    """One thing wrong with a request."""

    field: str = Field(description="Dotted where it is nested, or the name of a header.")
    message: str


class Problem(Described):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str = Field(description="What to do about it.")
    code: str = Field(description="Which problem it is. Stable: made for programs.")
    errors: list[FieldError] | None = Field(None, description="Everything that is wrong, for `invalid_request`.")


class State(Described):
    """How the process is."""

    status: Literal["ok", "ready"]
