"""Owns what stands on arq's queue: how the body of an entry is read, and what is said where it cannot be.

The functions are ``generate(request)``, and of a job that is there ``cancel(job_id)`` and ``retry(job_id)``: wishes.
Each takes a keyword ``reply_to`` besides, 32 hex digits of the caller's, to be answered on (``worker.client`` does so).
A pickle is never read.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

from jobs.request import Fault, valid_id

FUNCTION = "generate"
WISHES = ("cancel", "retry")
REPLY_TO = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Call:
    """A queued call: of ``generate`` with a request, or of a wish with a job's id; ``reply_to`` is who asks."""

    function: str
    argument: Any
    reply_to: str | None


@dataclass(frozen=True, slots=True)
class Rejection:
    """An entry that cannot be taken: a word to count it by, and what to tell its caller.

    ``code`` is the word in an answer, where it is another. ``recorded``: a failed job tells of it, unless its caller
    waits for an answer.
    """

    reason: str
    words: str
    code: str | None = None
    faults: tuple[Fault, ...] = ()
    recorded: bool = True


def read_call(body: bytes) -> Call | Rejection:
    """Read the body of a queue entry."""
    try:
        call = json.loads(body)
    except (ValueError, RecursionError):
        what = "a pickle" if body[:1] == b"\x80" else "no JSON"
        return Rejection("not_json", f"request: the queued body is {what}; enqueue with a JSON job_serializer")
    if not isinstance(call, dict) or not isinstance(call.get("a"), list) or not isinstance(call.get("k"), dict):
        return Rejection("not_arq", "request: the queued body is no arq call")
    function, given, named = call.get("f"), call["a"], call["k"]
    if not isinstance(function, str) or function not in {FUNCTION, *WISHES}:
        known = ", ".join((FUNCTION, *WISHES))
        return Rejection("unknown_function", f"request: the function is none of {known}")
    reply_to = named.get("reply_to")
    if len(given) != 1 or named.keys() - {"reply_to"} or not _may_reply(reply_to):
        words = f"request: {function} takes one argument and, where an answer is wanted, reply_to of 32 hex digits"
        return Rejection("wrong_arguments", words, recorded=function == FUNCTION)
    if function in WISHES and not (isinstance(given[0], str) and valid_id(given[0])):
        return Rejection("wrong_arguments", f"request: {function} takes one argument, a job's id", recorded=False)
    return Call(function, given[0], reply_to)


def _may_reply(reply_to: Any) -> bool:
    return reply_to is None or (isinstance(reply_to, str) and REPLY_TO.fullmatch(reply_to) is not None)
