"""Owns the two questions an orchestrator asks: does the process live, and can it do its work."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from worker.web.openapi import OPEN, problems, shown
from worker.web.problems import Kind
from worker.web.services import answer, redis_answering, services

READY_WITHIN_S = 1.0

router = APIRouter(tags=["health"])


@router.get("/healthz", summary="Is the process alive?", responses=shown(200, "Alive."), openapi_extra=OPEN)
async def healthz() -> Response:
    """Answer, without asking anything else."""
    return answer({"status": "ok"})


@router.get(
    "/readyz",
    summary="Can it reach Redis?",
    responses={**shown(200, "Ready."), **problems(Kind.UNAVAILABLE)},
    openapi_extra=OPEN,
)
async def readyz(request: Request) -> Response:
    """Answer 200 if Redis answers within a second and takes writes."""
    async with redis_answering("Redis does not answer: check REDIS_URL", within_s=READY_WITHIN_S):
        await services(request).store.ping()
        await services(request).store.check_role()
    return answer({"status": "ready"})
