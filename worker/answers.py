"""Owns how the gateway's answers are read: tolerantly, since most of their form is not published.

Reads bytes that came, decides nothing about the job. Every assumption about words and field names is in the tables at
the top; each says where it is from (doc: the vendor's pages; kie: the provider's; seen: other people's code and logs;
assumed: nobody).
"""

import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jobs.expiry import ToldExpiry
from jobs.job import RAW_RESULT_LIMIT_BYTES
from jobs.request import is_deeper_than
from jobs.verdict import Signal, Stage

# --- assumptions, one table each

WRAPPER = "data"  # seen: bodies come bare or wrapped
TASK_ID_FIELDS = ("task_id", "taskId", "id")  # seen
STATE_FIELDS = ("status", "state", "successFlag")  # doc, kie
DONE = frozenset({"completed", "complete", "success", "succeeded", "done", "finished", "1"})  # kie, seen
GENERIC_FAILURES = frozenset({"failed", "fail", "failure", "error", "2", "3"})  # they say nothing a code would not
FAILED = GENERIC_FAILURES | {  # kie, seen
    "create_task_failed", "generate_audio_failed", "generate_failed", "callback_exception", "sensitive_word_error",
}  # fmt: skip
RUNNING = frozenset(  # kie, seen; a word in no table means running too, with a warning
    {
        "processing", "waiting", "queuing", "queued", "queueing", "generating", "pending", "text_success",
        "first_success", "running", "in_progress", "submitted", "started", "0",
    }
)  # fmt: skip
REFUNDED_CODE = "531"  # kie: failed, credits refunded
BARE_FAILURES = frozenset({"501", "524", "531", "1501"})  # kie: codes that speak of the task, not of the look-up
RESULT_FIELDS = frozenset(  # doc, kie, seen; compared without underscores, in lower case
    {
        "result", "results", "output", "outputs", "resulturls", "urls", "url", "videourl", "imageurl", "audiourl",
        "resultjson", "response",
    }
)  # fmt: skip
ECHO_FIELDS = frozenset(
    {"input", "inputs", "param", "params", "request", "parameters"}
)  # seen: they repeat what we sent
TEXT_FIELDS = ("text", "transcript", "result", "output")  # assumed, for models whose output is text
EXPIRY_FIELDS = frozenset(  # assumed, like the next; compared as the result fields are, beside and under them
    {
        "expires", "expiry", "expiration", "expiresat", "expireat", "expiredat", "expirestime", "expiretime",
        "expiredtime", "expirationtime", "expirationdate", "expirydate", "expirytime", "validuntil",
    }
)  # fmt: skip
EXPIRY_SPANS = frozenset({"expiresin", "expirein", "expiresinseconds", "expireseconds", "validfor"})  # in seconds
FINE_CODES = frozenset({"0", "200", "202"})  # kie: "code" beside a good answer
GENERATION_FAILURE = re.compile(  # assumed: the vendor's page names this error, but not its code
    r"generat\w*[ _-]+fail|fail\w*[ _-]+(?:to[ _-]+)?generat|(?:video|image|music|audio|voice)[ _-]+fail", re.IGNORECASE
)
PREVIEW_WORDS = ("image", "cover", "stream")  # kie: fields with these beside a track, filled before it is there
MOST_EXPIRIES = 100  # read of one answer
EARLY_URLS, EARLY_URL_CHARS = 16, 4096  # what a running task shows lies in a record that every change rewrites
MAX_DEPTH = 64


@dataclass(frozen=True, slots=True)
class TaskAccepted:
    """The gateway holds a task of ours."""

    task_id: str
    cost: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Running:
    """The task goes on. ``unknown_word`` is set where the gateway used a word that is in no table.

    ``urls`` is what it shows of its result already, without covers and streams.
    """

    unknown_word: str | None = None
    urls: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Done:
    """The task ended well: ``result`` has ``urls`` (or ``text``) and ``raw``; ``expiries``: what it says of theirs."""

    result: Mapping[str, Any]
    cost: Mapping[str, Any] | None = None
    expiries: tuple[ToldExpiry, ...] = ()


@dataclass(frozen=True, slots=True)
class TaskFailed:
    """The look-up succeeded and says that the generation failed."""

    signal: Signal
    doubtful: bool = False  # said by a refusal of the look-up, not by the state of the task
    cost: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class LookRefused:
    """The look-up itself was refused or not understood: it says nothing about the task."""

    signal: Signal


def read_submission(status: int, body: bytes, *, retry_after_s: float | None = None) -> TaskAccepted | Signal:
    """Read the answer to a submission. An error that carries a task id is an acceptance: the task is paid for."""
    answer = _object(body)
    if answer is None:
        return Signal(Stage.SUBMIT, status, message=_plain(body), enveloped=False, retry_after_s=retry_after_s)
    inner = _inner(answer)
    code, message = _error(answer, inner)
    fine = 200 <= status < 300 and code is None and answer.get("success") is not False
    error = answer.get("error")
    places = (inner, answer, error if isinstance(error, dict) else {})
    task_id = _task_id(*places, fields=TASK_ID_FIELDS if fine else TASK_ID_FIELDS[:2])
    if task_id is not None:
        return TaskAccepted(task_id, _cost(inner))
    return Signal(Stage.SUBMIT, status, code, message, enveloped=_is_envelope(answer), retry_after_s=retry_after_s)


def read_look(
    status: int, body: bytes, *, text_output: bool, retry_after_s: float | None = None
) -> Running | Done | TaskFailed | LookRefused:
    """Read the answer to a look-up. ``text_output``: done with text and no URL is a result for this model."""
    answer = _object(body)
    ended = _said_of_the_task(status, answer) if answer is not None else None
    if answer is not None and ended is not None:
        return TaskFailed(ended, doubtful=True, cost=_failure_cost(_inner(answer), ended.code))
    if answer is None or not 200 <= status < 300:
        code, message = _error(answer, _inner(answer)) if answer else (None, _plain(body))
        enveloped = answer is not None and _is_envelope(answer)
        return LookRefused(Signal(Stage.POLL, status, code, message, enveloped=enveloped, retry_after_s=retry_after_s))
    inner = _inner(answer)
    word = _state(inner)
    code, message = _error(answer, inner)
    if word is None:
        if code in BARE_FAILURES:
            return TaskFailed(Signal(Stage.RESULT, status, code, message), cost=_failure_cost(inner, code))
        if code is not None or answer.get("success") is False:
            return LookRefused(Signal(Stage.POLL, status, code, message, retry_after_s=retry_after_s))
        return Running(unknown_word="(none)")
    if word in FAILED:
        said = code or (None if word in GENERIC_FAILURES else word.upper())
        # "error" beside a code, and not a word of a task: the look-up may be what went wrong.
        doubtful = word == "error" and code is not None and _task_id(inner, answer, fields=TASK_ID_FIELDS) is None
        signal = Signal(Stage.RESULT, status, said, message)
        return TaskFailed(signal, doubtful=doubtful, cost=_failure_cost(inner, said))
    if word in DONE:
        return _done(inner, answer, text_output=text_output)
    return Running(None if word in RUNNING else word, _early_urls(inner))


def _said_of_the_task(status: int, answer: Mapping[str, Any]) -> Signal | None:
    """Read an error in the gateway's envelope that is no refusal of the look-up but the end of the task."""
    if not isinstance(answer.get("error"), dict) or status in {401, 402, 403, 404, 410, 429} or status > 500:
        return None
    code, message = _error(answer, _inner(answer))
    if not GENERATION_FAILURE.search(f"{code or ''} {message or ''}"):
        return None
    return Signal(Stage.RESULT, status, code, message)


def _done(inner: Mapping[str, Any], answer: Mapping[str, Any], *, text_output: bool) -> Done | TaskFailed:
    urls = list(dict.fromkeys(_result_urls(inner)))
    text = _text(inner) if text_output else None
    if not urls and text is None:
        words = "the generation ended without a result URL"
        return TaskFailed(Signal(Stage.RESULT, 200, "done_without_url", words), cost=_cost(inner))
    result: dict[str, Any] = {"urls": urls, "raw": _capped(answer)}
    if text is not None:
        result["text"] = text
    return Done(result, _cost(inner), _expiries(inner))


def is_readable(body: bytes) -> bool:
    """Tell whether an answer is a JSON object: the gateway's own, not a page of what stands before it."""
    return _object(body) is not None


def _object(body: bytes) -> dict[str, Any] | None:
    """Read a JSON object; lone surrogates and numbers that are none become harmless, since they are passed on."""
    try:
        answer = json.loads(body, parse_constant=lambda _: None, parse_float=_finite)
        if b"\\ud" in body.lower():
            answer = json.loads(json.dumps(answer, ensure_ascii=False).encode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None
    return answer if isinstance(answer, dict) else None


def _finite(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None


def _inner(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    inner = answer.get(WRAPPER)
    return inner if isinstance(inner, dict) else answer


def _is_envelope(answer: Mapping[str, Any]) -> bool:
    return bool(answer.keys() & {"success", "error", "code", "msg", "failCode", "failMsg"})


def _task_id(*places: Mapping[str, Any], fields: tuple[str, ...]) -> str | None:
    for place in places:
        for name in fields:
            value = place.get(name)
            if isinstance(value, str | int) and not isinstance(value, bool) and str(value).strip():
                return str(value).strip()
    return None


def _state(place: Mapping[str, Any]) -> str | None:
    for name in STATE_FIELDS:
        value = place.get(name)
        if isinstance(value, str | int) and not isinstance(value, bool) and str(value).strip():
            return str(value).strip().lower()
    return None


def _error(answer: Mapping[str, Any], inner: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Find an error's code and text, the innermost first; a code that says "fine" is none."""
    places = [inner] if inner is answer else [inner, answer]
    code: str | None = None
    message: str | None = None
    for place in places:
        error = place.get("error")
        nested = error if isinstance(error, dict) else {}
        words = error if isinstance(error, str) else None
        outer_is_fine = str(place.get("code")) in FINE_CODES
        found = _first(nested.get("code"), place.get("failCode"), None if outer_is_fine else place.get("code"))
        code = code or found
        message = message or _first(
            nested.get("message"), words, place.get("failMsg"),
            None if outer_is_fine else place.get("msg"), None if outer_is_fine else place.get("message"),
        )  # fmt: skip
    return code, message


def _first(*values: Any) -> str | None:
    for value in values:
        if isinstance(value, str | int | float) and not isinstance(value, bool) and str(value).strip():
            return str(value).strip()
    return None


def _early_urls(inner: Mapping[str, Any]) -> tuple[str, ...]:
    """Find what of a result is shown before the end of its task."""
    found = (url for url in _result_urls(inner, without=PREVIEW_WORDS) if len(url) <= EARLY_URL_CHARS)
    return tuple(itertools.islice(dict.fromkeys(found), EARLY_URLS))


def _expiries(inner: Mapping[str, Any]) -> tuple[ToldExpiry, ...]:
    """Find what is said of an expiry, beside the result or in it."""
    beside = ((_folded(name), value) for name, value in inner.items())
    within = ((name, value) for name, value, is_result in _leaves(inner) if is_result)
    found = ((name, value) for name, value in (*beside, *within) if name in EXPIRY_FIELDS | EXPIRY_SPANS)
    return tuple(ToldExpiry(value, name in EXPIRY_SPANS) for name, value in itertools.islice(found, MOST_EXPIRIES))


def _result_urls(inner: Mapping[str, Any], *, without: tuple[str, ...] = ()) -> Iterator[str]:
    """Walk every http(s) URL under a result field, none under a name with one of those words in it."""
    for _, value, is_result in _leaves(inner, without=without):
        if is_result and isinstance(value, str) and value.lower().startswith(("http://", "https://")):
            yield value


def _leaves(
    place: Any, *, name: str = "", is_result: bool = False, without: tuple[str, ...] = (), depth: int = 0
) -> Iterator[tuple[str, Any, bool]]:
    """Walk every value that has none inside: the name it lies under, itself, and whether that is in a result field.

    What lies under an echo of the request is left out.
    """
    if depth > MAX_DEPTH:
        return
    match place:
        case dict():
            for member, value in place.items():
                key = _folded(member)
                if key in ECHO_FIELDS or any(word in key for word in without):
                    continue
                if key == "resultjson" and isinstance(value, str):
                    value = _json_or_text(value)  # noqa: PLW2901 - the string is the object
                inside = is_result or key in RESULT_FIELDS
                yield from _leaves(value, name=key, is_result=inside, without=without, depth=depth + 1)
        case list():
            for value in place:
                yield from _leaves(value, name=name, is_result=is_result, without=without, depth=depth + 1)
        case _:
            yield name, place, is_result


def _folded(name: str) -> str:
    """Write a field's name as the tables have it."""
    return name.replace("_", "").lower()


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _text(inner: Mapping[str, Any]) -> str | None:
    for name in TEXT_FIELDS:
        value = inner.get(name)
        if isinstance(value, dict):
            value = _text(value)
        if isinstance(value, str) and value.strip():
            return value
    return None


def _cost(inner: Mapping[str, Any]) -> dict[str, Any] | None:
    """Keep what a task cost; an amount never travels without its currency."""
    cost, credit = inner.get("cost"), inner.get("creditsConsumed")
    if isinstance(cost, dict) and isinstance(cost.get("currency"), str) and _is_number(cost.get("amount")):
        return {"amount": cost["amount"], "currency": cost["currency"]}
    return {"amount": credit, "currency": "credits"} if _is_number(credit) else None


def _failure_cost(inner: Mapping[str, Any], code: str | None) -> dict[str, Any] | None:
    """Keep what a failed task cost, and whether it was given back, where that is told."""
    back = inner.get("creditsRefunded")
    cost = _cost(inner) or ({"amount": back, "currency": "credits"} if _is_number(back) else None)
    if cost is None:
        return None
    if inner.get("refunded") is True or (_is_number(back) and back) or code == REFUNDED_CODE:
        cost["refunded"] = True
    return cost


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _capped(answer: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Keep the raw answer within its limits, else nothing of it."""
    if is_deeper_than(answer, MAX_DEPTH) or len(json.dumps(answer)) > RAW_RESULT_LIMIT_BYTES:
        return None
    return answer


def _plain(body: bytes) -> str | None:
    """Show the beginning of an answer that is no JSON object."""
    return body[:200].decode("utf-8", "replace").strip() or None
