"""Owns the walk through our part of Redis: what has fallen out of its place is found and put back.

Theory. Every step of a job writes all its places at once, so that nothing is ever missing by our own doing. What still
can be: a member deleted by hand, a key that was evicted, a step that Redis broke off, a restored backup, the lock of
another arq worker. Such a job would stand still for ever. So one worker, elected among all, goes through all keys again
and again (SCAN) and judges each by its kind; the scripts of ``worker.mending`` decide, repair and count. Two that walk
at once do no harm: the election only saves work.

The walk is paced: it rests for ``REST`` times as long as a step of a few milliseconds took, less where it mends, and
after a round for as long as the round took. A few hundred jobs are walked in seconds, a hundred thousand in minutes.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TypeVar

from config.log import log
from jobs.places import Repair
from worker.keys import ARQ_BODY, ARQ_LOCK
from worker.link import ABSENCE, STORE_ERRORS, unreadable
from worker.mending import ELECTED_MS
from worker.record import UNSHOWABLE
from worker.store import Store

REST = 49  # a fiftieth of one CPU, Redis's part included
MENDING_REST = 4  # what was lost comes first: hundreds a second, and a few percent of a CPU each of ours and of Redis's
LONGEST_REST_S = 0.1  # a step that took longer than some milliseconds has waited for others
ROUND_EVERY_S = 30.0
ASK_EVERY_S = ELECTED_MS / 1000 / 3
KEEP_BODIES_EVERY_S = 600.0
SCAN_COUNT = 300
AT_ONCE = 50  # in one script: about a millisecond of Redis
MENDED_AT_ONCE = 20
PAGE = 200
MOST_TOLD = 20  # repairs of a round that have a line of the log each
MOST_CANDIDATES = 10_000

N = TypeVar("N")
T = TypeVar("T")


class _Overtaken(Exception):  # noqa: N818 - named after what it says
    """Another worker walks by now."""


class Reconciler:
    """Walks while this worker is the elected one."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._mending = store.mending
        self._ours = store.keys.one("").encode()
        self._kinds: dict[bytes, Callable[[Sequence[bytes]], Awaitable[None]]] = {
            b"job": self._judge_jobs,
            b"delivery": self._judge_deliveries,
            b"index": self._judge_job_indexes,
            b"deliveries": self._judge_delivery_indexes,
            b"leases": self._judge_leases,
            b"waiting": self._judge_destinations,
            b"sending": self._judge_destinations,
            b"jobs": self._judge_queue,
            ARQ_BODY: self._judge_bodies,
            ARQ_LOCK: self._judge_locks,
        }
        self._queues: set[bytes] = set()  # of others: what stands there is theirs
        self._unqueued, self._unqueued_before = set[bytes](), set[bytes]()
        self._repaired = Counter[str]()
        self._is_paced = False
        self._elected_s = self._working_since_s = 0.0

    async def run(self) -> None:
        """Walk, round after round, while elected; ask to be elected else. Survives an absent Redis."""
        while True:
            rest_s = ASK_EVERY_S
            try:
                if await self._is_elected():
                    began_s = time.monotonic()
                    await self.run_once(is_paced=True)
                    rest_s = max(ROUND_EVERY_S, time.monotonic() - began_s)
                await self._stand_by(rest_s)
            except (_Overtaken, *ABSENCE):
                await asyncio.sleep(ASK_EVERY_S)
            except Exception:  # noqa: BLE001 - the boundary of every duty of upkeep
                log.exception("upkeep.failed")
                await asyncio.sleep(ASK_EVERY_S)

    async def run_once(self, *, is_paced: bool = False) -> Counter[str]:
        """Walk one round; return what was repaired. Safe in several processes at once."""
        self._repaired, self._is_paced = Counter(), is_paced
        self._unqueued, self._unqueued_before = set(), self._unqueued
        self._working_since_s = time.monotonic()
        cursor = None
        while cursor != 0:
            cursor, found = await self._mending.scan(cursor or 0, SCAN_COUNT)
            await self._breathe()
            for judge, names in self._sorted(found).items():
                await judge(names)
        await self._requeue()
        if (untold := self._repaired.total() - MOST_TOLD) > 0:
            log.warning("upkeep.repaired", what=dict(self._repaired), untold=untold)
        return self._repaired

    # --- pace

    async def _is_elected(self) -> bool:
        self._elected_s = time.monotonic()
        return await self._mending.elect()

    async def _stand_by(self, rest_s: float) -> None:
        """Rest, and stay elected meanwhile where this worker is."""
        until_s = time.monotonic() + rest_s
        while (left_s := until_s - time.monotonic()) > 0:
            await asyncio.sleep(min(left_s, ASK_EVERY_S))
            if rest_s > ASK_EVERY_S:
                await self._stay_elected()

    async def _stay_elected(self) -> None:
        if time.monotonic() - self._elected_s >= ASK_EVERY_S * 0.9 and not await self._is_elected():
            raise _Overtaken

    async def _breathe(self, rest: int = REST) -> None:
        """Rest after a step, for as long as it took times ``rest``."""
        if not self._is_paced:
            return
        took_s = time.monotonic() - self._working_since_s
        await asyncio.sleep(min(took_s * rest, LONGEST_REST_S))
        await self._stay_elected()
        self._working_since_s = time.monotonic()

    def _sorted(self, found: Iterable[bytes]) -> dict[Callable[[Sequence[bytes]], Awaitable[None]], list[bytes]]:
        """Sort keys by who judges them, and cut off what they begin with."""
        sorted_: dict[Callable[[Sequence[bytes]], Awaitable[None]], list[bytes]] = {}
        for key in found:
            if key.startswith(self._ours):
                kind, _, name = key[len(self._ours) :].partition(b":")
            elif key.startswith((ARQ_BODY, ARQ_LOCK)):
                kind = ARQ_BODY if key.startswith(ARQ_BODY) else ARQ_LOCK
                name = key[len(kind) :]
            else:
                kind, name = b"", key
            if judge := self._kinds.get(kind):
                sorted_.setdefault(judge, []).append(name)
            elif key.endswith(b":jobs") or key.startswith(b"arq:queue"):
                self._queues.add(key)
        return sorted_

    # --- what is judged how

    async def _judge_jobs(self, ids: Sequence[bytes]) -> None:
        for some in _parts(_texts(ids), AT_ONCE):
            doubtful = await self._mending.doubtful_jobs(some)
            await self._breathe(_rest(doubtful, some))
            await self._mend_jobs(doubtful)

    async def _mend_jobs(self, ids: Iterable[str]) -> None:
        async for job_id, repaired in self._each(self._mending.mend_job, ids, list[str](), "job"):
            for what in repaired:
                self._tell(what, job=job_id)

    async def _judge_deliveries(self, ids: Sequence[bytes]) -> None:
        for some in _parts(_texts(ids), AT_ONCE):
            doubtful = await self._mending.doubtful_deliveries(some)
            await self._breathe(_rest(doubtful, some))
            await self._mend_deliveries(doubtful)

    async def _mend_deliveries(self, ids: Iterable[str]) -> None:
        async for delivery, repaired in self._each(self._mending.mend_delivery, ids, list[str](), "delivery"):
            for what in repaired:
                self._tell(what, delivery=delivery)

    async def _judge_job_indexes(self, names: Sequence[bytes]) -> None:
        await self._judge_indexes("index", names, Repair.INDEX, self._mend_jobs)

    async def _judge_delivery_indexes(self, names: Sequence[bytes]) -> None:
        await self._judge_indexes("deliveries", names, Repair.DELIVERY_INDEX, self._mend_deliveries)

    async def _judge_indexes(
        self, kind: str, names: Sequence[bytes], what: Repair, mend: Callable[[Iterable[str]], Awaitable[None]]
    ) -> None:
        for name in _texts(names):
            key, after = self._store.keys.one(f"{kind}:{name}"), ""
            while page := await self._one(self._mending.mend_index(key, after, PAGE), None, "index", name):
                if page.dropped:
                    self._tell(what, page.dropped, index=name, member=page.first_dropped)
                await self._breathe()
                await mend(page.doubtful)
                after = page.after
                if not after:
                    break

    async def _judge_leases(self, names: Sequence[bytes]) -> None:
        for name in _texts(names):
            cursor = None
            while cursor != 0:
                cursor, mended = await self._one(self._mend_leases(name, cursor or 0), (0, []), "leases", name)
                for member in mended:
                    self._tell(Repair.LEASE, wheel=name, member=member)
                await self._breathe()

    async def _mend_leases(self, name: str, cursor: int) -> tuple[int, list[str]]:
        """Mend some leases; a job that is held and on no wheel is put back first, so that it stays with its holder."""
        following, leases = await self._mending.leases(name, cursor, PAGE)
        await self._mend_jobs(await self._mending.jobs_on_no_wheel(name, leases[::2]))
        return following, await self._mending.mend_leases(name, leases)

    async def _judge_destinations(self, ids: Sequence[bytes]) -> None:
        mended = self._each(self._mending.mend_destination, _texts(ids), False, "destination")  # noqa: FBT003
        async for name, was_lost in mended:
            if was_lost:
                self._tell(Repair.DESTINATION, destination=name)

    # --- arq's queue

    async def _judge_queue(self, _: Sequence[bytes]) -> None:
        await self.keep_bodies()

    async def keep_bodies(self) -> None:
        """Keep the bodies of all calls that wait on the queue from expiring."""
        start, found = 0, PAGE
        while found == PAGE:
            found, kept = await self._one(self._mending.keep_bodies(start, PAGE), (0, []), "queue", "jobs")
            start += PAGE
            for entry in kept:
                self._tell(Repair.ARQ_BODY, entry=entry)
            await self._breathe()

    async def _judge_bodies(self, entries: Sequence[bytes]) -> None:
        for some in _parts(entries, AT_ONCE):
            room = MOST_CANDIDATES - len(self._unqueued)
            self._unqueued.update((await self._one(self._mending.unqueued(some), [], "queue", "jobs"))[:room])
            await self._breathe()

    async def _judge_locks(self, entries: Sequence[bytes]) -> None:
        for some in _parts(entries, AT_ONCE):
            for entry in await self._mending.endless(some):
                if await self._one(self._mending.unlock(entry), False, "entry", repr(entry)):  # noqa: FBT003
                    self._tell(Repair.ARQ_LOCK, entry=repr(entry))
            await self._breathe()

    async def _requeue(self) -> None:
        """Put bodies of calls back on the queue that were on none in two rounds: by now all other queues are known."""
        requeue = partial(self._mending.requeue, others=sorted(self._queues))
        lost = sorted(self._unqueued & self._unqueued_before)
        async for entry, was_lost in self._each(requeue, lost, False, "entry"):  # noqa: FBT003
            if was_lost:
                self._tell(Repair.ARQ_ENTRY, entry=repr(entry))

    async def _each(
        self, mend: Callable[[N], Awaitable[T]], names: Iterable[N], otherwise: T, what: str
    ) -> AsyncIterator[tuple[N, T]]:
        """Mend some things, a few at a time; give what came of each."""
        for some in _parts(list(names), MENDED_AT_ONCE):
            mending = (self._one(mend(name), otherwise, what, str(name)) for name in some)
            for pair in zip(some, await asyncio.gather(*mending), strict=True):
                yield pair
            await self._breathe(MENDING_REST)

    async def _one(self, judging: Awaitable[T], otherwise: T, what: str, name: str) -> T:
        """Judge one thing; where something foreign lies in its place, the others' turn comes all the same."""
        try:
            return await judging
        except ABSENCE:
            raise
        except (*STORE_ERRORS, *UNSHOWABLE) as error:
            unreadable(what, name[:100], error)
            return otherwise

    def _tell(self, what: str, count: int = 1, **where: str) -> None:
        """Note a repair, and log the first of a round."""
        self._repaired[what] += count
        if self._repaired.total() - count < MOST_TOLD:
            log.warning("upkeep.repaired", what=str(what), count=count, **where)


def _parts(rows: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (rows[start : start + size] for start in range(0, len(rows), size))


def _rest(doubtful: Sequence[str], among: Sequence[str]) -> int:
    """Say how long to rest after a look at some: less where a wheel was lost, and not for the few that never heal."""
    return MENDING_REST if 2 * len(doubtful) > len(among) else REST


def _texts(names: Iterable[bytes]) -> list[str]:
    return [name.decode("utf-8", "replace") for name in names]
