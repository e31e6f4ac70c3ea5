"""Owns what routes work with, and for how long they wait for Redis."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from config.log import log
from config.settings import Settings
from jobs.request import Fault, InvalidRequest
from worker.enqueue import Door
from worker.link import RedisAway, RedisRefused
from worker.store import Store
from worker.web.problems import RETRY_AFTER_S, Kind, Refusal, encode_json

PATIENCE_S = 1.25  # so that the answer is out within two seconds
EXTRA_PATIENCE_S_PER_MB = 0.5


@dataclass(frozen=True, slots=True)
class Services:
    """What routes work with."""

    store: Store
    door: Door
    settings: Settings


def services(request: Request) -> Services:
    """Give the app's services."""
    found: Services = request.app.state.services
    return found


def known_parameters(request: Request) -> None:
    """Raise ``InvalidRequest`` for a parameter the address does not have: a misspelt filter would filter nothing."""
    known = sorted(str(field.alias) for field in request.scope["route"].dependant.query_params)
    unknown = sorted(set(request.query_params) - set(known))
    if unknown:
        words = f"is not a known parameter; known are {', '.join(known)}"
        raise InvalidRequest(*(Fault(name, words) for name in unknown))


@asynccontextmanager
async def redis_answering(
    detail: str, *, within_s: float = PATIENCE_S, members: Mapping[str, Any] | None = None
) -> AsyncIterator[None]:
    """Refuse the request as ``unavailable`` where Redis is away or silent; ``detail`` says what to do."""
    try:
        async with asyncio.timeout(within_s):
            yield
    except (RedisAway, RedisRefused, TimeoutError) as error:
        log.warning("redis.away", error=str(error) or f"Redis did not answer within {within_s:g} s")
        raise Refusal(Kind.UNAVAILABLE, detail, headers={"retry-after": str(RETRY_AFTER_S)}, members=members) from error


def answer(value: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Make an answer of JSON."""
    sent = {"cache-control": "no-store", **(headers or {})}
    return Response(encode_json(value), status_code=status, headers=sent, media_type="application/json")
