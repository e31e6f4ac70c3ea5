"""The fault mixes, as tables, and the draw that turns a row into the fate of one submission.

A draw depends on (seed, subject, model, ordinal) alone, never on time or on other jobs, so that the same work meets the
same faults whatever the interleaving. `default` holds nothing that ends a job which retries and fails over sensibly;
`hostile` holds everything that was seen in the wild (see docs/gateway.md), the terminal included. Two of its rows last:
a model's quota that is used up and a balance that is, for all jobs until they come back by themselves.
"""

import math
import random
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from worker.sandbox.catalog import Model
from worker.sandbox.errors import message_of
from worker.sandbox.fate import ACCEPT, SUCCESS, Fate, Outcome, Step

T = TypeVar("T")
MixName = Literal["none", "default", "hostile"]


@dataclass(frozen=True, slots=True)
class Mix:
    """Rows of (probability, what); the rest of the probability is the undisturbed way.

    From its `faulty_submissions`-th submission on a tagged job is disturbed no more: every job ends. Slow answers, like
    durations and whatever else lasts, are given in seconds of real life.
    """

    submit: tuple[tuple[float, Step], ...] = ()
    lookups: tuple[tuple[float, tuple[Step, ...]], ...] = ()
    outcomes: tuple[tuple[float, Outcome], ...] = ()
    slow_answers: float = 0.0
    slowest_s: float = 20.0
    faulty_submissions: int = 0


def _refuse(status: int, code: str, retry_after_s: float | None = None) -> Step:
    return Step("refuse", status, code, message_of(code), retry_after_s)


def _shut(what: Literal["model", "account"], lasts_s: float, step: Step) -> Step:
    return replace(step, shuts=what, lasts_s=lasts_s)


def _despite(status: int, code: str, message: str) -> Step:
    return Step("error_with_task", status, code, message)


_MISSING = Step("missing_404")
_NULL = Step("record_null")
_GATEWAY_HTML = Step("html", 502)
_UNREADY = Step("html", 503, retry_after_s=1.0)
_LIMITED = _refuse(429, "rate_limit_exceeded", 1.0)
_BUSY = Outcome("fail", "500", "Internal Error, Please try again later.")
_UPSTREAM = Outcome("fail", "501", "Failed to generate. Please try another model or try again in a few minutes.")
_OVERLOADED = Outcome("fail", "531", "The service is overloaded, credits refunded. Please try again later.")

MIXES: dict[MixName, Mix] = {
    "none": Mix(),
    "default": Mix(
        submit=(
            (0.03, _refuse(500, "internal_error")),
            (0.03, _LIMITED),
            (0.01, _UNREADY),
        ),
        lookups=(
            (0.05, (_MISSING,)),
            (0.04, (_NULL,)),
            (0.02, (Step("normal"), Step("refuse", 500, "internal_error", message_of("internal_error")))),
            (0.01, (Step("normal"), _LIMITED)),
        ),
        outcomes=((0.02, _BUSY), (0.02, _UPSTREAM), (0.01, _OVERLOADED)),
        slow_answers=0.01,
        faulty_submissions=2,
    ),
    "hostile": Mix(
        submit=(
            (0.03, _refuse(500, "internal_error")),
            (0.05, _LIMITED),
            (0.02, _UNREADY),
            (0.03, _GATEWAY_HTML),
            (0.03, Step("accept_then_close")),
            (0.01, Step("accept_then_reset")),
            (0.01, Step("accept_then_hang")),
            (0.02, Step("accept_garbage")),
            (0.01, Step("accept_half_body")),
            (0.01, Step("accept_slow_body")),
            (0.02, Step("close_before")),
            (0.01, Step("reset_before")),
            (0.06, Step("accept_camel")),
            (0.04, Step("accept_bare")),
            (0.01, Step("big")),
            (0.02, Step("inside_200", 200, 429, "You are being rate limited, slow down")),
            (0.01, Step("inside_200", 200, 455, "The service is under maintenance")),
            (0.01, _refuse(429, "daily_request_limit_exceeded", 2.0)),
            (0.005, _refuse(429, "free_model_rate_limit", 2.0)),
            (0.01, _shut("model", 30.0, _refuse(429, "daily_request_limit_exceeded"))),
            (0.003, _refuse(402, "insufficient_balance")),
            (0.001, _shut("account", 5.0, _refuse(402, "insufficient_balance"))),
            (0.01, _despite(500, "internal_error", message_of("internal_error"))),
            (0.005, _despite(422, "model_not_supported", message_of("model_not_supported"))),
        ),
        lookups=(
            (0.06, (_MISSING, _MISSING)),
            (0.06, (_NULL, _NULL)),
            (0.05, (Step("word", message="moderating_output"), Step("word", message="PENDING_REVIEW"))),
            (0.04, (_GATEWAY_HTML, Step("empty"))),
            (0.04, (Step("truncated"),)),
            (0.03, (Step("close"), Step("reset"))),
            (0.01, (Step("hang"),)),
            (0.02, (Step("half_body"), Step("slow_body"))),
            (0.02, (Step("big"),)),
            (0.03, (_LIMITED, _LIMITED)),
            (0.02, (Step("refuse", 401, "invalid_api_key", message_of("invalid_api_key")),)),
        ),
        outcomes=(
            (0.03, _BUSY),
            (0.03, _UPSTREAM),
            (0.01, _OVERLOADED),
            (0.02, Outcome("fail", "402", "Credits insufficient")),
            (0.01, Outcome("fail", "455", "The service is under maintenance")),
            (0.01, Outcome("fail", "500", "Internal server error in moderation service")),
            (0.01, Outcome("fail", "1501", "Content review failed. Please adjust the input and try again")),
            (0.03, Outcome("false_fail", "524", "generate task timeout", flip_after_s=60.0)),
            (0.01, Outcome("false_fail", "500", "Internal Error, Please try again later.", flip_after_s=90.0)),
            (0.02, Outcome("done_without_url")),
            (0.01, Outcome("vanish")),
        ),
        slow_answers=0.04,
        slowest_s=50.0,
        faulty_submissions=3,
    ),
}


def draw(mix: Mix, seed: str, model: Model, ordinal: int, speed: float) -> Fate:
    """Draw the fate of one submission; `seed` already holds seed, subject, model and ordinal.

    `ordinal` counts the job's submissions from 0, or is negative for a job that cannot be told from others.
    """
    rng = random.Random(seed)  # noqa: S311 - faults are to repeat, not to be secret
    duration_s = model.draw_duration_s(rng) / speed
    if mix.faulty_submissions <= max(ordinal, 0):
        return Fate(ACCEPT, SUCCESS, (), duration_s)
    step = _pick(mix.submit, rng.random(), ACCEPT)
    lookups = _pick(mix.lookups, rng.random(), ())
    outcome = _pick(mix.outcomes, rng.random(), SUCCESS)
    if outcome.flip_after_s:
        outcome = replace(outcome, flip_after_s=outcome.flip_after_s / speed)
    slow, how_slow = rng.random(), rng.random()
    if step.lasts_s:
        step = _lasting(step, step.lasts_s / speed)
    if slow < mix.slow_answers:
        step = replace(step, delay_s=mix.slowest_s / speed * (0.25 + 0.75 * how_slow))
    return Fate(step, outcome, lookups, duration_s)


def _lasting(step: Step, lasts_s: float) -> Step:
    """Put a lasting refusal into real seconds; of a quota the gateway says in how many whole ones it is back."""
    retry_after_s = float(max(1, math.ceil(lasts_s))) if step.shuts == "model" else None
    return replace(step, lasts_s=lasts_s, retry_after_s=retry_after_s)


def _pick(rows: tuple[tuple[float, T], ...], point: float, otherwise: T) -> T:
    for probability, what in rows:
        point -= probability
        if point < 0:
            return what
    return otherwise
