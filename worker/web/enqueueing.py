"""Owns how requests for jobs come in over HTTP: one, or a batch of them, and the count of those that are refused.

A batch is no transaction: each of its requests is taken or refused for itself, as if it had been sent alone.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from fastapi import APIRouter
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from config.log import log
from jobs.job import to_form
from jobs.request import Fault, InvalidRequest, unknown_fields, valid_id
from worker.enqueue import Taken
from worker.ids import new_id
from worker.link import STORE_ERRORS, RedisAway, RedisRefused
from worker.record import view
from worker.store import Store
from worker.web.body import MAX_BATCH, decode_json, read_body
from worker.web.openapi import CREATE_JOB, CREATE_JOBS, LOCATION, UNREADABLE, problems, shown
from worker.web.problems import Kind, Refusal, problem_object, refusal_of, unavailable
from worker.web.services import EXTRA_PATIENCE_S_PER_MB, PATIENCE_S, answer, redis_answering, services, tell_silence

IDEMPOTENCY_KEY = "Idempotency-Key"
EXTRA_PATIENCE_S_PER_JOB = 0.001
COUNTING_WITHIN_S = 2.0
MAX_COUNTING = 1000

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


class Rejections:
    """Counts refused requests in the background: an answer neither waits for it nor fails with it.

    Best effort: what Redis does not take within moments, or while much else waits to be counted, is not counted.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._under_way: set[asyncio.Task[None]] = set()

    def add(self, *refusals: Refusal) -> None:
        """Count refusals by their codes."""
        if refusals and len(self._under_way) < MAX_COUNTING:
            task = asyncio.create_task(self._count([refusal.kind.code for refusal in refusals]))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def _count(self, codes: Sequence[str]) -> None:
        with suppress(*STORE_ERRORS, TimeoutError):
            async with asyncio.timeout(COUNTING_WITHIN_S):
                await asyncio.gather(*(self._store.count("enqueues_rejected_total", "http", code) for code in codes))


@contextmanager
def counting_rejections(request: Request) -> Iterator[None]:
    """Count the request as rejected if the block raises what it is refused with."""
    try:
        yield
    except ClientDisconnect:
        raise  # nobody is left to be refused
    except Exception as error:
        rejections(request).add(refusal_of(error))
        raise


def rejections(request: Request) -> Rejections:
    """Give the app's count of rejections."""
    found: Rejections = request.app.state.rejections
    return found


@router.post(
    "",
    status_code=202,
    summary="Take a job",
    responses={
        **shown(202, "A new job was made.", "JobView", headers=LOCATION),
        **shown(200, "The same request under the same id has made this job before.", "JobView", headers=LOCATION),
        **problems(
            Kind.INVALID_JSON,
            Kind.REQUEST_TIMEOUT,
            Kind.CONFLICT,
            Kind.PAYLOAD_TOO_LARGE,
            Kind.UNSUPPORTED_MEDIA_TYPE,
            Kind.INVALID_REQUEST,
            Kind.UNAVAILABLE,
            Kind.STORAGE_FULL,
            *UNREADABLE,
        ),
    },
    openapi_extra=CREATE_JOB,
)
async def create_job(request: Request) -> Response:
    """Make a job, or find the one that the same request under the same id has made.

    Safe to repeat with an id. On `503 unavailable` it is not known whether the job was made: repeat it under the `id`
    of the answer, or your own. On `503 storage_full` it was not: Redis has room for the jobs it holds, for no new ones.
    """
    with counting_rejections(request):
        body = await read_body(request)
        raw = decode_json(body)
        own_id = raw.get("id") if isinstance(raw, dict) else None
        fallback_id = idempotency_key(request, own_id) or new_id("job_")
        async with redis_answering(
            "it is not known whether the job was made: repeat the request with this 'id', which makes at most one",
            within_s=patience_s(body),
            members={"id": fallback_id if own_id is None else own_id},
        ):
            taken = await services(request).door.take(raw, fallback_id=fallback_id)
    place = {"location": f"/v1/jobs/{taken.job.id}"}
    return answer(view(to_form(taken.job)), status=202 if taken.created else 200, headers=place)


@router.post(
    ":batch",
    summary="Take many jobs",
    responses={
        **shown(200, "What became of each request, in their order.", "BatchAnswer"),
        **problems(
            Kind.INVALID_JSON, Kind.REQUEST_TIMEOUT, Kind.PAYLOAD_TOO_LARGE, Kind.UNSUPPORTED_MEDIA_TYPE,
            Kind.INVALID_REQUEST,
        ),
    },
    openapi_extra=CREATE_JOBS,
)  # fmt: skip
async def create_jobs(request: Request) -> Response:
    """Take up to 1,000 requests, each for itself: one that is refused does not touch the others.

    Every result has the status it would have had alone: `202` or `200` with the job, `409`, `413`, `422` or `503` with
    the problem (or `500`, a bug of ours). Safe to repeat where the requests have ids. On a result of `503 unavailable`
    it is not known whether that job was made: repeat that request under the `id` of its problem. The body as a whole
    may be as large as that of one request.
    """
    with counting_rejections(request):
        body = await read_body(request)
        raws = _read_batch(request, decode_json(body))
    within_s = patience_s(body) + EXTRA_PATIENCE_S_PER_JOB * len(raws)
    results = await _take_all(request, raws, within_s=within_s)
    refusals = [result for result in results if isinstance(result, Refusal)]
    rejections(request).add(*refusals)
    again = max((_again_after_s(refusal) for refusal in refusals), default=0)
    headers = {"retry-after": str(again)} if again else None
    return answer({"results": [_shown_result(result) for result in results]}, headers=headers)


def _again_after_s(refusal: Refusal) -> int:
    """Say when to come again with a refused request; 0 where that helps nothing."""
    return int((refusal.headers or {}).get("retry-after", 0))


def idempotency_key(request: Request, own_id: Any = None) -> str | None:
    """Read the header that may carry the id; raise ``InvalidRequest`` where it is no id or another than the body's."""
    key = given_key(request)
    if key is None:
        return None
    if not valid_id(key):
        raise InvalidRequest(Fault(IDEMPOTENCY_KEY, "must be 1-128 characters of A-Za-z0-9._:-"))
    if isinstance(own_id, str) and own_id != key:
        raise InvalidRequest(Fault("id", f"must equal the {IDEMPOTENCY_KEY} header, or one of them be left out"))
    return key


def given_key(request: Request) -> str | None:
    """Read the header as it was given; the IETF's draft has it as a quoted string."""
    given = request.headers.getlist(IDEMPOTENCY_KEY)
    if not given:
        return None
    key = ", ".join(given)
    return key[1:-1] if len(key) > 1 and key.startswith('"') and key.endswith('"') else key


def patience_s(body: bytes) -> float:
    """Say for how long Redis is waited for, the size of what is written considered."""
    return PATIENCE_S + EXTRA_PATIENCE_S_PER_MB * (len(body) >> 20)


def _read_batch(request: Request, raw: Any) -> list[Any]:
    """Take the requests out of a batch's body; raise ``InvalidRequest`` with what is wrong about the batch itself."""
    if not isinstance(raw, dict):
        raise InvalidRequest(Fault("request", "must be a JSON object"))
    faults = unknown_fields(raw, ("jobs",))
    raws = raw.get("jobs")
    if not isinstance(raws, list) or not 1 <= len(raws) <= MAX_BATCH:
        faults.append(Fault("jobs", f"must be a list of 1 to {MAX_BATCH} requests"))
    if IDEMPOTENCY_KEY in request.headers:
        faults.append(Fault(IDEMPOTENCY_KEY, "must not be given with a batch: give each request an 'id' of its own"))
    if faults or not isinstance(raws, list):
        raise InvalidRequest(*faults)
    return raws


async def _take_all(request: Request, raws: Sequence[Any], *, within_s: float) -> list[Taken | Refusal]:
    """Take the requests side by side, so that they go to Redis together. What is not known in time is a 503."""
    door = services(request).door
    ids = [own if (own := _own_id(raw)) is not None else new_id("job_") for raw in raws]
    results: list[Taken | Refusal] = [_unknown(job_id) for job_id in ids]

    async def take(index: int) -> None:
        try:
            results[index] = await door.take(raws[index], fallback_id=ids[index])
        except (RedisAway, RedisRefused):
            pass
        except Exception as error:  # noqa: BLE001 - one request's bug is not the others'
            results[index] = refusal_of(error)
            if results[index].kind is Kind.INTERNAL_ERROR:  # type: ignore[union-attr]
                log.error("request.failed", method=request.method, path=request.scope["path"], exc_info=error)

    try:
        async with asyncio.timeout(within_s):
            await asyncio.gather(*(take(index) for index in range(len(raws))))
    except TimeoutError:
        tell_silence(within_s)
    return results


def _own_id(raw: Any) -> Any:
    return raw.get("id") if isinstance(raw, dict) else None


def _unknown(job_id: Any) -> Refusal:
    detail = "it is not known whether the job was made: repeat the request with this 'id', which makes at most one"
    return unavailable(detail, members={"id": job_id})


def _shown_result(result: Taken | Refusal) -> dict[str, Any]:
    if isinstance(result, Refusal):
        return {"status": result.kind.status, "problem": problem_object(result)}
    return {"status": 202 if result.created else 200, "job": view(to_form(result.job))}
