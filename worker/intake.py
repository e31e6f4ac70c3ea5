"""Owns the door for whoever enqueues with plain arq: what an entry of the queue comes to, and what its caller hears.

No entry can stop the worker: a body that is no JSON, an unknown function or wrong arguments become a failed job by
name, or are counted, as does what Redis cannot do for one entry. A caller that waits for an answer gets it on a list
of the name it gave, for a minute. Where Redis has no room for new jobs a caller that waits is told so; every other
entry stays on the queue until there is.
"""

import asyncio
import contextlib
import json
import time
from typing import Any

from arq.connections import ArqRedis
from redis.exceptions import RedisError

from config.log import log
from config.settings import Settings
from jobs.job import Job, UnreadableRecord, to_form
from jobs.request import InvalidRequest, RequestTooLarge
from worker import actions
from worker.actions import NoSuchJob, NotPossible
from worker.arq_queue import ArqQueue, Note
from worker.calls import FUNCTION, Call, Rejection
from worker.ending import end
from worker.enqueue import Conflict, Door, StorageFull, Taken
from worker.link import ABSENCE, AWAY_ERRORS, CLOSE_S, STORE_ERRORS, TOLD_EVERY_S, RedisAway
from worker.record import view
from worker.store import Store

WISHES = {"cancel": actions.cancel, "retry": actions.retry}
RESTART_PAUSE_S = 1.0


class Intake:
    """Runs the arq worker of one process, and starts it again after whatever ends it."""

    def __init__(self, store: Store, door: Door, redis_url: str, settings: Settings) -> None:
        self._store = store
        self._door = door
        self._redis_url = redis_url
        self._queue = settings.queue_name
        self._stopping = asyncio.Event()
        self._told_away_s = 0.0

    async def run(self) -> None:
        """Take entries until ``stop``; those being taken are then left to be taken again."""
        stopping = asyncio.create_task(self._stopping.wait())
        while not stopping.done():
            worker = ArqQueue(self, ArqRedis.from_url(self._redis_url, socket_timeout=10, socket_connect_timeout=2))
            running = asyncio.create_task(worker.main())
            await asyncio.wait([running, stopping], return_when=asyncio.FIRST_COMPLETED)
            await end([running])
            with contextlib.suppress(*AWAY_ERRORS, RedisError, TimeoutError):
                async with asyncio.timeout(CLOSE_S):
                    await worker.close()
            self._tell_why(running)
            await asyncio.wait([stopping], timeout=RESTART_PAUSE_S)

    def _tell_why(self, running: "asyncio.Task[None]") -> None:
        """Log what ended arq's loop, where it was not our stop: an absence of Redis once a minute."""
        error = None if running.cancelled() else running.exception()
        if isinstance(error, (*AWAY_ERRORS, *STORE_ERRORS)):
            if not self._told_away_s or time.monotonic() - self._told_away_s >= TOLD_EVERY_S:
                self._told_away_s = time.monotonic()
                log.warning("redis.away", where="intake", error=f"{type(error).__name__}: {error}")
        elif error is not None:
            log.error("intake.restarted", exc_info=error)

    def stop(self) -> None:
        """Take no more."""
        self._stopping.set()

    @property
    def queue(self) -> str:
        """The queue's name."""
        return self._queue

    async def generate(self, ctx: dict[str, Any], request: Any) -> None:
        """Take one request: the function backends enqueue, as arq itself would run it."""
        await self._door.take(request, fallback_id=ctx["job_id"])

    async def take(self, name: str, call: Call | Rejection, note: Note) -> Rejection | None:
        """Carry out an entry and answer its caller, or leave a failed job where it is rejected and nobody listens.

        ``name`` is the entry's id. Returns what is to be counted; raises ``RedisAway`` and ``RedisRefused``, and
        ``StorageFull`` for what is to stay on the queue.
        """
        if isinstance(call, Rejection):
            return await self._refuse(None, call, name)
        full: StorageFull | None = None
        try:
            outcome = await self._outcome(name, call, note)
        except StorageFull as error:
            full, outcome = error, Rejection("storage_full", str(error), recorded=False)
        heard = call.reply_to is not None and await self._reply(call.reply_to, _answer(outcome), name)
        if full is not None and not heard:
            raise full
        if isinstance(outcome, Taken) or (heard and call.function in WISHES):
            return None
        return outcome if heard else await self._refuse(call.argument, outcome, name)

    async def _outcome(self, name: str, call: Call, note: Note) -> Taken | Rejection:
        try:
            if call.function in WISHES:
                return Taken(await self._wish(call.function, call.argument, note), created=False)
            return await self._door.take(call.argument, fallback_id=name)
        except Conflict as error:
            return Rejection("conflict", str(error), recorded=False)
        except InvalidRequest as error:
            code = "payload_too_large" if isinstance(error, RequestTooLarge) else None
            return Rejection("invalid_request", str(error), code, error.faults)
        except NoSuchJob as error:
            return Rejection("not_found", str(error), recorded=False)
        except NotPossible as error:
            return Rejection("wrong_status", str(error), recorded=False)
        except UnreadableRecord as error:
            return Rejection("unreadable_record", str(error), "internal_error", recorded=False)
        except (*ABSENCE, StorageFull):
            raise
        except RedisError as error:
            return await self._judged(name, call, error)
        except Exception as error:  # noqa: BLE001 - the boundary: no entry may stop the others
            log.exception("duty.crashed", job=name)
            words = f"request: could not be taken ({type(error).__name__})"
            return Rejection("crashed", words, "internal_error", recorded=call.function == FUNCTION)

    async def _judged(self, name: str, call: Call, error: RedisError) -> Rejection:
        """Reject an entry in whose place something foreign lies; raise ``RedisAway`` where the fault is elsewhere."""
        log.error("duty.crashed", job=name, exc_info=error)
        named = call.argument.get("id") if isinstance(call.argument, dict) else call.argument
        if not await self._store.is_taken_by_others(named if isinstance(named, str) else name):
            raise RedisAway(f"Redis cannot do it: {type(error).__name__}") from error
        words = f"request: what lies in its place in Redis is none of ours ({type(error).__name__})"
        return Rejection("unreadable_record", words, "internal_error", recorded=False)

    async def _wish(self, function: str, job_id: str, note: Note) -> Job:
        """Carry out a wish, unless a worker has that died before it could say so."""
        job = await self._store.get(job_id)
        if job is not None and job.round > await note(job.round):
            return job
        return await WISHES[function](self._store, job_id)

    async def _reply(self, reply_to: str, answer: bytes, name: str) -> bool:
        try:
            return await self._store.reply(reply_to, answer)
        except ABSENCE:
            raise
        except RedisError:  # something else lies there: no caller of ours waits for it
            log.exception("duty.crashed", job=name)
            return False

    async def _refuse(self, request: Any, rejection: Rejection, name: str) -> Rejection:
        if rejection.recorded:
            try:
                await self._door.refuse(request, rejection.words, fallback_id=name)
            except (*ABSENCE, StorageFull):
                raise
            except Exception:  # noqa: BLE001 - likewise: its id may be that of a record this version cannot read
                log.exception("duty.crashed", job=name)
        return rejection

    async def count(self, job_id: str, rejection: Rejection) -> None:
        """Log and count an entry that was rejected."""
        log.warning("arq.job_rejected", job=job_id, reason=rejection.reason, words=rejection.words)
        with contextlib.suppress(*STORE_ERRORS):
            await self._store.count("enqueues_rejected_total", "arq", rejection.reason)


def _answer(outcome: Taken | Rejection) -> bytes:
    """Write the answer to a call, JSON: the job's view, or the problem with the fields at fault."""
    if isinstance(outcome, Taken):
        return json.dumps({"job": view(to_form(outcome.job)), "created": outcome.created}).encode()
    errors = [{"field": fault.field, "message": fault.message} for fault in outcome.faults]
    problem = {"code": outcome.code or outcome.reason, "message": outcome.words, "errors": errors}
    return json.dumps({"problem": problem}).encode()
