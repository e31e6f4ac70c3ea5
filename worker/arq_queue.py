"""Owns arq's queue: which entries are due, who holds them, and that each is carried out and deleted once.

The queue is emptied in batches: entries are locked, read, carried out, and deleted, in a few round trips a batch.
Nothing of ours runs as an arq job, so that none of arq's limits on jobs applies (tries, time-outs, results).

A lock names its holder and runs out after LOCK_MS, so that another worker takes what a dead one held. A worker that
only stalled finds its lock gone: it neither deletes nor carries out what is another's by now. Taking a request twice
is harmless, by its id. A wish is carried out when all that was enqueued before it has been taken, by whichever worker:
it may be about a request among that. Before it is, the job's round is noted beside the entry: whoever takes the entry
once more and finds the job in a later round knows that the wish has had its time, and leaves the job as it is.

Read in arq 0.28: the keys of an entry are the three prefixes of ``arq.constants``; the one that counts its tries there
holds the noted round here. What is due is told by Redis's clock: arq's own worker goes by its machine's.

Entries that find no room in Redis stay where they are, and the queue is looked at once in a while until there is.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Protocol

from arq.connections import ArqRedis
from arq.constants import in_progress_key_prefix, job_key_prefix, retry_key_prefix
from arq.worker import Worker, func
from redis.commands.core import AsyncScript
from redis.exceptions import OutOfMemoryError, RedisError

from worker.calls import FUNCTION, WISHES, Call, Rejection, read_call
from worker.ending import end
from worker.enqueue import StorageFull
from worker.link import RedisAway, hear

BATCH = 100
BATCH_BYTES = 32 * 1024 * 1024  # bodies held in memory at a time, unless one alone is larger
LOCK_MS = 6_000  # an entry of a worker that died is taken again after this
NOTE_MS = 86_400_000  # how long a wish's round outlives a worker that died over it, while there is no other
POLL_S = 0.05  # how late a new entry is seen where the server announces nothing
ANNOUNCED_POLL_S = 1.0
FULL_POLL_S = 1.0

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


class Taker(Protocol):
    """Carries entries out."""

    @property
    def queue(self) -> str:
        """The queue's name."""

    async def generate(self, ctx: dict[str, Any], request: Any) -> None:
        """Take one request, as arq itself would run it."""

    async def take(self, name: str, call: Call | Rejection, note: Note) -> Rejection | None:
        """Carry out an entry; return what is to be counted as rejected."""

    async def count(self, job_id: str, rejection: Rejection) -> None:
        """Log and count an entry that was rejected."""


class ArqQueue(Worker):
    """arq's worker, taking entries in batches and woken by the server where it announces changes of the queue."""

    def __init__(self, intake: Taker, pool: ArqRedis) -> None:
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
        self._is_full = False
        self._due, self._hold, self._delete_ours, self._unlock_ours, self._noted = (
            pool.register_script(script) for script in (DUE, HOLD, DELETE, UNLOCK, NOTE)
        )

    async def main(self) -> None:
        """Poll the queue until cancelled; a change announced by the server is looked at at once."""
        called = asyncio.Event()
        listening = asyncio.create_task(self._listen(called))
        listening.add_done_callback(lambda done: done.cancelled() or done.exception())  # polling goes on without it
        try:
            while True:
                called.clear()
                self._taken, self._is_full = 0, False
                await self._poll_iteration()
                if self._is_full:
                    await asyncio.sleep(FULL_POLL_S)
                    continue
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
        with contextlib.suppress(OutOfMemoryError):
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
        full = [job_id for job_id, outcome in outcomes.items() if isinstance(outcome, StorageFull)]
        await self._unlock(full)
        self._is_full |= bool(full)
        for outcome in outcomes.values():
            if isinstance(outcome, BaseException) and not isinstance(outcome, StorageFull):
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
