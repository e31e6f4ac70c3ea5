"""What the README shows works as shown."""

import re
import time
from pathlib import Path
from typing import Any

import pytest

from worker.signing import make_secret, webhook_headers

README = (Path(__file__).parents[2] / "README.md").read_text()


def code_after(heading: str, language: str) -> str:
    """Take the first block of code under a heading."""
    block = re.search(rf"## {heading}\n.*?```{language}\n(.*?)```", README, flags=re.DOTALL)
    assert block
    return block[1]


def test_the_receiver_verifies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours is taken however its headers are spelt; a forgery, an old one and one without headers are refused."""
    secret = make_secret()
    monkeypatch.setenv("WEBHOOK_SECRET", secret)
    names: dict[str, Any] = {}
    exec(compile(code_after("Receive webhooks", "python"), "README.md", "exec"), names)
    verified, body = names["verified"], b'{"type":"job.completed"}'
    headers = dict(webhook_headers([make_secret(), secret], "evt_1", int(time.time()), body))
    assert verified(headers, body) == {"type": "job.completed"}
    assert verified({name.title(): value for name, value in headers.items()}, body) == {"type": "job.completed"}
    old = dict(webhook_headers([secret], "evt_2", int(time.time()) - 4000, body))
    strange = {**headers, "webhook-timestamp": "soon"}
    for given, sent in ((headers, body + b" "), (old, body), (strange, body), ({}, body)):
        with pytest.raises(PermissionError):
            verified(given, sent)


def test_every_command_shown_exists() -> None:
    """No command is promised that the command line does not have."""
    from typer.main import get_command

    from worker.cli import app

    commands = set(get_command(app).commands)  # type: ignore[attr-defined]
    shown = set(re.findall(r"onysoft-worker ([a-z][a-z-]*)", README))
    assert shown - {"explain"} <= commands
