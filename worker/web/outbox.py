"""Owns the routes of what is told to the outside: deliveries and their replay, and the feed of events."""

import re
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from starlette.requests import Request
from starlette.responses import Response

from jobs.request import valid_id
from worker.dispatch import EventTrimmed
from worker.outbox import CursorExpired
from worker.web.openapi import UNREADABLE, problems, shown
from worker.web.problems import Kind, Refusal
from worker.web.services import answer, known_parameters, redis_answering, services

AWAY = "Redis is away: repeat the request"
EXPIRED = "events after it are no longer kept: start again without a cursor, and list the jobs"
CURSOR = "^[0-9]{1,15}-[0-9]{1,15}$"

router = APIRouter(tags=["webhooks"], dependencies=[Depends(known_parameters)])


@router.get(
    "/v1/jobs/{job_id}/deliveries",
    summary="List a job's webhook deliveries",
    responses={
        **shown(200, "The deliveries, oldest first, with every attempt.", "Deliveries"),
        **problems(Kind.NOT_FOUND, Kind.INVALID_REQUEST, Kind.UNAVAILABLE, *UNREADABLE),
    },
)
async def list_deliveries(request: Request, job_id: str) -> Response:
    """List the webhooks of a job, and what became of each attempt to deliver them."""
    store = services(request).store
    async with redis_answering(AWAY):
        found = await store.get(job_id) if valid_id(job_id) else None
        deliveries = await store.outbox.of_job(job_id) if found else []
    if found is None:
        raise Refusal(Kind.NOT_FOUND, "no such job: it was never made, or is gone RETENTION_S after its end")
    return answer({"deliveries": [delivery.view() for delivery in deliveries]})


@router.post(
    "/v1/deliveries/{delivery_id}/replay",
    summary="Deliver a webhook again",
    responses={
        **shown(200, "The delivery, pending again.", "DeliveryView"),
        **problems(Kind.NOT_FOUND, Kind.INVALID_REQUEST, Kind.UNAVAILABLE, *UNREADABLE),
    },
)
async def replay_delivery(request: Request, delivery_id: str) -> Response:
    """Deliver a webhook once more, whatever became of it, under the same `webhook-id`, from the start of its schedule.

    It is due at once, after the attempt under way where there is one. Safe to repeat.
    """
    store = services(request).store
    outbox = store.outbox
    async with redis_answering(AWAY):
        delivery = await outbox.delivery(delivery_id) if re.fullmatch(r"dlv_[0-9a-f]{32}", delivery_id) else None
        try:
            if delivery is not None and not await store.dispatch.replay(delivery):
                delivery = None
        except EventTrimmed as error:
            raise Refusal(Kind.NOT_FOUND, str(error)) from None
        delivery = delivery and await outbox.delivery(delivery_id)
    if delivery is None:
        raise Refusal(Kind.NOT_FOUND, "no such delivery: it was never made, or is gone with its job")
    return answer(delivery.view())


@router.get(
    "/v1/events",
    tags=["webhooks"],
    summary="Read the feed of events",
    responses={
        **shown(200, "Events in order.", "EventPage"),
        **problems(Kind.CURSOR_EXPIRED, Kind.INVALID_REQUEST, Kind.UNAVAILABLE),
    },
)
async def list_events(
    request: Request,
    cursor: Annotated[str | None, Query(description="`next_cursor` of the page before.", pattern=CURSOR)] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> Response:
    """Read what webhooks tell, in order, whether or not there was somebody to tell it to.

    Start without a cursor, keep `next_cursor` with what you have done, and go on from there: it is never null, and
    a page without events means that there are no newer ones yet.
    """
    async with redis_answering(AWAY):
        try:
            outbox = services(request).store.outbox
            events = await outbox.feed(cursor, limit=limit)
            following = events[-1].cursor if events else cursor or await outbox.trimmed()
        except CursorExpired:
            raise Refusal(Kind.CURSOR_EXPIRED, EXPIRED) from None
    return answer({"events": [event.view() for event in events], "next_cursor": following})
