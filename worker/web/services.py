"""Owns what routes work with, and for how long they wait for Redis."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from config.log import log
from config.settings import Settings
from jobs.request import MAX_FAULTS, Fault, InvalidRequest
from worker.enqueue import Door
from worker.fleet import Overview
from worker.link import STORE_ERRORS, TOLD_EVERY_S, ReadOnlyReplica, RedisAway, RedisRefused
from worker.store import Store
from worker.web.problems import RETRY_AFTER_S, Kind, Refusal, encode_json

PATIENCE_S = 1.25  # so that the answer is out within two seconds
EXTRA_PATIENCE_S_PER_MB = 0.5
GLANCE_MS = 1_000


@dataclass(frozen=True, slots=True)
class Services:
    """What routes work with."""

    store: Store
    door: Door
    settings: Settings
    glance: "Glance"


class Glance:
    """How the fleet stood moments ago: for answers that many ask for, and none needs to the millisecond."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._overview: Overview | None = None
        self._looking = asyncio.Lock()

    async def overview(self) -> Overview | None:
        """Read the overview, at most every so often and once for all that ask meanwhile; None where it cannot be.

        What it is for goes without: a job is shown whatever is the matter with the fleet's own keys.
        """
        async with self._looking:
            now_ms = self._store.now_ms()
            if self._overview is None or not 0 <= now_ms - self._overview.at_ms <= GLANCE_MS:
                try:
                    async with asyncio.timeout(PATIENCE_S):
                        self._overview = await self._store.fleet.overview(now_ms)
                except STORE_ERRORS:
                    return None
                except TimeoutError:
                    tell_silence(PATIENCE_S)
                    return None
            return self._overview


def services(request: Request) -> Services:
    """Give the app's services."""
    found: Services = request.app.state.services
    return found


async def known_parameters(request: Request) -> None:
    """Raise ``InvalidRequest`` for a parameter the address does not have, or that comes twice.

    For routers to depend on: a misspelt filter would filter nothing.
    """
    known = sorted(str(field.alias) for field in request.scope["route"].dependant.query_params)
    times = Counter(name for name, _ in request.query_params.multi_items())
    words = f"is not a known parameter; known are {', '.join(known)}" if known else "must not be given: there are none"
    faults = [Fault(name, words) for name in sorted(times.keys() - known)[: MAX_FAULTS + 1]]
    faults += [Fault(name, "must be given once") for name in known if times[name] > 1]
    if faults:
        raise InvalidRequest(*faults)


@asynccontextmanager
async def redis_answering(
    detail: str, *, within_s: float = PATIENCE_S, members: Mapping[str, Any] | None = None
) -> AsyncIterator[None]:
    """Refuse the request as ``unavailable`` where Redis is away or silent; ``detail`` says what to do."""
    try:
        async with asyncio.timeout(within_s):
            yield
    except (RedisAway, RedisRefused, TimeoutError) as error:
        if isinstance(error, TimeoutError):
            tell_silence(within_s)
        words = str(error) if isinstance(error, ReadOnlyReplica) else detail
        raise Refusal(Kind.UNAVAILABLE, words, headers={"retry-after": str(RETRY_AFTER_S)}, members=members) from error


_told_silent_s = -TOLD_EVERY_S


def tell_silence(within_s: float) -> None:
    """Log that Redis is silent, at most once a minute. What it refuses, or that it is gone, its link tells."""
    global _told_silent_s  # noqa: PLW0603 - one log a process
    if time.monotonic() - _told_silent_s >= TOLD_EVERY_S:
        _told_silent_s = time.monotonic()
        log.warning("redis.away", error=f"Redis did not answer within {within_s:g} s")


def answer(value: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Make an answer of JSON."""
    sent = {"cache-control": "no-store", **(headers or {})}
    return Response(encode_json(value), status_code=status, headers=sent, media_type="application/json")
