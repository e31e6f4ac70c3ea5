"""Owns what the Python client checks before it asks anybody: requests, ids, filters, and the words they may use.

Only what cannot be right whatever the workers' version and settings are; the rest is theirs to judge. The words are
the project's contract, held equal to those of the other rooms by a test. Imports the standard library only.
"""

import json
import math
import re
import secrets
from collections.abc import Mapping
from typing import Any, Literal, TypeGuard, get_args

from worker.client.errors import FieldError, InvalidRequest, fault

Kind = Literal["video", "image", "music", "audio", "voice"]
Status = Literal["queued", "submitting", "processing", "waiting", "completed", "failed", "canceled"]

KINDS: tuple[Kind, ...] = get_args(Kind)
STATUSES: tuple[Status, ...] = get_args(Status)
REFUSED_KIND = "unknown"  # that of jobs which failed for theirs
ENDED = ("completed", "failed", "canceled")

ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
MODEL = re.compile(r"[!-~]{1,200}")
CURSOR = re.compile(r"[0-9]{1,15}")
MAX_REQUEST_BYTES = 11 * 1024 * 1024
MAX_PAGE = 500


def read_request(request: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    """Check what need not wait for a worker; return the request with an id, and its size in bytes."""
    if not isinstance(request, Mapping):
        raise fault("request", "must be a dict")
    order = dict(request)
    if order.get("id") is None:
        order["id"] = f"job_{secrets.token_hex(12)}"
    valid_id(order["id"])
    faults: list[FieldError] = []
    if order.get("kind") not in KINDS:
        faults.append({"field": "kind", "message": f"must be one of {', '.join(KINDS)}"})
    if not isinstance(order.get("input"), dict):
        faults.append({"field": "input", "message": "must be a dict"})
    try:
        size_bytes = len(write_json({name: value for name, value in order.items() if name != "id"}))
    except (ValueError, TypeError, RecursionError):
        size_bytes = 0
        faults += [{"field": name, "message": message} for name, message in _not_json(order)]
    if faults:
        raise InvalidRequest(*faults)
    if size_bytes > MAX_REQUEST_BYTES:
        raise fault("request", f"is over the limit of {MAX_REQUEST_BYTES // 1024**2} MB in all")
    return order, size_bytes


def _not_json(order: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name the fields that cannot be written as JSON, and why."""
    found = []
    for name, value in order.items():
        try:
            write_json({name: value})
        except (ValueError, TypeError, RecursionError) as error:
            found.append((ascii(name).strip("'"), f"must be plain JSON: {error}"))
    return found or [("request", "must be plain JSON")]


def valid_id(job_id: Any) -> str:
    """Check a job's id."""
    if not isinstance(job_id, str) or not ID.fullmatch(job_id):
        raise fault("id", "must be a text of 1-128 characters of A-Za-z0-9._:-")
    return job_id


def is_seconds(value: Any) -> TypeGuard[float]:
    """Tell whether it is a length of time."""
    return isinstance(value, int | float) and not math.isnan(value) and value >= 0


def check_filters(status: Any, kind: Any, model: Any, limit: Any, cursor: Any) -> None:
    """Check what a list is asked for; raise ``InvalidRequest`` with every fault."""
    checks = {
        "status": (status is None or status in STATUSES, f"must be one of {', '.join(STATUSES)}"),
        "kind": (kind is None or kind in (*KINDS, REFUSED_KIND), f"must be one of {', '.join(KINDS)}"),
        "model": (model is None or _matches(MODEL, model), "must be 1-200 characters of printable ASCII, no spaces"),
        "limit": (type(limit) is int and 1 <= limit <= MAX_PAGE, f"must be a whole number from 1 to {MAX_PAGE}"),
        "cursor": (cursor is None or _matches(CURSOR, cursor), "must be the next_cursor of a page"),
    }
    if faults := [FieldError(field=name, message=words) for name, (is_right, words) in checks.items() if not is_right]:
        raise InvalidRequest(*faults)


def _matches(pattern: re.Pattern[str], value: Any) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def write_json(value: Any) -> bytes:
    """Encode as JSON in UTF-8; raise ``ValueError`` or ``TypeError`` for what is no JSON."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
