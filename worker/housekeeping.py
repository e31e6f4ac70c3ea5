"""Owns what upkeep reads and deletes: jobs past their deadline, and ended ones that have been kept for long enough."""

from enum import IntEnum

from jobs.job import Job
from jobs.states import ENDED
from worker.keys import TRACK_WHEEL, Keys
from worker.link import Link


class Pruned(IntEnum):
    """What became of an ended job: it had changed meanwhile, is gone, or is looked at later, for a pending delivery."""

    LEFT = 0
    GONE = 1
    PUT_OFF = 2


class Housekeeping:
    """The store's part for deadlines and retention."""

    def __init__(self, link: Link, keys: Keys) -> None:
        self._link = link
        self._keys = keys

    async def overdue(self, now_ms: int, *, skip: int, limit: int) -> list[str]:
        """Name jobs that have not ended by their deadline, the longest overdue first, without the first ``skip``."""
        deadlines = self._keys.one("deadlines")
        found = await self._link.command("ZRANGEBYSCORE", deadlines, "-inf", now_ms, "LIMIT", skip, limit)
        return [job_id.decode("utf-8", "replace") for job_id in found]

    async def forget_deadline(self, job_id: str) -> None:
        """Take a job that is gone, or has ended, off the list of deadlines."""
        ended = f",{','.join(sorted(ENDED))},"
        await self._link.script("forget", [self._keys.one("deadlines"), self._keys.job(job_id)], [job_id, ended])

    async def ended_before(self, before_ms: int, *, skip: int, limit: int) -> list[str]:
        """Name ended jobs that ended before a time, the oldest first, without the first ``skip``."""
        ended = self._keys.one("ended")
        found = await self._link.command("ZRANGEBYSCORE", ended, "-inf", before_ms, "LIMIT", skip, limit)
        return [job_id.decode("utf-8", "replace") for job_id in found]

    async def forget_ended(self, job_id: str) -> None:
        """Take a job without a record off the list of ended ones."""
        await self._link.script("forget", [self._keys.one("ended"), self._keys.job(job_id)], [job_id, ""])

    async def prune(self, job: Job) -> Pruned:
        """Delete an ended job and all that belongs to it, unless a delivery is pending."""
        keys = self._keys
        ids = [d.decode() for d in await self._link.command("LRANGE", keys.deliveries_of(job.id), 0, -1)]
        highest = max((attempt.number for attempt in job.attempts), default=0)
        return Pruned(
            await self._link.script(
                "prune",
                [
                    keys.job(job.id),
                    keys.input(job.id),
                    keys.timeline(job.id),
                    keys.one("ended"),
                    keys.index(job.status, job.spec.kind),
                    keys.deliveries_of(job.id),
                    keys.wheel(TRACK_WHEEL),
                    keys.leases(TRACK_WHEEL),
                    keys.deliveries("delivered"),
                    keys.deliveries("dead"),
                    keys.index(job.status, job.spec.kind, job.model),
                    *(keys.delivery(d) for d in ids),
                ],
                [job.id, job.rev, highest, *ids],
            )
        )
