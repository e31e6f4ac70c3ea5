"""Owns the arq side: the function ``generate`` on the contract's queue, and a worker that rubbish cannot stop.

arq is a door only. Its jobs take milliseconds: each becomes a record of ours, and the queue stays near empty. A body
that is no JSON, an unknown function and wrong arguments all become a call of ``rejected``, which fails the job by name
or counts it; pickle is never read. Read in arq 0.28: a job id that is not UTF-8 and a body of the wrong type would
stop its main loop: it is started again, and sweeps such entries first.
"""

import asyncio
import contextlib
import json
from typing import Any

from arq.connections import ArqRedis
from arq.constants import in_progress_key_prefix, job_key_prefix
from arq.worker import RetryJob, Worker, func
from redis.exceptions import RedisError

from config.log import log
from config.settings import Settings
from jobs.request import InvalidRequest
from worker.ending import end
from worker.enqueue import Conflict, Door
from worker.link import AWAY_ERRORS, RedisAway, hear, patiently
from worker.store import Store

FUNCTION = "generate"
REJECTED = "rejected"
MAX_JOBS = 100
JOB_TIMEOUT_S = 5
JOB_LOCK_S = 6  # a call of a worker that died is taken up again after this
TAKE_TIMEOUT_S = 3.0
POLL_S = 0.05  # how late a new entry is seen where the server announces nothing
ANNOUNCED_POLL_S = 1.0
RESTART_PAUSE_S = 1.0
NEVER = 1_000_000_000


def serialize(value: Any) -> bytes:
    """Encode for arq; what JSON does not know becomes text."""
    return json.dumps(value, default=str).encode()


def deserialize(body: bytes) -> dict[str, Any]:
    """Decode a queued call; whatever cannot be run becomes a call of ``rejected`` that says why."""
    try:
        call = json.loads(body)
    except (ValueError, RecursionError):
        what = "a pickle" if body[:1] == b"\x80" else "no JSON"
        return _rejection("not_json", f"the body is {what}: enqueue with a JSON job_serializer")
    if not isinstance(call, dict) or not isinstance(call.get("a"), list) or not isinstance(call.get("k"), dict):
        return _rejection("not_arq", "the body is no arq call")
    if call.get("f") != FUNCTION:
        return _rejection("unknown_function", f"the only function is {FUNCTION!r}")
    if call["k"] or len(call["a"]) != 1:
        return _rejection("wrong_arguments", f"{FUNCTION} takes one argument, the request")
    enqueued_ms = call.get("et")
    return {
        "f": FUNCTION, "a": call["a"], "k": {}, "t": None,
        "et": enqueued_ms if isinstance(enqueued_ms, int) and 0 <= enqueued_ms < 1 << 42 else 0,
    }  # fmt: skip


def _rejection(reason: str, words: str) -> dict[str, Any]:
    return {"f": REJECTED, "a": [reason, words], "k": {}, "t": None, "et": 0}


class Intake:
    """Runs the arq worker of one process, and restarts it after whatever ends it."""

    def __init__(self, store: Store, door: Door, redis_url: str, settings: Settings) -> None:
        self._store = store
        self._door = door
        self._redis_url = redis_url
        self._queue = settings.queue_name
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Take jobs until ``stop``; a call under way is then left to be taken again."""
        stopping = asyncio.create_task(self._stopping.wait())
        while not stopping.done():
            worker = self._make_worker()
            running = asyncio.create_task(worker.main())
            await asyncio.wait([running, stopping], return_when=asyncio.FIRST_COMPLETED)
            await end([running])
            with contextlib.suppress(*AWAY_ERRORS, RedisError):
                await worker.close()
            _tell_why(running)
            await asyncio.wait([stopping], timeout=RESTART_PAUSE_S)

    def stop(self) -> None:
        """Take no more."""
        self._stopping.set()

    def _make_worker(self) -> "_ArqWorker":
        pool = ArqRedis.from_url(self._redis_url, socket_timeout=10, socket_connect_timeout=2)
        pool.job_serializer, pool.job_deserializer = serialize, deserialize
        pool.default_queue_name = self._queue
        worker = _ArqWorker(
            functions=[func(self._generate, name=FUNCTION), func(self._rejected, name=REJECTED)],
            queue_name=self._queue,
            redis_pool=pool,
            handle_signals=False,
            max_jobs=MAX_JOBS,
            job_timeout=JOB_TIMEOUT_S,
            keep_result=0,
            max_tries=NEVER,
            poll_delay=POLL_S,
            job_serializer=serialize,
            job_deserializer=deserialize,
            log_results=False,
        )
        worker.in_progress_timeout_s = JOB_LOCK_S
        return worker

    async def _generate(self, ctx: dict[str, Any], request: Any) -> None:
        """Make a job of the call. Whatever goes wrong, the call ends as a job or is run again; it is never dropped."""
        job_id = ctx["job_id"]
        try:
            async with asyncio.timeout(TAKE_TIMEOUT_S):
                await patiently(lambda: self._door.take(request, fallback_id=job_id), whatever=True)
        except TimeoutError as error:
            raise RetryJob from error
        except Conflict:
            await self._count("conflict", job_id, "the id is taken by a different request")
        except InvalidRequest as error:
            await self._refuse(request, "invalid_request", str(error), job_id)
        except Exception as error:  # noqa: BLE001 - the boundary: arq would drop the call
            log.exception("duty.crashed", job=job_id)
            await self._refuse(None, "crashed", f"request: could not be taken ({type(error).__name__})", job_id)

    async def _rejected(self, ctx: dict[str, Any], reason: str, words: str) -> None:
        await self._refuse(None, reason, words, ctx["job_id"])

    async def _refuse(self, request: Any, reason: str, words: str, job_id: str) -> None:
        try:
            async with asyncio.timeout(TAKE_TIMEOUT_S / 2):
                await patiently(lambda: self._door.refuse(request, words, fallback_id=job_id), whatever=True)
        except TimeoutError as error:
            raise RetryJob from error
        await self._count(reason, job_id, words)

    async def _count(self, reason: str, job_id: str, words: str) -> None:
        log.warning("arq.job_rejected", job=job_id, reason=reason, words=words)
        with contextlib.suppress(RedisAway):
            await self._store.count("enqueues_rejected_total", "arq", reason)


class _ArqWorker(Worker):
    """arq's worker with an eye for rubbish, and woken by the server where it announces changes of the queue."""

    async def main(self) -> None:
        """Poll the queue until cancelled; a change announced by the server is looked at at once."""
        self.ctx["redis"] = self.pool
        await self._sweep()
        called = asyncio.Event()
        listening = asyncio.create_task(self._listen(called))
        try:
            while True:
                called.clear()
                await self._poll_iteration()
                announced = not listening.done()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(ANNOUNCED_POLL_S if announced and not self.tasks else POLL_S):
                        await called.wait()
        finally:
            await end([listening])

    async def close(self) -> None:
        """Leave what is under way to be taken again, and close the connection."""
        await end(self.tasks.values())
        if self.tasks:
            await self.pool.delete(*(in_progress_key_prefix + job_id for job_id in self.tasks))
        await self.pool.aclose()

    async def _sweep(self) -> None:
        """Drop queue entries no arq client can have made: the loop would die of them, and has if it starts again."""
        for job_id in await self.pool.zrange(self.queue_name, 0, self.queue_read_limit):
            kind: bytes = await self.pool.type(job_key_prefix.encode() + job_id)
            if not _is_utf8(job_id) or kind not in {b"string", b"none"}:
                await self.pool.zrem(self.queue_name, job_id)
                log.warning("arq.job_rejected", job=ascii(job_id), reason="foreign_entry")

    async def _listen(self, called: asyncio.Event) -> None:
        """Set the event whenever the server announces a change of the queue; end where it does not announce any."""
        flags = (await self.pool.config_get("notify-keyspace-events")).get("notify-keyspace-events", "")
        if "K" not in flags or not set(flags) & {"z", "A"}:
            return
        db = self.pool.connection_pool.connection_kwargs.get("db") or 0
        async with self.pool.pubsub(ignore_subscribe_messages=True) as pubsub:
            await pubsub.subscribe(f"__keyspace@{db}__:{self.queue_name}")
            await hear(pubsub, called.set)


def _tell_why(running: "asyncio.Task[None]") -> None:
    """Log what ended arq's loop, where it was not our stop."""
    error = None if running.cancelled() else running.exception()
    if isinstance(error, (*AWAY_ERRORS, RedisError)):
        log.warning("redis.away", where="intake", error=type(error).__name__)
    elif error is not None:
        log.error("intake.restarted", exc_info=error)


def _is_utf8(job_id: bytes) -> bool:
    try:
        job_id.decode()
    except UnicodeDecodeError:
        return False
    return True
