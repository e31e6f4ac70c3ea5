"""Owns the routes of the fleet: queues, models, and the pause of a kind."""

from typing import Literal

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from worker.models_report import models_view
from worker.money_report import money_view
from worker.web.openapi import problems, shown
from worker.web.problems import Kind
from worker.web.services import answer, known_parameters, redis_answering, services

AWAY = "Redis is away: repeat the request"
KindName = Literal["video", "image", "music", "audio", "voice"]

router = APIRouter(tags=["operations"], dependencies=[Depends(known_parameters)])


@router.get(
    "/v1/queues",
    summary="Show the queues",
    responses={**shown(200, "How the fleet stands.", "FleetView"), **problems(Kind.INVALID_REQUEST, Kind.UNAVAILABLE)},
)
async def show_queues(request: Request) -> Response:
    """Show how deep the queues are and how late, what is paused or held, which workers are alive, and money wasted."""
    store = services(request).store
    async with redis_answering(AWAY):
        overview, counters = await store.fleet.overview(store.now_ms()), await store.counters()
    return answer({**overview.view(), "money": money_view(counters)})


@router.get(
    "/v1/models",
    summary="Show the models",
    responses={
        **shown(200, "The models, in the order of their chains.", "ModelsView"),
        **problems(Kind.INVALID_REQUEST, Kind.UNAVAILABLE),
    },
)
async def show_models(request: Request) -> Response:
    """Show how the models fare: cooldowns, failures in a row, outcomes, and how long generations have taken."""
    store, models = services(request).store, services(request).door.models
    async with redis_answering(AWAY):
        overview = await store.fleet.overview(store.now_ms())
        counters, health = await store.counters(), await store.fleet.health()
    return answer(models_view(models, overview, counters, health))


@router.post(
    "/v1/queues/{kind}/pause",
    summary="Stop submissions of a kind",
    responses={**shown(200, "It is paused.", "PauseView"), **problems(Kind.INVALID_REQUEST, Kind.UNAVAILABLE)},
)
async def pause_kind(request: Request, kind: KindName) -> Response:
    """Stop submissions of a kind over all workers. Jobs are still taken, tasks under way tracked on. Safe to repeat."""
    store = services(request).store
    async with redis_answering(AWAY):
        changed = await store.fleet.pause(kind, store.now_ms())
    return answer({"kind": kind, "paused": True, "changed": changed})


@router.post(
    "/v1/queues/{kind}/resume",
    summary="Start submissions of a kind",
    responses={**shown(200, "It is not paused.", "PauseView"), **problems(Kind.INVALID_REQUEST, Kind.UNAVAILABLE)},
)
async def resume_kind(request: Request, kind: KindName) -> Response:
    """Start submissions of a kind again. Safe to repeat."""
    async with redis_answering(AWAY):
        changed = await services(request).store.fleet.resume(kind)
    return answer({"kind": kind, "paused": False, "changed": changed})
