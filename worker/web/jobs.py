"""Owns the routes of jobs: take one, show one."""

import asyncio
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from jobs.job import view
from jobs.request import Fault, InvalidRequest, valid_id
from worker.store import new_id
from worker.web.body import decode_json, read_body
from worker.web.openapi import CREATE_JOB, problems, shown
from worker.web.problems import Kind, Refusal
from worker.web.services import EXTRA_PATIENCE_S_PER_MB, PATIENCE_S, answer, redis_answering, services

IDEMPOTENCY_KEY = "Idempotency-Key"

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


@router.post(
    "",
    status_code=202,
    summary="Take a job",
    responses={
        **shown(202, "A new job was made.", "JobView"),
        **shown(200, "The same request under the same id has made this job before.", "JobView"),
        **problems(
            Kind.INVALID_JSON,
            Kind.CONFLICT,
            Kind.PAYLOAD_TOO_LARGE,
            Kind.UNSUPPORTED_MEDIA_TYPE,
            Kind.INVALID_REQUEST,
            Kind.UNAVAILABLE,
        ),
    },
    openapi_extra=CREATE_JOB,
)
async def create_job(request: Request) -> Response:
    """Make a job, or find the one that the same request under the same id has made.

    Safe to repeat with an id. On `503` it is not known whether the job was made: repeat it under the `id` of the
    answer, or your own.
    """
    body = await read_body(request)
    raw = decode_json(body)
    own_id = raw.get("id") if isinstance(raw, dict) else None
    fallback_id = _idempotency_key(request, own_id) or new_id("job_")
    async with redis_answering(
        "it is not known whether the job was made: repeat the request with this 'id', which makes at most one",
        within_s=PATIENCE_S + EXTRA_PATIENCE_S_PER_MB * (len(body) >> 20),
        members={"id": fallback_id if own_id is None else own_id},
    ):
        taken = await services(request).door.take(raw, fallback_id=fallback_id)
    place = {"location": f"/v1/jobs/{taken.job.id}"}
    return answer(view(taken.job), status=202 if taken.created else 200, headers=place)


@router.get(
    "/{job_id}",
    summary="Show a job",
    responses={
        **shown(200, "The job as it stands, and what happened to it.", "JobDetail"),
        **problems(Kind.NOT_FOUND, Kind.UNAVAILABLE),
    },
)
async def show_job(request: Request, job_id: str) -> Response:
    """Show a job with its timeline, the oldest line first."""
    store = services(request).store
    job = None
    if valid_id(job_id):
        async with redis_answering("Redis is away: repeat the request"):
            job, timeline = await asyncio.gather(store.get(job_id), store.timeline(job_id))
    if job is None:
        raise Refusal(Kind.NOT_FOUND, "no such job: it was never made, or is gone RETENTION_S after its end")
    return answer({**view(job), "timeline": timeline})


def _idempotency_key(request: Request, own_id: Any) -> str | None:
    """Read the header that may carry the id; raise ``InvalidRequest`` where it is no id or another than the body's."""
    given = request.headers.getlist(IDEMPOTENCY_KEY)
    if not given:
        return None
    key = ", ".join(given)
    if len(key) > 1 and key.startswith('"') and key.endswith('"'):  # the IETF's draft has it as a quoted string
        key = key[1:-1]
    if not valid_id(key):
        raise InvalidRequest(Fault(IDEMPOTENCY_KEY, "must be 1-128 characters of A-Za-z0-9._:-"))
    if isinstance(own_id, str) and own_id != key:
        raise InvalidRequest(Fault("id", f"must equal the {IDEMPOTENCY_KEY} header, or one of them be left out"))
    return key
