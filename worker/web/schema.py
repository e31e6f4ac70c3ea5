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
    text: str | None = Field(None, description="Only there for models whose output is text.")
    expires_at: Time = Field(None, description="Only there for `succeeded`: as a result's.")


class PartialView(Described):
    """What a task showed of its result before its end."""

    urls: list[str]
    at: str = Field(description=TIME)


class CostView(Described):
    """What an attempt cost. An amount never travels without its currency."""

    amount: float
    currency: str = Field(description="E.g. `USD`, or `credits`.")
    refunded: bool | None = Field(None, description="Only there where a failed generation's was given back.")


class LastRefusalView(Described):
    """What the last look-up met that was not answered plainly. It ends no task at once."""

    at: str = Field(description=TIME)
    code: str
    rule: str
    http_status: int | None = Field(None, description="The gateway's, where it answered.")
    gateway_code: str | None = Field(None, description="The gateway's own code, where it gave one.")
    message: str = Field(description="Its first 200 characters.")


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
    cost: CostView | None = Field(description="As the gateway gave it, where it did.")
    last_refusal: LastRefusalView | None = Field(
        None,
        description="Only there while the task is looked at, once a look-up met something else than a good answer.",
    )
    partial_result: PartialView | None = Field(
        None, description="Only there where the task, one of `music`, showed its first track before its end."
    )
    late_result: LateResultView | None = Field(None, description="Only there for a task that ended late.")


class ResultView(Described):
    """What was made."""

    urls: list[str]
    expires_at: Time = Field(
        description="When the URLs are expected to stop working: as the gateway says, else in 24 h from the end."
    )
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
    partial: PartialView | None = Field(description="The `partial_result` of the attempt under way, if it has one.")
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
    hindrances: list[str] = Field(description="What holds it up now, in words: a pause, a hold, a limit, no worker.")


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


class BatchResult(Described):
    """What became of one request of a batch: `job` for `202` and `200`, `problem` for the others."""

    status: Literal[202, 200, 409, 413, 422, 500, 503] = Field(description="The status it would have had alone.")
    job: JobView | None = Field(None, description="Only there where the request was taken.")
    problem: Problem | None = Field(None, description="Only there where it was not; for `503` with the job's `id`.")


class BatchAnswer(Described):
    """What became of each request of a batch."""

    results: list[BatchResult] = Field(description="As many as there were requests, in their order.")


class TaskTakenData(Described):
    """A task as the gateway gives it out."""

    task_id: str = Field(description="The job's id.")
    status: Literal["processing"]


class TaskTaken(Described):
    """The gateway's answer to a submission."""

    success: Literal[True]
    data: TaskTakenData


class TaskResult(Described):
    """What was made."""

    urls: list[str]
    text: str | None = Field(None, description="Only there for models whose output is text.")


class GatewayFault(Described):
    """What went wrong, in the gateway's words."""

    code: str = Field(description="Made for programs.")
    message: str


class TaskData(Described):
    """A task as the gateway shows it."""

    task_id: str = Field(description="The job's id.")
    status: Literal["processing", "completed", "failed"] = Field(description="`failed` for a canceled job as well.")
    result: TaskResult | None = Field(description="Of a completed task, else null.")
    error: GatewayFault | None = Field(description="Of a failed task, else null; `code` is the job's failure code.")


class TaskShown(Described):
    """The gateway's answer to a look-up."""

    success: Literal[True]
    data: TaskData


class GatewayError(Described):
    """An error in the gateway's envelope."""

    success: Literal[False]
    error: GatewayFault


class JobPage(Described):
    """A page of jobs."""

    jobs: list[JobView]
    next_cursor: str | None = Field(description="Ask with it for the next page; null on the last one.")


class DeliveryAttempt(Described):
    """One attempt to deliver a webhook."""

    at: str = Field(description=TIME)
    duration_ms: int
    status: int | None = Field(description="The HTTP status of the answer, null where there was none.")
    answer: str = Field(description="The answer's first 4 KiB, or why there was none.")
    next_at: Time = Field(description="When it is attempted again, where it is.")


class DeliveryView(Described):
    """A webhook on its way to one URL."""

    id: str
    event_id: str = Field(description="The `webhook-id`: the same at every attempt and replay.")
    type: str
    job_id: str
    url: str
    state: Literal["pending", "delivered", "dead"] = Field(description="`dead`: given up, until it is replayed.")
    created_at: str = Field(description=TIME)
    next_attempt_at: Time = Field(description="Of a pending one that has been attempted.")
    attempts: list[DeliveryAttempt]


class Deliveries(Described):
    """The webhooks of a job."""

    deliveries: list[DeliveryView]


class EventView(Described):
    """Something that happened to a job, as webhooks tell it."""

    id: str = Field(description="The `webhook-id`.")
    sequence: int = Field(description="Grows from event to event.")
    type: str
    timestamp: str = Field(description=TIME)
    data: JobView = Field(description="The job as it stood then.")


class EventPage(Described):
    """Events in order."""

    events: list[EventView]
    next_cursor: str = Field(description="Where to go on, now or later; never null.")
