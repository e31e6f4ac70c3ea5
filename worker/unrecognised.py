"""Owns telling of failures whose wording no rule of the table recognises: each kind of wording once a process.

What varies from task to task (URLs, ids, numbers) is taken out of the words first, so that a gateway that quotes the
task's id does not fill the log. Bounded: what was told longest ago is forgotten, and told again when it comes back.
"""

import re
from collections import OrderedDict

from config.log import log
from jobs.failures import UNRECOGNISED
from jobs.verdict import Failure

REMEMBERED = 1000
FINGERPRINT_CHARS = 200

_VARIES = (
    (re.compile(r"\b(?:https?|data):\S*"), "url"),
    (re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"), "id"),
    (re.compile(r"\b(?=[\w-]*\d)[a-z0-9_-]{6,}\b"), "id"),  # a long word with a digit in it, hex included
    (re.compile(r"\d+"), "0"),
    (re.compile(r"\s+"), " "),
)


def fingerprint(words: str) -> str:
    """Give what stays the same of a wording from one failure to the next."""
    words = words.lower()
    for pattern, instead in _VARIES:
        words = pattern.sub(instead, words)
    return words.strip()[:FINGERPRINT_CHARS]


class Unrecognised:
    """What one process has told of."""

    def __init__(self) -> None:
        self._told: OrderedDict[str, None] = OrderedDict()

    def tell(self, failure: Failure, *, job_id: str, model: str) -> bool:
        """Log a failure that no rule recognises, with the job it was first met in; say whether that was done."""
        if failure.rule != UNRECOGNISED:
            return False
        key = fingerprint(f"{failure.gateway_code or ''} {failure.message}")
        known = key in self._told
        self._told[key] = None
        self._told.move_to_end(key)
        if known:
            return False
        if len(self._told) > REMEMBERED:
            self._told.popitem(last=False)
        log.warning(
            "failure.unrecognised",
            job=job_id,
            model=model,
            gateway_code=failure.gateway_code,
            words=failure.message,
            fingerprint=key,
        )
        return True
