"""Owns what a check of the set-up reports."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from config.log import redact

ANSWER_S = 5.0  # what a check that goes over a network may take
SKEW_S = 5.0

Level = Literal["ok", "info", "warning", "problem"]  # info: worth knowing, nothing to mend


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found: how bad it is, in one sentence, and how to mend it."""

    name: str
    level: Level
    says: str
    mend: str = ""

    def view(self) -> dict[str, Any]:
        """Show it as plain JSON."""
        return {**asdict(self), "says": redact(self.says)}


def skew(name: str, skew_s: float, whose: str) -> Finding:
    """Judge how far this machine's clock is behind another (seconds)."""
    if abs(skew_s) <= SKEW_S:
        return Finding(name, "ok", f"this machine's clock agrees with {whose}")
    way = "behind" if skew_s > 0 else "ahead of"
    mend = "set the clock (NTP): quotas reset by it, and webhooks are refused when signed at a wrong time"
    return Finding(name, "warning", f"this machine's clock is {abs(skew_s):.0f} s {way} {whose}", mend)
