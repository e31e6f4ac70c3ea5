"""Owns what a failure means: at which stage, whose problem it is, whether money was spent, what nominally follows.

Rows in order of precedence, the first that matches is the verdict: a documented name outweighs the status it came with,
a meaning outweighs a provider's number. Must not decide when or how often (``jobs.decide``). ``Rule.source``: doc (the
vendor's "Error Codes"), kie (the provider's pages), seen (public code and logs, the corpus), assumed, ours.
"""

import math
import re
from collections.abc import Collection
from dataclasses import dataclass, replace

from jobs import meanings as m
from jobs import refusals as r
from jobs import wording as w
from jobs.lexicon import Meaning, meanings_of
from jobs.verdict import (
    NOT_SENT,
    Acceptance,
    Action,
    Category,
    Code,
    Failure,
    Patience,
    Reset,
    Scope,
    Signal,
    Stage,
    Transport,
)

# ---- assumptions, all of them: nobody publishes these ----
MISSING_PATIENCE = Patience(5, 120.0)  # a look-up that does not know the task (trap 1)
BARE_MISSING_PATIENCE = Patience(20, 1800.0)  # the same from something that is not the gateway: mostly an outage
TIMEOUT_PATIENCE = Patience(2, 90.0)  # a task "timed out" that has come back a minute later (trap 2)
UNNAMED_QUOTA_RESET = Reset.DAY  # a quota whose period is not said

# What each code means unless a row says otherwise: category, action, scope, and our words where the gateway gave none.
_T, _R = Category.TERMINAL, Category.RETRYABLE
NOMINAL: dict[Code, tuple[Category, Action, Scope, str]] = {
    Code.RATE_LIMITED: (_R, Action.RETRY, Scope.ACCOUNT, "too many requests a minute"),
    Code.MODEL_QUOTA_EXCEEDED: (_R, Action.FAIL_OVER, Scope.MODEL, "the model's quota is used up"),
    Code.SERVER_ERROR: (_R, Action.RETRY, Scope.GATEWAY, "the gateway reported an error of its own"),
    Code.GATEWAY_UNAVAILABLE: (_R, Action.RETRY, Scope.GATEWAY, "the gateway could not be reached or is not ready"),
    Code.SUBMIT_UNKNOWN: (_R, Action.RETRY, Scope.GATEWAY, "it is unknown whether the submission was accepted"),
    Code.GENERATION_FAILED: (_R, Action.RETRY, Scope.MODEL, "the generation failed"),
    Code.GENERATION_TIMEOUT: (_R, Action.RETRY, Scope.MODEL, "the generation took too long"),
    Code.INVALID_REQUEST: (_T, Action.FAIL, Scope.REQUEST, "the request is not valid"),
    Code.UNAUTHORIZED: (_T, Action.FAIL, Scope.ACCOUNT, "the API key is invalid or deactivated"),
    Code.INSUFFICIENT_BALANCE: (_T, Action.FAIL, Scope.ACCOUNT, "the balance is used up"),
    Code.FORBIDDEN: (_T, Action.FAIL, Scope.ACCOUNT, "access is denied"),
    Code.MODEL_BLOCKED: (_T, Action.FAIL, Scope.MODEL, "the model is blocked for this project"),
    Code.MODEL_NOT_FOUND: (_T, Action.FAIL, Scope.MODEL, "no such model, not active, or wrong endpoint"),
    Code.PAYLOAD_TOO_LARGE: (_T, Action.FAIL, Scope.REQUEST, "the request is over 10 MB: send a public URL"),
    Code.MODEL_UNSUPPORTED: (_T, Action.FAIL, Scope.MODEL, "the model is not supported"),
    Code.INVALID_INPUT: (_T, Action.FAIL, Scope.REQUEST, "the model refuses this input"),
    Code.CONTENT_REJECTED: (_T, Action.FAIL_OVER, Scope.MODEL, "the model refuses this content"),
    Code.TASK_LOST: (_T, Action.FAIL, Scope.GATEWAY, "the gateway does not know the task"),
    Code.DEADLINE_EXCEEDED: (_T, Action.FAIL, Scope.REQUEST, "the job's deadline has passed"),
    Code.INTERNAL_ERROR: (_T, Action.FAIL, Scope.REQUEST, "this side could not go on with the job"),
    Code.CANCELED: (_T, Action.FAIL, Scope.REQUEST, "the job was canceled"),
}
RETRYABLE_CODES = frozenset(code for code, (category, *_) in NOMINAL.items() if category is Category.RETRYABLE)
TERMINAL_CODES = frozenset(Code) - RETRYABLE_CODES


@dataclass(frozen=True, slots=True)
class Rule:
    """One row: every condition stated holds, ``words`` found, ``unless`` not; the rest follows from ``NOMINAL``."""

    name: str
    code: Code
    source: str
    statuses: Collection[int] | None = None
    codes: Collection[str] | None = None
    words: Meaning | None = None
    unless: tuple[Meaning, ...] = ()
    transports: Collection[Transport] | None = None
    enveloped: bool | None = None
    stages: Collection[Stage] = ()
    category: Category | None = None
    action: Action | None = None
    acceptance: Acceptance = Acceptance.NO
    counts: bool = False
    patience: Patience | None = None
    resets: Reset | None = None

    def matches(self, seen: Signal) -> bool:
        """Say whether every condition of the row holds for a signal made ready by ``_read``."""
        return (
            seen.stage in self.stages
            and (self.statuses is None or seen.status in self.statuses)
            and (self.codes is None or seen.code in self.codes)
            and (self.transports is None or seen.transport in self.transports)
            and (self.enveloped is None or seen.enveloped is self.enveloped)
            and (self.words is None or self.words in meanings_of(seen.message or ""))
            and meanings_of(seen.message or "").isdisjoint(self.unless)
        )

    def verdict(self, signal: Signal) -> Failure:
        """Word the verdict on a signal that matches."""
        category, action, scope, ours = NOMINAL[self.code]
        category, action = self.category or category, self.action or action
        met = signal.transport or (signal.status and f"HTTP {signal.status}")
        message = w.shown(signal.message) or (f"{ours} ({met})" if met else ours)
        after_s = given if (given := signal.retry_after_s) is not None and 0 <= given < math.inf else None
        why = (self.acceptance, self.counts, self.name, self.source, signal.status, w.shown(signal.code), message)
        return Failure(self.code, category, action, scope, *why, after_s, self.patience, self.resets)


_C = Code
_QUOTA = Code.MODEL_QUOTA_EXCEEDED
_5XX = range(500, 600)
_PROXY = frozenset({502, 504, 530, *range(520, 528)})  # a proxy's or a CDN's own, whatever the body
_REFUSED_INPUT = frozenset({400, 406, 422})
_BROKEN = (m.BREAKDOWN, m.TIME_OUT)
_SHAKY = (*_BROKEN, m.PLUMBING)

_SHARED = (  # refusals that mean the same at a submission and at a look-up
    Rule("cdn_block", _C.GATEWAY_UNAVAILABLE, "seen", {403}, words=r.CDN_BLOCK),
    Rule("invalid_api_key", _C.UNAUTHORIZED, "doc", codes={"invalid_api_key"}),
    Rule("insufficient_balance", _C.INSUFFICIENT_BALANCE, "doc", codes={"insufficient_balance"}),
    Rule("model_blocked", _C.MODEL_BLOCKED, "doc", codes={"model_blocked"}),
    Rule("model_not_found", _C.MODEL_NOT_FOUND, "doc", codes={"model_not_found"}),
    Rule("payload_too_large", _C.PAYLOAD_TOO_LARGE, "doc", codes={"payload_too_large"}),
    Rule("minute_limit", _C.RATE_LIMITED, "doc", codes={"rate_limit_exceeded"}, resets=Reset.MINUTE),
    Rule("daily_token_limit", _QUOTA, "doc", codes={"daily_token_limit_exceeded"}, resets=Reset.DAY),
    Rule("daily_request_limit", _QUOTA, "doc", codes={"daily_request_limit_exceeded"}, resets=Reset.DAY),
    Rule("monthly_token_limit", _QUOTA, "doc", codes={"monthly_token_limit_exceeded"}, resets=Reset.MONTH),
    Rule("free_model_limit", _QUOTA, "doc", codes={"free_model_rate_limit"}, resets=Reset.ROLLING_DAY),
    # A 429 without a documented name: its words say which limit.
    Rule("429_minute", _C.RATE_LIMITED, "assumed", {429}, words=r.MINUTE, resets=Reset.MINUTE),
    Rule("429_free", _QUOTA, "assumed", {429}, words=r.ROLLING, resets=Reset.ROLLING_DAY),
    Rule("429_monthly", _QUOTA, "assumed", {429}, words=r.MONTHLY, resets=Reset.MONTH),
    Rule("429_daily", _QUOTA, "assumed", {429}, words=r.DAILY, resets=UNNAMED_QUOTA_RESET),
    Rule("429", _C.RATE_LIMITED, "doc", {429, 433}, resets=Reset.BURST),
    Rule("401", _C.UNAUTHORIZED, "doc", {401}),
    Rule("402", _C.INSUFFICIENT_BALANCE, "doc", {402}),
    # The gateway itself refuses in its envelope; a page of HTML is its CDN's, and says nothing of the account.
    Rule("403_bare", _C.GATEWAY_UNAVAILABLE, "seen", {403}, enveloped=False),
    Rule("403_model", _C.MODEL_BLOCKED, "assumed", {403}, words=r.MODEL, unless=(r.SUSPENDED,)),
    Rule("403", _C.FORBIDDEN, "doc", {403, 451}),
)

_SUBMIT = (
    Rule("not_sent", _C.GATEWAY_UNAVAILABLE, "seen", transports=NOT_SENT),
    # A proxy that lost its backend cannot know how far the request had come, whatever it writes into the body.
    Rule("proxy", _C.SUBMIT_UNKNOWN, "seen", _PROXY),
    Rule("cdn_5xx", _C.SUBMIT_UNKNOWN, "seen", set(_5XX) - {503}, words=r.CDN),
    *_SHARED,
    Rule("not_ready", _C.GATEWAY_UNAVAILABLE, "seen", {425, 455, 503}),  # so not accepted (trap 5)
    Rule("kie_feature_disabled", _C.MODEL_UNSUPPORTED, "kie", codes={"505"}),
    Rule("kie_content_review", _C.CONTENT_REJECTED, "kie", codes={"1501"}),
    Rule("5xx_bare", _C.SUBMIT_UNKNOWN, "seen", _5XX, enveloped=False),
    # A parameter in the words of a 500 (trap 3); "internal server error" before it is but the status's name.
    Rule("500_parameter", _C.INVALID_INPUT, "seen", {500}, words=m.PARAMETER_RULE, counts=True),
    Rule("500_content", _C.CONTENT_REJECTED, "assumed", {500}, words=m.REFUSAL, unless=_BROKEN, counts=True),
    Rule("500_policy", _C.CONTENT_REJECTED, "assumed", {500}, words=m.POLICY, unless=_SHAKY, counts=True),
    Rule("500_input", _C.INVALID_INPUT, "seen", {500}, words=m.INPUT, unless=_SHAKY, counts=True),
    Rule("5xx", _C.SERVER_ERROR, "doc", _5XX, counts=True),
    Rule("404", _C.MODEL_NOT_FOUND, "doc", {404}),
    Rule("413", _C.PAYLOAD_TOO_LARGE, "doc", {413}),
    # Bare, by RFC 9110: the request never came in whole. Enveloped: the application had it and gave up waiting.
    Rule("408_bare", _C.GATEWAY_UNAVAILABLE, "assumed", {408}, enveloped=False),
    # Every submission carries an Idempotency-Key: a conflict may be with our own first try, still under way.
    Rule("408_409", _C.SUBMIT_UNKNOWN, "assumed", {408, 409}),
    Rule("4xx_model_missing", _C.MODEL_NOT_FOUND, "seen", _REFUSED_INPUT, words=r.MODEL_MISSING),
    Rule("4xx_model_unsupported", _C.MODEL_UNSUPPORTED, "doc", _REFUSED_INPUT, words=r.MODEL_UNSUPPORTED),
    Rule("4xx_balance", _C.INSUFFICIENT_BALANCE, "assumed", _REFUSED_INPUT, words=r.BALANCE),
    Rule("4xx_parameter", _C.INVALID_INPUT, "seen", _REFUSED_INPUT, words=m.PARAMETER_RULE),
    Rule("4xx_refusal", _C.CONTENT_REJECTED, "seen", _REFUSED_INPUT, words=m.REFUSAL, unless=(*_BROKEN, r.ACCOUNT)),
    Rule("4xx_policy", _C.CONTENT_REJECTED, "seen", _REFUSED_INPUT, words=m.POLICY, unless=(*_SHAKY, r.ACCOUNT)),
    Rule("4xx_vague", _C.INVALID_REQUEST, "doc", {400, 406}, words=r.VAGUE_REQUEST),
    Rule("4xx_input", _C.INVALID_INPUT, "seen", _REFUSED_INPUT, words=m.INPUT, unless=_SHAKY),
    Rule(
        "4xx_names_input", _C.INVALID_INPUT, "assumed", _REFUSED_INPUT, words=r.NAMES_INPUT, unless=(*_SHAKY, r.MODEL)
    ),
    Rule("422", _C.MODEL_UNSUPPORTED, "doc", {422}),
    Rule("4xx", _C.INVALID_REQUEST, "doc", range(400, 500)),
    Rule("303", _C.SUBMIT_UNKNOWN, "assumed", {303}),  # by RFC 9110 it follows a POST that was carried out
    # Nothing took the request here: a wrong base URL. Not the job's fault, nothing spent: it waits for the operator.
    Rule("3xx", _C.GATEWAY_UNAVAILABLE, "assumed", range(300, 400)),
    # Accepted by its status, but no task id could be read: paid for, most likely.
    Rule("no_task_id", _C.SUBMIT_UNKNOWN, "seen", range(100, 300)),
    Rule("lost_after_sending", _C.SUBMIT_UNKNOWN, "seen", transports=frozenset(Transport) - NOT_SENT),
    Rule("unrecognised", _C.SUBMIT_UNKNOWN, "assumed"),
)

_MISSING = Rule("", _C.TASK_LOST, "seen", category=Category.RETRYABLE, patience=MISSING_PATIENCE)
_POLL = (  # a refused look-up ends no task: the code only says what it was
    Rule("unreachable", _C.GATEWAY_UNAVAILABLE, "seen", transports=frozenset(Transport)),
    replace(_MISSING, name="record_missing", statuses=range(200, 501), words=r.TASK_MISSING, enveloped=True),
    replace(_MISSING, name="404_410", statuses={404, 410}, enveloped=True),
    replace(_MISSING, name="404_410_bare", statuses={404, 410}, patience=BARE_MISSING_PATIENCE),
    *_SHARED,
    # The task id is all that a look-up says, so this refuses the id (trap 1); wordless, it is doubted for longer.
    replace(_MISSING, name="422", statuses={422}, patience=None),  # most likely that; it says too little to be believed
    Rule("5xx_bare", _C.GATEWAY_UNAVAILABLE, "seen", _5XX, enveloped=False),
    Rule("not_ready", _C.GATEWAY_UNAVAILABLE, "seen", {408, 425, 455, 503, *_PROXY}),
    Rule("5xx", _C.SERVER_ERROR, "doc", _5XX),
    Rule("4xx", _C.INVALID_REQUEST, "assumed", range(400, 500)),
    Rule("unreadable", _C.GATEWAY_UNAVAILABLE, "assumed"),
)

UNRECOGNISED = "result_unrecognised"
_LATE = Rule("", _C.GENERATION_TIMEOUT, "seen", patience=TIMEOUT_PATIENCE)
_RESULT = (  # a number in here is the provider's own (trap 8), so meaning comes first
    Rule("parameter", _C.INVALID_INPUT, "seen", words=m.PARAMETER_RULE),
    Rule("refusal", _C.CONTENT_REJECTED, "seen", words=m.REFUSAL, unless=_BROKEN),
    replace(_LATE, name="timeout_code", codes={"408", "504", "522", "524"}),
    replace(_LATE, name="timed_out", words=m.TIME_OUT),
    Rule("breakdown", _C.GENERATION_FAILED, "seen", words=m.BREAKDOWN),
    Rule("provider_account", _C.GENERATION_FAILED, "seen", words=m.PROVIDER_ACCOUNT),
    Rule("plumbing", _C.GENERATION_FAILED, "assumed", words=m.PLUMBING),
    Rule("policy", _C.CONTENT_REJECTED, "seen", words=m.POLICY),
    Rule("delivery", _C.GENERATION_FAILED, "assumed", words=m.DELIVERY),
    Rule("input", _C.INVALID_INPUT, "seen", words=m.INPUT),
    Rule("policy_code", _C.CONTENT_REJECTED, "kie", codes={"1501"}),
    Rule("failed", _C.GENERATION_FAILED, "doc", words=m.FAILED),
    Rule("failed_code", _C.GENERATION_FAILED, "kie", codes={"401", "402", "429", "433", "455", "500", "501", "531"}),
    Rule("unrecognised", _C.GENERATION_FAILED, "assumed"),
)


def _row(row: Rule, stage: Stage, action: Action | None = None) -> Rule:
    """Complete a row of a stage: an accepted task counts, and so does one that may be."""
    unsure = Acceptance.UNKNOWN if row.code is Code.SUBMIT_UNKNOWN else Acceptance.NO
    paid = unsure if stage is Stage.SUBMIT else Acceptance.YES
    name, counts = f"{stage}_{row.name}", row.counts or paid is not Acceptance.NO
    return replace(row, name=name, stages={stage}, action=action, acceptance=paid, counts=counts)


_OWN = {  # reached on this side
    code: Rule(f"own_{code}", code, "ours", acceptance=acceptance, counts=acceptance is not Acceptance.NO)
    for acceptance, codes in (
        (Acceptance.NO, (_C.DEADLINE_EXCEEDED, _C.INTERNAL_ERROR, _C.CANCELED, _C.INVALID_REQUEST)),
        (Acceptance.YES, (_C.GENERATION_TIMEOUT, _C.TASK_LOST)),
        (Acceptance.UNKNOWN, (_C.SUBMIT_UNKNOWN,)),
    )
    for code in codes
}
RULES: tuple[Rule, ...] = (
    *(_row(row, Stage.SUBMIT) for row in _SUBMIT),
    *(_row(row, Stage.POLL, Action.KEEP_POLLING) for row in _POLL),
    *(_row(row, Stage.RESULT) for row in _RESULT),
    *_OWN.values(),
)


def classify(signal: Signal) -> Failure:
    """Give the verdict on a signal: that of the first row that matches. Total: the last row of a stage matches all."""
    seen = _read(signal)
    return next(rule for rule in RULES if rule.matches(seen)).verdict(signal)


def own_failure(code: Code, message: str) -> Failure:
    """Word a verdict that this side reaches itself; raise ``KeyError`` for a code that only the gateway can give."""
    return _OWN[code].verdict(Signal(Stage.RESULT, message=message))


def believed(failure: Failure) -> Failure:
    """Give the verdict once a failure's patience is used up; one without patience stays as it is."""
    category, action, *_ = NOMINAL[failure.code]
    return replace(failure, category=category, action=action, patience=None) if failure.patience else failure


def explain_dict(failure: Failure) -> dict[str, str]:
    """Show a verdict as the command line's ``explain --json`` does."""
    return {key: str(getattr(failure, key)) for key in ("code", "category", "action", "rule", "source")}


def _read(signal: Signal) -> Signal:
    """Make a signal ready for matching: its code as a name, its words folded, and the status that counts.

    That is a number inside a 2xx (kie, seen), except in a generation failure, where a number is the provider's own.
    """
    code = (signal.code or "")[: w.SHOWN_CHARS].strip().casefold()
    status = signal.status
    inside = signal.stage is not Stage.RESULT and (status is None or 200 <= status < 300)
    if inside and re.fullmatch(r"[1-5][0-9]{2}", code):
        status = int(code)
    beside_500 = signal.stage is Stage.SUBMIT and status == 500
    words = w.fold(signal.message, signal.code, beside_500=beside_500)
    enveloped = signal.enveloped and not signal.transport
    return replace(signal, status=status, code=code, message=words, enveloped=enveloped)
