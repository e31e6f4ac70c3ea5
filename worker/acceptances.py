"""Owns that the task id of an accepted submission is stored, whatever happens to the claim, to Redis or to the process.

It is written as the job's next step. Where the job has moved on (canceled meanwhile, or taken over), it is kept as a
late task. Where Redis cannot take it, it is tried until it can, and lies on this machine's disk meanwhile.
"""

import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

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

T = TypeVar("T")


class Acceptances:
    """Stores accepted tasks. ``spool`` is where they lie while Redis cannot take them."""

    def __init__(self, store: Store, spool: Spool, settings: Settings, rng: random.Random) -> None:
        self._store = store
        self._spool = spool
        self._settings = settings
        self._rng = rng

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
        try:
            written = await self._insist(lambda: self._apply(change, claim), task)
        except UnreadableRecord:
            written = None
        if not isinstance(written, Applied):
            await self._keep(task, claim.counters)
        self._spool.drop(task)

    async def recover(self, _now_ms: int = 0) -> None:
        """Store what lies in the spool, by whichever worker of whichever time."""
        for task in self._spool.tasks():
            await self._keep(task)
            self._spool.drop(task)

    async def _keep(self, task: SpooledTask, counters: Sequence[Counter] = ()) -> None:
        """Store a task id although the job has moved on."""
        while True:
            try:
                found = await self._insist(lambda: self._store.get(task.job_id), task)
            except UnreadableRecord as error:  # for whoever can read it, or the operator
                unreadable("job", task.job_id, error)
                found = None
            if found is None:
                log.error("task.jobless", job=task.job_id, task=task.task_id, note="its file was set aside")
                self._spool.set_aside(task)
                return
            if any(attempt.task_id == task.task_id for attempt in found.attempts):
                return  # it had been written, only the answer to the writing was lost
            change = late.keep_task(
                found,
                task.sent,
                task.task_id,
                first_look_ms=self._first_look_ms(),
                now_ms=self._store.now_ms(),
                rev=self._store.new_rev(),
                cost=task.cost,
            )
            change = replace(change, counters=(*change.counters, *counters))
            if isinstance(await self._insist(partial(self._apply, change), task), Applied):
                log.warning("task.kept", job=task.job_id, task=task.task_id)
                return

    async def _apply(self, change: Change, claim: Claim | None = None) -> Applied | Exists | Stale | Wait:
        """Write a change; raise ``UnreadableRecord`` where it is the record that can never take it."""
        try:
            return await self._store.apply(change, claim=claim)
        except ABSENCE:
            raise
        except STORE_ERRORS:
            await self._store.get(change.after.id)
            raise

    async def _insist(self, call: Callable[[], Awaitable[T]], task: SpooledTask) -> T:
        """Make a call until Redis can carry it out, with the task on disk meanwhile."""
        return await patiently(call, whatever=True, meanwhile=lambda: self._spool.keep(task))

    def _first_look_ms(self) -> int:
        return next_look_ms(Look(), age_ms=0, settings=self._settings, rng=self._rng)
