"""Owns the demo's course: start the gateway and the product, put the jobs in, watch them end, judge, clear up.

The one module of the demo that reads this process's environment: the children get it without any variable of the
contract, so that the demo is not disturbed by, and can never spend on, a real set-up.
"""

import asyncio
import base64
import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields
from pathlib import Path

from config.settings import Settings
from worker.demo.children import Child, ChildFailed, sandbox_address, worker_address
from worker.demo.doors import Doors, DoorShut, gateway_books
from worker.demo.jobs import JOBS
from worker.demo.progress import Progress
from worker.demo.receiver import Inbox, Receiver
from worker.demo.screen import Moment, Screen, print_summary
from worker.demo.verdict import judge
from worker.embedded import EmbeddedRedis, EmbeddedRedisError

SEED = 136
SPEED = 10
LIMIT_S = 85.0
ENTER_EVERY_S = 0.12
LOOK_EVERY_S = 0.2
LINGER_S = 0.4  # a webhook that comes twice comes soon
INTERRUPTED = 130
FAULTY, TOLD = 2, 1  # both are exit status 1; after the first the logs are kept
PACE = {
    "PORT": "0",
    "WEBHOOK_ALLOW_PRIVATE": "true",
    "WEBHOOK_SCHEDULE_S": "0,1,2,4,8",
    "WEBHOOK_TIMEOUT_S": "5",
    "RETRY_BASE_S": "1",
    "RETRY_CAP_S": "3",
    "POLL_MIN_S": "0.4",
    "POLL_MAX_S": "1.5",
    "SHUTDOWN_GRACE_S": "2",
}
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run_demo(seed: int = SEED) -> int:
    """Run the demo; return the exit status: 0 only if every job, webhook and bill is as it must be."""
    return asyncio.run(_run(seed))


async def _run(seed: int) -> int:
    demo = Demo(Path(tempfile.mkdtemp(prefix="onysoft-demo-")), seed)
    playing = asyncio.create_task(demo.play())
    loop = asyncio.get_running_loop()
    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, playing.cancel)
    keep_logs = interrupted = False
    try:
        await asyncio.wait([playing])
        if playing.cancelled():
            interrupted = True
            return INTERRUPTED
        keep_logs = True  # until it is known that nobody needs them
        status = demo.end(playing.exception()) or playing.result()
        keep_logs = status == FAULTY
        return min(status, 1)
    finally:
        await demo.clear_up(keep_logs=keep_logs)
        if interrupted:
            _complain("interrupted; everything it started has been stopped")


class Demo:
    """One run: its folder, its processes, what there is to see and to judge."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder = folder
        self._seed = seed
        self._started_s = time.monotonic()
        self._screen = Screen()
        self._jobs = [Progress(job) for job in JOBS]
        self._children: list[Child] = []
        self._redis: EmbeddedRedis | None = None
        self._receiver: Receiver | None = None

    @property
    def now_s(self) -> float:
        """Seconds since the begin."""
        return time.monotonic() - self._started_s

    async def play(self) -> int:
        """Run everything, print the summary and return 0, or ``FAULTY``."""
        self._screen.say(f"onysoft-worker demo: {len(JOBS)} jobs of all five kinds, no key, no cost", "bold")
        secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
        picky = frozenset(job.id for job in JOBS if job.first_webhook_refused)
        self._receiver = receiver = Receiver(secret, picky)
        await receiver.start()
        gateway_url = await self._start_gateway()
        api_url = await self._start_worker(gateway_url, secret, receiver.url)
        self._redis = EmbeddedRedis.open(self._folder / "data")  # joins the one that the worker runs
        self._screen.say(
            f"gateway   {gateway_url}  the sandbox, {SPEED}x faster than life, faults of seed {self._seed}"
        )
        self._screen.say(f"worker    {api_url}  with web and an embedded Redis")
        self._screen.say(f"webhooks  {receiver.url}  verified by this process")
        self._screen.say("")
        async with Doors(api_url, self._redis.url) as doors:
            await self._watch(doors, receiver.inbox)
        wall_s = self.now_s
        verdict = judge(self._jobs, receiver.inbox, await gateway_books(gateway_url))
        print_summary(self._screen, verdict, wall_s, logs=str(self._folder))
        return FAULTY if verdict.faults else 0

    def end(self, error: BaseException | None) -> int:
        """Say in one line why it could not be played; return 0 where it could."""
        if error is None:
            return 0
        self._screen.close()
        match error:
            case ChildFailed() if error.told:
                words, status = str(error), TOLD
            case ChildFailed() | DoorShut() | EmbeddedRedisError():
                words, status = f"{error} (logs: {self._folder})", FAULTY
            case _:
                raise error
        _complain(words)
        return status

    async def clear_up(self, *, keep_logs: bool) -> None:
        """Stop every process and remove the folder, or all of it but the logs."""
        with suppress(OSError):  # a terminal that has gone
            self._screen.close()
        for child in reversed(self._children):
            await child.stop()
        if self._redis is not None:
            self._redis.close()
        if self._receiver is not None:
            await self._receiver.stop()
        shutil.rmtree(self._folder / "data" if keep_logs else self._folder, ignore_errors=True)

    # --- processes

    async def _start_gateway(self) -> str:
        words = ["sandbox", "--port", "0", "--faults", "default", "--seed", str(self._seed), "--speed", str(SPEED)]
        return await (await self._start(words, _plain_environ())).announced(sandbox_address)

    async def _start_worker(self, gateway_url: str, secret: str, hooks_url: str) -> str:
        environ = _plain_environ() | {
            "ONYSOFT_API_KEY": f"sk-ony-{secrets.token_hex(24)}",
            "ONYSOFT_BASE_URL": gateway_url,
            "DATA_DIR": str(self._folder / "data"),
            "WEBHOOK_URL": hooks_url,
            "WEBHOOK_SECRET": secret,
            **PACE,
        }
        return await (await self._start(["up"], environ)).announced(worker_address)

    async def _start(self, words: list[str], environ: Mapping[str, str]) -> Child:
        child = await Child.start(words, environ, self._folder / f"{words[0]}.log")
        self._children.append(child)
        return child

    # --- jobs

    async def _watch(self, doors: Doors, inbox: Inbox) -> None:
        """Put the jobs in and show them until all has ended and every webhook is there, or the time is up."""
        self._screen.open()
        entering = asyncio.create_task(self._enter(doors))
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(LIMIT_S - self.now_s):
                    while not self._all_over(inbox):
                        await self._look(doors, inbox)
                        if entering.done():
                            entering.result()
                        await asyncio.sleep(LOOK_EVERY_S)
                    await asyncio.sleep(LINGER_S)
        except DoorShut:
            await asyncio.sleep(LINGER_S)
            self._check()  # a process that ended says more than the door it left shut
            raise
        finally:
            entering.cancel()
            await asyncio.wait([entering])
        self._screen.close(Moment(self._jobs, inbox, self.now_s))

    async def _enter(self, doors: Doors) -> None:
        for job in self._jobs:
            job.entered_s = self.now_s
            await doors.enqueue(job.job)
            await asyncio.sleep(ENTER_EVERY_S)

    async def _look(self, doors: Doors, inbox: Inbox) -> None:
        self._check()
        under_way = [job for job in self._jobs if job.entered_s is not None and not job.ended]
        views = await doors.look([job.job.id for job in under_way])
        now_s = self.now_s
        changed = [job for job in under_way if job.job.id in views and job.take(views[job.job.id], now_s)]
        self._screen.show(Moment(self._jobs, inbox, now_s), changed)

    def _check(self) -> None:
        for child in self._children:
            child.check()

    def _all_over(self, inbox: Inbox) -> bool:
        return all(job.ended and inbox.of(job.job.id) for job in self._jobs)


def _complain(words: str) -> None:
    with suppress(OSError):  # a terminal that has gone
        sys.stderr.write(f"onysoft-worker demo: {words}\n")


def _plain_environ() -> dict[str, str]:
    """Give this process's environment without the contract's variables."""
    ours = {field.name.upper() for field in fields(Settings)}
    return {name: value for name, value in os.environ.items() if name not in ours} | {"LOG_FORMAT": "json"}
