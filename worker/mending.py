"""Owns how what has fallen out of its place in Redis is found and put back; one typed method for each of its scripts.

Nothing is repaired on what was read before: each script judges, or confirms by the record's ``rev``, and writes in one
step, and counts what it wrote (``upkeep_repairs_total``). On what is in order nothing is written, so that it does not
matter what else is under way.

The only part of the store that goes through all keys, since what is lost stands in no index; see ``worker.reconcile``
for how much of that is done at a time.
"""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from config.models import KINDS
from jobs.changes import ON_SUBMIT_WHEEL
from jobs.destinations import Destination
from jobs.job import Job, UnreadableRecord
from jobs.places import places
from jobs.states import ENDED, Status
from worker.calls import FUNCTION, WISHES, Call, read_call
from worker.claims import LEASE_MS, Holder
from worker.dispatch import Dispatch
from worker.keys import ARQ_BODY, ARQ_LOCK, DELIVER_WHEEL, TRACK_WHEEL, Keys, submit_wheel, track_member
from worker.link import Argument, Link, pairs
from worker.reading import decode
from worker.record import SCHEMA, UNSHOWABLE

ELECTED_MS = 15_000  # a worker that walks and dies is followed by another after this
LATER_MS = 900_000  # longer than anybody puts a job off that is due on its submit wheel
DESTINATION_LATER_MS = 5_000
DAY_MS = 86_400_000  # arq's own life of a body, unless its caller asks for another
SOON_MS = DAY_MS // 2
SKEW_MS = 3_600_000  # by how much a caller's clock may be wrong
NAMED_FUNCTION = re.compile(rb'"f"\s*:\s*"([^"]*)"')
BODY_HEAD_BYTES = 256
STATUSES, ALL_KINDS = ",".join(Status), ",".join(KINDS)


class Page(NamedTuple):
    """A page of an index that was gone through; ``after`` is where to go on, '' at its end."""

    after: str
    dropped: int
    first_dropped: str
    doubtful: tuple[str, ...]


class Mending:
    """The store's part for what the reconciler finds and puts back."""

    def __init__(self, link: Link, keys: Keys, dispatch: Dispatch, holder: Holder) -> None:
        self._link = link
        self._keys = keys
        self._dispatch = dispatch
        self._holder = holder

    # --- who does it, and where

    async def elect(self) -> bool:
        """Ask to be the one worker that walks, for ``ELECTED_MS``; tell whether this one is. Safe to repeat."""
        return bool(await self._link.script("elect", [self._keys.one("upkeep")], [self._holder.id, ELECTED_MS]))

    async def resign(self) -> None:
        """Leave the walk to another, where it is this worker's."""
        await self._link.script("elect", [self._keys.one("upkeep")], [self._holder.id, 0])

    async def scan(self, cursor: int, count: int) -> tuple[int, list[bytes]]:
        """Name some of all keys; the cursor to go on with is 0 at the end."""
        following, found = await self._link.command("SCAN", cursor, "COUNT", count)
        return int(following), list(found)

    # --- jobs

    async def doubtful_jobs(self, ids: Sequence[str]) -> list[str]:
        """Name those of some jobs that are not plainly in order."""
        waiting = {*ON_SUBMIT_WHEEL, Status.SUBMITTING}
        args: list[Argument] = [self._keys.prefix, SCHEMA, _between_commas(ENDED), _between_commas(waiting), LATER_MS]
        return _names(await self._link.script("glance", [], [*args, *ids]))

    async def mend_job(self, job_id: str) -> list[str]:
        """Put a job in its places; return what was repaired.

        Left alone are a record this version cannot read, by all that its duties read of it, and one in quarantine.
        """
        stored = pairs(await self._link.command("HGETALL", self._keys.job(job_id)))
        try:
            keys, args = self._job_places(decode(job_id, stored))
        except (UnreadableRecord, *UNSHOWABLE):
            return []
        return _names(await self._link.script("mend_job", keys, args))

    def _job_places(self, job: Job) -> tuple[list[str], list[Argument]]:
        keys, its, wheel = self._keys, places(job), submit_wheel(job.spec.kind)
        right = [keys.index(job.status, job.spec.kind, model) for model in (None, job.model)]
        looks = [part for number, at_ms in its.looks.items() for part in (track_member(number, job.id), at_ms)]
        times: list[Argument] = [job.deadline_at_ms, ""]
        if job.ended:
            times = ["", job.completed_at_ms or job.updated_at_ms]
        return [
            keys.job(job.id), keys.wheel(wheel), keys.leases(wheel), keys.wheel(TRACK_WHEEL), keys.leases(TRACK_WHEEL),
            keys.one("deadlines"), keys.one("ended"), keys.deliveries_of(job.id), keys.one("counters"),
            *right, keys.one("quarantine"),
        ], [
            job.id, job.rev, LEASE_MS, LATER_MS, "" if its.submit_at_ms is None else its.submit_at_ms, *times,
            keys.delivery(""), keys.one("index:"), STATUSES, ALL_KINDS, len(job.spec.models), *job.spec.models, *looks,
        ]  # fmt: skip

    async def mend_index(self, name: str, after: str, limit: int) -> Page:
        """Drop what is gone from a page of an index of jobs or deliveries, and name what it does not hold rightly."""
        keys = self._keys
        jobs, deliveries = keys.one("index:"), keys.deliveries("")
        if name.startswith(jobs):
            its: list[Argument] = [keys.job(""), "status", name[len(jobs) :].partition(":")[0], SCHEMA, "index"]
        else:
            its = [keys.delivery(""), "state", name[len(deliveries) :], SCHEMA, "delivery_index"]
        following, dropped, first, *doubtful = await self._link.script(
            "mend_index", [name, keys.one("counters")], [after, limit, *its]
        )
        return Page(following.decode(), int(dropped), _name(first), tuple(_names(doubtful)))

    async def leases(self, name: str, cursor: int, count: int) -> tuple[int, list[bytes]]:
        """Read leases of a wheel, some at a time: the cursor to go on with, 0 at the end; members and their tokens."""
        following, found = await self._link.command("HSCAN", self._keys.leases(name), cursor, "COUNT", count)
        return int(following), [part for pair in pairs(found).items() for part in pair]

    async def jobs_on_no_wheel(self, name: str, members: Sequence[bytes]) -> list[str]:
        """Name the jobs of members that are not on their wheel; of deliveries, which have wheels of their own, none."""
        if name == DELIVER_WHEEL:
            return []
        scores = await self._link.together(("ZSCORE", self._keys.wheel(name), member) for member in members)
        missing = [_name(member) for member, score in zip(members, scores, strict=True) if score is None]
        return [member.partition(":")[2] if name == TRACK_WHEEL else member for member in missing]

    async def mend_leases(self, name: str, leases: Sequence[bytes]) -> list[str]:
        """Drop leases of members that are not on their wheel, and pull back endless ones; name the members."""
        keys = self._keys
        delivery = keys.delivery("") if name == DELIVER_WHEEL else ""
        its = [keys.wheel(name), keys.leases(name), keys.one("counters")]
        return _names(await self._link.script("mend_leases", its, [LEASE_MS, delivery, *leases])) if leases else []

    # --- deliveries

    async def doubtful_deliveries(self, ids: Sequence[str]) -> list[str]:
        """Name those of some deliveries that are not plainly in order."""
        first = await self._glance_deliveries((name, "") for name in ids)
        pending = [(name, Destination.of(url).id) for name, url in first if url]
        again = await self._glance_deliveries(pending) if pending else []
        return [name for name, url in first if not url] + [name for name, _ in again]

    async def _glance_deliveries(self, named: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        args: list[Argument] = [self._keys.prefix, LEASE_MS, *(part for pair in named for part in pair)]
        found = _names(await self._link.script("glance_deliveries", [], args))
        return list(zip(found[::2], found[1::2], strict=True))

    async def mend_delivery(self, delivery_id: str) -> list[str]:
        """Put a delivery in its places; return what was repaired."""
        keys = self._keys
        url, job = await self._link.command("HMGET", keys.delivery(delivery_id), "url", "job")
        if url is None or job is None:
            return []
        destination = Destination.of(_name(url))
        return _names(
            await self._link.script(
                "mend_delivery",
                [
                    keys.delivery(delivery_id), keys.leases(DELIVER_WHEEL), keys.job(_name(job)),
                    keys.deliveries_of(_name(job)), keys.one("counters"),
                ],
                [
                    *self._dispatch.about(destination.id), destination.name, destination.host, delivery_id, SCHEMA,
                    LEASE_MS,
                ],
            )
        )  # fmt: skip

    async def mend_destination(self, destination_id: str) -> bool:
        """Have a destination be looked at when what it has to send is due; tell whether it was not."""
        args = [*self._dispatch.about(destination_id), DESTINATION_LATER_MS]
        return bool(await self._link.script("mend_destination", [self._keys.one("counters")], args))

    # --- arq's queue

    async def unqueued(self, ids: Sequence[bytes]) -> list[bytes]:
        """Name those of some calls' bodies that stand on our queue not at all."""
        scores = await self._link.together(("ZSCORE", self._keys.one("jobs"), each) for each in ids)
        return [each for each, score in zip(ids, scores, strict=True) if score is None]

    async def requeue(self, entry: bytes, others: Iterable[bytes]) -> bool:
        """Put a call of ours that no queue holds, and no worker, back on the queue; tell whether there was need."""
        body = ARQ_BODY + entry
        head = await self._link.command("GETRANGE", body, 0, BODY_HEAD_BYTES - 1)
        named = NAMED_FUNCTION.search(head)
        if head[:1] != b"{" or (named is not None and named[1].decode("utf-8", "replace") not in {FUNCTION, *WISHES}):
            return False
        call = read_call(await self._link.command("GET", body) or b"")
        if not isinstance(call, Call) and call.reason != "wrong_arguments":
            return False
        return await self._mend_entry(entry, "entry", others)

    async def endless(self, locks: Sequence[bytes]) -> list[bytes]:
        """Name those of some locks that never end."""
        left = await self._link.together(("PTTL", ARQ_LOCK + each) for each in locks)
        return [each for each, left_ms in zip(locks, left, strict=True) if int(left_ms) == -1]

    async def unlock(self, entry: bytes) -> bool:
        """Drop the lock of an entry of our queue that never ends; tell whether it had one."""
        return await self._mend_entry(entry, "lock", ())

    async def _mend_entry(self, entry: bytes, what: str, others: Iterable[bytes]) -> bool:
        ours = [self._keys.one("jobs"), self._keys.one("counters")]
        keys = [*(key.encode() for key in ours), ARQ_BODY + entry, ARQ_LOCK + entry, *others]
        return bool(await self._link.script("mend_entry", keys, [entry, what]))

    async def keep_bodies(self, start: int, count: int) -> tuple[int, list[str]]:
        """Keep bodies of calls that wait from expiring, some at a time from a rank; give how many there were, which.

        A caller's own ``_expires`` is heeded.
        """
        found, *kept = await self._link.script(
            "keep_bodies",
            [self._keys.one("jobs"), self._keys.one("counters")],
            [start, count, ARQ_BODY, SOON_MS, DAY_MS - SKEW_MS],
        )
        return int(found), _names(kept)


def _between_commas(statuses: Iterable[Status]) -> str:
    return f",{','.join(sorted(statuses))},"


def _name(stored: bytes) -> str:
    return stored.decode("utf-8", "replace")


def _names(stored: Iterable[bytes]) -> list[str]:
    return [_name(each) for each in stored]
