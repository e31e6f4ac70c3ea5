"""Owns the connection to Redis: scripts by their files, and many callers' commands sent as one pipeline.

Commands of one turn of the event loop leave together, one pipeline is under way at a time, and what arrives
meanwhile forms the next: the busier the process, the fewer round trips a command costs. A lost script cache (a Redis
restart) is mended on the spot. Every error that means "Redis is away" is one exception, ``RedisAway``.

What listens has connections of its own, which are lost and closed without the commands' ever noticing.
"""

import asyncio
import contextlib
import hashlib
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager
from functools import cache
from importlib.resources import files
from typing import Any, NoReturn, TypeVar

import redis.asyncio as aioredis
from redis.asyncio.client import PubSub
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from config.log import log
from worker.absence import reason

MAX_BATCH = 256
MAX_PIPELINES = 1
MAX_ATOMIC = 4  # transactions under way at a time, each on a connection of its own
AWAY_ERRORS = (RedisConnectionError, RedisTimeoutError, BusyLoadingError, ReadOnlyError, OutOfMemoryError, OSError)
SILENCE_S = 5.0
CLOSE_S = 1.0
BACK_AFTER_S = 2.0  # without an error
PATIENCE_FIRST_S, PATIENCE_MAX_S = 0.05, 2.0
TOLD_EVERY_S, MOST_TOLD = 60.0, 100

T = TypeVar("T")
Argument = str | bytes | int | float


class RedisAway(Exception):  # noqa: N818 - named after what it says
    """Redis cannot be reached, is loading, read-only or out of memory: try again later."""


class RedisFull(RedisAway):
    """Redis has no memory for this write. It is there: what needs none is written, and leases are prolonged."""


class ReadOnlyReplica(RedisAway):
    """Redis takes no writes: it is another's replica."""

    def __init__(self) -> None:
        super().__init__("this Redis is a read-only replica: set REDIS_URL to the primary")


class RedisRefused(Exception):  # noqa: N818 - named after what it says
    """Redis does not let us in; the message says what to set."""


STORE_ERRORS = (RedisAway, RedisRefused, RedisError)
"""All that a call of the store may raise on account of Redis."""


ABSENCE = (RedisAway, RedisRefused)
"""What is no row's fault: whoever is at one waits for Redis."""


_INCLUDE = re.compile(r"^-- include (\w+)$", re.MULTILINE)


@cache
def script_source(name: str) -> tuple[str, str]:
    """Read a Lua script by its file's name, with what it includes; return its SHA-1 and its source."""
    folder = files("worker").joinpath("lua")
    source = folder.joinpath(f"{name}.lua").read_text()
    source = _INCLUDE.sub(lambda found: folder.joinpath(f"{found[1]}.lua").read_text(), source)
    return hashlib.sha1(source.encode()).hexdigest(), source  # noqa: S324 - Redis names scripts by SHA-1


class Link:
    """A batching client. Safe to use from any number of coroutines of one event loop."""

    def __init__(self, url: str) -> None:
        self._redis = aioredis.Redis.from_url(
            url,
            socket_timeout=10,
            socket_connect_timeout=2,
            health_check_interval=30,
            max_connections=MAX_PIPELINES + MAX_ATOMIC + 4,
        )
        # Health checks are a subscription's own: redis-py's would be sent midway through an interruptible read.
        self._ears = aioredis.Redis.from_url(url, socket_timeout=10, socket_connect_timeout=2, health_check_interval=0)
        self._atomic = asyncio.Semaphore(MAX_ATOMIC)
        self._waiting: deque[tuple[tuple[Argument, ...], str | None, asyncio.Future[Any]]] = deque()
        self._under_way: set[asyncio.Task[None]] = set()
        self._flush_planned = False
        self._closed = False
        self.interrupted = False  # Redis has been away; whoever acts on it sets it back
        self._was_there = False  # whoever opens the link says so where it is not
        self._away_since_s = self._told_away_s = self._failed_s = self._back_since_s = 0.0  # 0 while it is there

    async def script(self, name: str, keys: Sequence[str | bytes], args: Sequence[Argument]) -> Any:
        """Run a script of ours; raise ``RedisAway`` where it may or may not have run."""
        return await self._send(("EVALSHA", script_source(name)[0], len(keys), *keys, *args), name)

    async def command(self, *args: Argument) -> Any:
        """Run a plain command."""
        return await self._send(args, None)

    async def together(self, commands: Iterable[Sequence[Argument]]) -> list[Any]:
        """Run plain commands in one go, each by itself; raise the first error of any."""
        return list(await asyncio.gather(*(self._send(tuple(command), None) for command in commands)))

    async def each(self, commands: Iterable[Sequence[Argument]]) -> list[Any]:
        """Run plain commands in one go; what Redis refuses of them has its ``ResponseError`` as its answer."""
        sent = (self._send(tuple(command), None) for command in commands)
        answers = await asyncio.gather(*sent, return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException) and not isinstance(answer, ResponseError):
                raise answer
        return answers

    async def atomic(self, commands: Iterable[Sequence[Argument]]) -> list[Any]:
        """Run commands that only read as of one moment; raise the first error of any.

        A Redis at its maxmemory takes no transaction, whatever is in it: there they are run one after the other.
        """
        asked = [tuple(command) for command in commands]
        try:
            async with self._atomic, self._redis.pipeline(transaction=True) as pipe:
                for command in asked:
                    pipe.execute_command(*command)
                answers = list(await pipe.execute(raise_on_error=False))
            for answer in answers:
                if isinstance(answer, Exception):
                    raise answer
        except OutOfMemoryError:
            return await self.together(asked)
        except (RedisError, OSError) as error:
            raise self._failed(error) from error
        self._succeeded()
        return answers

    async def listen(self, channel: str, called: Callable[[], None]) -> NoReturn:
        """Call back on every message of a channel, and once it is heard; raise ``RedisAway`` when that is lost."""
        async with self.subscription() as subscription:
            await subscription.tune({channel})
            while True:
                if await subscription.next() is not None:
                    called()

    @asynccontextmanager
    async def subscription(self) -> AsyncIterator["Subscription"]:
        """Open a subscription, to be tuned first; raise ``RedisAway`` when its connection is lost."""
        try:
            async with self._ears.pubsub() as pubsub:
                yield Subscription(pubsub)
        except (RedisError, OSError) as error:
            raise _meaning(error) from error

    async def aclose(self) -> None:
        """Wait a moment for what is under way and close the connections."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                while self._under_way:
                    await asyncio.wait(self._under_way)
        self._closed = True
        for _, _, answer in self._waiting:
            answer.cancel()
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        await self._redis.aclose()
        await self._ears.aclose()

    async def _send(self, args: tuple[Argument, ...], script: str | None) -> Any:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        # Encoded here, so that what cannot be encoded is its caller's error and nobody else's.
        encoded = tuple(arg.encode() if isinstance(arg, str) else arg for arg in args)
        self._waiting.append((encoded, script, answer))
        if not self._flush_planned:
            self._flush_planned = True
            loop.call_soon(self._flush)
        return await answer

    def _flush(self) -> None:
        self._flush_planned = False
        while self._waiting and not self._closed and len(self._under_way) < MAX_PIPELINES:
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_BATCH))]
            task = asyncio.ensure_future(self._execute(batch))
            self._under_way.add(task)
            task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self._flush()

    async def _execute(self, batch: list[tuple[tuple[Argument, ...], str | None, asyncio.Future[Any]]]) -> None:
        try:
            results = await self._pipeline([args for args, _, _ in batch])
            unknown = [i for i, result in enumerate(results) if isinstance(result, NoScriptError)]
            if unknown:
                names = {name for i in unknown if (name := batch[i][1])}
                await self._pipeline([("SCRIPT", "LOAD", script_source(name)[1]) for name in names])
                again = await self._pipeline([batch[i][0] for i in unknown])
                for i, result in zip(unknown, again, strict=True):
                    results[i] = result
        except asyncio.CancelledError:
            for _, _, answer in batch:
                answer.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, each caller of the batch has to hear of it
            results = [error] * len(batch)
        for (_, _, answer), result in zip(batch, results, strict=True):
            if answer.done():
                continue
            if isinstance(result, Exception):
                answer.set_exception(self._failed(result))
            else:
                answer.set_result(result)
        if not all(isinstance(result, Exception) for result in results):
            self._succeeded()

    def _failed(self, error: Exception) -> Exception:
        """Say what an error means, and log the first that says Redis is away, and one a minute while it is."""
        meaning = _meaning(error)
        if isinstance(meaning, ABSENCE) and not isinstance(meaning, RedisFull):  # that one is there, and told elsewhere
            self.interrupted |= isinstance(meaning, RedisAway)  # where nothing can be written, nobody can renew either
            now_s = self._failed_s = time.monotonic()
            self._away_since_s = self._away_since_s or now_s
            if self._was_there and (not self._told_away_s or now_s - self._told_away_s >= TOLD_EVERY_S):
                self._told_away_s = now_s
                log.warning("redis.away", error=str(meaning), for_s=round(now_s - self._away_since_s))
        return meaning

    def _succeeded(self) -> None:
        """Log that Redis is back: one that takes some commands and refuses others is not."""
        self._was_there = True
        if not self._away_since_s:
            return
        now_s = time.monotonic()
        if self._back_since_s <= self._failed_s:
            self._back_since_s = now_s
        if now_s - self._failed_s >= BACK_AFTER_S:
            log.info("redis.back", away_s=round(self._back_since_s - self._away_since_s, 1))
            self._away_since_s = self._told_away_s = 0.0

    async def _pipeline(self, commands: Sequence[tuple[Argument, ...]]) -> list[Any]:
        if len(commands) == 1:
            try:
                return [await self._redis.execute_command(*commands[0])]
            except ResponseError as error:  # its own answer, and not that of the others of its batch
                return [error]
        async with self._redis.pipeline(transaction=False) as pipe:
            for command in commands:
                pipe.execute_command(*command)
            return list(await pipe.execute(raise_on_error=False))


class Subscription:
    """Channels that are listened to. One task uses it; all that others may do is ``interrupt``.

    A connection must not be written to while a read of it fails. So reading stops for every change of the channels,
    and what was read of a message until then stays with the connection.
    """

    def __init__(self, pubsub: PubSub) -> None:
        self._pubsub = pubsub
        self._reading: asyncio.Timeout | None = None
        self._interrupted = False
        self._asked_for_life = False

    async def tune(self, channels: AbstractSet[str]) -> None:
        """Listen to these channels and to no others; ``next`` tells of each when it is heard."""
        # By the client's own account: a connection it has made anew listens to what the one before had listened to.
        heard = self._pubsub.channels.keys() - self._pubsub.pending_unsubscribe_channels
        before = {channel.decode() for channel in heard}
        if new := set(channels) - before:
            await self._pubsub.subscribe(*new)
        if old := before - set(channels):
            await self._pubsub.unsubscribe(*old)

    def interrupt(self) -> None:
        """Have ``next`` give None at once, or as soon as it has given what has come."""
        self._interrupted = True
        if self._reading is not None and not self._reading.expired():
            self._reading.reschedule(0)

    async def next(self) -> str | None:
        """Name the channel of the next message, or one that is heard from now on; None where interrupted or silent."""
        while True:
            try:
                # A time-out of 0 takes what has come and waits for nothing.
                async with asyncio.timeout(0 if self._interrupted else None) as self._reading:
                    message = await self._pubsub.get_message(timeout=SILENCE_S)
            except TimeoutError:
                if not self._interrupted:
                    raise
                self._interrupted = False
                return None
            finally:
                self._reading = None
            if message is None:
                await self._ask_for_life()
                return None
            self._asked_for_life = False
            if message["type"] in {"message", "subscribe"}:
                return str(message["channel"].decode())

    async def _ask_for_life(self) -> None:
        """Have a silent server say something; raise where it has been asked before."""
        if self._asked_for_life:
            raise RedisConnectionError("a subscription has fallen silent")
        self._asked_for_life = True
        await self._pubsub.ping()


def _meaning(error: Exception) -> Exception:
    said = str(error)
    if isinstance(error, AuthenticationError) or _CREDENTIALS.search(said):
        return RedisRefused("Redis refuses our credentials: set user and password in REDIS_URL")
    if isinstance(error, OutOfMemoryError) or _FULL.search(said):
        return RedisFull("Redis is at its maxmemory")
    if isinstance(error, ReadOnlyError) or _READ_ONLY.search(said):
        return ReadOnlyReplica()
    if isinstance(error, AWAY_ERRORS) or _UNABLE.search(said):
        away = RedisAway(f"Redis is away: {reason(error)}")
        away.__cause__ = error
        return away
    return error


# Up to Redis 6.2 an error inside a script comes wrapped: "Error running script (...): ... -OOM command ...".
# redis-py takes the code away and makes a ConnectionError of it where a connection is only just being made.
_CREDENTIALS = re.compile(r"(?:^|\s-?)(?:NOAUTH|WRONGPASS|NOPERM)\b|^Authentication required")
_FULL = re.compile(r"(?:^|\s-?)OOM\b|command not allowed when used memory", re.IGNORECASE)
_READ_ONLY = re.compile(r"(?:^|\s-?)READONLY\b|write against a read only replica", re.IGNORECASE)
_UNABLE = re.compile(
    r"(?:^|\s-?)(?:LOADING|MISCONF|NOREPLICAS|MASTERDOWN|BUSY|TRYAGAIN|CLUSTERDOWN)\b|not enough good replicas",
    re.IGNORECASE,
)


def pairs(flat: Any) -> dict[bytes, bytes]:
    """Read a hash as Redis gives it: a flat list, or what redis-py has made of it."""
    if isinstance(flat, dict):
        return flat
    return dict(zip(flat[::2], flat[1::2], strict=True))


_told: dict[tuple[str, str], float] = {}


def unreadable(what: str, row: str, error: object) -> None:
    """Log that a row of ours cannot be read and is left out: each once a minute, and no more than a hundred of them."""
    now_s = time.monotonic()
    for told in [told for told, at_s in _told.items() if now_s - at_s > TOLD_EVERY_S]:
        del _told[told]
    if (what, row) not in _told and len(_told) < MOST_TOLD:
        _told[what, row] = now_s
        log.warning("record.unreadable", what=what, row=row, error=str(error)[:200])


async def hear(pubsub: Any, called: Callable[[], None]) -> NoReturn:
    """Call back on every message of a subscription; silence is no time-out."""
    while True:
        if await pubsub.get_message(timeout=SILENCE_S) is not None:
            called()


async def patiently(
    call: Callable[[], Awaitable[T]], *, whatever: bool = False, meanwhile: Callable[[], object] = lambda: None
) -> T:
    """Repeat a call while Redis is away or lets nobody in, ever more slowly. Only for calls that are safe to repeat.

    ``whatever``: on every error of Redis's, since what the call writes must not be lost; ``meanwhile`` is called each
    time that it could not be written.
    """
    pause_s = PATIENCE_FIRST_S
    while True:
        try:
            return await call()
        except STORE_ERRORS as error:
            if not (whatever or isinstance(error, ABSENCE)):
                raise
            meanwhile()
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, PATIENCE_MAX_S)
