"""The account behind the key: who may ask, how often, for which models; and the settings a test may change.

`Settings` is what `POST /sandbox/control` writes. `refusal` is the order in which the vendor is assumed to check.
"""

import math
import re
from dataclasses import dataclass, field
from typing import Literal

from worker.sandbox.catalog import MODELS, Model, improvise
from worker.sandbox.faults import MixName

OutageName = Literal["503", "refuse", "hang"]
Refusal = tuple[str, float | None]

_BEARER = re.compile(rb"[Bb]earer sk-ony-[0-9a-fA-F]{48}")


@dataclass(slots=True)
class Quota:
    """So many accepted tasks of one model, then refusals with `code` until `lifted_at_ms`, when the quota is gone."""

    code: str
    limit: int
    retry_after_s: float | None
    lifted_at_ms: float
    used: int = 0


@dataclass(slots=True)
class Settings:
    """Everything about the gateway that can change while it runs."""

    faults: MixName = "none"
    seed: int = 1
    speed: float = 10.0
    requests_per_minute: int | None = None
    minute_s: float = 60.0
    limit_lookups: bool = False
    blocked_models: frozenset[str] = frozenset()
    unsupported_models: frozenset[str] = frozenset()
    extra_models: frozenset[str] = frozenset()
    quotas: dict[str, Quota] = field(default_factory=dict)
    outage: OutageName | None = None
    outage_s: float = 5.0
    deduplicate: bool = False


def is_key(authorization: bytes) -> bool:
    """Tell whether an Authorization header carries a key of the vendor's form."""
    return _BEARER.fullmatch(authorization) is not None


@dataclass(slots=True)
class Account:
    """Counts requests and tasks against the settings' limits.

    `shut` holds what a fault mix has shut for a while, each with the refusal it is met with and until when: a model by
    its id, the whole account by the empty name.
    """

    settings: Settings
    shut: dict[str, tuple[str, float]] = field(default_factory=dict)
    window_ends_at_ms: float = 0.0
    in_window: int = 0

    def over_rate(self, now_ms: int) -> Refusal | None:
        """Count one request; refuse it where this minute's are used up."""
        limit = self.settings.requests_per_minute
        if limit is None:
            return None
        if now_ms >= self.window_ends_at_ms:
            self.window_ends_at_ms = now_ms + self.settings.minute_s * 1000
            self.in_window = 0
        if self.in_window >= limit:
            return "rate_limit_exceeded", float(max(1, math.ceil((self.window_ends_at_ms - now_ms) / 1000)))
        self.in_window += 1
        return None

    def find(self, name: str) -> Model | None:
        """Find an active model."""
        model = MODELS.get(name)
        if model is None and name in self.settings.extra_models:
            return improvise(name)
        return model if model is None or model.active else None

    def refusal(self, model: Model, balance_micros: int | None, now_ms: int) -> Refusal | None:
        """Say why this account may not have a task of `model` now, as (code, Retry-After in seconds or None)."""
        if not model.supported or model.id in self.settings.unsupported_models:
            return "model_not_supported", None
        if model.id in self.settings.blocked_models:
            return "model_blocked", None
        if balance_micros is not None and balance_micros < max(model.price_micros, 1):
            return "insufficient_balance", None
        quota = self.settings.quotas.get(model.id)
        if quota is None:
            return None
        if now_ms >= quota.lifted_at_ms:
            del self.settings.quotas[model.id]
            return None
        return (quota.code, quota.retry_after_s) if quota.used >= quota.limit else None

    def shut_for(self, name: str, code: str, until_ms: float) -> None:
        """Have submissions refused until a time: those of a model, or all of them where the name is empty."""
        self.shut[name] = code, max(until_ms, self.shut.get(name, ("", 0.0))[1])

    def shut_out(self, model: Model, now_ms: int) -> Refusal | None:
        """Say what a fault mix has shut `model` with, if it has; a quota says in how many whole seconds it is back."""
        for name in ("", model.id):
            code, until_ms = self.shut.get(name, ("", 0.0))
            if now_ms < until_ms:
                return code, float(max(1, math.ceil((until_ms - now_ms) / 1000))) if name else None
        return None

    def use(self, model: Model) -> None:
        """Count one accepted task against the model's quota."""
        quota = self.settings.quotas.get(model.id)
        if quota is not None:
            quota.used += 1
