"""Owns that the task id of an accepted submission is stored, whatever happens to the claim, to Redis or to the process.

It is written as the job's next step. Where the job has moved on (canceled meanwhile, or taken over), it is kept as a
late task. Where Redis cannot take it, it is tried until it can, and lies on this machine's disk meanwhile.
"""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from config.log import log
from config.settings import Settings
from jobs import changes, late
from jobs.changes import Change
from jobs.counters import Counter
from jobs.job import Job, Look, UnreadableRecord
from jobs.polling import next_look_ms
from worker.claims import Claim
from worker.gateway import Accepted
from worker.link import ABSENCE, STORE_ERRORS, patiently, unreadable
from worker.spool import Spool, SpooledTask
from worker.store import Applied, Exists, Stale, Store, Wait

RECOVER_EVERY_S = 15.0
TRY_ASIDE_EVERY = 40  # times that is done
SPOOL_AFTER_S = 0.5  # a task that is not stored after so long is kept on disk until it is


class Acceptances:
    """Stores accepted tasks. ``spool`` is where they lie while Redis cannot take them."""

    def __init__(self, store: Store, spool: Spool, settings: Settings, rng: random.Random) -> None:
        self._store = store
        self._spool = spool
        self._settings = settings
        self._rng = rng
        self._recovered = 0

    async def record(self, claim: Claim, job: Job, answer: Accepted) -> None:
        """Write that a job's submission was accepted; returns when it is written."""
        sent = job.current
        assert sent is not None
        change = changes.accept(
            job,
            answer.task_id,
            first_look_ms=self._first_look_ms(),
            now_ms=self._store.now_ms(),
            rev=self._store.new_rev(),
            cost=answer.cost,
        )
        task = SpooledTask(job.id, sent, answer.task_id, answer.cost)
        # Logged before it is written: should neither Redis nor the disk take it, the task id is still known.
        log.info("task.accepted", job=job.id, model=job.model, task=answer.task_id)
        # Redis may answer nothing for long, and this process be ended meanwhile.
        keep = partial(self._spool.keep, task)
        kept = asyncio.get_running_loop().call_later(SPOOL_AFTER_S, keep)
        try:
            storing = partial(self._store_first, change, claim, task)
            self._put_away(task, is_stored=await patiently(storing, whatever=True, meanwhile=keep))
        except asyncio.CancelledError:
            keep()
            raise
        except UnreadableRecord as error:  # for whoever can read it, or once it is mended
            unreadable("job", job.id, error)
            keep()
        finally:
            kept.cancel()

    async def recover(self, _now_ms: int = 0) -> None:
        """Store what lies in the spool, by whichever worker of whichever time; one that cannot be keeps no other."""
        with_aside = self._recovered % TRY_ASIDE_EVERY == 0
        self._recovered += 1
        for task in self._spool.tasks(with_aside=with_aside):
            try:
                self._put_away(task, is_stored=await self._keep(task))
            except ABSENCE:
                raise
            except (UnreadableRecord, *STORE_ERRORS) as error:
                unreadable("spool", task.job_id, error)

    async def _store_first(self, change: Change, claim: Claim, task: SpooledTask) -> bool:
        """Store a task as its job's next step, or else as a late one; tell whether there is such a job."""
        try:
            if isinstance(await self._apply(change, claim), Applied):
                return True
        except UnreadableRecord:
            pass
        return await self._keep(task, claim.counters)

    async def _keep(self, task: SpooledTask, counters: Sequence[Counter] = ()) -> bool:
        """Store a task id although the job has moved on; tell whether there is such a job."""
        while (found := await self._store.get(task.job_id)) is not None:
            if any(attempt.task_id == task.task_id for attempt in found.attempts):
                return True  # it had been written, only the answer to the writing was lost
            change = late.keep_task(
                found,
                task.sent,
                task.task_id,
                first_look_ms=self._first_look_ms(),
                now_ms=self._store.now_ms(),
                rev=self._store.new_rev(),
                cost=task.cost,
            )
            if isinstance(await self._apply(replace(change, counters=(*change.counters, *counters))), Applied):
                log.warning("task.kept", job=task.job_id, task=task.task_id)
                return True
        return False

    def _put_away(self, task: SpooledTask, *, is_stored: bool) -> None:
        if is_stored:
            self._spool.drop(task)
        elif self._spool.set_aside(task):
            log.error("task.jobless", job=task.job_id, task=task.task_id, note="its file was set aside")

    async def _apply(self, change: Change, claim: Claim | None = None) -> Applied | Exists | Stale | Wait:
        """Write a change; where something foreign keeps it from being written, move that aside before raising."""
        try:
            return await self._store.apply(change, claim=claim)
        except ABSENCE:
            raise
        except STORE_ERRORS:
            job = change.after
            await self._store.quarantine.clear_of_job(job.id, job.spec.webhook_url, job.spec)
            await self._store.get(job.id)  # raises where it is the record
            raise

    def _first_look_ms(self) -> int:
        return next_look_ms(Look(), age_ms=0, settings=self._settings, rng=self._rng)
