"""Owns the duty of delivering: one attempt of one webhook, and what follows from it.

Theory. A delivery is pending until it is ``delivered`` (2xx) or ``dead`` (the schedule is used up, or the destination
answered 410). Each attempt is signed anew, under the id the event was made with, so that a consumer can tell a repeat.
A crash between the consumer's answer and our record repeats the attempt: at least once, never lost. Where a name leads
is checked on the addresses it resolves to, in the resolver the connection itself uses.
"""

import asyncio
import random
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from config.log import log
from config.settings import Settings
from jobs.destinations import is_public, url_fault
from worker.claims import Claim, Claims
from worker.gateway import USER_AGENT
from worker.link import patiently
from worker.outbox import Delivery
from worker.record import rfc3339
from worker.signing import webhook_headers
from worker.store import Store
from worker.transport import Transport, read_capped, retry_after_s

ANSWER_LIMIT_BYTES = 4096
ANSWER_SHOWN_CHARS = 500
CONNECT_TIMEOUT_S = 5.0
CONNECTIONS = 200
KEEPALIVE_S = 5.0
JITTER = 0.1
MAX_RETRY_AFTER_S = 36_000.0


class PublicResolver(AbstractResolver):
    """Resolves names, and refuses those that lead to a non-public address."""

    def __init__(self) -> None:
        self._resolver = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Resolve; raise ``OSError`` where any address is not public."""
        found = await self._resolver.resolve(host, port, family)
        private = [result["host"] for result in found if not is_public(result["host"])]
        if private:
            raise OSError(f"{host} resolves to a non-public address ({private[0]})")
        return found

    async def close(self) -> None:
        """Close the inner resolver."""
        await self._resolver.close()


@dataclass(frozen=True, slots=True)
class Answered:
    """What the destination said, or that it said nothing (``status`` None, ``words`` says why)."""

    status: int | None
    words: str
    retry_after_s: float | None = None

    @property
    def delivered(self) -> bool:
        """Whether the consumer has it."""
        return self.status is not None and 200 <= self.status < 300


class Deliver:
    """The delivery duty. Call it with a claim of the deliver wheel."""

    def __init__(self, store: Store, settings: Settings, secrets: Sequence[str], rng: random.Random) -> None:
        self._store = store
        self._settings = settings
        self._secrets = secrets
        self._rng = rng
        resolver = None if settings.webhook_allow_private else PublicResolver()
        self._transport = Transport(limit=CONNECTIONS, keepalive_s=KEEPALIVE_S, resolver=resolver)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._transport.aclose()

    async def __call__(self, claim: Claim, _claims: Claims) -> None:
        """Attempt the claimed delivery once."""
        delivery = await self._store.outbox.delivery(claim.member)
        if delivery is None or delivery.state != "pending":
            await self._store.release(claim, None)
            return
        body, gone = await asyncio.gather(
            self._store.outbox.event_body(delivery.entry), self._store.outbox.gone_url(delivery.job_id)
        )
        if body is None or gone == delivery.url:
            words = "the event is no longer kept" if body is None else "the destination wants no more of this job"
            await self._end(claim, delivery, Answered(None, words), 0, give_up=True)
            return
        started_s = time.monotonic()
        answered = await self._post(delivery, body)
        await self._end(claim, delivery, answered, round((time.monotonic() - started_s) * 1000))

    async def _post(self, delivery: Delivery, body: bytes) -> Answered:
        if fault := url_fault(delivery.url, allow_private=self._settings.webhook_allow_private):
            return Answered(None, f"the URL {fault}")
        timestamp_s = self._store.now_ms() // 1000
        headers = [
            ("content-type", "application/json"),
            ("user-agent", USER_AGENT),
            *webhook_headers(self._secrets, delivery.event_id, timestamp_s, body),
        ]
        total_s = self._settings.webhook_timeout_s
        connect_s = min(CONNECT_TIMEOUT_S, total_s / 2)
        timeouts = {"connect": connect_s, "pool": connect_s, "read": total_s, "write": total_s, "total": total_s}
        try:
            request = httpx.Request(
                "POST", delivery.url, headers=headers, content=body, extensions={"timeout": timeouts}
            )
            response = await self._transport.handle_async_request(request)
            answer, _ = await read_capped(response, ANSWER_LIMIT_BYTES)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return Answered(None, f"{type(error).__name__}: {error}"[:ANSWER_SHOWN_CHARS])
        return Answered(
            response.status_code,
            answer.decode("utf-8", "replace")[:ANSWER_SHOWN_CHARS],
            retry_after_s(response.headers),
        )

    async def _end(
        self, claim: Claim, delivery: Delivery, answered: Answered, took_ms: int, *, give_up: bool = False
    ) -> None:
        now_ms = self._store.now_ms()
        attempts = [*delivery.attempts, self._attempt(answered, now_ms, took_ms)]
        gone = answered.status == 410
        wait_s = None if give_up or gone else self._next_s(len(attempts) - delivery.schedule_from, answered)
        state = "delivered" if answered.delivered else "pending" if wait_s is not None else "dead"
        due_ms = now_ms + round(wait_s * 1000) if state == "pending" and wait_s is not None else None
        outcome = "succeeded" if answered.delivered else "failed"
        await patiently(
            lambda: self._store.outbox.settle(
                claim, delivery, attempts, state=state, due_ms=due_ms, outcome=outcome, gone=gone
            )
        )
        event = "delivery.attempted" if state == "pending" else "delivery.ended"
        told = log.info if answered.delivered else log.warning
        told(
            event,
            job=delivery.job_id,
            delivery=delivery.id,
            state=state,
            status=answered.status,
            answer=None if answered.delivered else answered.words[:200],
            next_at=rfc3339(due_ms),
        )

    def _attempt(self, answered: Answered, now_ms: int, took_ms: int) -> Mapping[str, Any]:
        return {
            "at": rfc3339(now_ms),
            "duration_ms": took_ms,
            "status": answered.status,
            "answer": answered.words,
        }

    def _next_s(self, made: int, answered: Answered) -> float | None:
        """Say how long to wait before the next attempt, or None when the schedule is used up."""
        schedule = self._settings.webhook_schedule_s
        if made >= len(schedule):
            return None
        wait_s = schedule[made] * self._rng.uniform(1 - JITTER, 1 + JITTER)
        if answered.status in {429, 503} and answered.retry_after_s is not None:
            wait_s = max(wait_s, min(answered.retry_after_s, MAX_RETRY_AFTER_S))
        return wait_s
