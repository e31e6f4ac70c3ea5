"""Owns every error answer: which problems there are, which exception becomes which, and the form of the answer.

The form goes by the path alone: where the gateway's own protocol is spoken it is the gateway's envelope (source: the
vendor's page "Error Codes"), anywhere else a problem (RFC 9457, problem+json). Nothing a caller sent is quoted back but
the names of fields and ids, and those redacted.
"""

import json
import re
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, Literal

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from config.log import log, redact
from config.models import KINDS
from jobs.job import NewerRecord, UnreadableRecord
from jobs.request import Fault, InvalidRequest, RequestTooLarge
from worker.actions import NoSuchJob, NotPossible
from worker.enqueue import Conflict, StorageFull
from worker.link import ReadOnlyReplica, RedisAway, RedisRefused

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 2
ROOM_AFTER_S = 30  # as often as ended jobs are pruned


class Kind(Enum):
    """The problems there are: code, HTTP status, title. A code is for programs and never changes its meaning."""

    INVALID_JSON = ("invalid_json", 400, "The body is not JSON")
    MALFORMED_REQUEST = ("malformed_request", 400, "The request is not HTTP")
    INVALID_FORMAT = ("invalid_format", 400, "A parameter is missing or has the wrong type")
    UNAUTHORIZED = ("unauthorized", 401, "A valid token is required")
    FORBIDDEN_HOST = ("forbidden_host", 403, "The Host header is not allowed")
    FORBIDDEN_ORIGIN = ("forbidden_origin", 403, "Requests of other web sites are not allowed")
    NOT_FOUND = ("not_found", 404, "There is nothing here")
    TASK_NOT_FOUND = ("task_not_found", 404, "There is no such task")
    METHOD_NOT_ALLOWED = ("method_not_allowed", 405, "The method is not allowed here")
    REQUEST_TIMEOUT = ("request_timeout", 408, "The request did not come in time")
    CONFLICT = ("conflict", 409, "The id is taken")
    WRONG_STATUS = ("wrong_status", 409, "The job's status does not allow it")
    CURSOR_EXPIRED = ("cursor_expired", 410, "The cursor is too old")
    PAYLOAD_TOO_LARGE = ("payload_too_large", 413, "The request is too large")
    UNSUPPORTED_MEDIA_TYPE = ("unsupported_media_type", 415, "The body's type is not supported")
    INVALID_REQUEST = ("invalid_request", 422, "The request is not valid")
    INTERNAL_ERROR = ("internal_error", 500, "Something went wrong on our side")
    RECORD_DAMAGED = ("record_damaged", 500, "The record is damaged")
    UNAVAILABLE = ("unavailable", 503, "The service is unavailable for now")
    STORAGE_FULL = ("storage_full", 503, "There is no room for new jobs")
    NEWER_VERSION = ("newer_version", 503, "The record was written by a newer version")

    def __init__(self, code: str, status: int, title: str) -> None:
        self.code = code
        self.status = status
        self.title = title

    @property
    def type(self) -> str:
        """Name the problem's type as RFC 9457 wants it: a URI."""
        return f"urn:onysoft-worker:problem:{self.code}"


GATEWAY_PATH = re.compile(rf"/v1/(?:{'|'.join(KINDS)})(?:/.*)?", re.DOTALL)
"""Where the gateway's protocol is spoken, the addresses that are not there included."""

GATEWAY_ERRORS: Mapping[Kind, tuple[int, str]] = {
    Kind.INVALID_JSON: (400, "invalid_request"),
    Kind.INVALID_FORMAT: (400, "invalid_request"),
    Kind.UNSUPPORTED_MEDIA_TYPE: (400, "invalid_request"),
    Kind.UNAUTHORIZED: (401, "invalid_api_key"),
    Kind.NOT_FOUND: (404, "endpoint_not_found"),
}
"""Status and code in the gateway's envelope, where they are others than the problem's own."""

MEND = "mend the fields listed under 'errors'"

_BY_STATUS: Mapping[int, Kind] = {
    404: Kind.NOT_FOUND,
    405: Kind.METHOD_NOT_ALLOWED,
    408: Kind.REQUEST_TIMEOUT,
    413: Kind.PAYLOAD_TOO_LARGE,
    415: Kind.UNSUPPORTED_MEDIA_TYPE,
    503: Kind.UNAVAILABLE,
}


class Refusal(Exception):  # noqa: N818 - named after what it says
    """A request is answered with a problem; ``members`` are added to the answer's object."""

    def __init__(
        self,
        kind: Kind,
        detail: str,
        *,
        errors: Sequence[Fault] = (),
        headers: Mapping[str, str] | None = None,
        members: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.errors = errors
        self.headers = headers
        self.members = members


def encode_json(value: Any) -> bytes:
    """Write JSON as the API answers it. Text that is not Unicode comes out escaped, never as an error."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")


def refused(refusal: Refusal, path: str) -> Response:
    """Answer with a refusal, in the form that is read at a path. The one place that decides on it."""
    sent = {"cache-control": "no-store", **(refusal.headers or {})}
    if GATEWAY_PATH.fullmatch(path):
        status, _ = gateway_error(refusal.kind)
        return Response(encode_json(envelope(refusal)), status, sent, "application/json")
    return Response(encode_json(problem_object(refusal)), refusal.kind.status, sent, MEDIA_TYPE)


def problem_object(refusal: Refusal) -> dict[str, Any]:
    """Write a refusal as a problem."""
    kind = refusal.kind
    body: dict[str, Any] = {
        "type": kind.type,
        "title": kind.title,
        "status": kind.status,
        "detail": str(refusal),
        "code": kind.code,
        **(refusal.members or {}),
    }
    if refusal.errors:
        body["errors"] = [{"field": redact(fault.field), "message": redact(fault.message)} for fault in refusal.errors]
    return body


def envelope(refusal: Refusal) -> dict[str, Any]:
    """Write a refusal as the gateway would: it knows a message only, so that takes in whatever is wrong."""
    _, code = gateway_error(refusal.kind)
    message = redact("; ".join(map(str, refusal.errors))) or str(refusal)
    return {"success": False, "error": {"code": code, "message": message}}


def gateway_error(kind: Kind) -> tuple[int, str]:
    """Give the status and the code that a problem has in the gateway's envelope."""
    return GATEWAY_ERRORS.get(kind, (kind.status, kind.code))


def problem(
    kind: Kind,
    detail: str,
    *,
    errors: Sequence[Fault] = (),
    headers: Mapping[str, str] | None = None,
    members: Mapping[str, Any] | None = None,
) -> Response:
    """Make the answer for a problem of no path in particular; ``detail`` says what to do about it."""
    return refused(Refusal(kind, detail, errors=errors, headers=headers, members=members), path="")


def unavailable(
    detail: str,
    *,
    members: Mapping[str, Any] | None = None,
    connection: Literal["keep-alive", "close"] = "keep-alive",
) -> Refusal:
    """Refuse with the 503 that asks to come again."""
    headers = {"retry-after": str(RETRY_AFTER_S)}
    if connection == "close":
        headers["connection"] = "close"
    return Refusal(Kind.UNAVAILABLE, detail, headers=headers, members=members)


def refusal_of(error: Exception) -> Refusal:
    """Name the problem an exception stands for. What is not listed is a bug, and the answer says nothing about it."""
    match error:
        case Refusal():
            return error
        case RequestTooLarge():
            return Refusal(Kind.PAYLOAD_TOO_LARGE, str(error))
        case InvalidRequest():
            return Refusal(Kind.INVALID_REQUEST, MEND, errors=error.faults)
        case RequestValidationError():
            faults = [Fault(_place(found["loc"]), str(found["msg"])) for found in error.errors()]
            return Refusal(Kind.INVALID_REQUEST, MEND, errors=faults)
        case Conflict():
            return Refusal(Kind.CONFLICT, redact(str(error)))
        case StorageFull():
            return Refusal(Kind.STORAGE_FULL, str(error), headers={"retry-after": str(ROOM_AFTER_S)})
        case NoSuchJob() | NotPossible():
            return Refusal(Kind.NOT_FOUND if isinstance(error, NoSuchJob) else Kind.WRONG_STATUS, str(error))
        case UnreadableRecord():
            is_newer = isinstance(error, NewerRecord)
            headers = {"retry-after": str(RETRY_AFTER_S)} if is_newer else None
            return Refusal(Kind.NEWER_VERSION if is_newer else Kind.RECORD_DAMAGED, str(error), headers=headers)
        case RedisAway() | RedisRefused():
            is_replica = isinstance(error, ReadOnlyReplica)
            return unavailable(str(error) if is_replica else "Redis is away: repeat the request")
        case _:
            return Refusal(Kind.INTERNAL_ERROR, "the log has it under this answer's X-Request-Id")


async def answer_error(request: Request, error: Exception) -> Response:
    """Turn whatever a route raised into its answer."""
    if isinstance(error, ClientDisconnect):
        return Response(status_code=400)  # nobody reads it
    path = request.scope["path"]
    if isinstance(error, HTTPException):
        return refused(_http_refusal(request, error), path)
    refusal = refusal_of(error)
    if refusal.kind is Kind.INTERNAL_ERROR:
        return internal_error(request.method, path, error)
    return refused(refusal, path)


def internal_error(method: str, path: str, error: Exception) -> Response:
    """Log a bug with its traceback, and answer without a word about it."""
    log.error("request.failed", method=method, path=path, exc_info=error)
    return refused(refusal_of(error), path)


def _http_refusal(request: Request, error: HTTPException) -> Refusal:
    kind = _BY_STATUS.get(error.status_code)
    if kind is Kind.NOT_FOUND:
        return Refusal(kind, "no such address: see /docs for those there are")
    if kind is Kind.METHOD_NOT_ALLOWED:
        allowed = ", ".join(sorted(_methods(request)))
        return Refusal(kind, f"allowed here: {allowed}", headers={"allow": allowed})
    fallback = Kind.INVALID_REQUEST if error.status_code < 500 else Kind.INTERNAL_ERROR
    return Refusal(kind or fallback, "see /docs for what is expected")


def _methods(request: Request) -> set[str]:
    """Name the methods of an address over all its routes; Starlette's own answer names those of the first one."""
    at_address = (route for route in request.app.state.routes if route.path_regex.match(request.scope["path"]))
    found = {method for route in at_address for method in route.methods}
    return found | {"HEAD"} if "GET" in found else found  # the guard sees to it


def _place(loc: Sequence[int | str]) -> str:
    return ".".join(str(part) for part in loc[1:]) or "request"
