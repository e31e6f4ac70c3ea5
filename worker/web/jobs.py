"""Owns the routes of jobs that are there: list, show, follow, cancel, retry."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse

from jobs.job import Job, to_form
from jobs.request import MODEL_PATTERN, valid_id
from jobs.states import Status
from worker import actions
from worker.ending import end
from worker.hindrances import hindrances
from worker.link import STORE_ERRORS
from worker.listing import Filter
from worker.record import view
from worker.store import Store
from worker.web.openapi import UNREADABLE, problems, shown
from worker.web.problems import Kind, Refusal, encode_json
from worker.web.services import answer, known_parameters, redis_answering, services

AWAY = "Redis is away: repeat the request"
GONE = "no such job: it was never made, or is gone RETENTION_S after its end"
MAX_WAIT_S = 60.0
HEARTBEAT_S = 15.0  # proxies close what says nothing for long

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], dependencies=[Depends(known_parameters)])


@router.get(
    "",
    summary="List jobs",
    responses={
        **shown(200, "A page of jobs, newest first.", "JobPage"),
        **problems(Kind.INVALID_REQUEST, Kind.UNAVAILABLE),
    },
)
async def list_jobs(
    request: Request,
    status: Annotated[Status | None, Query(description="Only jobs that stand so.")] = None,
    kind: Annotated[
        Literal["video", "image", "music", "audio", "voice", "unknown"] | None,
        Query(description="Only this kind; `unknown` is that of requests that were refused for theirs."),
    ] = None,
    model: Annotated[
        str | None,
        Query(description="Only jobs whose `model` it is: that answered, is being tried, or is tried next.",
              pattern=f"^{MODEL_PATTERN}$"),
    ] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Annotated[
        str | None, Query(description="`next_cursor` of the page before.", pattern="^[0-9]{1,15}$")
    ] = None,
) -> Response:  # fmt: skip
    """List jobs in the order they were made, newest first.

    A job keeps its place for good: a page never repeats one of an earlier page, whatever happens between the two.
    """
    wanted = Filter(status, kind, model)
    async with redis_answering(AWAY):
        page = await services(request).store.listing.page(
            wanted, before=None if cursor is None else int(cursor), limit=limit
        )
    following = None if page.next_before is None else str(page.next_before)
    return answer({"jobs": page.jobs, "next_cursor": following})


@router.get(
    "/{job_id}",
    summary="Show a job",
    responses={
        **shown(200, "The job as it stands, and what happened to it.", "JobDetail"),
        **problems(Kind.NOT_FOUND, Kind.INVALID_REQUEST, Kind.UNAVAILABLE, *UNREADABLE),
    },
)
async def show_job(
    request: Request,
    job_id: str,
    wait_s: Annotated[
        float, Query(ge=0, le=MAX_WAIT_S, description="Wait so long for the job to end before answering.")
    ] = 0,
) -> Response:
    """Show a job with its timeline, the oldest line first. With `wait_s` it is a long poll for the job's end."""
    store = services(request).store
    async with redis_answering(AWAY):
        job = await _find(store, job_id)
    if wait_s and not job.ended:
        job = await _awaited(request, job, until_s=time.monotonic() + wait_s)
    async with redis_answering(AWAY):
        timeline = await store.timeline(job_id)
    shown_job = view(to_form(job))
    overview = None if job.ended else await services(request).glance.overview()
    held_up_by = hindrances(shown_job, overview) if overview else []
    return answer({**shown_job, "timeline": timeline, "hindrances": held_up_by})


async def _awaited(request: Request, job: Job, *, until_s: float) -> Job:
    """Wait for a job's end, the time, or the server's stop; give the job as it stands then.

    Raises ``ClientDisconnect`` where nobody waits for it any longer.
    """
    store = services(request).store
    async with store.news.of(job.id) as changed:
        gone = asyncio.create_task(_until_gone(request))
        gone.add_done_callback(lambda _: changed.set())
        try:
            while True:
                async with redis_answering(AWAY):
                    job = await _find(store, job.id)
                left_s = until_s - time.monotonic()
                if job.ended or left_s <= 0 or not await store.news.wait(changed, within_s=left_s):
                    return job
                if gone.done():
                    raise ClientDisconnect
        finally:
            await end([gone])


async def _until_gone(request: Request) -> None:
    """Wait until the client hangs up; what it still sends is dropped."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


@router.get(
    "/{job_id}/stream",
    summary="Follow a job",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "Server-sent events: `job` with a job view as its data, at once and at every change; the "
            "stream ends with the job's end.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        **problems(Kind.NOT_FOUND, Kind.INVALID_REQUEST, Kind.UNAVAILABLE, *UNREADABLE),
    },
)
async def stream_job(request: Request, job_id: str) -> Response:
    """Follow a job as server-sent events. Reconnecting is safe: every event is the whole job."""
    store = services(request).store
    async with redis_answering(AWAY):
        job = await _find(store, job_id)
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(_events(store, job), headers=headers, media_type="text/event-stream")


async def _events(store: Store, job: Job) -> AsyncIterator[bytes]:
    """Tell a job's changes; ends with the job, when it is pruned, or when the server stops."""
    said, said_at_s = b"", time.monotonic()
    async with store.news.of(job.id) as changed:
        while True:
            text = encode_json(view(to_form(job)))
            if text != said:
                yield b"event: job\ndata: " + text + b"\n\n"
                said, said_at_s = text, time.monotonic()
            elif time.monotonic() - said_at_s > HEARTBEAT_S:
                yield b": still here\n\n"
                said_at_s = time.monotonic()
            if job.ended or not await store.news.wait(changed, within_s=HEARTBEAT_S):
                return
            try:
                found = await store.get(job.id)
            except STORE_ERRORS:
                continue
            if found is None:
                return
            job = found


@router.post(
    "/{job_id}/cancel",
    summary="Cancel a job",
    responses={
        **shown(200, "The job, canceled.", "JobView"),
        **problems(Kind.NOT_FOUND, Kind.WRONG_STATUS, Kind.INVALID_REQUEST, Kind.UNAVAILABLE, *UNREADABLE),
    },
)
async def cancel_job(request: Request, job_id: str) -> Response:
    """Cancel a job. Safe to repeat.

    One that is not submitted yet never will be. The gateway cannot cancel: a task under way goes on and is paid for;
    it is watched, and a late result is kept at its attempt.
    """
    return await _act(request, job_id, actions.cancel)


@router.post(
    "/{job_id}/retry",
    summary="Try a job again",
    responses={
        **shown(200, "The job, open again.", "JobView"),
        **problems(Kind.NOT_FOUND, Kind.WRONG_STATUS, Kind.INVALID_REQUEST, Kind.UNAVAILABLE, *UNREADABLE),
    },
)
async def retry_job(request: Request, job_id: str) -> Response:
    """Open a failed or canceled job for a new round of attempts.

    Where a task of its still runs, the job waits for that one instead, which is paid for already.
    """
    return await _act(request, job_id, actions.retry)


async def _act(request: Request, job_id: str, act: Callable[[Store, str], Awaitable[Job]]) -> Response:
    store = services(request).store
    async with redis_answering(AWAY):
        job = await act(store, job_id) if valid_id(job_id) else await _find(store, job_id)
    return answer(view(to_form(job)))


async def _find(store: Store, job_id: str) -> Job:
    """Read a job; raise ``Refusal`` where there is none."""
    job = await store.get(job_id) if valid_id(job_id) else None
    if job is None:
        raise Refusal(Kind.NOT_FOUND, GONE)
    return job
