"""What tests of consumers share: the page's blocks of code, and a receiver of it as a process."""

import os
import random
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

PAGE = (Path(__file__).parents[2] / "docs/webhooks.md").read_text()
LANGUAGES = os.environ.get("CONSUMERS", "python").split()
START_WITHIN_S = 20.0

Headers = Sequence[tuple[str, str | bytes]]


def blocks(language: str) -> list[str]:
    """Give the page's blocks of code in a language."""
    found = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)
    assert found, f"the page has no {language}"
    return found


def program(language: str, folder: Path) -> list[str]:
    """Save the page's receiver as the page says, and give the command that runs it; Go's is compiled, offline."""
    (code,) = blocks({"python": "python", "node": "js", "go": "go"}[language])
    source = folder / {"python": "receiver.py", "node": "receiver.mjs", "go": "receiver.go"}[language]
    source.write_text(code)
    if language != "go":
        return [{"python": sys.executable, "node": "node"}[language], str(source)]
    offline = {"GOCACHE": f"{folder}/cache", "GOPATH": f"{folder}/path", "GOPROXY": "off", "GOTOOLCHAIN": "local"}
    offline |= {"GOFLAGS": "", "CGO_ENABLED": "1" if shutil.which("gcc") else "0"}  # what is installed is built with it
    subprocess.run(["go", "build", "-o", "receiver", source.name], cwd=folder, env=os.environ | offline, check=True)
    return [str(folder / "receiver")]


def free_port() -> int:
    """Find a port nobody listens at, below those that the kernel gives to whoever asks for any."""
    while True:
        with suppress(OSError), socket.create_server(("127.0.0.1", random.randrange(20_000, 32_000))) as free:
            return int(free.getsockname()[1])


class Consumer:
    """A receiver as a process. It prints a line for each event it handles, before it answers."""

    def __init__(self, command: list[str], secret: str, folder: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/hooks/media"
        self._out, self._err = folder / f"{self.port}.out", folder / f"{self.port}.err"
        environ = os.environ | {"WEBHOOK_SECRET": secret, "PORT": str(self.port)}
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(command, env=environ, stdout=out, stderr=err)
        self._http = httpx.Client(timeout=10, trust_env=False)

    def await_listening(self) -> None:
        """Wait until it takes connections; fail with its words where it ends instead."""
        deadline_s = time.monotonic() + START_WITHIN_S
        while True:
            with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", self.port)):
                return
            if self.process.poll() is not None or time.monotonic() > deadline_s:
                pytest.fail(f"the receiver does not listen: {self.said}")
            time.sleep(0.01)

    @property
    def said(self) -> str:
        """What it has said of what went wrong."""
        return self._err.read_text()

    def handled(self) -> list[str]:
        """List what it has handled, a line each: the type and the job's id."""
        return self._out.read_text().splitlines()

    def post(self, headers: Headers, body: bytes) -> int:
        """Send it a delivery; return its answer's status."""
        raw = [(name.encode(), value.encode() if isinstance(value, str) else value) for name, value in headers]
        return self._http.post(self.url, headers=raw, content=body).status_code

    def close(self) -> None:
        """End it."""
        self._http.close()
        self.process.kill()
        self.process.wait()
