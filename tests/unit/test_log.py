"""No secret reaches a log line, whatever carries it."""

import io
import json
import logging
import os
import re
import socket
import sys

import pytest

from config.log import EVENTS, configure_logging, hide, log, name_process, redact

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


ARMS = ["\x1b[2J", "\x9b31m", "\r", "\x08", "\x7f", "\x00", "\x85", "\u2028", "\u2029", "\u202e", "\u2066"]


class Terminal(io.StringIO):
    """Standard error that says it is a terminal."""

    def isatty(self) -> bool:
        """Have colours."""
        return True


@pytest.mark.parametrize("arm", ARMS, ids=ascii)
@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_a_console_obeys_no_words_of_others(
    arm: str, stream: type[io.StringIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In fields with and without blanks, nested, in messages, exceptions and stacks: shown, while our colours stay."""
    written = stream()
    monkeypatch.setattr(sys, "stderr", written)
    configure_logging(level="debug", as_json=False)
    try:
        raise ValueError(f"no{arm}use\nnext")  # noqa: TRY301
    except ValueError:
        log.exception("duty.crashed", answer=f"a{arm}b", words=f"a {arm} b", nested={"a": [arm]}, odd=ValueError(arm))
    logging.getLogger("other").warning("said %s", arm)
    logging.getLogger("other").warning("stacked", stack_info=True)
    text = written.getvalue()
    rest = re.sub(r"\x1b\[\d+m", "", text) if stream is Terminal else text
    assert ("\x1b[" in text) == (stream is Terminal)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]", rest)
    shown = repr(arm)[1:-1]
    assert f"answer='a{shown}b'" in rest
    assert f"words='a {shown} b'" in rest
    assert f"ValueError: no{shown}use\nnext\n" in rest
    assert f"said {shown}" in rest


def test_a_console_line_cannot_be_forged(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line's end within a field or a message does not begin a line."""
    written = io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    configure_logging(level="debug", as_json=False)
    log.warning("delivery.ended", answer="no\n2026-11-22 [info] job.completed")
    logging.getLogger("other").warning("no\n2026-11-22 [info] job.completed")
    assert len(written.getvalue().splitlines()) == 2


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


@pytest.mark.parametrize("as_json", [True, False])
def test_lines_of_a_named_process_tell_whose_they_are(
    as_json: bool,  # noqa: FBT001
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Host and pid, other libraries' lines and exceptions included; a command's lines do not."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr("config.log._process", {})
    configure_logging(level="info", as_json=as_json)
    log.info("job.completed", job="j")
    name_process()
    log.info("job.completed", job="j")
    logging.getLogger("other").warning("said")
    unnamed, *lines = stream.getvalue().splitlines()
    mark = f'"pid": {os.getpid()}' if as_json else f"pid={os.getpid()}"
    assert [mark in line and socket.gethostname() in line for line in (unnamed, *lines)] == [False, True, True]


def test_redaction_leaves_the_rest_alone() -> None:
    """Only secrets go."""
    assert redact("job j-1 sk-ony- at https://x.test/a?b=c") == "job j-1 sk-ony- at https://x.test/a?b=c"


def test_every_event_logged_is_listed() -> None:
    """The list of event names is the list of event names."""
    from pathlib import Path

    root = Path(__file__).parents[2]
    used: set[str] = set()
    for path in (root / "worker").rglob("*.py"):
        if not {"sandbox", "demo"} & set(path.parts):
            used |= set(re.findall(r'log\.(?:info|warning|error|exception|debug)\(\s*"([a-z_.]+)"', path.read_text()))
    assert used <= EVENTS
