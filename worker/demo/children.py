"""Owns the demo's child processes: starts them, learns where they listen, and stops them for certain.

Each child leads a session of its own, so that Ctrl-C reaches the demo alone, which then stops them in order. What a
child says goes to a log file of its own. The environment is handed in; must not read this process's.
"""

import asyncio
import json
import re
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import worker

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 8.0
LOOK_EVERY_S = 0.02
ERROR_PREFIX = "onysoft-worker: "


class ChildFailed(Exception):  # noqa: N818 - named after what it says
    """A child ended when it should not have, or did not start; ``told`` where the message is the child's own advice."""

    def __init__(self, message: str, *, told: bool) -> None:
        super().__init__(message)
        self.told = told


class Child:
    """One command of the product as a process, with its log file."""

    def __init__(self, command: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.command = command
        self.log = log
        self._process = process

    @classmethod
    async def start(cls, words: list[str], environ: Mapping[str, str], log: Path) -> "Child":
        """Start ``onysoft-worker WORDS``; ``announced`` tells when it is there."""
        with log.open("wb") as out:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "worker",
                *words,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=dict(environ),
                cwd=Path(worker.__file__).parents[1],  # a folder named worker where the user stands is not ours
                start_new_session=True,
            )
        return cls(words[0], process, log)

    async def announced(self, find: Callable[[str], str | None]) -> str:
        """Wait for the line that ``find`` reads an address from; raise ``ChildFailed`` where none comes."""
        with suppress(TimeoutError):
            async with asyncio.timeout(START_TIMEOUT_S):
                while True:
                    self.check()
                    for line in self._lines():
                        if found := find(line):
                            return found
                    await asyncio.sleep(LOOK_EVERY_S)
        raise ChildFailed(f"{self.command} did not start within {START_TIMEOUT_S:.0f} s", told=False)

    def check(self) -> None:
        """Raise ``ChildFailed``, with the last thing it said, if the process has ended."""
        status = self._process.returncode
        if status is None:
            return
        words = [line.strip() for line in self._lines() if line.strip() and not line.startswith("{")]  # no log events
        if words and words[-1].startswith(ERROR_PREFIX):
            raise ChildFailed(f"{self.command}: {words[-1].removeprefix(ERROR_PREFIX)}", told=True)
        how = f"was killed by signal {-status}" if status < 0 else f"exited with status {status}"
        raise ChildFailed(f"{self.command} {how}" + (f": {words[-1]}" if words else ""), told=False)

    async def stop(self) -> None:
        """End the process: politely, then not. Safe to call twice."""
        for end, wait_s in ((self._process.terminate, STOP_TIMEOUT_S), (self._process.kill, STOP_TIMEOUT_S)):
            if self._process.returncode is not None:
                return
            with suppress(ProcessLookupError):
                end()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), wait_s)

    def _lines(self) -> list[str]:
        return self.log.read_text(errors="replace").splitlines()


def sandbox_address(line: str) -> str | None:
    """Read the gateway's URL from the one line it says."""
    match = re.match(r"sandbox gateway on (http://\S+)", line)
    return match[1] if match else None


def worker_address(line: str) -> str | None:
    """Read the API's URL from the log line of ``up``."""
    with suppress(ValueError):
        event = json.loads(line)
        if isinstance(event, dict) and event.get("event") == "process.started":
            return str(event["address"])
    return None
