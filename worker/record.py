"""Owns a job's record as it lies in Redis, and the public view that is made of it, the JSON the contract shows.

Imports the standard library only, because the Python client shows jobs by it in projects that have packages of their
own by the names of ours. Times are integer milliseconds in a record and RFC 3339 in a view.
"""

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

SCHEMA = 2
"""Of the records this version writes. Those of a newer one are left alone, those of every older one are read.

It rises with every change that an older version would drop or misread: a new field of spec, state, attempt or result, a
new value of a status, an outcome or a code, a new form of a delivery. What look-ups have seen (``look:N``) is exempt:
it decides nothing by itself, and what cannot be read of it counts as not seen. Every write raises a record's schema.
"""
LAST_MS = 253_370_764_800_000  # 9999-01-01, which has a local time everywhere

UNSHOWABLE = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)
"""What reading or showing a damaged record may raise."""


class NotARecord(ValueError):  # noqa: N818 - named after what it says
    """What lies in Redis is no record that this version can read; the message says why."""


class NewerSchema(NotARecord):
    """The record was written by a newer version."""

    def __init__(self) -> None:
        super().__init__("it was written by a newer version")


def check_schema(stored: bytes | str) -> None:
    """Raise ``NewerSchema`` for a schema that is newer than this version's, ``ValueError`` for what is none."""
    if int(stored) > SCHEMA:
        raise NewerSchema


def write_part(part: Any) -> str:
    """Write a part of a record."""
    return json.dumps(part, separators=(",", ":"))


def read_record(stored: Mapping[bytes, bytes]) -> dict[str, Any]:
    """Read a record's hash into its form: ``spec state status rev result looks``; raise ``NotARecord``."""
    try:
        check_schema(stored[b"schema"])
        result = stored.get(b"result")
        return {
            "spec": json.loads(stored[b"spec"]),
            "state": json.loads(stored[b"state"]),
            "status": stored[b"status"].decode(),
            "rev": stored[b"rev"].decode(),
            "result": json.loads(result) if result else None,
            "looks": {
                number: look
                for name, value in stored.items()
                if name.startswith(b"look:") and (number := _number(name[5:])) and (look := _look(value))
            },
        }
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise error if isinstance(error, NotARecord) else NotARecord(f"{type(error).__name__}: {error}") from error


def _number(stored: bytes) -> int | None:
    return int(stored) if stored.isdigit() and len(stored) < 6 else None


def _look(stored: bytes) -> dict[str, Any] | None:
    """Read what look-ups have seen; None for what cannot be read."""
    try:
        look = json.loads(stored)
    except (ValueError, RecursionError):
        return None
    numbers = ("polls", "refused", "doubts", "doubted_at_ms")
    is_one = isinstance(look, dict) and all(type(look.get(name, 0)) is int for name in numbers)
    return look if is_one and isinstance(look.get("polls"), int) else None


def view(record: Mapping[str, Any]) -> dict[str, Any]:
    """Show a record as the contract's job view: plain JSON types, times in RFC 3339 UTC with milliseconds."""
    spec, state, looks = record["spec"], record["state"], record["looks"]
    models, attempts = spec["models"], state["attempts"]
    current = attempts[-1] if attempts and attempts[-1].get("outcome") is None else {}
    last_task = next((a["task_id"] for a in reversed(attempts) if a.get("task_id")), None)
    completed_by = next((a for a in reversed(attempts) if a.get("outcome") == "succeeded"), None)
    return {
        "id": spec["id"],
        "kind": spec["kind"],
        "status": record["status"],
        "requested_model": models[0],
        "model": models[state["model_index"]],
        "fallbacks": list(models[1:]),
        "task_id": completed_by.get("task_id") if completed_by else last_task,
        "degraded": completed_by is not None and completed_by["model"] != models[0],
        "attempts": [_attempt(attempt, looks.get(attempt["number"])) for attempt in attempts],
        "partial": _partial(current) if record["result"] is None else None,
        "result": record["result"],
        "failure": state["failure"],
        "created_at": rfc3339(spec["created_at_ms"]),
        "updated_at": rfc3339(state["updated_at_ms"]),
        "completed_at": rfc3339(state["completed_at_ms"]),
        "deadline_at": rfc3339(state["deadline_at_ms"]),
        "next_action_at": rfc3339(state["next_action_at_ms"]),
        "metadata": spec["metadata"],
    }


def _attempt(attempt: Mapping[str, Any], look: Mapping[str, Any] | None) -> dict[str, Any]:
    shown = {
        "number": attempt["number"],
        "model": attempt["model"],
        "task_id": attempt.get("task_id"),
        "started_at": rfc3339(attempt["started_at_ms"]),
        "ended_at": rfc3339(attempt.get("ended_at_ms")),
        "outcome": attempt.get("outcome"),
        "failure": attempt.get("failure"),
        "polls": look["polls"] if look else attempt.get("polls", 0),
        "cost": attempt.get("cost"),
    }
    if look and (refusal := look.get("refusal")):
        told = {name: value for name, value in refusal.items() if name != "at_ms"}
        shown["last_refusal"] = {"at": rfc3339(refusal["at_ms"]), **told}
    if partial := _partial(attempt):
        shown["partial_result"] = partial
    if late := attempt.get("late"):
        more = {name: late[name] for name in ("text", "expires_at") if name in late}
        shown["late_result"] = {"status": late["status"], "at": rfc3339(late["at_ms"]), "urls": late["urls"], **more}
    return shown


def _partial(attempt: Mapping[str, Any]) -> dict[str, Any] | None:
    partial = attempt.get("partial")
    return {"urls": partial["urls"], "at": rfc3339(partial["at_ms"])} if partial else None


def rfc3339(at_ms: float | None) -> str | None:
    """Write a time as RFC 3339 in UTC with milliseconds; one before 1970 or after 9998 is the nearest."""
    if at_ms is None:
        return None
    at_ms = min(max(0, at_ms), LAST_MS)
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def number(stored: object) -> int | None:
    """Read a whole number out of what stands where there should be one, text or a number; None for anything else."""
    if isinstance(stored, bool) or not isinstance(stored, bytes | str | int | float):
        return None
    try:
        return int(stored)
    except (ValueError, OverflowError):
        pass
    try:
        read = float(stored)
    except ValueError:
        return None
    return int(read) if math.isfinite(read) else None
