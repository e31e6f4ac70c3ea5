"""Owns how far each of the demo's jobs is, as its public views tell, and how that reads in a few words. No I/O."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from worker.demo.jobs import COMPLETED, DemoJob

ENDED = frozenset({"completed", "failed", "canceled"})
MODEL_CHARS = 21
LONG_VENDOR = "elevenlabs/"


@dataclass(slots=True)
class Progress:
    """One job on its way. Times are seconds since the demo began; ``waits`` holds each (action, code) it waited for."""

    job: DemoJob
    view: dict[str, Any] = field(default_factory=dict)
    entered_s: float | None = None
    ended_s: float | None = None
    waits: dict[tuple[str, str], None] = field(default_factory=dict)

    @property
    def status(self) -> str:
        """The job's status, or what stands in for it before there is a record."""
        return self.view.get("status") or ("sent" if self.entered_s is not None else "")

    @property
    def ended(self) -> bool:
        """Whether the job has ended."""
        return self.status in ENDED

    @property
    def attempts(self) -> list[dict[str, Any]]:
        """The attempts so far."""
        return self.view.get("attempts") or []

    @property
    def as_expected(self) -> bool:
        """Whether the job ended the way the table says."""
        return self.ended and self.end == self.job.ends

    @property
    def end(self) -> str:
        """How the job ended: ``completed``, or its failure's code."""
        return COMPLETED if self.status == COMPLETED else (self.view.get("failure") or {}).get("code") or self.status

    @property
    def model(self) -> str:
        """The model's name, cut to what a column holds."""
        name: str = self.view.get("model") or self.job.model or ""
        return name.removeprefix(LONG_VENDOR) if len(name) > MODEL_CHARS else name

    def take(self, view: dict[str, Any], now_s: float) -> bool:
        """Note a newer view; say whether anything changed that is worth a line."""
        before, self.view = self._gist(), view
        if view["status"] == "waiting" and view["failure"]:
            self.waits[view["failure"]["action"], view["failure"]["code"]] = None
        if self.ended and self.ended_s is None:
            self.ended_s = now_s
        return self._gist() != before

    def elapsed_s(self, now_s: float) -> float | None:
        """Say how long it has been under way, or was."""
        return None if self.entered_s is None else (self.ended_s or now_s) - self.entered_s

    def step(self) -> str:
        """Say in a few words what comes next, or how it went."""
        match self.status:
            case "":
                return ""
            case "sent":
                return "on its way in"
            case "queued":
                return "waits its turn"
            case "submitting":
                return "goes out to the gateway"
            case "processing":
                return self._looking()
            case "waiting":
                return self._waiting()
            case "completed":
                return self._story()
            case _:
                return f"as expected: {self.end}" if self.as_expected else f"UNEXPECTED: {self.end}"

    def _gist(self) -> tuple[Any, ...]:
        failure = self.view.get("failure") or {}
        return self.status, self.model, len(self.attempts), failure.get("action") if self.status == "waiting" else None

    def _looking(self) -> str:
        polls = self.attempts[-1]["polls"] if self.attempts else 0
        return f"generating, {polls} look{'s' * (polls > 1)}" if polls else "generating"

    def _waiting(self) -> str:
        failure = self.view["failure"] or {}
        code, at = failure.get("code"), self.view["next_action_at"]
        wait_s = max(0.0, (datetime.fromisoformat(at) - datetime.now(UTC)).total_seconds()) if at else 0.0
        match failure.get("action"):
            case "park":
                return f"parked {wait_s:.1f} s: quota used up"
            case "fail_over":
                return f"over to this model: {code}"
            case _:
                return f"again in {wait_s:.1f} s: {code}"

    def _story(self) -> str:
        if not self.as_expected:
            return f"UNEXPECTED: must be {self.job.ends}"
        if text := self.view["result"].get("text"):
            return f'"{text}"'
        if self.view["degraded"]:
            why = self._why() or "quota used up"  # a limit costs no attempt, so none tells of it
            return f"from {self.view['requested_model'].rpartition('/')[2]}: {why}"
        if any(attempt["outcome"] == "unknown" for attempt in self.attempts):
            return "answer lost, sent once more"
        if any(action == "park" for action, _ in self.waits):
            return "after its quota had reset"
        if why := self._why():
            return f"again after {why}"
        files = len(self.view["result"]["urls"])
        return f"{files} file" if files == 1 else f"{files} files"

    def _why(self) -> str:
        failed = Counter(attempt["failure"]["code"] for attempt in self.attempts if attempt["failure"])
        codes = failed or Counter(code for _, code in self.waits)
        return ", ".join(code if times == 1 else f"{times}x {code}" for code, times in codes.items())
