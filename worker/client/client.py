"""Owns the door for Python backends: ``WorkerClient`` enqueues jobs and looks after them, through Redis alone.

    async with WorkerClient("redis://localhost:6379") as client:
        job = await client.submit({"id": "order-1841", "kind": "video", "input": {"prompt": "a lighthouse"}})
        job = await client.wait(job.id, timeout_s=600)
        print(job.status, job.urls)

What changes a job goes to a worker over the arq queue and is answered by it; what only looks is read from Redis.
Imports the standard library, redis, arq and modules of this folder that do likewise, so that it works beside a
backend's own packages, whatever their names. Every error is a ``WorkerClientError``, except ``TimeoutError``.
"""

import asyncio
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import TracebackType
from typing import Any, Literal, NoReturn, Self

from worker.client.checks import (
    ENDED,
    KINDS,
    REFUSED_KIND,
    STATUSES,
    Kind,
    Status,
    check_filters,
    is_seconds,
    read_request,
    valid_id,
)
from worker.client.errors import (
    Conflict,
    CredentialsRefused,
    FieldError,
    InvalidRequest,
    NoAnswer,
    NoSuchJob,
    NotPossible,
    RedisUnavailable,
    StorageFull,
    UnreadableJob,
    WorkerClientError,
    fault,
)
from worker.client.line import Line, Stored
from worker.keys import Keys
from worker.record import NotARecord, read_record, view

ANSWER_TIMEOUT_S = 10.0
LOOK_AGAIN_S = 2.0

PROBLEMS: Mapping[str, type[WorkerClientError]] = {
    "conflict": Conflict,
    "not_found": NoSuchJob,
    "wrong_status": NotPossible,
    "storage_full": StorageFull,
}


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it stood when it was read; the contract's job view. Times are RFC 3339 in UTC with milliseconds.

    Until a worker has taken the job, ``created_at`` is None, and so are ``model`` and ``requested_model`` unless the
    request named one.
    """

    id: str
    kind: Kind | Literal["unknown"]  # "unknown": it failed because the request named no kind there is
    status: Status
    requested_model: str | None
    model: str | None  # that answered, is being tried, or is tried next
    fallbacks: tuple[str, ...]
    task_id: str | None  # the gateway's
    degraded: bool  # another model than the requested one answered
    attempts: tuple[dict[str, Any], ...]  # number model task_id started_at ended_at outcome failure polls cost
    result: dict[str, Any] | None  # urls expires_at raw, and text where the result is one
    partial: dict[str, Any] | None  # urls at: the first track of music, until there is a result
    failure: dict[str, Any] | None  # code category action http_status gateway_code message rule
    created_at: str | None
    updated_at: str | None
    completed_at: str | None
    deadline_at: str | None
    next_action_at: str | None
    metadata: dict[str, Any] | None
    view: dict[str, Any] = field(repr=False, compare=False)  # as it came, with whatever a newer worker added

    @classmethod
    def of(cls, shown: Mapping[str, Any]) -> Self:
        """Read a job view."""
        named: dict[str, Any] = {name: shown.get(name) for name in _NAMES}
        for name in ("fallbacks", "attempts"):
            named[name] = tuple(shown.get(name) or ())
        return cls(**named, view=dict(shown))

    @property
    def ended(self) -> bool:
        """Whether it is completed, failed or canceled. Only ``retry`` opens an ended job again."""
        return self.status in ENDED

    @property
    def urls(self) -> tuple[str, ...]:
        """The addresses of what was generated; empty until there is something, and for results that are text."""
        return tuple((self.result or {}).get("urls") or ())


_NAMES = tuple(part.name for part in fields(Job) if part.name != "view")


@dataclass(frozen=True, slots=True)
class Page:
    """Jobs, newest first; ``next_cursor`` gives the page after it, None on the last one."""

    jobs: tuple[Job, ...]
    next_cursor: str | None


class WorkerClient:
    """Enqueues jobs and looks after them. One client serves any number of coroutines of one event loop.

    ``redis_url``: ``redis://``, ``rediss://`` or ``unix://``, the workers' own. ``prefix``: their KEY_PREFIX.
    ``answer_timeout_s``: how long a worker's answer is waited for. Connections are made when they are needed; leave
    the ``async with``, or call ``aclose``, to close them. Raises ``WrongAddress`` (a ``ValueError``) for a URL that
    cannot be right.

    Every method raises ``RedisUnavailable`` within two seconds where Redis is away, and ``InvalidRequest``, naming the
    argument, for one that cannot be right.
    """

    def __init__(
        self, redis_url: str, prefix: str = "onysoft", *, answer_timeout_s: float = ANSWER_TIMEOUT_S
    ) -> None:  # fmt: skip
        self._keys = Keys(prefix)
        self._line = Line(redis_url, self._keys)
        self._answer_timeout_s = answer_timeout_s

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._line.aclose()

    async def submit(self, request: Mapping[str, Any]) -> Job:
        """Enqueue a job: ``{"kind": ..., "input": {...}}``, and ``id``, ``model`` and the rest as over HTTP.

        The same id with the same request is the same job, however often it is submitted: give an id of your own, and
        a submit that failed is safe to repeat. Without one, a new one is made. Raises ``InvalidRequest`` with every
        fault (no job is made, the id stays free), ``Conflict`` and ``StorageFull`` (likewise).

        Where no worker is alive, or none answers in time, the request is queued all the same, and a worker that comes
        within 30 days will take it. The job is then returned as ``queued`` (or as it stands, where there is one of its
        id) without having been checked: should it be invalid, it becomes a failed job that names the field; should its
        id be taken by another request, it is dropped.
        """
        order, size_bytes = read_request(request)
        try:
            memory = await self._line.memory()
            if memory.is_full and not await self._line.record(order["id"]):
                raise StorageFull(memory.words)
            answer = await self._ask("generate", order, size_bytes)
        except CredentialsRefused:
            raise
        except RedisUnavailable as error:
            raise RedisUnavailable(f"{error}; it may be queued: repeat it with the id {order['id']}") from error
        if answer is not None:
            return answer
        try:
            return await self.get(order["id"]) or _promised(order)
        except (RedisUnavailable, UnreadableJob):
            return _promised(order)

    async def get(self, job_id: str) -> Job | None:
        """Read a job; None where there is none: not taken by a worker yet, or gone RETENTION_S after its end.

        Raises ``UnreadableJob`` where a newer version has written it.
        """
        return _read_job(job_id, await self._line.record(valid_id(job_id)))

    async def wait(self, job_id: str, timeout_s: float | None = None) -> Job:
        """Wait until a job has ended, and return it; look at its ``status`` to see how.

        Waits for a job that no worker has taken yet, and through a restart of Redis. Raises ``TimeoutError`` after
        ``timeout_s`` (None: never), or ``NoSuchJob`` where no job of the id was seen until then, or it went.
        """
        valid_id(job_id)
        if timeout_s is not None and not is_seconds(timeout_s):
            raise fault("timeout_s", "must be a number of seconds, 0 or more, or None")
        until_s = math.inf if timeout_s is None else time.monotonic() + timeout_s
        seen, looked = False, False
        with self._line.ear.of(self._keys.changed(job_id)) as changed:
            while True:
                changed.clear()
                try:
                    status = await self._line.status(job_id)
                    looked = True
                    if status in ENDED and (job := await self.get(job_id)) and job.ended:
                        return job
                    if seen and status is None:
                        raise NoSuchJob(f"{job_id} is gone")
                    seen |= status is not None
                except RedisUnavailable:
                    if not looked:
                        raise
                left_s = until_s - time.monotonic()
                if left_s <= 0:
                    _give_up(job_id, timeout_s, seen=seen)
                await _within(min(left_s, LOOK_AGAIN_S), changed)

    async def cancel(self, job_id: str) -> Job:
        """Cancel a job: one that is not submitted never will be, a task under way is watched for a late result.

        Safe to repeat: a canceled job is returned as it is. Raises ``NoSuchJob``, ``NotPossible`` (it has ended
        otherwise) and ``NoAnswer``: no worker is there to answer, and the next one will carry it out.
        """
        return await self._wish("cancel", job_id)

    async def retry(self, job_id: str) -> Job:
        """Open a failed or canceled job for a new round of attempts, or have it wait for a task that still runs.

        Raises ``NoSuchJob``, ``NotPossible`` (it has not ended, or completed, or was never valid) and ``NoAnswer``:
        no worker is there to answer, and the next one will carry it out.
        """
        return await self._wish("retry", job_id)

    async def list(
        self,
        *,
        status: Status | None = None,
        kind: Kind | Literal["unknown"] | None = None,
        model: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page:
        """List jobs, newest first: those of a status, a kind, a ``model``; ``limit`` (1-500) a page.

        ``cursor`` is the ``next_cursor`` of the page before. A job keeps its place for good: no page repeats one of an
        earlier page. Jobs that no worker has taken yet are not listed.
        """
        check_filters(status, kind, model, limit, cursor)
        statuses, kinds = [status] if status else STATUSES, [kind] if kind else (*KINDS, REFUSED_KIND)
        indexes = [self._keys.index(one, other, model) for one in statuses for other in kinds]
        found = await self._line.newest(indexes, before=None if cursor is None else int(cursor), limit=limit + 1)
        ids = [job_id for _, job_id in found[:limit]]
        jobs = [_job_or_none(*row) for row in zip(ids, await self._line.records(ids), strict=True)]
        following = str(found[limit - 1][0]) if len(found) > limit else None
        return Page(tuple(job for job in jobs if job is not None), following)

    async def _wish(self, function: str, job_id: str) -> Job:
        answer = await self._ask(function, valid_id(job_id))
        if answer is None:
            raise NoAnswer(f"no worker has answered; to {function} {job_id} stays queued, and the next one does it")
        return answer

    async def _ask(self, function: str, argument: Any, size_bytes: int = 0) -> Job | None:
        """Put a call on the queue and wait for the answer; None where there is no worker to give one."""
        now_ms, has_worker = await self._line.clock()
        if not has_worker:
            await self._line.enqueue(function, argument, now_ms=now_ms, size_bytes=size_bytes)
            return None
        async with self._line.reply() as token:
            await self._line.enqueue(function, argument, now_ms=now_ms, reply_to=token, size_bytes=size_bytes)
            answer = await self._line.answer(token, within_s=self._answer_timeout_s)
        if answer is None:
            return None
        if problem := answer.get("problem"):
            _raise(problem)
        return Job.of(answer["job"])


def _promised(order: Mapping[str, Any]) -> Job:
    """Show a request that is queued and not taken yet, by what it says itself."""
    model, fallbacks = order.get("model"), order.get("fallbacks")
    shown = {
        "id": order["id"],
        "kind": order["kind"],
        "status": "queued",
        "requested_model": model,
        "model": model,
        "fallbacks": fallbacks if isinstance(fallbacks, list) else [],
        "degraded": False,
        "attempts": [],
        "metadata": order.get("metadata"),
    }
    return Job.of({**dict.fromkeys(_NAMES), **shown})


def _read_job(job_id: str, stored: Stored) -> Job | None:
    if not stored:
        return None
    try:
        return Job.of(view(read_record(stored)))
    except NotARecord as error:
        raise UnreadableJob(f"{job_id} cannot be shown: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise UnreadableJob(f"{job_id} cannot be shown: its record is damaged") from error


def _job_or_none(job_id: str, stored: Stored) -> Job | None:
    """Read a job for a list, which goes on without those that cannot be shown, as it does over HTTP."""
    try:
        return _read_job(job_id, stored)
    except UnreadableJob:
        return None


def _raise(problem: Mapping[str, Any]) -> NoReturn:
    """Raise what a worker has answered."""
    words = str(problem.get("message"))
    if errors := problem.get("errors"):
        raise InvalidRequest(*(FieldError(field=str(row["field"]), message=str(row["message"])) for row in errors))
    raise PROBLEMS.get(str(problem.get("code")), WorkerClientError)(words)


def _give_up(job_id: str, timeout_s: float | None, *, seen: bool) -> NoReturn:
    if not seen:
        raise NoSuchJob(f"no job {job_id} was seen within {timeout_s} s")
    raise TimeoutError(f"{job_id} has not ended within {timeout_s} s")


async def _within(time_s: float, changed: asyncio.Event) -> None:
    """Wait for a change, or the time."""
    try:
        async with asyncio.timeout(time_s):
            await changed.wait()
    except TimeoutError:
        return
