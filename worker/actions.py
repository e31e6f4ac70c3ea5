"""Owns what callers may do to a job that is there, the same behind every door: cancel it, or open it again."""

from collections.abc import Callable

from config.log import log
from jobs import changes
from jobs.changes import Change
from jobs.job import REJECTED, Job
from jobs.states import IllegalMove, Status
from worker.store import Applied, Store


class NoSuchJob(Exception):  # noqa: N818 - named after what it says
    """There is no job of this id: it was never made, or is gone RETENTION_S after its end."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"there is no job {job_id}: it was never made, or is gone RETENTION_S after its end")


class NotPossible(Exception):  # noqa: N818 - named after what it says
    """The job's state does not allow it; the message says why."""


async def cancel(store: Store, job_id: str) -> Job:
    """Cancel a job: one that is not submitted never will be, a task under way is watched for a late result.

    Safe to repeat: a canceled job is given as it is. Raises ``NoSuchJob``, ``NotPossible`` (it has ended otherwise).
    """
    return await _change(
        store, job_id, changes.cancel, done=Status.CANCELED, words="is {status}: it cannot be canceled"
    )


async def retry(store: Store, job_id: str) -> Job:
    """Open a failed or canceled job for a new round of attempts, or have it wait for a task of its that still runs.

    Raises ``NoSuchJob``, ``NotPossible`` (it has not ended, or completed, or its request was never valid).
    """
    return await _change(store, job_id, _retry, words="is {status}: only failed and canceled jobs are retried")


def _retry(job: Job, *, now_ms: int, rev: str) -> Change:
    if job.spec.fingerprint == REJECTED:
        raise NotPossible(f"{job.id} was never valid: send the mended request under a new id")
    return changes.retry(job, now_ms=now_ms, rev=rev)


async def _change(
    store: Store, job_id: str, make: Callable[..., Change], *, words: str, done: Status | None = None
) -> Job:
    """Write a change against whatever else happens to the job at the same time."""
    while True:
        job = await store.get(job_id)
        if job is None:
            raise NoSuchJob(job_id)
        if job.status is done:
            return job
        try:
            change = make(job, now_ms=store.now_ms(), rev=store.new_rev())
        except IllegalMove as error:
            raise NotPossible(f"{job_id} {words.format(status=job.status)}") from error
        if isinstance(await store.apply(change, announce=True), Applied):
            log.info(str(change.note["event"]), job=job_id)
            return change.after
