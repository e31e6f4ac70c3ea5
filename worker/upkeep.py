"""Owns what is done now and then: pruning what has been kept for long enough.

One ``run_once(now_ms)`` a duty, safe to run in several processes at once: the scripts decide, each job is pruned once.
"""

import asyncio
from collections.abc import Awaitable, Callable

from config.log import log
from jobs.job import UnreadableRecord
from worker.link import RedisAway
from worker.store import Store

PRUNE_EVERY_S = 30.0
PRUNE_BATCH = 500


class Prune:
    """Deletes ended jobs and old events RETENTION_S after their end."""

    def __init__(self, store: Store, *, retention_s: float) -> None:
        self._store = store
        self._retention_ms = round(retention_s * 1000)

    async def run_once(self, now_ms: int) -> int:
        """Prune what is old enough; return how many jobs went."""
        before_ms = now_ms - self._retention_ms
        pruned = kept = 0
        while batch := await self._store.ended_before(before_ms, skip=kept, limit=PRUNE_BATCH):
            gone = sum([await self._prune(job_id) for job_id in batch])
            pruned += gone
            kept += len(batch) - gone
        await self._store.outbox.trim(before_ms)
        await self._store.fleet.forget_dead(now_ms)
        if pruned:
            log.info("jobs.pruned", count=pruned)
        return pruned

    async def _prune(self, job_id: str) -> bool:
        try:
            job = await self._store.get(job_id)
        except UnreadableRecord as error:
            log.warning("record.unreadable", job=job_id, error=str(error))
            return False
        if job is None:
            await self._store.forget_ended(job_id)
            return True
        return job.ended and await self._store.prune(job)


async def every(period_s: float, run_once: Callable[[int], Awaitable[object]], now_ms: Callable[[], int]) -> None:
    """Run a duty of upkeep again and again until cancelled; a failure is logged and the next turn comes."""
    while True:
        try:
            await run_once(now_ms())
        except RedisAway:
            pass
        except Exception:  # noqa: BLE001 - the boundary of every duty of upkeep
            log.exception("upkeep.failed")
        await asyncio.sleep(period_s)
