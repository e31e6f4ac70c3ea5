"""What is to happen to a submission, a look-up and a task: the words both directives and fault mixes are put in.

Only vocabulary lives here. `directives.py` and `faults.py` write it, `gateway.py` reads it.
"""

from dataclasses import dataclass
from typing import Literal

SUBMIT_NAMES = frozenset(
    {
        "accept",
        "accept_camel",
        "accept_bare",
        "accept_garbage",
        "accept_then_close",
        "accept_then_reset",
        "accept_then_hang",
        "accept_half_body",
        "accept_slow_body",
        "big",
        "error_with_task",
        "close_before",
        "reset_before",
        "hang_before",
        "html",
    }
)
"""Submit steps that are named by one word."""

LOOKUP_NAMES = frozenset(
    {
        "normal",
        "html",
        "empty",
        "truncated",
        "half_body",
        "slow_body",
        "big",
        "missing_404",
        "record_null",
        "close",
        "reset",
        "hang",
    }
)
"""Look-up steps that are named by one word."""

NOT_ACCEPTING = frozenset({"close_before", "reset_before", "hang_before", "html", "refuse", "inside_200"})
"""Submit steps that leave no task behind; `raw` says so itself."""


@dataclass(frozen=True, slots=True)
class Step:
    """One answer to one request; which fields matter depends on `name`.

    Beside the named words there are `refuse` (enveloped), `inside_200`, `raw`, and for look-ups `word` and `body`.
    A refusal of a submission that `lasts_s` is no single one: for so long it holds for all that the `shuts` names.
    """

    name: str
    status: int = 0
    code: str | int = ""
    message: str = ""
    retry_after_s: float | None = None
    raw: str = ""
    content_type: str = "application/json"
    accepted: bool = False
    delay_s: float = 0.0
    shuts: Literal["", "model", "account"] = ""
    lasts_s: float = 0.0

    @property
    def accepts(self) -> bool:
        """Tell whether a task exists after this submit step."""
        return self.accepted if self.name == "raw" else self.name not in NOT_ACCEPTING


ACCEPT = Step("accept")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a task ends; `flip_after_s` is after how long a false failure turns into success, `raw` a verbatim body."""

    kind: Literal["success", "done_without_url", "fail", "body", "never", "false_fail", "vanish"] = "success"
    code: str = ""
    message: str = ""
    raw: str = ""
    failed: bool = False
    flip_after_s: float = 0.0

    @property
    def refunds(self) -> bool:
        """Tell whether the vendor gives the money back at the end."""
        return self.kind == "fail" or (self.kind == "body" and self.failed)


SUCCESS = Outcome()


@dataclass(frozen=True, slots=True)
class Fate:
    """Everything decided about one submission before it is answered; `duration_s` is in real seconds."""

    step: Step
    outcome: Outcome
    lookups: tuple[Step, ...]
    duration_s: float
