"""What acceptance tests share: the product's commands as processes, the sandbox's books, a verifying receiver."""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, fields
from itertools import count
from pathlib import Path
from typing import Any

import httpx
from aiohttp import web
from arq import create_pool
from arq.connections import ArqRedis, RedisSettings
from harness import API_KEY, SECRET, Sandbox, eventually, json_bytes
from standardwebhooks import Webhook, WebhookVerificationError
from warm import Fork, Warm

from config.settings import Settings
from worker.embedded import EmbeddedRedis, EmbeddedRedisError

QUEUE = "onysoft:jobs"
START_WITHIN_S = 20.0
END_WITHIN_S = 10.0
PACE = {
    "LOG_FORMAT": "json",
    "ONYSOFT_API_KEY": API_KEY,
    "PORT": "0",
    "WEBHOOK_ALLOW_PRIVATE": "true",
    "WEBHOOK_SECRET": SECRET,
    "WEBHOOK_SCHEDULE_S": "0,0.5,1,2",
    "RETRY_BASE_S": "0.1",
    "RETRY_CAP_S": "0.3",
    "POLL_MIN_S": "0.3",
    "POLL_MAX_S": "1",
}


@dataclass(frozen=True, slots=True)
class Said:
    """A command that has ended: its status, its words, how long it took."""

    status: int
    out: str
    err: str
    took_s: float


class Command:
    """A command of the product as a process that leads a session of its own; what it says goes to two files."""

    def __init__(self, name: str, process: asyncio.subprocess.Process | Fork, out: Path, err: Path) -> None:
        self.name = name
        self.pid = process.pid
        self.process = process
        self._out = out
        self._err = err

    @property
    def out(self) -> str:
        """What it has said on standard output."""
        return self._out.read_text(errors="replace")

    @property
    def err(self) -> str:
        """What it has said on standard error."""
        return self._err.read_text(errors="replace")

    def events(self, name: str) -> list[dict[str, Any]]:
        """List its log events of a name."""
        rows = []
        for line in self.err.splitlines():
            with suppress(ValueError):
                row = json.loads(line)
                if isinstance(row, dict) and row.get("event") == name:
                    rows.append(row)
        return rows

    async def comes_to(self, find: Callable[[], Any], *, within_s: float = START_WITHIN_S) -> Any:
        """Wait until the process has done something; fail with its words where it ends before."""

        async def check() -> Any:
            found = find()
            assert found or self.process.returncode is None, f"{self.name} ended: {self.err[-2000:]}"
            return found

        return await eventually(check, within_s=within_s)

    async def address(self) -> str:
        """Wait until it says that it has started; return where it listens, or nothing where it does not."""
        if self.name == "sandbox":
            line = await self.comes_to(lambda: self.err if "\n" in self.err else None)
            return str(line.split()[3])
        started = await self.comes_to(lambda: self.events("process.started"))
        return str(started[0].get("address", ""))

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    async def ended(self, *, within_s: float = END_WITHIN_S) -> int:
        """Wait for its end; return its status."""
        async with asyncio.timeout(within_s):
            return await self.process.wait()

    async def stop(self, *, within_s: float = END_WITHIN_S) -> float:
        """Ask it to end, see that it ends well and without a traceback; return how long it took, in seconds."""
        started_s = time.monotonic()
        self.send(signal.SIGTERM)
        assert await self.ended(within_s=within_s) == 0, self.err[-2000:]
        assert "Traceback" not in self.err
        return time.monotonic() - started_s

    async def kill(self) -> None:
        """End it for certain; safe where it has ended."""
        with suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()

    def peak_bytes(self) -> int:
        """Read its peak resident memory."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("the kernel does not tell the peak")


class Place:
    """A folder with an environment, in which commands of the product are run; ``close`` leaves none behind."""

    def __init__(self, folder: Path, environ: dict[str, str], warm: Warm | None = None) -> None:
        ours = {row.name.upper() for row in fields(Settings)}
        self.folder = folder
        self.data_dir = folder / "data"
        self.environ = {name: value for name, value in os.environ.items() if name not in ours}
        self.environ |= {**PACE, "DATA_DIR": str(self.data_dir), "COLUMNS": "200", **environ}
        self._warm = warm
        self._commands: list[Command] = []
        self._numbers = count()

    async def start(self, *words: str, **environ: str) -> Command:
        """Start a command; an empty value unsets a variable."""
        out, err = self._streams(words)
        with out.open("wb") as out_file, err.open("wb") as err_file:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "worker",
                *words,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out_file,
                stderr=err_file,
                env=self.environ | environ,
                cwd=self.folder,
                start_new_session=True,
            )
        return self._know(Command(words[0], process, out, err))

    def _streams(self, words: tuple[str, ...]) -> tuple[Path, Path]:
        """Name the files for what a command says."""
        name = f"{next(self._numbers)}-{words[0]}" if words else f"{next(self._numbers)}"
        return self.folder / f"{name}.out", self.folder / f"{name}.err"

    def _know(self, command: Command) -> Command:
        self._commands.append(command)
        return command

    async def started(self, *words: str, **environ: str) -> Command:
        """Start a process of the product and wait until it says so."""
        command = await self.start(*words, **environ)
        await command.address()
        return command

    async def run(self, *words: str, within_s: float = 30.0, **environ: str) -> Said:
        """Run a command to its end, off a process that has imported the product."""
        started_s = time.monotonic()
        out, err = self._streams(words)
        assert self._warm is not None
        process = await self._warm.start(words, self.environ | environ, self.folder, out, err)
        command = self._know(Command(words[0], process, out, err))
        status = await command.ended(within_s=within_s)
        return Said(status, command.out, command.err, time.monotonic() - started_s)

    def embedded_url(self) -> str:
        """Make the URL of the embedded Redis as a backend can: from the note in the data directory."""
        return f"unix://{(self.data_dir / 'socket.path').read_text()}?db=0"

    async def close(self) -> None:
        """End every process, newest first, and the embedded Redis that killed ones have left behind."""
        for command in reversed(self._commands):
            await command.kill()
        with suppress(EmbeddedRedisError):
            EmbeddedRedis.open(self.data_dir, start="if_data").close()


@dataclass
class Receiver:
    """A consumer of webhooks: verifies each by an independent library and takes it."""

    url: str = ""
    received: list[dict[str, Any]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.Response:
        """Take one delivery."""
        body = await request.read()
        try:
            Webhook(SECRET).verify(body, {name.lower(): value for name, value in request.headers.items()})
        except WebhookVerificationError as error:
            self.refused.append(str(error))
            return web.Response(status=401)
        self.received.append(json.loads(body) | {"webhook-id": request.headers["webhook-id"]})
        return web.Response()

    def types(self, job_id: str) -> set[str]:
        """Name the types of what came for a job, whatever the times it came."""
        return {event["type"] for event in self.received if event["data"]["id"] == job_id}

    def missing(self, job_ids: Iterable[str], kind: str = "job.completed") -> list[str]:
        """Name the jobs for which a type of event has not come."""
        came = {event["data"]["id"] for event in self.received if event["type"] == kind}
        return [job_id for job_id in job_ids if job_id not in came]

    async def has_all(self, job_ids: Iterable[str], *, within_s: float, kind: str = "job.completed") -> None:
        """Wait until a type of event has come for each of the jobs, all verified."""
        wanted = list(job_ids)
        deadline_s = time.monotonic() + within_s
        while missing := self.missing(wanted, kind):
            assert time.monotonic() < deadline_s, f"no {kind} within {within_s} s for {len(missing)}: {missing[:5]}"
            await asyncio.sleep(0.05)
        assert self.refused == []


class Api:
    """The HTTP API of a process, as a backend uses it."""

    def __init__(self, address: str) -> None:
        self.http = httpx.AsyncClient(
            base_url=address, timeout=20, limits=httpx.Limits(max_connections=10), verify=False
        )

    async def submit(self, job_id: str, **request: Any) -> httpx.Response:
        """Enqueue a job."""
        answer = await self.http.post("/v1/jobs", json={"id": job_id, "kind": "video", **request})
        assert answer.status_code in {200, 202}, answer.text
        return answer

    async def view(self, job_id: str) -> dict[str, Any]:
        """Show a job; empty where there is none (yet)."""
        answer = await self.http.get(f"/v1/jobs/{job_id}")
        return dict(answer.json()) if answer.status_code == 200 else {}

    async def standing(self, job_id: str, *statuses: str, within_s: float = 20.0) -> dict[str, Any]:
        """Wait until a job has one of these statuses; return its view."""

        async def check() -> dict[str, Any] | None:
            view = await self.view(job_id)
            return view if view and view["status"] in statuses else None

        return dict(await eventually(check, within_s=within_s))


def tell(*words: str) -> None:
    """Print a measurement, shown by ``pytest -s`` and where the test fails."""
    sys.stdout.write(" ".join(words) + "\n")


def directed(job_id: str, **directive: Any) -> dict[str, Any]:
    """Make an input that tells the sandbox what is to happen to the job, tagged by its id."""
    return {"prompt": "a lighthouse", "sandbox": {"tag": job_id, **directive}}


def task_ids(sandbox: Sandbox) -> dict[str, list[str]]:
    """Give the tasks that the gateway made for each tag."""
    made: dict[str, list[str]] = {}
    for row in sandbox.submissions():
        if row["task_id"]:
            made.setdefault(row["tag"], []).append(row["task_id"])
    return made


async def plain_arq(url: str, *, as_json: bool = True) -> ArqRedis:
    """Connect as a backend does that knows arq and nothing of ours."""
    codec: dict[str, Any] = {"job_serializer": json_bytes, "job_deserializer": json.loads} if as_json else {}
    return await create_pool(RedisSettings.from_dsn(url), default_queue_name=QUEUE, **codec)
