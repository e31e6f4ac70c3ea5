"""Reads the object `"sandbox"` of a submitted body: what a test asks to happen to its job.

    {"tag": "job-7", "submit": [STEP], "duration_s": 0.2, "result": [OUTCOME], "lookups": [STEP]}

Nothing is required; any list may be `{model: list, "*": list}` instead. With anything but a tag the fault mix leaves
the job alone. `duration_s` and every other `_s` are real seconds, whatever the speed.

submit    one step a submission of the tag (of the tag on that model, where lists are per model), then plain acceptance;
          what the account refuses takes no step. One of `fate.SUBMIT_NAMES`, or
          {"status", "code", "message", "retry_after_s"}  an enveloped refusal; with "accepted" true an enveloped error
                                                          that carries the id of a task which is accepted all the same
          {"status", "html": true}                        a proxy's page
          {"inside_200": {"code", "msg"}}                 an error in a 200
          {"raw", "status", "content_type", "accepted"}   any body, with a task behind it or not
lookups   one step a look-up of the job's newest task, then what is true. One of `fate.LOOKUP_NAMES`, a refusal, a page
          or `raw` as above, {"word": state} or {"body": {...}}
result    one a task of the tag, the last for all that follow. success, done_without_url, never, vanish,
          {"fail": {"code", "message"}}, {"body": {...}, "failed": false}, {"false_524": seconds until it is a success}

first_track_s   when a music task begins to show its first track (default: when 70 % of its duration are over)
expiry          an object that is put beside every result of the job, {"expires_in": 3600} for one

A named step with a delay is {"do": name, "delay_s": seconds}; every other object step takes `delay_s` too. `{task_id}`
in `raw` and `body` is replaced. Pure; what does not fit raises `DirectiveError`, which names the place.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from worker.sandbox.fate import LOOKUP_NAMES, SUBMIT_NAMES, Outcome, Step

T = TypeVar("T")
ANY_MODEL = "*"
OUTCOMES = {
    "success": Outcome("success"),
    "done_without_url": Outcome("done_without_url"),
    "never": Outcome("never"),
    "vanish": Outcome("vanish"),
}
LONGEST_S = 86_400.0


class DirectiveError(ValueError):
    """The sandbox directive is wrong."""


@dataclass(frozen=True, slots=True)
class Script(Generic[T]):
    """A list of steps for the job, or one list per model."""

    shared: tuple[T, ...] = ()
    per_model: dict[str, tuple[T, ...]] | None = None

    def steps(self, model: str) -> tuple[T, ...]:
        """Give the steps that hold for `model`."""
        if self.per_model is None:
            return self.shared
        return self.per_model.get(model, self.per_model.get(ANY_MODEL, ()))


@dataclass(frozen=True, slots=True)
class Directive:
    """One job's directive; `directs` is false when it only names a tag, and the fault mix applies as usual."""

    tag: str = ""
    directs: bool = False
    duration_s: float | None = None
    first_track_s: float | None = None
    expiry: Mapping[str, Any] | None = None
    submit: Script[Step] = field(default_factory=Script)
    result: Script[Outcome] = field(default_factory=Script)
    lookups: Script[Step] = field(default_factory=Script)


def parse(value: Any) -> Directive:
    """Read a directive. Raises DirectiveError."""
    body = _object(value, "sandbox")
    _only(body, "sandbox", "tag", "submit", "duration_s", "first_track_s", "expiry", "result", "lookups")
    return Directive(
        tag=_text(body, "tag", "sandbox"),
        directs=bool(body.keys() - {"tag"}),
        duration_s=_seconds(body["duration_s"], "sandbox.duration_s") if "duration_s" in body else None,
        first_track_s=_seconds(body["first_track_s"], "sandbox.first_track_s") if "first_track_s" in body else None,
        expiry=_object(body["expiry"], "sandbox.expiry") if "expiry" in body else None,
        submit=_script(body.get("submit", []), "sandbox.submit", _submit_step),
        result=_script(body.get("result", []), "sandbox.result", _outcome),
        lookups=_script(body.get("lookups", []), "sandbox.lookups", _lookup_step),
    )


def _script(value: Any, where: str, read: Callable[[Any, str], T]) -> Script[T]:
    if isinstance(value, dict):
        return Script(per_model={name: _list(rows, f"{where}.{name}", read) for name, rows in value.items()})
    return Script(shared=_list(value, where, read))


def _list(value: Any, where: str, read: Callable[[Any, str], T]) -> tuple[T, ...]:
    if not isinstance(value, list):
        raise DirectiveError(f"{where} must be a list or an object of lists per model")
    return tuple(read(row, f"{where}[{number}]") for number, row in enumerate(value))


def _submit_step(value: Any, where: str) -> Step:
    if isinstance(value, str):
        return _named(value, where, SUBMIT_NAMES, 0.0)
    step = dict(_object(value, where))
    delay_s = _seconds(step.get("delay_s", 0.0), f"{where}.delay_s")
    if "do" in step:
        _only(step, where, "do", "delay_s")
        return _named(step["do"], f"{where}.do", SUBMIT_NAMES, delay_s)
    if "inside_200" in step:
        _only(step, where, "inside_200", "delay_s")
        inner = _object(step["inside_200"], f"{where}.inside_200")
        _only(inner, f"{where}.inside_200", "code", "msg")
        return Step("inside_200", 200, _code(inner, where), _text(inner, "msg", where), delay_s=delay_s)
    if "raw" in step:
        return _raw(step, where, delay_s)
    if step.pop("accepted", False):
        return replace(_refusal(step, where, delay_s), name="error_with_task")
    return _refusal(step, where, delay_s)


def _lookup_step(value: Any, where: str) -> Step:
    if isinstance(value, str):
        return _named(value, where, LOOKUP_NAMES, 0.0)
    step = _object(value, where)
    delay_s = _seconds(step.get("delay_s", 0.0), f"{where}.delay_s")
    if "do" in step:
        _only(step, where, "do", "delay_s")
        return _named(step["do"], f"{where}.do", LOOKUP_NAMES, delay_s)
    if "word" in step:
        _only(step, where, "word", "delay_s")
        return Step("word", message=_text(step, "word", where), delay_s=delay_s)
    if "body" in step:
        _only(step, where, "body", "delay_s")
        return Step("body", 200, raw=json.dumps(step["body"]), delay_s=delay_s)
    if "raw" in step:
        return _raw(step, where, delay_s)
    return _refusal(step, where, delay_s)


def _named(value: Any, where: str, names: frozenset[str], delay_s: float) -> Step:
    if value not in names:
        raise DirectiveError(f"{where}: {value!r} is none of {', '.join(sorted(names))}")
    return Step(value, status=502 if value == "html" else 0, delay_s=delay_s)


def _refusal(step: dict[str, Any], where: str, delay_s: float) -> Step:
    _only(step, where, "status", "code", "message", "retry_after_s", "html", "delay_s")
    status = _status(step, where)
    retry_after_s = step.get("retry_after_s")
    if retry_after_s is not None:
        retry_after_s = _seconds(retry_after_s, f"{where}.retry_after_s")
    if step.get("html"):
        return Step("html", status, retry_after_s=retry_after_s, delay_s=delay_s)
    message = _text(step, "message", where)
    return Step("refuse", status, _code(step, where), message, retry_after_s, delay_s=delay_s)


def _raw(step: dict[str, Any], where: str, delay_s: float) -> Step:
    _only(step, where, "raw", "status", "content_type", "accepted", "delay_s")
    return Step(
        "raw",
        _status(step, where, 200),
        raw=_text(step, "raw", where),
        content_type=_text(step, "content_type", where) or "application/json",
        accepted=bool(step.get("accepted", False)),
        delay_s=delay_s,
    )


def _outcome(value: Any, where: str) -> Outcome:
    if isinstance(value, str) and value in OUTCOMES:
        return OUTCOMES[value]
    outcome = _object(value, f"{where}: one of {', '.join(OUTCOMES)}, or what is no such word")
    if "fail" in outcome:
        _only(outcome, where, "fail")
        failure = _object(outcome["fail"], f"{where}.fail")
        _only(failure, f"{where}.fail", "code", "message")
        return Outcome("fail", str(_code(failure, where)), _text(failure, "message", where))
    if "body" in outcome:
        _only(outcome, where, "body", "failed")
        return Outcome("body", raw=json.dumps(outcome["body"]), failed=bool(outcome.get("failed", False)))
    _only(outcome, where, "false_524")
    wait_s = _seconds(outcome.get("false_524"), f"{where}.false_524")
    return Outcome("false_fail", "524", "generate task timeout", flip_after_s=wait_s)


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DirectiveError(f"{where} must be an object")
    return value


def _only(value: dict[str, Any], where: str, *names: str) -> None:
    unknown = sorted(value.keys() - set(names))
    if unknown:
        raise DirectiveError(f"{where} has no {', '.join(map(repr, unknown))}; known: {', '.join(names)}")


def _text(value: dict[str, Any], name: str, where: str) -> str:
    text = value.get(name, "")
    if not isinstance(text, str):
        raise DirectiveError(f"{where}.{name} must be a string")
    return text


def _code(value: dict[str, Any], where: str) -> str | int:
    code = value.get("code", "")
    if not isinstance(code, str | int) or isinstance(code, bool):
        raise DirectiveError(f"{where}.code must be a string or an integer")
    return code


def _status(value: dict[str, Any], where: str, default: int | None = None) -> int:
    status = value.get("status", default)
    if not isinstance(status, int) or isinstance(status, bool) or not 200 <= status <= 599:
        raise DirectiveError(f"{where}.status must be an integer of 200-599")
    return status


def _seconds(value: Any, where: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= LONGEST_S:
        raise DirectiveError(f"{where} must be seconds, 0-{LONGEST_S:.0f}")
    return float(value)
