"""Owns the wiring: which parts a process is made of, in which order they start, and how they stop.

The only module that knows all others. ``up`` is a worker and a web server in one process; ``work`` and ``web`` are one
each; commands open just the store.
"""

import asyncio
import contextlib
import os
import random
import re
import resource
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal

from config.log import configure_logging, hide, log
from config.models import KINDS, Models, load_models
from config.settings import Settings, SettingsError
from jobs.delivering import Schedule
from jobs.destinations import url_fault
from jobs.failures import TERMINAL_CODES
from jobs.pacing import LOOK_UPS, SUBMISSIONS
from worker.absence import place, reason
from worker.acceptances import RECOVER_EVERY_S, Acceptances
from worker.deliver import Deliver
from worker.embedded import EmbeddedRedis
from worker.ending import end
from worker.enqueue import Door
from worker.fleet import BEAT_S
from worker.gateway import Gateway
from worker.intake import Intake
from worker.keys import TRACK_WHEEL, submit_wheel
from worker.link import STORE_ERRORS, Link, RedisAway, RedisRefused, script_source
from worker.poison import QUARANTINE_EVERY_S, DeliveryBounds, JobBounds, Quarantined
from worker.reconcile import KEEP_BODIES_EVERY_S, Reconciler
from worker.signing_secrets import SigningSecrets
from worker.spool import Spool
from worker.store import Store, Wheels
from worker.submit import Submit
from worker.track import Track
from worker.upkeep import DEADLINES_EVERY_S, PRUNE_EVERY_S, Deadlines, Prune, every
from worker.wheel import PARTING_S, Wheel

START_TIMEOUT_S = 5.0
CLOCK_EVERY_S = 30.0  # a web process asks Redis for the time; a worker learns it with each claim
KEY_FORM = re.compile(r"sk-ony-[0-9a-fA-F]{48}")  # doc; another form is used as it is, with a warning

Start = Literal["always", "if_data"]


class CannotStart(Exception):  # noqa: N818 - named after what it says
    """The process cannot start; the message is one line that says what to do."""


def load_settings(
    environ: Mapping[str, str] | None = None, *, key_required: bool = False, quiet: bool = False
) -> tuple[Settings, Models]:
    """Read environment and models file and set up logging; raise ``SettingsError`` with every fault.

    ``quiet``: for a command, which prints itself what it does and what is wrong; a LOG_LEVEL that is not the default's
    is heeded all the same.
    """
    settings = Settings.from_env(environ)
    faults = []
    if key_required and settings.onysoft_api_key is None:
        faults.append("ONYSOFT_API_KEY: is required here; set it to your gateway key (sk-ony-...)")
    unknown = settings.failover_on - TERMINAL_CODES
    if unknown:
        faults.append(f"FAILOVER_ON: allowed are terminal failure codes: {', '.join(sorted(TERMINAL_CODES))}")
    if settings.webhook_url and (
        fault := url_fault(settings.webhook_url, allow_private=settings.webhook_allow_private)
    ):
        faults.append(f"WEBHOOK_URL: {fault}")
    if faults:
        raise SettingsError(faults)
    models = load_models(settings.models_file)
    level = "error" if quiet and settings.log_level == "info" else settings.log_level
    configure_logging(level=level, as_json=settings.log_as_json)
    if key_required and not KEY_FORM.fullmatch(settings.onysoft_api_key or ""):
        log.warning("key.unusual", variable="ONYSOFT_API_KEY", usual="sk-ony- followed by 48 hex digits")
    tokens = [token.token for token in settings.api_tokens or ()]
    hide([settings.onysoft_api_key, *tokens, *(settings.webhook_secret or ())])
    return settings, models


@contextmanager
def redis_url(settings: Settings, *, start: Start = "always", alone: str | None = None) -> Iterator[str]:
    """Give the URL of the Redis to use, with the embedded one started or joined where none is set.

    ``alone`` is said on standard error where the embedded one had to be started: nobody else is using it.
    """
    if settings.redis_url:
        yield settings.redis_url
        return
    with EmbeddedRedis.open(settings.data_dir, start=start) as embedded:
        if alone and embedded.started_here:
            sys.stderr.write(alone.format(data_dir=settings.data_dir.absolute()) + "\n")
        yield embedded.url


@asynccontextmanager
async def open_store(url: str, settings: Settings, models: Models) -> AsyncIterator[Store]:
    """Connect to Redis; raise ``CannotStart`` where it does not answer."""
    load_scripts()
    link = Link(url)
    schedule = Schedule(settings.webhook_schedule_s, settings.webhook_timeout_s)
    store = Store(link, prefix=settings.key_prefix, models=models, schedule=schedule)
    try:
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await store.sync_clock()
        except (RedisAway, TimeoutError) as error:
            check = "REDIS_URL" if settings.redis_url else f"DATA_DIR ({settings.data_dir})"
            raise CannotStart(f"Redis at {place(url)} does not answer ({reason(error)}): check {check}") from error
        yield store
    finally:
        await link.aclose()


def load_scripts() -> None:
    """Read every Lua script while files can be read: a process out of file descriptors can still use Redis."""
    for file in files("worker").joinpath("lua").iterdir():
        script_source(file.name.removesuffix(".lua"))


def open_many_files() -> None:
    """Have this process be allowed as many file descriptors as the system lets it have, at one a connection."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # some systems have a lower limit than the one they tell
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@dataclass(frozen=True, slots=True)
class Parts:
    """What a worker consists of, beside its connections."""

    submit: Wheel
    track: Wheel
    deliver: Wheel
    intake: Intake
    acceptances: Acceptances
    prune: Prune
    quarantined: Quarantined


class WorkerProcess:
    """A worker: takes jobs from arq, submits, tracks, delivers, keeps house."""

    def __init__(self, store: Store, url: str, settings: Settings, models: Models) -> None:
        self._store = store
        self._url = url
        self._settings = settings
        self._models = models
        self.ready = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """Work until ``stop`` is set, then stop as the contract says."""
        settings, store = self._settings, self._store
        half = settings.concurrency // 2
        gateway = Gateway(
            base_url=settings.onysoft_base_url,
            api_key=settings.onysoft_api_key or "",
            submit_timeout_s=settings.submit_timeout_s,
            connections=settings.concurrency,
        )
        secrets = SigningSecrets(settings.webhook_secret, store.secrets, store.now_ms)
        spool = Spool(settings.data_dir, prefix=settings.key_prefix)
        acceptances = Acceptances(store, spool, settings, random.Random())  # noqa: S311 - jitter is no secret
        deliver = Deliver(store, settings, secrets.valid, random.Random())  # noqa: S311 - jitter is no secret
        bounds = JobBounds(store)
        parts = Parts(
            submit=Wheel(
                Wheels(
                    store,
                    tuple(submit_wheel(kind) for kind in KINDS),
                    lane=SUBMISSIONS,
                    requests_per_minute=settings.requests_per_minute,
                ),
                Submit(store, gateway, acceptances, settings, random.Random()),  # noqa: S311 - jitter is no secret
                slots=half,
                now_ms=store.now_ms,
                bounds=bounds,
            ),
            track=Wheel(
                Wheels(store, (TRACK_WHEEL,), lane=LOOK_UPS),
                Track(store, gateway, settings, self._models, random.Random()),  # noqa: S311
                slots=settings.concurrency - half,
                now_ms=store.now_ms,
                bounds=bounds,
            ),
            deliver=Wheel(
                store.dispatch,
                deliver,
                slots=settings.concurrency,
                now_ms=store.now_ms,
                bounds=DeliveryBounds(store, deliver),
            ),
            intake=Intake(store, Door(store, settings, self._models, announce=False), self._url, settings),
            acceptances=acceptances,
            prune=Prune(store, retention_s=settings.retention_s),
            quarantined=Quarantined(store, retention_s=settings.retention_s),
        )
        try:
            await self._run_parts(parts, secrets, stop)
        finally:
            await gateway.aclose()
            await deliver.aclose()

    async def _run_parts(self, parts: Parts, secrets: SigningSecrets, stop: asyncio.Event) -> None:
        wheels = [parts.submit, parts.track, parts.deliver]
        running = [
            *(asyncio.create_task(wheel.run()) for wheel in wheels),
            asyncio.create_task(parts.intake.run()),
        ]
        aside = [
            asyncio.create_task(self._listen([parts.submit, parts.deliver])),
            asyncio.create_task(every(RECOVER_EVERY_S, parts.acceptances.recover, self._store.now_ms)),
            asyncio.create_task(every(PRUNE_EVERY_S, parts.prune.run_once, self._store.now_ms)),
            asyncio.create_task(every(QUARANTINE_EVERY_S, parts.quarantined.run_once, self._store.now_ms)),
            asyncio.create_task(every(DEADLINES_EVERY_S, Deadlines(self._store).run_once, self._store.now_ms)),
            asyncio.create_task(Reconciler(self._store).run()),
            asyncio.create_task(every(BEAT_S, self._beat(wheels, secrets), self._store.now_ms)),
        ]
        self.ready.set()
        await _first_of(stop, running)
        parts.intake.stop()
        parts.track.stop(grace_s=0)
        parts.deliver.stop(grace_s=0)
        parts.submit.stop(grace_s=self._settings.shutdown_grace_s)
        await end(aside)
        await asyncio.gather(*running)
        with contextlib.suppress(*STORE_ERRORS, TimeoutError):
            async with asyncio.timeout(PARTING_S):
                await self._store.fleet.leave(self._store.holder)
                await self._store.mending.resign()

    def _beat(self, wheels: Sequence[Wheel], secrets: SigningSecrets) -> Callable[[int], Awaitable[None]]:
        """Make the duty of saying that this worker is alive, and what it is at."""
        started_at_ms = self._store.now_ms()

        async def beat(now_ms: int) -> None:
            worker = {
                "id": self._store.holder,
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "started_at_ms": started_at_ms,
                "seen_at_ms": now_ms,
                "in_flight": sum(wheel.in_flight for wheel in wheels),
                "concurrency": self._settings.concurrency,
                "signs_with": await secrets.fingerprints(),
            }
            await self._store.fleet.beat(worker)

        return beat

    async def _listen(self, wheels: Sequence[Wheel]) -> None:
        """Wake wheels when another process has made work due; they look by themselves, a little later, without it."""

        def called() -> None:
            for wheel in wheels:
                wheel.call()

        while True:
            with contextlib.suppress(RedisAway, RedisRefused):
                await self._store.listen(called)
            await asyncio.sleep(1)


async def _first_of(stop: asyncio.Event, running: list["asyncio.Task[None]"]) -> None:
    """Wait for the stop, or for a part that ended by itself (a bug): its exception is raised once all have stopped."""
    waiting = asyncio.create_task(stop.wait())
    await asyncio.wait([waiting, *running], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()


def stop_on_signals(stop: asyncio.Event) -> None:
    """Set ``stop`` on SIGTERM and SIGINT."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)


async def work(url: str, settings: Settings, models: Models) -> None:
    """Run a worker process until it is told to stop."""
    open_many_files()
    stop = asyncio.Event()
    stop_on_signals(stop)
    async with open_store(url, settings, models) as store:
        await store.check_role()
        log.info("process.started", process="work", gateway=settings.onysoft_base_url)
        await WorkerProcess(store, url, settings, models).run(stop)
    log.info("process.stopped", process="work")


async def web(url: str, settings: Settings, models: Models) -> None:
    """Run the web process until it is told to stop."""
    open_many_files()
    stop = asyncio.Event()
    stop_on_signals(stop)
    async with open_store(url, settings, models) as store:
        await store.check_role()
        await serve_web(store, settings, models, stop, announce=True, process="web")
    log.info("process.stopped", process="web")


async def up(url: str, settings: Settings, models: Models) -> None:
    """Run a worker and a web server in this process until it is told to stop."""
    open_many_files()
    stop = asyncio.Event()
    stop_on_signals(stop)
    async with open_store(url, settings, models) as store:
        await store.check_role()
        # Whichever ends first, badly or well, has the other stop as it should; neither is cancelled.
        parts = [
            asyncio.create_task(_then_stop(WorkerProcess(store, url, settings, models).run(stop), stop)),
            asyncio.create_task(
                _then_stop(serve_web(store, settings, models, stop, announce=False, process="up"), stop)
            ),
        ]
        outcomes = await asyncio.gather(*parts, return_exceptions=True)
    for outcome in outcomes:
        if outcome is not None:
            raise outcome
    log.info("process.stopped", process="up")


async def _then_stop(part: "asyncio.Future[None] | object", stop: asyncio.Event) -> None:
    """Have the whole process stop when one of its parts ends."""
    try:
        await part  # type: ignore[misc]
    finally:
        stop.set()


async def serve_web(
    store: Store, settings: Settings, models: Models, stop: asyncio.Event, *, announce: bool, process: str
) -> None:
    """Serve HTTP until ``stop`` is set."""
    from worker.web.app import WebServer, create_app

    door = Door(store, settings, models, announce=announce)
    server = WebServer(create_app(store=store, door=door, settings=settings), settings.bind_host, settings.port)
    serving = asyncio.create_task(server.run())
    aside = [
        asyncio.create_task(store.news.run()),
        asyncio.create_task(every(CLOCK_EVERY_S, lambda _: store.sync_clock(), store.now_ms)),
        asyncio.create_task(every(KEEP_BODIES_EVERY_S, lambda _: Reconciler(store).keep_bodies(), store.now_ms)),
    ]
    await server.started()
    log.info("process.started", process=process, address=server.address, gateway=settings.onysoft_base_url)
    await _first_of(stop, [serving])
    store.news.close()
    server.stop()
    await serving
    await end(aside)
