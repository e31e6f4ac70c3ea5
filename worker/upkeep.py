"""Owns what is done now and then: ending jobs at their deadline, pruning what has been kept for long enough.

One ``run_once(now_ms)`` a duty, safe to run in several processes at once: the scripts decide, each job is pruned once.
"""

import asyncio
from collections.abc import Awaitable, Callable

from config.log import log
from jobs import late
from jobs.changes import ON_SUBMIT_WHEEL, settle
from jobs.decide import Fail
from jobs.failures import own_failure
from jobs.job import NewerRecord, UnreadableRecord
from jobs.verdict import Code
from worker.housekeeping import Pruned
from worker.link import ABSENCE, STORE_ERRORS, unreadable
from worker.poison import end_job
from worker.store import Applied, Store
from worker.submit import tell_decision

DEADLINES_EVERY_S = 2.0
OVERDUE_BATCH = 200
PRUNE_EVERY_S = 30.0
PRUNE_BATCH = 100


class Prune:
    """Deletes ended jobs and old events RETENTION_S after their end."""

    def __init__(self, store: Store, *, retention_s: float) -> None:
        self._store = store
        self._retention_ms = round(retention_s * 1000)

    async def run_once(self, now_ms: int) -> int:
        """Prune what is old enough; return how many jobs went."""
        before_ms = now_ms - self._retention_ms
        pruned = left = 0
        while batch := await self._store.housekeeping.ended_before(before_ms, skip=left, limit=PRUNE_BATCH):
            became = await asyncio.gather(*(self._prune(job_id) for job_id in batch))
            pruned += became.count(Pruned.GONE)
            left += became.count(Pruned.LEFT)
        await self._store.outbox.trim(before_ms)
        await self._store.fleet.forget_dead(now_ms)
        if pruned:
            log.info("jobs.pruned", count=pruned)
        return pruned

    async def _prune(self, job_id: str) -> Pruned:
        try:
            job = await self._store.get(job_id)
            if job is None:
                await self._store.housekeeping.forget_ended(job_id)
                return Pruned.GONE
            return await self._store.housekeeping.prune(job) if job.ended else Pruned.LEFT
        except ABSENCE:
            raise
        except UnreadableRecord as error:
            unreadable("job", job_id, error)
            is_newer = isinstance(error, NewerRecord)
            return Pruned.GONE if not is_newer and await self._store.quarantine.delete(job_id) else Pruned.LEFT
        except STORE_ERRORS as error:  # likewise
            unreadable("job", job_id, error)
            return Pruned.LEFT


class Deadlines:
    """Fails jobs whose deadline passes while they wait: paused, held, or behind a long queue.

    A task under way is not ended here: the track duty looks at it once more and makes it a late one.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    async def run_once(self, now_ms: int) -> int:
        """Fail what is overdue; return how many jobs that were."""
        failed = skip = 0
        while batch := await self._store.housekeeping.overdue(now_ms, skip=skip, limit=OVERDUE_BATCH):
            gone = [await self._fail(job_id, now_ms) for job_id in batch]
            failed += gone.count(True)
            skip += gone.count(False)
        return failed

    async def _fail(self, job_id: str, now_ms: int) -> bool | None:
        """Fail a job: True if it did, None where there was nothing to fail, False where it is left for now."""
        try:
            return await self._judge(job_id, now_ms)
        except ABSENCE:
            raise
        except (NewerRecord, *STORE_ERRORS) as error:  # one damaged row is not the others' fault
            unreadable("job", job_id, error)
            return False
        except UnreadableRecord as error:
            unreadable("job", job_id, error)
            await end_job(self._store, job_id, str(error))
            return None

    async def _judge(self, job_id: str, now_ms: int) -> bool | None:
        job = await self._store.get(job_id)
        if job is None or job.ended:
            await self._store.housekeeping.forget_deadline(job_id)
            return None
        if job.status not in ON_SUBMIT_WHEEL:
            return False
        rev, words = self._store.new_rev(), "the job's deadline passed before a submission"
        change = late.rescued(job, outcome=None, now_ms=now_ms, rev=rev) or settle(
            job, own_failure(Code.DEADLINE_EXCEEDED, words), Fail(), outcome=None, now_ms=now_ms, rev=rev
        )
        if not isinstance(await self._store.apply(change), Applied):
            return False
        tell_decision(change)
        return True


async def every(period_s: float, run_once: Callable[[int], Awaitable[object]], now_ms: Callable[[], int]) -> None:
    """Run a duty of upkeep again and again until cancelled; a failure is logged and the next turn comes."""
    while True:
        try:
            await run_once(now_ms())
        except ABSENCE:
            pass
        except Exception:  # noqa: BLE001 - the boundary of every duty of upkeep
            log.exception("upkeep.failed")
        await asyncio.sleep(period_s)
