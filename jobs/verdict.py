"""Owns the words for failures: what is seen (``Signal``), and what it is judged to be (``Failure``).

Names of codes, categories and actions: the project's contract. Which signal gets which verdict is ``jobs.failures``.
"""

from dataclasses import dataclass
from enum import StrEnum


class Stage(StrEnum):
    """Where a failure is met: the answer to a submission, a refused look-up, a look-up that tells of a failed task."""

    SUBMIT = "submit"
    POLL = "poll"
    RESULT = "result"


class Category(StrEnum):
    """Whether trying again can help."""

    RETRYABLE = "retryable"
    TERMINAL = "terminal"


class Action(StrEnum):
    """What nominally follows; ``jobs.decide`` says what does."""

    RETRY = "retry"
    FAIL_OVER = "fail_over"
    PARK = "park"
    HOLD = "hold"
    KEEP_POLLING = "keep_polling"
    FAIL = "fail"


class Code(StrEnum):
    """The contract's failure codes, in its order; ``internal_error`` is added to it."""

    RATE_LIMITED = "rate_limited"
    MODEL_QUOTA_EXCEEDED = "model_quota_exceeded"
    SERVER_ERROR = "server_error"
    GATEWAY_UNAVAILABLE = "gateway_unavailable"
    SUBMIT_UNKNOWN = "submit_unknown"
    GENERATION_FAILED = "generation_failed"
    GENERATION_TIMEOUT = "generation_timeout"
    INVALID_REQUEST = "invalid_request"
    UNAUTHORIZED = "unauthorized"
    INSUFFICIENT_BALANCE = "insufficient_balance"
    FORBIDDEN = "forbidden"
    MODEL_BLOCKED = "model_blocked"
    MODEL_NOT_FOUND = "model_not_found"
    PAYLOAD_TOO_LARGE = "payload_too_large"
    MODEL_UNSUPPORTED = "model_unsupported"
    INVALID_INPUT = "invalid_input"
    CONTENT_REJECTED = "content_rejected"
    TASK_LOST = "task_lost"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    INTERNAL_ERROR = "internal_error"
    CANCELED = "canceled"


class Scope(StrEnum):
    """Whose problem a failure is."""

    REQUEST = "request"
    MODEL = "model"
    ACCOUNT = "account"
    GATEWAY = "gateway"


class Acceptance(StrEnum):
    """Whether the submission was accepted, and so paid for."""

    NO = "no"
    YES = "yes"
    UNKNOWN = "unknown"


class Transport(StrEnum):
    """How a request went wrong without a whole answer."""

    REFUSED = "refused"
    DNS = "dns"
    TLS = "tls"
    CONNECT_TIMEOUT = "connect_timeout"
    POOL_TIMEOUT = "pool_timeout"
    READ_TIMEOUT = "read_timeout"
    DISCONNECTED = "disconnected"
    RESET = "reset"
    GARBAGE = "garbage"
    HALF_BODY = "half_body"
    OTHER = "other"


NOT_SENT = frozenset(
    {Transport.REFUSED, Transport.DNS, Transport.TLS, Transport.CONNECT_TIMEOUT, Transport.POOL_TIMEOUT}
)


class Reset(StrEnum):
    """When a limit resets: in seconds, in a minute, at the daily hour, on the first of the month, after 24 hours."""

    BURST = "burst"
    MINUTE = "minute"
    DAY = "day"
    MONTH = "month"
    ROLLING_DAY = "rolling_day"


@dataclass(frozen=True, slots=True)
class Patience:
    """How often and how long a failure must be seen, with no other answer in between, before it is believed."""

    count: int
    duration_s: float


@dataclass(frozen=True, slots=True)
class Signal:
    """What was seen. ``enveloped``: the body was the gateway's envelope or recognisable provider JSON, and whole."""

    stage: Stage
    status: int | None = None
    code: str | None = None
    message: str | None = None
    transport: Transport | None = None
    enveloped: bool = True
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """The verdict. ``message`` is the gateway's own wherever it gave one."""

    code: Code
    category: Category
    action: Action
    scope: Scope
    acceptance: Acceptance
    counts_as_attempt: bool
    rule: str
    source: str
    http_status: int | None
    gateway_code: str | None
    message: str
    retry_after_s: float | None = None
    patience: Patience | None = None
    resets: Reset | None = None
