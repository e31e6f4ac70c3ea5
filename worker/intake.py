"""Owns the arq side: an arq worker on the contract's queue, for whoever enqueues with plain arq.

The functions are ``generate(request)``, and of a job that is there ``cancel(job_id)`` and ``retry(job_id)``: wishes.
Each takes a keyword ``reply_to`` besides, 32 hex digits of the caller's: it is answered on a list of that name, for a
minute (``worker.client`` does so).

arq is a door only. Its queue is emptied in batches: entries are locked, read, made into records of ours, and deleted,
in a few round trips a batch. Nothing of ours runs as an arq job, so that none of arq's limits on jobs applies (tries,
time-outs, results), and no entry can stop the worker: a body that is no JSON (pickle is never read), an unknown
function or wrong arguments become a failed job by name, or are counted, as does what Redis cannot do for one entry.

A lock names its holder and runs out after LOCK_MS, so that another worker takes what a dead one held. A worker that
only stalled finds its lock gone: it neither deletes nor carries out what is another's by now. Taking a request twice
is harmless, by its id. A wish is carried out when all that was enqueued before it has been taken, by whichever worker:
it may be about a request among that. Before it is, the job's round is noted beside the entry: whoever takes the entry
once more and finds the job in a later round knows that the wish has had its time, and leaves the job as it is.

Read in arq 0.28: the keys of an entry are the three prefixes of ``arq.constants``; the one that counts its tries there
holds the noted round here. What is due is told by Redis's clock: arq's own worker goes by its machine's.
"""

import asyncio
import contextlib
import json
import re
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from arq.connections import ArqRedis
from arq.constants import in_progress_key_prefix, job_key_prefix, retry_key_prefix
from arq.worker import Worker, func
from redis.commands.core import AsyncScript
from redis.exceptions import RedisError

from config.log import log
from config.settings import Settings
from jobs.job import Job, UnreadableRecord, to_form
from jobs.request import Fault, InvalidRequest, RequestTooLarge, valid_id
from worker import actions
from worker.actions import NoSuchJob, NotPossible
from worker.ending import end
from worker.enqueue import Conflict, Door, Taken
from worker.link import AWAY_ERRORS, STORE_ERRORS, RedisAway, RedisRefused, hear
from worker.record import view
from worker.store import Store

FUNCTION = "generate"
WISHES = {"cancel": actions.cancel, "retry": actions.retry}
REPLY_TO = re.compile(r"[0-9a-f]{32}")
BATCH = 100
BATCH_BYTES = 32 * 1024 * 1024  # bodies held in memory at a time, unless one alone is larger
LOCK_MS = 6_000  # an entry of a worker that died is taken again after this
NOTE_MS = 86_400_000  # how long a wish's round outlives a worker that died over it, while there is no other
POLL_S = 0.05  # how late a new entry is seen where the server announces nothing
ANNOUNCED_POLL_S = 1.0
RESTART_PAUSE_S = 1.0
ABSENCE = (RedisAway, RedisRefused)  # what is no entry's fault: all of them wait

Note = Callable[[int], Awaitable[int]]
"""Note the round a wish finds its job in, once for all workers; give the one that was noted first."""

# What is due. KEYS: queue. ARGV: how many at most. RETURNS: ids.
DUE = """
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now_ms, 'LIMIT', 0, ARGV[1])
"""

# For HOLD and DELETE. KEYS: queue; lock, body and note of each entry. ARGV: our token, LOCK_MS, 1 where an entry has to
# be the first of the queue; id and score of each, as they were when it was locked. RETURNS: 1 for each that is ours.
OURS = """
local answers = {}
for n = 1, (#KEYS - 1) / 3 do
  local lock, id = KEYS[3 * n - 1], ARGV[2 * n + 2]
  local score, holder = redis.call('ZSCORE', KEYS[1], id), redis.call('GET', lock)
  local ours = score and tonumber(score) == tonumber(ARGV[2 * n + 3]) and (not holder or holder == ARGV[1])
  if ours and ARGV[3] == '1' then ours = redis.call('ZCOUNT', KEYS[1], '-inf', '(' .. score) == 0 end
  if ours then %s end
  answers[n] = ours and 1 or 0
end
return answers
"""
HOLD = OURS % "redis.call('SET', lock, ARGV[1], 'PX', ARGV[2])"
DELETE = OURS % "redis.call('ZREM', KEYS[1], id) redis.call('DEL', lock, KEYS[3 * n], KEYS[3 * n + 1])"

# KEYS: locks. ARGV: our token.
UNLOCK = """
for _, lock in ipairs(KEYS) do
  if redis.call('GET', lock) == ARGV[1] then redis.call('DEL', lock) end
end
"""

# Note a number unless there is one. KEYS: note. ARGV: the entry's score, number, how long the note stays. RETURNS: the
# number that is there.
NOTE = """
local noted = redis.pcall('GET', KEYS[1])
local score, number = (type(noted) == 'string' and noted or ''):match('^(.*) (%d+)$')
if score == ARGV[1] then return tonumber(number) end
redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. ARGV[2], 'PX', ARGV[3])
return tonumber(ARGV[2])
"""


@dataclass(frozen=True, slots=True)
class Call:
    """A queued call: of ``generate`` with a request, or of a wish with a job's id; ``reply_to`` is who asks."""

    function: str
    argument: Any
    reply_to: str | None


@dataclass(frozen=True, slots=True)
class Rejection:
    """An entry that cannot be taken: a word to count it by, and what to tell its caller.

    ``code`` is the word in an answer, where it is another. ``recorded``: a failed job tells of it, unless its caller
    waits for an answer.
    """

    reason: str
    words: str
    code: str | None = None
    faults: tuple[Fault, ...] = ()
    recorded: bool = True


def read_call(body: bytes) -> Call | Rejection:
    """Read the body of a queue entry."""
    try:
        call = json.loads(body)
    except (ValueError, RecursionError):
        what = "a pickle" if body[:1] == b"\x80" else "no JSON"
        return Rejection("not_json", f"request: the queued body is {what}; enqueue with a JSON job_serializer")
    if not isinstance(call, dict) or not isinstance(call.get("a"), list) or not isinstance(call.get("k"), dict):
        return Rejection("not_arq", "request: the queued body is no arq call")
    function, given, named = call.get("f"), call["a"], call["k"]
    if not isinstance(function, str) or function not in {FUNCTION, *WISHES}:
        known = ", ".join((FUNCTION, *WISHES))
        return Rejection("unknown_function", f"request: the function is none of {known}")
    reply_to = named.get("reply_to")
    if len(given) != 1 or named.keys() - {"reply_to"} or not _may_reply(reply_to):
        words = f"request: {function} takes one argument and, where an answer is wanted, reply_to of 32 hex digits"
        return Rejection("wrong_arguments", words, recorded=function == FUNCTION)
    if function in WISHES and not (isinstance(given[0], str) and valid_id(given[0])):
        return Rejection("wrong_arguments", f"request: {function} takes one argument, a job's id", recorded=False)
    return Call(function, given[0], reply_to)


def _may_reply(reply_to: Any) -> bool:
    return reply_to is None or (isinstance(reply_to, str) and REPLY_TO.fullmatch(reply_to) is not None)


class Intake:
    """Runs the arq worker of one process, and starts it again after whatever ends it."""

    def __init__(self, store: Store, door: Door, redis_url: str, settings: Settings) -> None:
        self._store = store
        self._door = door
        self._redis_url = redis_url
        self._queue = settings.queue_name
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Take entries until ``stop``; those being taken are then left to be taken again."""
        stopping = asyncio.create_task(self._stopping.wait())
        while not stopping.done():
            worker = _ArqWorker(self, ArqRedis.from_url(self._redis_url, socket_timeout=10, socket_connect_timeout=2))
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

    @property
    def queue(self) -> str:
        """The queue's name."""
        return self._queue

    async def generate(self, ctx: dict[str, Any], request: Any) -> None:
        """Take one request: the function backends enqueue, as arq itself would run it."""
        await self._door.take(request, fallback_id=ctx["job_id"])

    async def take(self, name: str, call: Call | Rejection, note: Note) -> Rejection | None:
        """Carry out an entry and answer its caller, or leave a failed job where it is rejected and nobody listens.

        ``name`` is the entry's id. Returns what is to be counted; raises ``RedisAway`` and ``RedisRefused`` only.
        """
        if isinstance(call, Rejection):
            return await self._refuse(None, call, name)
        outcome = await self._outcome(name, call, note)
        heard = call.reply_to is not None and await self._reply(call.reply_to, _answer(outcome), name)
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
        except ABSENCE:
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
            except ABSENCE:
                raise
            except Exception:  # noqa: BLE001 - likewise: its id may be that of a record this version cannot read
                log.exception("duty.crashed", job=name)
        return rejection

    async def count(self, job_id: str, rejection: Rejection) -> None:
        """Log and count an entry that was rejected."""
        log.warning("arq.job_rejected", job=job_id, reason=rejection.reason, words=rejection.words)
        with contextlib.suppress(*STORE_ERRORS):
            await self._store.count("enqueues_rejected_total", "arq", rejection.reason)


class _ArqWorker(Worker):
    """arq's worker, taking entries in batches and woken by the server where it announces changes of the queue."""

    def __init__(self, intake: Intake, pool: ArqRedis) -> None:
        super().__init__(
            functions=[func(intake.generate, name=FUNCTION)],
            queue_name=intake.queue,
            redis_pool=pool,
            handle_signals=False,
        )
        self._intake = intake
        self._token = secrets.token_hex(8)
        self._locked: dict[bytes, float] = {}  # entries and their scores, which tell them from later ones of their ids
        self._taken = 0
        self._due, self._hold, self._delete_ours, self._unlock_ours, self._noted = (
            pool.register_script(script) for script in (DUE, HOLD, DELETE, UNLOCK, NOTE)
        )

    async def main(self) -> None:
        """Poll the queue until cancelled; a change announced by the server is looked at at once."""
        called = asyncio.Event()
        listening = asyncio.create_task(self._listen(called))
        try:
            while True:
                called.clear()
                self._taken = 0
                await self._poll_iteration()
                if self._taken:
                    continue
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(POLL_S if listening.done() else ANNOUNCED_POLL_S):
                        await called.wait()
        finally:
            await end([listening])

    async def _poll_iteration(self) -> None:
        """Take what is due by Redis's clock."""
        await self.start_jobs(await self._due([self.queue_name], [BATCH]))
        await self.heart_beat()

    async def start_jobs(self, job_ids: list[bytes]) -> None:
        """Take due entries: lock, read, carry out, delete; requests together, wishes after them and one by one."""
        for lot in await self._lock(job_ids):
            ids = await self._keep(lot)
            if not ids:
                continue
            bodies = await self.pool.mget([job_key_prefix.encode() + job_id for job_id in ids])
            calls = dict(zip(ids, map(_read, ids, bodies), strict=True))
            wishes = [job_id for job_id in ids if _is_wish(calls[job_id])]
            await self._take({job_id: calls[job_id] for job_id in ids if job_id not in wishes})
            for job_id in wishes:
                await self._take({job_id: calls[job_id] for job_id in await self._keep([job_id], next_only=True)})

    async def _take(self, calls: dict[bytes, Call | Rejection]) -> None:
        """Carry out entries and delete those that it could be done with; raise for the others afterwards."""
        if not calls:
            return
        taking = (self._intake.take(_name(job_id), call, partial(self._note, job_id)) for job_id, call in calls.items())
        outcomes = dict(zip(calls, await asyncio.gather(*taking, return_exceptions=True), strict=True))
        done = {job_id: outcome for job_id, outcome in outcomes.items() if not isinstance(outcome, BaseException)}
        for job_id in await self._delete(list(done)):
            if (rejection := done[job_id]) is not None:
                await self._intake.count(ascii(job_id)[2:-1], rejection)
        for outcome in outcomes.values():
            if isinstance(outcome, BaseException):
                raise outcome

    async def _note(self, job_id: bytes, number: int) -> int:
        try:
            key = retry_key_prefix.encode() + job_id
            return int(await self._noted([key], [self._locked[job_id], number, NOTE_MS]))
        except (RedisError, OSError) as error:
            raise RedisAway(f"Redis is away: {type(error).__name__}") from error

    async def _lock(self, job_ids: Sequence[bytes]) -> list[list[bytes]]:
        """Lock entries, and part those we got into lots of a bounded size."""
        if not job_ids:
            return []
        async with self.pool.pipeline(transaction=False) as pipe:
            for job_id in job_ids:
                pipe.set(in_progress_key_prefix.encode() + job_id, self._token, nx=True, px=LOCK_MS)
                pipe.strlen(job_key_prefix.encode() + job_id)
                pipe.zscore(self.queue_name, job_id)  # another worker may have been done with it before we locked
            answers = await pipe.execute(raise_on_error=False)
        lots: list[list[bytes]] = []
        room = 0
        rows = list(zip(job_ids, answers[::3], answers[1::3], answers[2::3], strict=True))
        await self._unlock([job_id for job_id, locked, _, score in rows if locked is True and score is None])
        for job_id, locked, size, score in rows:
            if locked is not True or score is None:
                continue
            self._locked[job_id] = score
            size_bytes = size if isinstance(size, int) else 0  # a key that is no string has no body
            if not lots or size_bytes > room:
                lots.append([])
                room = BATCH_BYTES
            lots[-1].append(job_id)
            room -= size_bytes
        return lots

    async def _keep(self, ids: Sequence[bytes], *, next_only: bool = False) -> list[bytes]:
        """Prolong the locks of entries that no other worker has taken meanwhile, and give up the others.

        ``next_only``: of those before which none is left on the queue: the rest is with other workers.
        """
        kept = await self._of_ours(self._hold, ids, next_only=next_only)
        await self._unlock([job_id for job_id in ids if job_id not in kept])
        return kept

    async def _delete(self, ids: Sequence[bytes]) -> list[bytes]:
        """Delete entries that no other worker has taken meanwhile; return them."""
        deleted = await self._of_ours(self._delete_ours, ids)
        for job_id in ids:
            self._locked.pop(job_id, None)
        self._taken += len(deleted)
        return deleted

    async def _of_ours(self, script: AsyncScript, ids: Sequence[bytes], *, next_only: bool = False) -> list[bytes]:
        """Do something with those of the entries that are still ours; return them."""
        if not ids:
            return []
        prefixes = [prefix.encode() for prefix in (in_progress_key_prefix, job_key_prefix, retry_key_prefix)]
        args = [part for job_id in ids for part in (job_id, self._locked[job_id])]
        answers = await script(
            [self.queue_name, *(prefix + job_id for job_id in ids for prefix in prefixes)],
            [self._token, LOCK_MS, int(next_only), *args],
        )
        return [job_id for job_id, ours in zip(ids, answers, strict=True) if ours]

    async def close(self) -> None:
        """Leave what was being taken to be taken again, and close the connection."""
        await self._unlock(list(self._locked))
        await self.pool.aclose()

    async def _unlock(self, ids: Sequence[bytes]) -> None:
        if ids:
            await self._unlock_ours([in_progress_key_prefix.encode() + job_id for job_id in ids], [self._token])
            for job_id in ids:
                self._locked.pop(job_id, None)

    async def _listen(self, called: asyncio.Event) -> None:
        """Set the event whenever the server announces a change of the queue; end where it does not announce any."""
        flags = (await self.pool.config_get("notify-keyspace-events")).get("notify-keyspace-events", "")
        if "K" not in flags or not set(flags) & {"z", "A"}:
            return
        db = self.pool.connection_pool.connection_kwargs.get("db") or 0
        async with self.pool.pubsub(ignore_subscribe_messages=True) as pubsub:
            await pubsub.subscribe(f"__keyspace@{db}__:{self.queue_name}")
            await hear(pubsub, called.set)


def _read(job_id: bytes, body: bytes | None) -> Call | Rejection:
    if body is None:
        words = "the entry has no body: it expired, or no arq client made it"
        return Rejection("no_body", words, recorded=False)
    try:
        job_id.decode()
    except UnicodeDecodeError:
        words = "the entry's id is not UTF-8: no arq client made it"
        return Rejection("foreign_entry", words, recorded=False)
    return read_call(body)


def _name(job_id: bytes) -> str:
    return job_id.decode("utf-8", "backslashreplace")


def _is_wish(call: Call | Rejection) -> bool:
    return isinstance(call, Call) and call.function in WISHES


def _answer(outcome: Taken | Rejection) -> bytes:
    """Write the answer to a call, JSON: the job's view, or the problem with the fields at fault."""
    if isinstance(outcome, Taken):
        return json.dumps({"job": view(to_form(outcome.job)), "created": outcome.created}).encode()
    errors = [{"field": fault.field, "message": fault.message} for fault in outcome.faults]
    problem = {"code": outcome.code or outcome.reason, "message": outcome.words, "errors": errors}
    return json.dumps({"problem": problem}).encode()


def _tell_why(running: "asyncio.Task[None]") -> None:
    """Log what ended arq's loop, where it was not our stop."""
    error = None if running.cancelled() else running.exception()
    if isinstance(error, (*AWAY_ERRORS, *STORE_ERRORS)):
        log.warning("redis.away", where="intake", error=f"{type(error).__name__}: {error}")
    elif error is not None:
        log.error("intake.restarted", exc_info=error)
