"""Owns the Python client's way to Redis: what it sends, the answers it waits for, the changes it hears of.

However many coroutines use a client at once, its connections are bounded: ``SLOTS`` for short calls, ``SEATS`` for
waiting on answers, one for all changes. Every error of Redis's becomes ``RedisUnavailable``, and once one call has
found Redis away, those in the queue behind it are told at once. Imports redis, arq and the standard library only.

An answer lies on a list of its own. Whoever stops waiting for it leaves a mark there in the same step that looks for
it a last time, so that the worker knows for certain whether it was heard; a caller that is canceled leaves it, too.
What is queued is due at once by Redis's clock, whatever this machine's says.
"""

import asyncio
import contextlib
import json
import re
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

from arq.connections import ArqRedis
from redis.asyncio.client import PubSub
from redis.exceptions import AuthenticationError, OutOfMemoryError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError

from worker.client.checks import write_json
from worker.client.errors import CredentialsRefused, RedisUnavailable, WrongAddress
from worker.ending import ASK_EVERY_S, end
from worker.index import newest
from worker.keys import Keys
from worker.memory import RedisMemory

CONNECT_S = 1.5
AWAY_S = 1.7  # a short call that takes longer has found Redis away
SOCKET_S = 10.0
UPLOAD_BYTES_PER_S = 500_000  # what a large request is allowed to be slowed to
KEPT_MS = 30 * 86_400_000  # how long a queued request waits for a worker; arq's default is a day
ALIVE_MS = 10_000  # the workers' own measure: one that has said nothing for so long is taken for dead
SLOTS, SEATS = 32, 32
ANSWER_STEP_S = 1.0
LEAST_STEP_S = 0.01  # Redis 6.2 takes a millisecond for none, and none for ever
TICKS = 5
GONE = b"gone"
MARKS = 2  # one may go to a look for the answer that was broken off just now
MARK_S = 0.5  # how long a canceled caller is kept for its mark; it is left all the same
SILENCE_S = 5.0
LOOK_EVERY_S = 1.0
AGAIN_S = 0.5

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
WRONG_PARAMETER = re.compile(r"(?:unexpected keyword argument '|Invalid value for [`'])(\w+)")

Stored = dict[bytes, bytes]


class Line:
    """Connections to one Redis, made when they are needed. Safe to use from any number of coroutines of a loop."""

    def __init__(self, redis_url: str, keys: Keys) -> None:
        self._redis = _open(redis_url)
        self._redis.job_serializer, self._redis.job_deserializer = write_json, json.loads
        self._redis.default_queue_name = keys.one("jobs")
        self._keys = keys
        self._slots, self._seats = asyncio.Semaphore(SLOTS), asyncio.Semaphore(SEATS)
        self._failed_at_s = 0.0
        self._memory, self._looked_at_s = RedisMemory(), -LOOK_EVERY_S
        self._leaving: set[asyncio.Task[Any]] = set()
        self.ear = Ear(self._redis)

    async def aclose(self) -> None:
        """Close the connections, once the marks of canceled callers are left."""
        await asyncio.gather(*self._leaving, return_exceptions=True)
        await self.ear.aclose()
        await self._redis.aclose()

    # --- the queue

    async def clock(self) -> tuple[int, bool]:
        """Read Redis's clock, in ms since 1970, and whether a worker is alive by it."""
        async with self._call(), self._redis.pipeline(transaction=False) as pipe:
            pipe.time()
            pipe.hvals(self._keys.one("workers"))
            (seconds, micros), workers = await pipe.execute()
        now_ms = int(seconds) * 1000 + int(micros) // 1000
        return now_ms, any(now_ms - _seen_at_ms(worker) <= ALIVE_MS for worker in workers)

    async def memory(self) -> RedisMemory:
        """Read how full Redis is, or was within the last second; told as empty where it does not say."""
        if time.monotonic() - self._looked_at_s >= LOOK_EVERY_S:
            async with self._call():
                try:
                    self._memory = RedisMemory.read(await self._redis.execute_command(b"INFO", b"memory"))
                except ResponseError:  # a managed Redis may forbid it
                    self._memory = RedisMemory()
            self._looked_at_s = time.monotonic()
        return self._memory

    async def enqueue(
        self, function: str, argument: Any, *, now_ms: int, reply_to: str | None = None, size_bytes: int = 0
    ) -> None:
        """Put a call on the queue, as plain arq does, due at ``now_ms``."""
        named = {} if reply_to is None else {"reply_to": reply_to}
        due = EPOCH + timedelta(milliseconds=now_ms)
        async with self._call(within_s=AWAY_S + size_bytes / UPLOAD_BYTES_PER_S):
            await self._redis.enqueue_job(function, argument, _defer_until=due, _expires=KEPT_MS / 1000, **named)

    @asynccontextmanager
    async def reply(self) -> AsyncIterator[str]:
        """Give a token to be answered on; where the caller is canceled within, its mark is left."""
        token = secrets.token_hex(16)
        try:
            yield token
        except asyncio.CancelledError:
            leaving = asyncio.create_task(self._last(token))
            self._leaving.add(leaving)
            leaving.add_done_callback(self._left)
            await asyncio.wait([leaving], timeout=MARK_S)
            raise

    def _left(self, leaving: asyncio.Task[Any]) -> None:
        self._leaving.discard(leaving)
        if not leaving.cancelled():
            leaving.exception()  # Redis is away: there is nobody to tell

    async def answer(self, token: str, *, within_s: float) -> dict[str, Any] | None:
        """Wait for the answer to a call; None where none came, and then the worker knows that nobody waits."""
        deadline_s, said = time.monotonic() + within_s, None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._seats.acquire()
            try:
                while said is None and (left_s := deadline_s - time.monotonic()) > 0:
                    said = await self._next(token, within_s=min(left_s, ANSWER_STEP_S))
            finally:
                self._seats.release()
        if said is None:
            said = await self._last(token)
        return None if said is None else dict(json.loads(said))

    async def _next(self, token: str, *, within_s: float) -> bytes | None:
        async with self._call(within_s=within_s + AWAY_S, slots=contextlib.nullcontext()):
            found = await self._redis.execute_command("BLPOP", self._keys.reply(token), max(within_s, LEAST_STEP_S))
        return None if found is None else bytes(found[1])

    async def _last(self, token: str) -> bytes | None:
        """Look for the answer a last time and leave the mark that nobody waits for it."""
        key = self._keys.reply(token)
        async with self._call(), self._redis.pipeline(transaction=True) as pipe:
            pipe.rpush(key, *[GONE] * MARKS)
            pipe.lindex(key, 0)
            pipe.pexpire(key, KEPT_MS)
            _, first, _ = await pipe.execute()
            if first != GONE:
                await self._redis.delete(key)
        return None if first == GONE else bytes(first)

    # --- jobs

    async def record(self, job_id: str) -> Stored:
        """Read a job's record; empty where there is none."""
        async with self._call():
            return dict(await self._redis.execute_command("HGETALL", self._keys.job(job_id)))

    async def status(self, job_id: str) -> str | None:
        """Read a job's status, much cheaper than the record."""
        async with self._call():
            found: bytes | None = await self._redis.execute_command("HGET", self._keys.job(job_id), "status")
        return None if found is None else found.decode()

    async def newest(self, indexes: list[str], *, before: int | None, limit: int) -> list[tuple[int, str]]:
        """Read the newest jobs of some indexes below a sequence, as (sequence, id); the indexes as of one moment."""
        top = "+inf" if before is None else f"({before}"
        async with self._call():
            try:
                return newest(await self._tops(indexes, top, limit, as_one=True), limit)
            except OutOfMemoryError:  # at its maxmemory Redis takes no transaction, whatever is in it
                return newest(await self._tops(indexes, top, limit, as_one=False), limit)

    async def _tops(self, indexes: list[str], top: str, limit: int, *, as_one: bool) -> list[Any]:
        async with self._redis.pipeline(transaction=as_one) as pipe:
            for index in indexes:
                pipe.zrevrangebyscore(index, top, "-inf", start=0, num=limit, withscores=True)
            return list(await pipe.execute())

    async def records(self, job_ids: list[str]) -> list[Stored]:
        """Read the records of jobs."""
        async with self._call(), self._redis.pipeline(transaction=False) as pipe:
            for job_id in job_ids:
                pipe.hgetall(self._keys.job(job_id))
            return list(await pipe.execute())

    @asynccontextmanager
    async def _call(
        self, *, within_s: float = AWAY_S, slots: "contextlib.AbstractAsyncContextManager[None] | None" = None
    ) -> AsyncIterator[None]:
        """Use Redis for a moment; whatever it fails with is ``RedisUnavailable``."""
        called_at_s = time.monotonic()
        async with slots or self._slots:
            if self._failed_at_s > called_at_s:
                raise RedisUnavailable(f"{self._where()} is away")
            try:
                async with _patience(within_s):
                    yield
            except (RedisError, OSError) as error:
                self._failed_at_s = time.monotonic()
                if AuthenticationError in {type(error), type(error.__cause__)}:  # or while the connection is made
                    words = "refuses the credentials: set user and password in the client's redis_url"
                    raise CredentialsRefused(f"{self._where()} {words}") from error
                raise RedisUnavailable(f"{self._where()} is away: {type(error).__name__}") from error

    def _where(self) -> str:
        """Name the server without what is secret in its URL."""
        how = self._redis.connection_pool.connection_kwargs
        return f"Redis at {how.get('path') or '{}:{}'.format(how.get('host', 'localhost'), how.get('port', 6379))}"


class Ear:
    """One subscription for all that wait for changes, kept up while anybody waits; survives an absent Redis.

    Only the task that attends to it uses the subscription: the others change what is waited for, and poke that task.
    """

    def __init__(self, redis: ArqRedis) -> None:
        self._redis = redis
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._asked = asyncio.Event()
        self._hearing: asyncio.Timeout | None = None
        self._attending: asyncio.Task[None] | None = None

    @contextmanager
    def of(self, channel: str) -> Iterator[asyncio.Event]:
        """Give an event that is set whenever the channel says something, and once when it is first listened to."""
        called = asyncio.Event()
        self._waiting.setdefault(channel, set()).add(called)
        self._poke()
        if self._attending is None or self._attending.done():
            self._attending = asyncio.create_task(self._attend())
        try:
            yield called
        finally:
            self._waiting[channel].discard(called)
            if not self._waiting[channel]:
                del self._waiting[channel]
                self._poke()

    async def aclose(self) -> None:
        """Listen no longer."""
        if self._attending is not None:
            await end([self._attending])

    def _poke(self) -> None:
        """Have the attending task look at what is waited for."""
        if not self._asked.is_set():
            self._asked.set()
            if self._hearing is not None:
                self._hearing.reschedule(asyncio.get_running_loop().time())

    async def _attend(self) -> None:
        while True:
            with contextlib.suppress(Exception):  # whatever has become of a connection: another is opened
                async with self._redis.pubsub() as pubsub:
                    await self._keep_up(pubsub)
            await asyncio.sleep(AGAIN_S)

    async def _keep_up(self, pubsub: PubSub) -> None:
        """Listen to what is asked for until the connection is lost."""
        heard: set[str] = set()
        while True:
            self._asked.clear()
            heard = await _tune(pubsub, heard, set(self._waiting))
            while not self._asked.is_set():
                for called in self._waiting.get(await self._hear(pubsub), ()):
                    called.set()

    async def _hear(self, pubsub: PubSub) -> str:
        """Wait for a message and name its channel; the empty name after a poke, or when there was silence.

        redis-py would open a lost connection again while it reads, where a poke might leave it half open.
        """
        if pubsub.connection is None:
            await self._asked.wait()
            return ""
        if not pubsub.connection.is_connected:
            raise RedisConnectionError("the subscription is lost")
        try:
            async with asyncio.timeout(None) as self._hearing:
                message = await pubsub.get_message(timeout=SILENCE_S)
        except TimeoutError:
            return ""
        finally:
            self._hearing = None
        return message["channel"].decode() if message and message["channel"] else ""


def _open(redis_url: str) -> Any:
    """Make the client of a URL; what cannot be right about the URL is said without repeating it."""
    try:
        redis = ArqRedis.from_url(
            redis_url, socket_connect_timeout=CONNECT_S, socket_timeout=SOCKET_S, health_check_interval=30
        )
        redis.connection_pool.connection_kwargs["decode_responses"] = False
        redis.connection_pool.make_connection()  # opens none yet, but takes what the URL says
    except Exception as error:  # noqa: BLE001 - redis-py raises whatever the URL's parameters lead to
        found = WRONG_PARAMETER.search(str(error))
        if found and found[1] in parse_qs(urlsplit(redis_url).query, keep_blank_values=True):
            raise WrongAddress(f"redis_url: its parameter {found[1]} is unknown, or cannot be what it is") from None
        raise WrongAddress("redis_url: must be a redis://, rediss:// or unix:// URL") from None
    return redis


@asynccontextmanager
async def _patience(within_s: float) -> AsyncIterator[None]:
    """Raise ``TimeoutError`` after a time, in which what blocks the event loop is not held against Redis.

    Asks again for as long as redis-py has swallowed it; see ``worker.ending``.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    ticking: asyncio.TimerHandle
    asked = 0
    async with asyncio.timeout(None) as limit:

        def tick(left: int) -> None:
            nonlocal ticking, asked
            if left == 0:
                limit.reschedule(loop.time())
            elif left < 0:
                asked += 1
                task.cancel()
            ticking = loop.call_later(within_s / TICKS if left > 0 else ASK_EVERY_S, tick, left - 1)

        ticking = loop.call_later(within_s / TICKS, tick, TICKS - 1)
        try:
            yield
        finally:
            ticking.cancel()
            for _ in range(asked):
                task.uncancel()


async def _tune(pubsub: PubSub, heard: set[str], wanted: set[str]) -> set[str]:
    """Listen to what is wanted and to nothing else."""
    if new := wanted - heard:
        await pubsub.subscribe(*new)
    if old := heard - wanted:
        await pubsub.unsubscribe(*old)
    return wanted


def _seen_at_ms(worker: bytes) -> int:
    """Read when a worker was last alive; never, where it is no such entry."""
    try:
        return int(json.loads(worker)["seen_at_ms"])
    except (ValueError, TypeError, KeyError, OverflowError):
        return -ALIVE_MS
