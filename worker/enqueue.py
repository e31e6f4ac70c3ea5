"""Owns how a request becomes a job, the same behind every door: checked, given its defaults, written in one step.

Above a mark of Redis's memory no new job is taken (``worker.memory``). The memory is looked at when a job is to be
taken and the last look is older than a second: it costs nothing per job, and nothing while there are none. Where it
cannot be read, jobs are taken: should Redis be full, it says so itself.
"""

import asyncio
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from config.log import log
from config.models import KINDS, Models
from config.settings import Settings
from jobs import changes
from jobs.destinations import url_fault
from jobs.failures import own_failure
from jobs.job import REJECTED, Job, Spec
from jobs.request import DEFAULT_WEBHOOK_EVENTS, Order, read_request, valid_id, valid_model
from jobs.verdict import Code
from worker.fleet import Fleet
from worker.link import STORE_ERRORS
from worker.memory import RedisMemory
from worker.store import Exists, Store

MAX_MESSAGE_CHARS = 2000
LOOK_EVERY_S = 1.0
JOB_BYTES = 3_000  # what a job takes beside its input until it is submitted


class Conflict(Exception):  # noqa: N818 - named after what it says
    """The id is taken by a job with a different request."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"id: {job_id} is taken by a job with a different request; send the same request or a new id")
        self.job_id = job_id


class StorageFull(Exception):  # noqa: N818 - named after what it says
    """Redis is too full for new jobs; nothing was written. The message says how full, and what to do."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A job for the request; ``created`` is false where it had been there before."""

    job: Job
    created: bool


class Room:
    """Whether there is room for new jobs: as of a second ago at most, and with what this process has taken since."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._memory = RedisMemory()
        self._told_full = False
        self._taken_bytes = 0
        self._stale_from_s = 0.0
        self._looking: asyncio.Task[None] | None = None

    async def look(self, adds_bytes: int = 0) -> RedisMemory:
        """Read the memory, once for all who ask meanwhile; told as empty where it cannot be read.

        ``adds_bytes`` is what the caller will add if there is room.
        """
        if time.monotonic() >= self._stale_from_s:
            if self._looking is None or self._looking.done():
                self._looking = asyncio.create_task(self._look())
            await asyncio.shield(self._looking)  # who asked first may go before there is an answer
        memory = RedisMemory(self._memory.used_bytes + self._taken_bytes, self._memory.most_bytes)
        if not memory.is_full:
            self._taken_bytes += adds_bytes
        return memory

    async def _look(self) -> None:
        is_known = True
        try:
            self._memory = await self._fleet.memory()
        except STORE_ERRORS:
            self._memory, is_known = RedisMemory(), False
        self._taken_bytes = 0
        self._stale_from_s = time.monotonic() + LOOK_EVERY_S
        if not is_known or self._memory.is_full == self._told_full:
            return
        self._told_full = self._memory.is_full
        if self._told_full:
            log.warning("storage.full", used_bytes=self._memory.used_bytes, most_bytes=self._memory.most_bytes)
        else:
            log.info("storage.freed", used_bytes=self._memory.used_bytes, most_bytes=self._memory.most_bytes)


class Door:
    """Takes requests. ``announce``: work is done by other processes, which are to be woken."""

    def __init__(self, store: Store, settings: Settings, models: Models, *, announce: bool) -> None:
        self._store = store
        self._settings = settings
        self.models = models
        self._announce = announce
        self._room = Room(store.fleet)

    async def take(self, raw: Any, *, fallback_id: str | None = None) -> Taken:
        """Make the job, or find the one that the same request under the same id has made.

        ``fallback_id`` is the id where the request names none; without either, a new one is made. Raises
        ``InvalidRequest`` (every fault, nothing written), ``Conflict``, ``StorageFull`` (likewise; a job that is there
        is found all the same), ``RedisAway`` (safe to repeat with an id).
        """
        if fallback_id is not None and isinstance(raw, dict) and raw.get("id") is None:
            raw = {**raw, "id": fallback_id}
        order = read_request(raw, allow_private=self._settings.webhook_allow_private)
        spec = self._spec(order)
        memory = await self._room.look(JOB_BYTES + len(order.input_json))
        if memory.is_full and await self._store.get(spec.id) is None:
            raise StorageFull(memory.words)
        change = changes.create(spec, now_ms=self._store.now_ms(), rev=self._store.new_rev())
        result = await self._store.apply(change, input_json=order.input_json, announce=self._announce)
        if not isinstance(result, Exists):
            return Taken(change.after, created=True)
        if result.fingerprint != spec.fingerprint:
            raise Conflict(spec.id)
        return Taken(result.job, created=False)

    async def refuse(self, raw: Any, words: str, *, fallback_id: str) -> Job | None:
        """Make a job that has failed, so that a caller who cannot be answered finds out why; None if the id is taken.

        Of the request it keeps what is valid: kind, model, destination. Raises ``StorageFull`` and ``RedisAway``.
        """
        if (memory := await self._room.look(JOB_BYTES)).is_full:
            raise StorageFull(memory.words)
        asked: Mapping[str, Any] = raw if isinstance(raw, dict) else {}
        named = asked.get("id")
        job_id = named if isinstance(named, str) and valid_id(named) else fallback_id
        if not valid_id(job_id):
            return None
        kind, model = asked.get("kind"), asked.get("model")
        url = asked.get("webhook_url")
        if not isinstance(url, str) or url_fault(url, allow_private=self._settings.webhook_allow_private):
            url = self._settings.webhook_url
        spec = Spec(
            id=job_id,
            kind=kind if isinstance(kind, str) and kind in KINDS else "unknown",
            models=(model if isinstance(model, str) and valid_model(model) else "unknown",),
            fingerprint=REJECTED,
            created_at_ms=self._store.now_ms(),
            deadline_ms=0,
            max_attempts=1,
            on_unknown_submit="fail",
            webhook_url=url,
            webhook_events=DEFAULT_WEBHOOK_EVENTS,
        )
        failure = own_failure(Code.INVALID_REQUEST, words[:MAX_MESSAGE_CHARS])
        shown = {
            "code": str(failure.code), "category": str(failure.category), "action": str(failure.action),
            "http_status": None, "gateway_code": None, "message": failure.message, "rule": failure.rule,
        }  # fmt: skip
        change = changes.reject(spec, shown, now_ms=spec.created_at_ms, rev=self._store.new_rev())
        result = await self._store.apply(change, announce=self._announce)
        return None if isinstance(result, Exists) else change.after

    def _spec(self, order: Order) -> Spec:
        request = order.request
        model = request.model or self.models.default_model(request.kind)
        fallbacks = self.models.alternates(model) if request.fallbacks is None else tuple(request.fallbacks)
        events = DEFAULT_WEBHOOK_EVENTS if request.webhook_events is None else tuple(request.webhook_events)
        return Spec(
            id=request.id or f"job_{secrets.token_hex(12)}",
            kind=request.kind,
            models=(model, *fallbacks),
            fingerprint=order.fingerprint,
            created_at_ms=self._store.now_ms(),
            deadline_ms=round(1000 * (request.deadline_s or self._settings.job_deadline_s)),
            max_attempts=request.max_attempts or self._settings.max_attempts,
            on_unknown_submit=request.on_unknown_submit or self._settings.unknown_submit,
            webhook_url=request.webhook_url or self._settings.webhook_url,
            webhook_events=events,
            metadata=request.metadata,
        )
