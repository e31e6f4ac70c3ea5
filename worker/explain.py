"""Owns the ``explain`` command: what the failure table says of a failure, and whether it agrees with a file."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jobs.failures import classify, explain_dict
from jobs.verdict import Failure, Signal, Stage, Transport
from worker.exits import Failed, WrongUsage

SOURCES = {
    "doc": "Onysoft documents it",
    "kie": "KieAI documents it",
    "seen": "seen in public code and logs",
    "assumed": "assumed",
    "ours": "decided on this side",
}
JUDGED = ("code", "category", "action")
ROW_KEYS = ("stage", "status", "code", "message", "transport", "expect", "source")


def explain_one(
    stage: str,
    status: int | None,
    code: str | None,
    message: str | None,
    transport: str | None = None,
    *,
    as_json: bool,
) -> int:
    """Print the verdict on one failure."""
    if stage not in set(Stage):
        raise WrongUsage(f"--stage: {stage} is not one of {', '.join(Stage)}")
    if transport is not None and transport not in set(Transport):
        raise WrongUsage(f"--transport: {transport} is not one of {', '.join(Transport)}")
    met = None if transport is None else Transport(transport)
    _print(classify(Signal(Stage(stage), status, code, message, transport=met)), as_json=as_json)
    return 0


def explain_file(path: Path, *, as_json: bool) -> int:
    """Print a verdict a line, in order; return 1 where one differs from its row's ``expect``."""
    compared, differences = 0, 0
    for number, row in _rows(path):
        failure = classify(_signal(row, number))
        expected = row.get("expect") or {}
        if not isinstance(expected, dict) or expected.keys() - set(JUDGED):
            raise Failed(f"--file: line {number}: expect must be an object of {', '.join(JUDGED)}")
        wrong = {
            name: expected[name]
            for name in JUDGED
            if expected.get(name) is not None and expected[name] != str(getattr(failure, name))
        }
        compared += bool(expected)
        differences += bool(wrong)
        _print(failure, as_json=as_json)
        for name, value in wrong.items():
            sys.stderr.write(f"line {number}: {name} is {getattr(failure, name)}, expected {json.dumps(value)}\n")
    if compared:
        sys.stderr.write(f"{compared} compared, {differences} different\n")
    return 1 if differences else 0


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise Failed(f"--file: cannot be read: {path} ({error})") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise Failed(f"--file: line {number} is not JSON ({error})") from error
        except RecursionError:
            raise Failed(f"--file: line {number} is nested too deep") from None
        if not isinstance(row, dict):
            raise Failed(f"--file: line {number} is not a JSON object")
        yield number, row


def _signal(row: dict[str, Any], number: int) -> Signal:
    if unknown := row.keys() - ROW_KEYS:
        raise Failed(f"--file: line {number}: {min(unknown)} is none of {', '.join(ROW_KEYS)}")
    transport = row.get("transport")
    if transport is not None and transport not in set(Transport):
        raise Failed(f"--file: line {number}: transport must be one of {', '.join(Transport)}")
    stage, status, code = row.get("stage"), row.get("status"), row.get("code")
    if stage not in set(Stage):
        raise Failed(f"--file: line {number}: stage must be one of {', '.join(Stage)}")
    if status is not None and (not isinstance(status, int) or isinstance(status, bool)):
        raise Failed(f"--file: line {number}: status must be a whole number or null")
    message = row.get("message")
    words = (None if code is None else str(code), None if message is None else str(message))
    return Signal(Stage(stage), status, *words, transport=None if transport is None else Transport(transport))


def _print(failure: Failure, *, as_json: bool) -> None:
    verdict = explain_dict(failure)
    if as_json:
        sys.stdout.write(json.dumps(verdict) + "\n")
    else:
        sys.stdout.write(
            f"{verdict['code']:22} {verdict['category']:10} {verdict['action']:13}"
            f" rule {verdict['rule']} ({SOURCES[verdict['source']]})\n"
        )
