"""Starts the processes of a bench, reads what they cost from Linux, and ends them: these and no others.

CPU is a process's own clock (user and system, all threads, nanoseconds), read from outside; memory is the kernel's
high-water mark. Every child leads a session of its own, so that Ctrl-C reaches the bench, which ends them in order.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 8.0
LOOK_EVERY_S = 0.005

T = str | int | bool | None


class Broken(Exception):  # noqa: N818 - named after what it says
    """Something did not work, so that nothing was measured; the message says what."""


def cpu_s(pid: int) -> float:
    """Read how much CPU a process has used since it began."""
    return time.clock_gettime((~pid << 3) | 2)


class Process:
    """A child with its log file."""

    def __init__(self, words: Sequence[str], *, environ: Mapping[str, str], log: Path, cwd: Path) -> None:
        self.name = " ".join(Path(word).name for word in words[:4])
        self.log = log
        with log.open("wb") as out:
            self._child = subprocess.Popen(
                words,
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=out,
                env=dict(environ),
                cwd=cwd,
                start_new_session=True,
            )
        self.pid = self._child.pid

    def cpu_s(self) -> float:
        """Read how much CPU it has used."""
        self.check()
        return cpu_s(self.pid)

    def peak_mb(self) -> float:
        """Read the most memory it has held, in MB of 10^6 bytes."""
        return self._status_kib("VmHWM") * 1024 / 1e6

    def _status_kib(self, name: str) -> int:
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))

    def check(self) -> None:
        """Raise ``Broken`` if it has ended."""
        if self._child.poll() is not None:
            words = self.log.read_text(errors="replace").strip()[-800:]
            raise Broken(f"{self.name} ended with {self._child.returncode}: {words}")

    def send(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self._child.poll() is None:
            os.kill(self.pid, number)

    def ended(self, within_s: float = 0.0) -> int | None:
        """Give its exit status (minus the signal that killed it), waiting a while for it; None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._child.wait(within_s)
        return None

    def tell(self, line: str) -> None:
        """Write a line to its standard input."""
        assert self._child.stdin is not None
        self._child.stdin.write(line.encode() + b"\n")
        self._child.stdin.flush()

    def said(self, find: Callable[[str], str | None]) -> str:
        """Wait for the log line that ``find`` reads something from."""
        found: list[str] = []

        def look() -> bool:
            found.extend(text for line in self.log.read_text(errors="replace").splitlines() if (text := find(line)))
            return bool(found)

        self.until(look, START_TIMEOUT_S)
        return found[0]

    def until(self, condition: Callable[[], bool], timeout_s: float) -> None:
        """Wait until something holds, as long as the process lives."""
        give_up_s = time.monotonic() + timeout_s
        while not condition():
            self.check()
            if time.monotonic() > give_up_s:
                raise Broken(f"{self.name}: not there after {timeout_s:g} s; its log ends: {self._tail()}")
            time.sleep(LOOK_EVERY_S)

    def _tail(self) -> str:
        return self.log.read_text(errors="replace")[-600:]

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep it from running, so that it begins with all its work before it."""
        self.check()
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)

    def stop(self) -> None:
        """End it: politely, then not."""
        with contextlib.suppress(OSError):
            self._child.stdin and self._child.stdin.close()
        for end in (self._child.terminate, self._child.kill):
            if self._child.poll() is not None:
                return
            end()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(STOP_TIMEOUT_S)


def python(*words: str) -> list[str]:
    """Give the words that run this interpreter."""
    return [sys.executable, *words]
