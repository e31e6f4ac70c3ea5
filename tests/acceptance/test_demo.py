"""The demo as a user runs it: one command, its output, its exit status, and what it leaves behind."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

LIMIT_S = 110


@pytest.fixture
def folder() -> Iterator[Path]:
    """Give a temporary folder whose path is short enough for a socket: then its Redis is told of it, too."""
    with tempfile.TemporaryDirectory(prefix="demo-") as path:
        yield Path(path)


@pytest.fixture
def environ(folder: Path) -> dict[str, str]:
    """Give an environment with a temporary folder of its own, and with settings that the demo must not heed."""
    disturbing = {"REDIS_URL": "redis://127.0.0.1:1", "ONYSOFT_BASE_URL": "http://127.0.0.1:1", "MAX_ATTEMPTS": "x"}
    return os.environ | {"TMPDIR": str(folder), "COLUMNS": "100"} | disturbing


def left_running(folder: Path) -> list[str]:
    """Name the processes that were told of the folder, by their environment or their arguments."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            told = (process / "environ").read_bytes() + (process / "cmdline").read_bytes()
        except OSError:  # it ended, or is another user's
            continue
        if os.fsencode(folder) in told:
            found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


def test_the_demo_ends_well_and_leaves_nothing(environ: dict[str, str], folder: Path) -> None:
    """Every job, webhook and bill is as expected, told in plain lines, and nothing is left running or lying about."""
    done = subprocess.run(
        [sys.executable, "-m", "worker", "demo"],
        check=False,
        env=environ,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    assert done.stderr == ""
    assert "\x1b" not in done.stdout
    summary = done.stdout[done.stdout.index("All 33 jobs") :]
    for name in ("completed", "failed as expected", "retried", "failed over", "parked", "webhooks verified"):
        assert f"\n  {name}" in summary
    assert "radio-jingle: the answer was lost after acceptance" in " ".join(summary.split())
    assert left_running(folder) == []
    assert list(folder.iterdir()) == []


def test_an_interrupted_demo_leaves_nothing(environ: dict[str, str], folder: Path) -> None:
    """Ctrl-C in the midst of it stops every process and removes every file."""
    with subprocess.Popen(
        [sys.executable, "-m", "worker", "demo"], env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if "processing" in line:
                break
        assert len(left_running(folder)) == 4  # the demo, the gateway, the worker, its Redis
        demo.send_signal(signal.SIGINT)
        _, said = demo.communicate(timeout=20)
    assert demo.returncode == 130
    assert "interrupted" in said
    assert left_running(folder) == []
    assert list(folder.iterdir()) == []
