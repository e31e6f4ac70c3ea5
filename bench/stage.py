"""The stage all contenders play on: the sandbox gateway without faults, a webhook receiver, a Redis of our own.

The Redis is the embedded one's binary with the embedded one's options (see ``worker/embedded.py``), started here so
that its CPU can be read and ``appendfsync`` chosen; it stores in a new folder under /var/tmp, which is on a disk.
"""

import contextlib
import http.client
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from processes import Broken, Process, python
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from worker.embedded import find_server

ROOT = Path(__file__).resolve().parents[1]
BENCH = Path(__file__).resolve().parent
API_KEY = f"sk-ony-{'0b' * 24}"
SECRET = "whsec_" + "QmVuY2htYXJrcyBzaWduIHdpdGggdGhpcyBrZXkuLi4="
KIND, MODEL = "image", "flux-2/pro-text-to-image"
PREFIX = "onysoft"
QUEUE = f"{PREFIX}:jobs"

Fsync = Literal["always", "everysec"]


def request_body(tag: str, duration_s: float, answer_s: float = 0.0) -> dict[str, Any]:
    """Make the input every contender submits; the sandbox reads what is to happen from it.

    The gateway takes ``answer_s`` to answer the submission, and the task ``duration_s``.
    """
    directive: dict[str, Any] = {"tag": tag, "duration_s": duration_s}
    if answer_s:
        directive["submit"] = [{"do": "accept", "delay_s": answer_s}]
    return {"prompt": "a lighthouse at dusk, " * 8, "aspect_ratio": "16:9", "sandbox": directive}


class Http:
    """A kept connection for the bench's own questions."""

    def __init__(self, url: str) -> None:
        self._connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=20)
        self._connection.connect()

    def call(self, method: str, path: str, body: bytes | None = None) -> tuple[int, Any]:
        """Send a request; give status and decoded answer."""
        self._connection.request(method, path, body, {"content-type": "application/json"} if body else {})
        response = self._connection.getresponse()
        text = response.read()
        return response.status, json.loads(text) if text[:1] in {b"{", b"["} else None

    def close(self) -> None:
        """Hang up."""
        self._connection.close()


class Stage:
    """Gateway, receiver and Redis; ``start`` adds the contender. Leaving it ends all of them."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self.folder = Path(tempfile.mkdtemp(prefix="onysoft-bench-", dir="/var/tmp"))
        self._stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
        self._started = 0

    def __enter__(self) -> Self:
        try:
            self._open()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _open(self) -> None:
        gateway = self._keep(python("-m", "worker.sandbox", "--port", "0", "--faults", "none"))
        receiver = self._keep(python(str(BENCH / "receiver.py")))
        self.gateway_url = gateway.said(_address)
        self.receiver_url = receiver.said(_address)
        self.webhook_url = f"{self.receiver_url}/hooks/media"
        self._gateway, self._receiver = Http(self.gateway_url), Http(self.receiver_url)
        self._stack.callback(self._gateway.close)
        self._stack.callback(self._receiver.close)

    def _keep(self, words: list[str], **more: str) -> Process:
        process = self._make(words, **more)
        self._stack.callback(process.stop)
        return process

    def _make(self, words: list[str], **more: str) -> Process:
        self._started += 1
        environ = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        log = self.folder / f"{self._started}.log"
        return Process(words, environ=environ | more, log=log, cwd=ROOT)

    @contextlib.contextmanager
    def running(self, words: list[str], **environ: str) -> Iterator[Process]:
        """Run a contender for the length of a block."""
        process = self._make(words, **environ)
        try:
            yield process
        finally:
            process.stop()

    @contextlib.contextmanager
    def redis(self, fsync: Fsync = "always", *, announcing: bool = True) -> Iterator["RedisServer"]:
        """Run an empty Redis for the length of a block."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        words = redis_words(folder, fsync, announcing=announcing)
        with self.running(words, LC_ALL="C") as process:
            yield RedisServer(process, folder / "s")

    def worker(self, command: str, redis: "RedisServer", **environ: str) -> contextlib.AbstractContextManager[Process]:
        """Run ``onysoft-worker`` with its defaults, but for where things are."""
        where = {
            "ONYSOFT_API_KEY": API_KEY, "ONYSOFT_BASE_URL": self.gateway_url, "REDIS_URL": redis.url,
            "KEY_PREFIX": PREFIX, "WEBHOOK_ALLOW_PRIVATE": "true", "WEBHOOK_SECRET": SECRET, "PORT": "0",
        }  # fmt: skip
        return self.running(python("-m", "worker", command), **where, **environ)

    # --- what has happened

    def reset(self) -> None:
        """Forget what gateway and receiver have seen."""
        self._gateway.call("POST", "/sandbox/reset", b"{}")
        self._receiver.call("POST", "/reset", b"{}")

    def await_webhooks(self, count: int, by: Process, timeout_s: float = 30) -> None:
        """Wait until so many different webhooks have come in."""
        give_up_s = time.monotonic() + timeout_s
        while (have := self._receiver.call("GET", f"/counts?until={count}")[1]["distinct"]) < count:
            by.check()
            if time.monotonic() > give_up_s:
                raise Broken(f"{by.name}: {have} of {count} webhooks after {timeout_s:g} s")

    def counts(self) -> Mapping[str, int]:
        """Count the requests seen since the reset."""
        books = self._gateway.call("GET", "/sandbox/stats")[1]
        hooks = self._receiver.call("GET", "/counts?until=0")[1]
        return {
            "submissions": books["submissions"], "accepted": books["accepted"], "lookups": books["lookups"],
            "webhooks": hooks["posts"], "unsigned": hooks["unsigned"],
        }  # fmt: skip

    def arrivals_ms(self) -> dict[str, int]:
        """Tell when the gateway got each submission, by tag; whole milliseconds since 1970, rounded down."""
        return {row["tag"]: row["at_ms"] for row in self._gateway.call("GET", "/sandbox/submissions")[1]["submissions"]}


def redis_words(folder: Path, fsync: Fsync, *, announcing: bool = True) -> list[str]:
    """Give the words that run a Redis on a socket and an append-only file in this folder."""
    options = {
        "port": "0", "unixsocket": str(folder / "s"), "unixsocketperm": "700", "daemonize": "no",
        "dir": str(folder), "appendonly": "yes", "appendfsync": fsync, "save": "",
        "maxmemory-policy": "noeviction", "notify-keyspace-events": "Kz" if announcing else "",
    }  # fmt: skip
    return [str(find_server()), *(word for name, value in options.items() for word in (f"--{name}", value))]


class RedisServer:
    """A Redis, and a client of it."""

    def __init__(self, process: Process, socket: Path) -> None:
        self.process = process
        self.url = f"unix://{socket}?db=0"
        self.client = Redis(unix_socket_path=str(socket))
        process.until(self._answers, 10)

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except RedisConnectionError:
            return False


def _address(line: str) -> str | None:
    match = re.search(r"on (http://\S+)", line)
    return match[1] if match else None


def is_started(line: str) -> str | None:
    """Read the API's address, or just that it runs, from the worker's first log line."""
    with contextlib.suppress(ValueError):
        event = json.loads(line)
        if isinstance(event, dict) and event.get("event") == "process.started":
            return str(event.get("address", "started"))
    return None
