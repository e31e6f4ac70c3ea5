"""Owns the drop-in: the gateway's own protocol, spoken by us, so that its clients change a base URL and a key only.

Bodies in and out are the gateway's (source: its public pages): the model beside its own parameters, an answer wrapped
in ``data``, a task's id, which here is the job's. Any alias may look any job up. Errors are the gateway's, too: see
``problems``.
"""

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from config.models import KINDS
from jobs.job import Job
from jobs.request import Fault, valid_id, valid_model
from jobs.states import Status
from worker.ids import new_id
from worker.web.body import decode_json, read_body
from worker.web.enqueueing import counting_rejections, given_key, patience_s
from worker.web.openapi import GENERATE, UNREADABLE, envelopes, shown
from worker.web.problems import Kind, Refusal
from worker.web.services import answer, redis_answering, services

PROCESSING = "processing"
WORDS: Mapping[Status, str] = {
    Status.QUEUED: PROCESSING,
    Status.SUBMITTING: PROCESSING,
    Status.PROCESSING: PROCESSING,
    Status.WAITING: PROCESSING,
    Status.COMPLETED: "completed",
    Status.FAILED: "failed",
    Status.CANCELED: "failed",
}
RESULT_MEMBERS = ("urls", "text")

router = APIRouter(prefix="/v1", tags=["drop-in"])


async def look_up(request: Request, task_id: str) -> Response:
    """Tell how a task is, as the gateway would: `processing` until its job has ended, then `completed` or `failed`.

    What the worker does meanwhile, the retries, waits and other models, is all `processing`.
    """
    job = None
    if valid_id(task_id):
        async with redis_answering("Redis is away: repeat the request"):
            job = await services(request).store.get(task_id)
    if job is None:
        raise Refusal(Kind.TASK_NOT_FOUND, "no such task: it was never made, or is gone RETENTION_S after its end")
    return answer({"success": True, "data": task(job)})


def task(job: Job) -> dict[str, Any]:
    """Show a job as the gateway shows a task."""
    failed = WORDS[job.status] == "failed" and job.failure
    return {
        "task_id": job.id,
        "status": WORDS[job.status],
        "result": {name: job.result[name] for name in RESULT_MEMBERS if name in job.result} if job.result else None,
        "error": {"code": job.failure["code"], "message": job.failure["message"]} if failed and job.failure else None,
    }


def generate_as(kind: str) -> Callable[[Request], Awaitable[Response]]:
    """Make the route that takes the gateway's submissions of a kind."""

    async def generate(request: Request) -> Response:
        """Take a submission as the gateway would, and make a job of it.

        With an `Idempotency-Key` it is safe to repeat: the key is the task's id, or what the id is made from. The body
        is read as JSON, whatever type it says it is of.
        """
        with counting_rejections(request):
            body = await read_body(request, of_any_type=True)
            order = {"kind": kind, **_read_submission(decode_json(body))}
            job_id = id_of(given_key(request)) or new_id("job_")
            async with redis_answering(
                f"it is not known whether the task was made: repeat the request with Idempotency-Key: {job_id}",
                within_s=patience_s(body),
            ):
                taken = await services(request).door.take(order, fallback_id=job_id)
        return answer({"success": True, "data": {"task_id": taken.job.id, "status": PROCESSING}}, status=202)

    return generate


def id_of(key: str | None) -> str | None:
    """Make a task's id of a client's key: the key where it may be one, else one that is always the same for it."""
    if not key or valid_id(key):
        return key or None
    return f"idem_{hashlib.sha256(key.encode()).hexdigest()[:32]}"


def _read_submission(raw: Any) -> dict[str, Any]:
    """Part a submission into the model and its parameters; raise ``Refusal`` where the form is not the gateway's."""
    if not isinstance(raw, dict):
        raise Refusal(Kind.INVALID_FORMAT, "send one JSON object", errors=[Fault("request", "must be a JSON object")])
    model = raw.get("model")
    if not isinstance(model, str) or not valid_model(model):
        fault = Fault("model", "is required: 1-200 characters of printable ASCII without spaces")
        raise Refusal(Kind.INVALID_FORMAT, "name the model", errors=[fault])
    return {"model": model, "input": {name: value for name, value in raw.items() if name != "model"}}


for _kind in KINDS:
    router.add_api_route(
        f"/{_kind}/generate",
        generate_as(_kind),
        methods=["POST"],
        name=f"generate_{_kind}",
        status_code=202,
        summary=f"Take a submission of the gateway's: {_kind}",
        responses={
            **shown(202, "The submission was taken, now or before under the same key.", "TaskTaken"),
            **envelopes(
                Kind.INVALID_FORMAT,
                Kind.REQUEST_TIMEOUT,
                Kind.CONFLICT,
                Kind.PAYLOAD_TOO_LARGE,
                Kind.INVALID_REQUEST,
                Kind.UNAVAILABLE,
                Kind.STORAGE_FULL,
                *UNREADABLE,
            ),
        },
        openapi_extra=GENERATE[_kind],
    )
    router.add_api_route(
        f"/{_kind}/status/{{task_id}}",
        look_up,
        methods=["GET"],
        name=f"look_up_{_kind}",
        summary=f"Look a task up: {_kind}",
        responses={
            **shown(200, "The task as it stands.", "TaskShown"),
            **envelopes(Kind.TASK_NOT_FOUND, Kind.UNAVAILABLE, *UNREADABLE),
        },
    )
