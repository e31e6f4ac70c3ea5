"""Owns what a caller may ask for: the request's fields, their limits, and the one fingerprint of a request.

Faults come back all at once, a line each, with the field named as the caller wrote it. Names: the project's contract.
"""

import hashlib
import itertools
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from jobs.destinations import url_fault

MAX_REQUEST_BYTES = 11 * 1024 * 1024
MAX_METADATA_BYTES = 4096
MAX_DEPTH = 64
MAX_FAULTS = 20  # told of one request
MAX_NAME_CHARS = 100  # told of a field's name
MAX_WEBHOOK_EVENTS = 16
ID_PATTERN = r"[A-Za-z0-9._:-]{1,128}"

Kind = Literal["video", "image", "music", "audio", "voice"]
WebhookEvent = Literal[
    "job.completed",
    "job.failed",
    "job.canceled",
    "job.processing",
    "job.waiting",
    "job.failed_over",
    "job.partial",
    "job.late_result",
]
DEFAULT_WEBHOOK_EVENTS: tuple[WebhookEvent, ...] = ("job.completed", "job.failed", "job.canceled")

JobId = Annotated[str, StringConstraints(pattern=f"^{ID_PATTERN}$", max_length=128)]
MODEL_PATTERN = r"[!-~]{1,200}"
ModelId = Annotated[str, StringConstraints(pattern=f"^{MODEL_PATTERN}$", max_length=200)]


class JobRequest(BaseModel):
    """A job as a caller asks for it. Only ``kind`` and ``input`` are required."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    id: JobId | None = Field(None, description="Idempotency key: the same id with the same request is the same job.")
    kind: Kind
    model: ModelId | None = None
    fallbacks: Annotated[list[ModelId], Field(max_length=8)] | None = None
    input: dict[str, Any] = Field(description="The model's own parameters, passed on as they are.")
    webhook_url: str | None = Field(None, description="Where webhooks go; default: WEBHOOK_URL.")
    webhook_events: Annotated[list[WebhookEvent], Field(max_length=MAX_WEBHOOK_EVENTS)] | None = Field(
        None, description="Default: the three ends of a job. `job.partial`: the first track of music, once it is out."
    )
    metadata: dict[str, Any] | None = Field(None, description="Yours: comes back in every view and webhook; 4 KiB.")
    deadline_s: Annotated[float, Field(gt=0, le=31_536_000, allow_inf_nan=False)] | None = Field(
        None, description="Total time for the job; default: JOB_DEADLINE_S."
    )
    max_attempts: Annotated[int, Field(ge=1, le=100)] | None = Field(None, description="Default: MAX_ATTEMPTS.")
    on_unknown_submit: Literal["retry", "fail"] | None = Field(
        None, description="What to do when it is unknown whether a submission was accepted; default: UNKNOWN_SUBMIT."
    )


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with a request: the field, dotted, and what to do about it."""

    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


class InvalidRequest(Exception):  # noqa: N818 - named after what it says
    """The request cannot be taken; ``faults`` has one entry for each thing wrong with it.

    Bounded, whatever was sent: of many things wrong it has the first ones and how many more there are (``more`` of
    them were not even handed in), of a long name its start.
    """

    def __init__(self, *faults: Fault, more: int = 0) -> None:
        more += max(0, len(faults) - MAX_FAULTS)
        kept = tuple(Fault(_shortened(fault.field), fault.message) for fault in faults[:MAX_FAULTS])
        self.faults = (*kept, Fault("request", f"and {more} more")) if more else kept
        super().__init__("; ".join(map(str, self.faults)))


def _shortened(name: str) -> str:
    return name if len(name) <= MAX_NAME_CHARS else f"{name[: MAX_NAME_CHARS - 1]}…"


class RequestTooLarge(InvalidRequest):
    """The request is over the size limit."""

    def __init__(self) -> None:
        super().__init__(Fault("request", f"is over the limit of {MAX_REQUEST_BYTES // 1024**2} MB in all"))


@dataclass(frozen=True, slots=True)
class Order:
    """A request that is valid: what was asked, its fingerprint (hex) and the input as canonical JSON bytes."""

    request: JobRequest
    fingerprint: str
    input_json: bytes


def read_request(raw: Any, *, allow_private: bool) -> Order:
    """Check a decoded request whole; raise ``InvalidRequest`` with every fault.

    The fingerprint is of the request as sent, before defaults, without its id: two requests under one id are the
    same job if and only if their fingerprints are equal.
    """
    if not isinstance(raw, dict):
        raise InvalidRequest(Fault("request", "must be a JSON object"))
    unknown = unknown_fields(raw, JobRequest.model_fields)
    if len(unknown) > MAX_FAULTS:  # before anything is done with each of them
        raise InvalidRequest(*unknown, more=len(raw.keys() - JobRequest.model_fields.keys()) - len(unknown))
    if isinstance(raw.get("metadata"), dict) and _has_more_values(raw["metadata"], MAX_METADATA_BYTES):
        raise InvalidRequest(_METADATA_TOO_LARGE)  # a value is a byte at least
    try:
        fields = {name: canonical_json(value) for name, value in raw.items() if name != "id"}
        canonical = b"{%b}" % b",".join(canonical_json(name) + b":" + fields[name] for name in sorted(fields))
    except _NOT_JSON as error:
        raise InvalidRequest(*(Fault(name, _PLAIN_JSON) for name in _not_json(raw))) from error
    if len(canonical) > MAX_REQUEST_BYTES:
        raise RequestTooLarge
    too_deep = [name for name, value in raw.items() if is_deeper_than(value, MAX_DEPTH)]
    if too_deep:
        raise InvalidRequest(*(Fault(str(name), f"must not be nested deeper than {MAX_DEPTH}") for name in too_deep))
    faults = unknown
    request: JobRequest | None = None
    try:
        request = JobRequest.model_validate(raw)
    except ValidationError as error:
        found = error.errors(include_input=False, include_url=False)
        faults += [_fault(row["loc"], row["type"], row["msg"]) for row in found if row["type"] != "extra_forbidden"]
    if isinstance(raw.get("metadata"), dict) and len(fields["metadata"]) > MAX_METADATA_BYTES:
        faults.append(_METADATA_TOO_LARGE)
    faults += _further_faults(raw, allow_private=allow_private)
    if request is None or faults:
        raise InvalidRequest(*dict.fromkeys(faults))
    return Order(request, hashlib.sha256(canonical).hexdigest(), fields["input"])


def unknown_fields(raw: Mapping[Any, Any], known: Collection[str]) -> list[Fault]:
    """Name the fields that are not known, but not many more than are ever told of; the first one says which are."""
    names = itertools.islice((name for name in raw if name not in known), MAX_FAULTS + 1)
    listed = f"; known are {', '.join(known)}" if len(known) > 1 else f"; known is {', '.join(known)}"
    return [
        Fault(str(name) or "''", f"is not a known field{'' if position else listed}")
        for position, name in enumerate(names)
    ]


def canonical_json(value: Any) -> bytes:
    """Encode JSON with sorted keys and no spaces; raise ``ValueError`` for what is not JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


_METADATA_TOO_LARGE = Fault("metadata", f"must be at most {MAX_METADATA_BYTES} bytes of JSON")
_NOT_JSON = (ValueError, TypeError, RecursionError)
_PLAIN_JSON = "must be plain JSON: Unicode text, finite numbers, no deep nesting"


def _not_json(raw: dict[Any, Any]) -> list[str]:
    """Name the fields that cannot be encoded as JSON."""
    names = []
    for name, value in raw.items():
        try:
            canonical_json({name: value})
        except _NOT_JSON:
            names.append(ascii(name).strip("'"))
    return names or ["request"]


def is_deeper_than(value: Any, limit: int) -> bool:
    """Tell whether lists and objects are nested deeper than a limit."""
    level = [value]
    for _ in range(limit):
        level = _inside(level)
        if not level:
            return False
    return any(isinstance(value, dict | list) for value in level)


def _has_more_values(value: Any, limit: int) -> bool:
    """Tell whether there are more values than a limit in all lists and objects together."""
    level, count = [value], 0
    while level and count <= limit:
        level = _inside(level)
        count += len(level)
    return count > limit


def _inside(values: list[Any]) -> list[Any]:
    return [
        inner
        for outer in values
        if isinstance(outer, dict | list)
        for inner in (outer.values() if isinstance(outer, dict) else outer)
    ]


def valid_id(text: str) -> bool:
    """Tell whether a text may be a job's id."""
    return re.fullmatch(ID_PATTERN, text) is not None


def valid_model(text: str) -> bool:
    """Tell whether a text may name a model."""
    return re.fullmatch(MODEL_PATTERN, text) is not None


def _further_faults(raw: dict[str, Any], *, allow_private: bool) -> list[Fault]:
    faults = []
    url, payload = raw.get("webhook_url"), raw.get("input")
    if isinstance(url, str) and (fault := url_fault(url, allow_private=allow_private)):
        faults.append(Fault("webhook_url", fault))
    if isinstance(payload, dict) and "model" in payload:
        faults.append(Fault("input.model", "must not be given: name the model in the request's own field 'model'"))
    return faults


_WORDS = {
    "missing": "is required",
    "dict_type": "must be a JSON object",
    "list_type": "must be a list",
    "string_type": "must be a string",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
}


def _fault(loc: tuple[int | str, ...], kind: str, text: str) -> Fault:
    name = ".".join(str(part) for part in loc) or "request"
    if kind == "string_pattern_mismatch" and name == "id":
        return Fault(name, "must be 1-128 characters of A-Za-z0-9._:-")
    if kind == "string_pattern_mismatch":
        return Fault(name, "must be 1-200 characters of printable ASCII without spaces")
    words = _WORDS.get(kind) or text.replace("Input should be", "must be").replace("String should", "must")
    return Fault(name, words[:1].lower() + words[1:])
