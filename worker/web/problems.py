"""Owns every error answer: which problems there are, and which exception becomes which (RFC 9457, problem+json).

Nothing a caller sent is quoted back but the names of fields and ids, and those redacted.
"""

import json
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, Literal

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from config.log import log, redact
from jobs.request import Fault, InvalidRequest, RequestTooLarge
from worker.enqueue import Conflict
from worker.link import RedisAway, RedisRefused

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 2


class Kind(Enum):
    """The problems there are: code, HTTP status, title. A code is for programs and never changes its meaning."""

    INVALID_JSON = ("invalid_json", 400, "The body is not JSON")
    MALFORMED_REQUEST = ("malformed_request", 400, "The request is not HTTP")
    UNAUTHORIZED = ("unauthorized", 401, "A valid token is required")
    FORBIDDEN_HOST = ("forbidden_host", 403, "The Host header is not allowed")
    FORBIDDEN_ORIGIN = ("forbidden_origin", 403, "Requests of other web sites are not allowed")
    NOT_FOUND = ("not_found", 404, "There is nothing here")
    METHOD_NOT_ALLOWED = ("method_not_allowed", 405, "The method is not allowed here")
    CONFLICT = ("conflict", 409, "The id is taken")
    PAYLOAD_TOO_LARGE = ("payload_too_large", 413, "The request is too large")
    UNSUPPORTED_MEDIA_TYPE = ("unsupported_media_type", 415, "The body's type is not supported")
    INVALID_REQUEST = ("invalid_request", 422, "The request is not valid")
    INTERNAL_ERROR = ("internal_error", 500, "Something went wrong on our side")
    UNAVAILABLE = ("unavailable", 503, "The service is unavailable for now")

    def __init__(self, code: str, status: int, title: str) -> None:
        self.code = code
        self.status = status
        self.title = title

    @property
    def type(self) -> str:
        """Name the problem's type as RFC 9457 wants it: a URI."""
        return f"urn:onysoft-worker:problem:{self.code}"


_BY_STATUS: Mapping[int, Kind] = {
    404: Kind.NOT_FOUND,
    405: Kind.METHOD_NOT_ALLOWED,
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


def problem(
    kind: Kind,
    detail: str,
    *,
    errors: Sequence[Fault] = (),
    headers: Mapping[str, str] | None = None,
    members: Mapping[str, Any] | None = None,
) -> Response:
    """Make the answer for a problem; ``detail`` says what to do about it."""
    body: dict[str, Any] = {
        "type": kind.type,
        "title": kind.title,
        "status": kind.status,
        "detail": detail,
        "code": kind.code,
        **(members or {}),
    }
    if errors:
        body["errors"] = [{"field": redact(fault.field), "message": redact(fault.message)} for fault in errors]
    sent = {"cache-control": "no-store", **(headers or {})}
    return Response(encode_json(body), status_code=kind.status, headers=sent, media_type=MEDIA_TYPE)


def unavailable(
    detail: str,
    *,
    members: Mapping[str, Any] | None = None,
    connection: Literal["keep-alive", "close"] = "keep-alive",
) -> Response:
    """Make the 503 that asks to come again."""
    headers = {"retry-after": str(RETRY_AFTER_S)}
    if connection == "close":
        headers["connection"] = "close"
    return problem(Kind.UNAVAILABLE, detail, headers=headers, members=members)


async def answer_error(request: Request, error: Exception) -> Response:
    """Turn whatever a route raised into its answer. What is not listed is a bug: it is logged and says nothing."""
    match error:
        case Refusal():
            return problem(error.kind, str(error), errors=error.errors, headers=error.headers, members=error.members)
        case RequestTooLarge():
            return problem(Kind.PAYLOAD_TOO_LARGE, str(error))
        case InvalidRequest():
            return problem(Kind.INVALID_REQUEST, "mend the fields listed under 'errors'", errors=error.faults)
        case RequestValidationError():
            faults = [Fault(_place(found["loc"]), str(found["msg"])) for found in error.errors()]
            return problem(Kind.INVALID_REQUEST, "mend the fields listed under 'errors'", errors=faults)
        case Conflict():
            return problem(Kind.CONFLICT, redact(str(error)))
        case RedisAway() | RedisRefused():
            log.warning("redis.away", error=str(error))
            return unavailable("Redis is away: repeat the request")
        case HTTPException():
            return _http_problem(request, error)
        case ClientDisconnect():
            return Response(status_code=400)  # nobody reads it
        case _:
            return internal_error(request.method, request.url.path, error)


def internal_error(method: str, path: str, error: Exception) -> Response:
    """Log a bug with its traceback, and answer without a word about it."""
    log.error("request.failed", method=method, path=path, exc_info=error)
    return problem(Kind.INTERNAL_ERROR, "the log has it under this answer's X-Request-Id")


def _http_problem(request: Request, error: HTTPException) -> Response:
    kind = _BY_STATUS.get(error.status_code)
    if kind is Kind.NOT_FOUND:
        return problem(kind, "no such address: see /docs for those there are")
    if kind is Kind.METHOD_NOT_ALLOWED:
        allowed = ", ".join(sorted(_methods(request)))
        return problem(kind, f"allowed here: {allowed}", headers={"allow": allowed})
    fallback = Kind.INVALID_REQUEST if error.status_code < 500 else Kind.INTERNAL_ERROR
    return problem(kind or fallback, "see /docs for what is expected")


def _methods(request: Request) -> set[str]:
    """Name the methods of an address over all its routes; Starlette's own answer names those of the first one."""
    at_address = (route for route in request.app.state.routes if route.path_regex.match(request.scope["path"]))
    found = {method for route in at_address for method in route.methods}
    return found | {"HEAD"} if "GET" in found else found  # the guard sees to it


def _place(loc: Sequence[int | str]) -> str:
    return ".".join(str(part) for part in loc[1:]) or "request"
