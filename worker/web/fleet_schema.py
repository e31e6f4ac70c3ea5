"""Owns how the API's answers about the fleet, its models and its money are described in OpenAPI."""

from typing import Literal

from pydantic import Field

from worker.web.schema import TIME, Described, Time


class QueueView(Described):
    """How deep a queue is."""

    name: str = Field(description="`arq`, `submit:KIND`, `track` or `deliver`.")
    kind: str | None
    depth: int
    due: int = Field(description="Entries that are due and not taken yet.")
    oldest_s: float = Field(description="How long the oldest of them has been due.")
    paused_since: Time


class HoldView(Described):
    """Why no submissions go out."""

    reason: str = Field(description="The failure code.")
    since: Time
    next_probe_at: Time


class CooldownView(Described):
    """A model at its limit."""

    model: str
    until: str = Field(description=TIME)


class WorkerView(Described):
    """A worker process."""

    id: str
    host: str
    pid: int
    started_at: str = Field(description=TIME)
    seen_at: str = Field(description=TIME)
    alive: bool
    in_flight: int
    concurrency: int


class PaidUnusedView(Described):
    """Attempts that are, or may be, paid for and came to nothing, since the first job."""

    total: int
    reasons: dict[str, int] = Field(description="`late_success`, `never_ended`, `maybe_paid`.")
    models: dict[str, int] = Field(description="By model; one that is not in the models file counts as `other`.")
    cost: dict[str, float] = Field(description="By currency; of those whose cost the gateway told.")


class UnknownSubmitsView(Described):
    """Submissions of unknown acceptance, since the first job."""

    total: int = Field(description="The sum of the next four.")
    resent: int
    failed: int
    canceled: int
    completed: int = Field(description="By the late result of another attempt.")
    accepted: int = Field(description="Of them all: those whose task id turned up afterwards.")
    refused: int = Field(description="Of them all: those whose refusal came afterwards.")


class MoneyView(Described):
    """What was, or may have been, paid for nothing."""

    paid_unused: PaidUnusedView
    unknown_submits: UnknownSubmitsView


class FailingDestinationView(Described):
    """A destination of webhooks that fails time after time: one delivery tries it now and then, the others wait."""

    destination: str = Field(description="Scheme, host, port and path.")
    failing_since: Time
    failures: int = Field(description="In a row.")
    waiting: int = Field(description="Deliveries.")
    next_try_at: Time


class LearnedLimitView(Described):
    """How many submissions the gateway takes, as its refusals have taught."""

    requests: int
    per_s: int = Field(description="In so many seconds.")


class RedisMemoryView(Described):
    """How full Redis is."""

    used_bytes: int
    max_bytes: int | None = Field(description="Its `maxmemory`; null where it has none, or does not tell.")
    takes_jobs: bool = Field(description="False above the mark: new jobs are refused.")
    begins_submissions: bool = Field(description="False at `maxmemory`: no submission begins until there is room.")


class FleetView(Described):
    """How the fleet stands."""

    at: str = Field(description=TIME)
    queues: list[QueueView]
    jobs: dict[str, dict[str, int]] = Field(description="Kind, then status, then how many.")
    hold: HoldView | None
    rate_limited_until: Time
    learned_limit: LearnedLimitView | None
    cooldowns: list[CooldownView]
    workers: list[WorkerView]
    webhooks: dict[str, int] = Field(description="Deliveries by state.")
    failing_destinations: list[FailingDestinationView]
    quarantined: int = Field(
        description="Jobs whose record is damaged: they are left as they are, and on no other list."
    )
    redis_memory: RedisMemoryView
    money: MoneyView


class GenerationTimes(Described):
    """How long a model's generations have taken, in seconds."""

    count: int
    mean: float
    p50: float
    p95: float


class ModelView(Described):
    """A model of the models file, and how it has fared."""

    model: str
    kinds: list[str]
    chain: str | None
    position: int | None
    alternates: list[str]
    status: Literal["ok", "failing", "cooling", "unused"]
    cooldown_until: Time
    failures_in_a_row: int
    last_success_at: Time
    last_failure_at: Time
    attempts: dict[str, int] = Field(description="By outcome.")
    failures: dict[str, int] = Field(description="By code.")
    generation_s: GenerationTimes | None


class ModelsView(Described):
    """The models."""

    models: list[ModelView]


class PauseView(Described):
    """Whether a kind's submissions are stopped."""

    kind: str
    paused: bool
    changed: bool = Field(description="False where it stood so already.")
