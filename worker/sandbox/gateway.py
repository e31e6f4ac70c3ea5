"""Decides the answer to a submission or a look-up, and books it. No I/O: headers and bytes in, an `Answer` out."""

import hashlib
import json
import random
import time
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from worker.sandbox.account import Account, Settings, is_key
from worker.sandbox.answers import NO_USER_AGENT, Answer, accepted, looked_up, page, refused, stage_of, stepped
from worker.sandbox.catalog import Model
from worker.sandbox.directives import Directive, DirectiveError, Script, parse
from worker.sandbox.fate import ACCEPT, SUCCESS, Fate, Outcome, Step
from worker.sandbox.faults import MIXES, draw
from worker.sandbox.ledger import Job, Ledger, Submission, Task

Headers = dict[bytes, bytes]

NORMAL = Step("normal")
TELLING = frozenset({"normal", "slow_body"})
_UNDIRECTED = Directive()


def now_ms() -> int:
    """Read the wall clock in milliseconds."""
    return time.time_ns() // 1_000_000


def tag_of_key(key: str) -> str:
    """Take a job's tag from an Idempotency-Key: what comes before its last `:` or `/`, the whole key without one."""
    cut = max(key.rfind(":"), key.rfind("/"))
    return key[:cut] if cut > 0 else key


class _RefusalError(Exception):
    """A submission is refused."""

    def __init__(self, code: str, retry_after_s: float | None = None, detail: str = "") -> None:
        super().__init__(code)
        self.code = code
        self.retry_after_s = retry_after_s
        self.detail = detail


@dataclass(slots=True)
class _Request:
    """What is known of a submission while it is judged."""

    alias: str
    key: str
    tag: str
    at_ms: int
    model: str = ""
    subject: str = ""
    how: str = "refuse"
    code: str = ""
    task_id: str = ""
    accepted: bool = False


@dataclass(slots=True)
class Gateway:
    """One gateway: its settings, its account, its books."""

    settings: Settings
    ledger: Ledger = field(default_factory=Ledger)
    account: Account = field(init=False)
    _ids: random.Random = field(default_factory=random.SystemRandom)

    def __post_init__(self) -> None:
        self.account = Account(self.settings)

    def reset(self, settings: Settings) -> None:
        """Forget every task and counter and start from `settings`."""
        self.settings = settings
        self.ledger = Ledger()
        self.account = Account(settings)

    def door(self, headers: Headers) -> Answer | None:
        """Refuse what never reaches the account: an outage, a missing User-Agent, a bad key."""
        if self.settings.outage is not None:
            return Answer(0, b"", then="hang") if self.settings.outage == "hang" else page(503)
        if not headers.get(b"user-agent"):
            return NO_USER_AGENT
        return None if is_key(headers.get(b"authorization", b"")) else refused("invalid_api_key")

    def submit(self, alias: str, headers: Headers, body: bytes | None) -> Answer:
        """Judge one POST and book it; `body` is None for one that was too large."""
        key = headers.get(b"idempotency-key", b"").decode("latin-1")
        request = _Request(alias, key, tag_of_key(key), now_ms())
        self.ledger.settle(request.at_ms)
        answer = self.door(headers) or self._judge(request, body)
        entry = Submission(
            request.at_ms,
            alias,
            request.model,
            key,
            request.tag,
            answer.answered,
            request.how,
            request.task_id,
            request.code,
            answer.retry_after_s,
        )
        self.ledger.book_submission(entry, accepted=request.accepted)
        return replace(answer, entry=entry)

    def _judge(self, request: _Request, body: bytes | None) -> Answer:
        """Check in the order the vendor is assumed to check, then carry out what is decided."""
        try:
            self._pace(request.at_ms)
            fields, directive = _read(body)
            request.tag = directive.tag or request.tag
            model = self._choose(request, fields)
            first = self.ledger.keys.get(request.key) if self.settings.deduplicate else None
            if not directive.directs:
                self._pass(model, request.at_ms)
        except _RefusalError as refusal:
            request.code = refusal.code
            return refused(refusal.code, refusal.retry_after_s, refusal.detail)
        if first is not None:
            request.task_id, request.how, request.accepted = first, "deduplicated", True
            return accepted(first, "accept")
        fate = self._fate(request, model, directive, body or b"")
        return self._carry_out(request, model, fate, directive, _echo(fields))

    def _pace(self, at_ms: int) -> None:
        limited = self.account.over_rate(at_ms)
        if limited is not None:
            raise _RefusalError(*limited)

    def _pass(self, model: Model, at_ms: int) -> None:
        shut = self.account.shut_out(model, at_ms)
        if shut is not None:
            raise _RefusalError(*shut)

    def _choose(self, request: _Request, fields: dict[str, Any]) -> Model:
        name = fields.get("model")
        if not isinstance(name, str) or not name:
            raise _RefusalError("invalid_request", detail="model")
        model = self.account.find(name)
        if model is None:
            raise _RefusalError("model_not_found")
        request.model = name
        refusal = self.account.refusal(model, self.ledger.balance_micros, request.at_ms)
        if refusal is not None:
            raise _RefusalError(*refusal)
        return model

    def _fate(self, request: _Request, model: Model, directive: Directive, body: bytes) -> Fate:
        subject = request.tag or hashlib.blake2b(body, digest_size=16).hexdigest()
        job = self.ledger.job(subject)
        request.subject = subject
        ordinal = job.submitted
        job.submitted += 1
        mix = MIXES["none" if directive.directs else self.settings.faults]
        seed = f"{self.settings.seed}|{subject}|{model.id}|{ordinal}"
        fate = draw(mix, seed, model, ordinal if request.tag else -1, self.settings.speed)
        if not directive.directs:
            return fate
        of_model = job.of(model.id)
        steps = directive.submit.steps(model.id)
        at = ordinal if directive.submit.per_model is None else of_model.submitted
        of_model.submitted += 1
        return Fate(
            step=steps[at] if at < len(steps) else ACCEPT,
            outcome=_outcome(directive.result, job, model.id),
            lookups=directive.lookups.steps(model.id),
            duration_s=fate.duration_s if directive.duration_s is None else directive.duration_s,
        )

    def _carry_out(self, request: _Request, model: Model, fate: Fate, directive: Directive, echo_url: str) -> Answer:
        step = fate.step
        request.how, request.code = step.name, str(step.code)
        if step.shuts:
            name = model.id if step.shuts == "model" else ""
            self.account.shut_for(name, str(step.code), request.at_ms + step.lasts_s * 1000)
        if not step.accepts:
            answer = stepped(step, "")
            return replace(answer or refused("internal_error"), delay_s=step.delay_s)
        number = self._ids.getrandbits(52)
        task = Task(
            id=str(number) if step.name == "accept_bare" else f"{request.alias}_{number:013x}",
            alias=request.alias,
            model=model,
            key=request.key,
            tag=request.tag,
            subject=request.subject,
            echo_url=echo_url,
            submitted_at_ms=request.at_ms,
            ends_at_ms=request.at_ms + int(fate.duration_s * 1000),
            outcome=fate.outcome,
            steps=fate.lookups,
            steps_of=_steps_of(directive),
            first_track_ms=None if directive.first_track_s is None else int(directive.first_track_s * 1000),
            expiry=directive.expiry,
        )
        request.task_id = task.id
        request.accepted = True
        self.ledger.book_task(task)
        self.account.use(model)
        answer = stepped(step, task.id) or accepted(task.id, step.name)
        return replace(answer, delay_s=step.delay_s) if step.delay_s else answer

    def look_up(self, task_id: str, headers: Headers) -> Answer:
        """Answer one look-up and book it."""
        at_ms = now_ms()
        answer = self.door(headers) or self._look(task_id, at_ms)
        self.ledger.lookups += 1
        self.ledger.lookups_answered[str(answer.answered) if answer.answered is not None else "none"] += 1
        return answer

    def _look(self, task_id: str, at_ms: int) -> Answer:
        limited = self.account.over_rate(at_ms) if self.settings.limit_lookups else None
        if limited is not None:
            return refused(*limited)
        task = self.ledger.tasks.get(task_id)
        if task is None:
            return refused("task_not_found")
        task.lookups += 1
        self.ledger.counts(task.model.id).lookups += 1
        step = self._next_step(task)
        answer = stepped(step, task.id)
        if answer is None:
            if task.outcome.kind == "vanish" and at_ms >= task.ends_at_ms:
                return refused("task_not_found")
            stage = stage_of(task, at_ms, _word_of(step))
            if step.name in TELLING:
                self.ledger.book_told(task, stage.state, at_ms)
            answer = looked_up(task, stage, step.name)
        return replace(answer, delay_s=step.delay_s) if step.delay_s else answer

    def _next_step(self, task: Task) -> Step:
        """Take the next look-up step; a directive's belong to the job and are for its current task only."""
        if not task.steps:
            return NORMAL
        if task.steps_of == "task":
            at = task.lookups - 1
        else:
            job = self.ledger.job(task.subject)
            tally = job.of(task.model.id) if task.steps_of == "model" else job
            if tally.latest != task.id:
                return NORMAL
            at = tally.looked
            tally.looked += 1
        return task.steps[at] if at < len(task.steps) else NORMAL


def _steps_of(directive: Directive) -> Literal["task", "job", "model"]:
    if not directive.directs:
        return "task"
    return "job" if directive.lookups.per_model is None else "model"


def _read(body: bytes | None) -> tuple[dict[str, Any], Directive]:
    if body is None:
        raise _RefusalError("payload_too_large")
    try:
        fields = json.loads(body)
        if not isinstance(fields, dict):
            raise _RefusalError("invalid_request")
        return fields, parse(fields["sandbox"]) if "sandbox" in fields else _UNDIRECTED
    except DirectiveError as error:
        raise _RefusalError("invalid_request", detail=str(error)) from None
    except (ValueError, RecursionError):
        raise _RefusalError("invalid_request") from None


def _echo(fields: dict[str, Any]) -> str:
    """Give the input's URL, which some look-ups repeat."""
    url = fields.get("image_url")
    return (
        url if isinstance(url, str) and url.startswith("http") and len(url) < 2000 else "https://input.invalid/in.png"
    )


def _outcome(script: Script[Outcome], job: Job, model: str) -> Outcome:
    outcomes = script.steps(model)
    at = job.accepted if script.per_model is None else job.of(model).accepted
    return outcomes[min(at, len(outcomes) - 1)] if outcomes else SUCCESS


def _word_of(step: Step) -> str:
    """Name the running state a step asks for: a word of its own, or `big` answers, which are of running tasks."""
    return step.message if step.name == "word" else "generating" if step.name == "big" else ""
