"""No secret reaches a log line, whatever carries it."""

import io
import json
import logging
import sys

import pytest

from config.log import EVENTS, configure_logging, hide, log, redact

KEY = "sk-ony-" + "0123456789ab" * 4
SECRET = "whsec_" + "c2VjcmV0LXNlY3JldC1zZWNyZXQtMDEyMzQ1Njc4OQ=="


@pytest.mark.parametrize("as_json", [True, False])
def test_secrets_are_redacted_everywhere(as_json: bool, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: FBT001
    """In fields, in messages, in exceptions with their causes, and from other libraries' loggers."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    configure_logging(level="debug", as_json=as_json)
    hide(["hunter22-token"])
    try:
        try:
            int(f"key {KEY} refused")
        except ValueError as error:
            raise RuntimeError(f"secret {SECRET}, redis://user:p4ssw0rd@host/0") from error
    except RuntimeError:
        log.exception("duty.crashed", header=f"Bearer {KEY}", token="hunter22-token", nested={"a": [KEY]})
    logging.getLogger("other").warning("sent %s", KEY)
    text = stream.getvalue()
    assert text.count("[redacted]") >= 7
    for leaked in (KEY, KEY[7:], SECRET, SECRET[6:], "p4ssw0rd", "hunter22"):
        assert leaked not in text


def test_json_lines_are_json(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each line parses, with event, level and time, exceptions included."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    configure_logging(level="info", as_json=True)
    log.info("job.completed", job="ş")
    try:
        int("x")
    except ValueError:
        log.exception("duty.crashed")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["event"] for line in lines] == ["job.completed", "duty.crashed"]
    assert all({"level", "timestamp"} <= line.keys() for line in lines)


def test_redaction_leaves_the_rest_alone() -> None:
    """Only secrets go."""
    assert redact("job j-1 sk-ony- at https://x.test/a?b=c") == "job j-1 sk-ony- at https://x.test/a?b=c"


def test_every_event_logged_is_listed() -> None:
    """The list of event names is the list of event names."""
    import re
    from pathlib import Path

    root = Path(__file__).parents[2]
    used: set[str] = set()
    for path in (root / "worker").rglob("*.py"):
        if not {"sandbox", "demo"} & set(path.parts):
            used |= set(re.findall(r'log\.(?:info|warning|error|exception|debug)\(\s*"([a-z_.]+)"', path.read_text()))
    assert used <= EVENTS
