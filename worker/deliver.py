"""Owns the duty of delivering: one attempt of one webhook, and what follows from it.

Theory. A delivery is pending until it is ``delivered`` (2xx) or ``dead`` (the schedule is used up, the destination
answered 410, or it has been failing for as long as the schedule lasts). Each attempt is signed anew, under the id the
event was made with, so that a consumer can tell a repeat. A crash between the consumer's answer and our record repeats
the attempt: at least once, never lost. Where a name leads is checked on the addresses it resolves to, where the
connection itself is made.
"""

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import httpx

from config.log import log
from config.settings import Settings
from jobs.delivering import GIVEN_UP, Answered, Outcome, Schedule, judge
from jobs.destinations import address_fault, url_fault
from worker.claims import Claim, Claims
from worker.gateway import USER_AGENT
from worker.link import patiently
from worker.outbox import Delivery
from worker.record import UNSHOWABLE, rfc3339
from worker.signing import webhook_headers
from worker.store import Store
from worker.transport import Transport, read_capped, retry_after_s

ANSWER_LIMIT_BYTES = 4096
ERROR_SHOWN_CHARS = 500
LOGGED_CHARS = 200
WHOLE_ANSWERS_KEPT, OLD_ANSWER_CHARS = 2, 256  # of the attempts before
CONNECT_TIMEOUT_S = 5.0
KEEPALIVE_S = 5.0
FRESH_MS = 1000  # no result expires sooner than this after its event


class Deliver:
    """The delivery duty. Call it with a claim of the dispatch."""

    def __init__(
        self, store: Store, settings: Settings, secrets: Callable[[], Awaitable[Sequence[str]]], rng: random.Random
    ) -> None:
        self._store = store
        self._settings = settings
        self._schedule = Schedule(settings.webhook_schedule_s, settings.webhook_timeout_s)
        self._secrets = secrets
        self._rng = rng
        fault = None if settings.webhook_allow_private else address_fault
        # As many as the wheel has slots: waiting for a free one would spend an attempt of those who are well.
        self._transport = Transport(limit=settings.concurrency, keepalive_s=KEEPALIVE_S, address_fault=fault)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._transport.aclose()

    async def __call__(self, claim: Claim, _claims: Claims) -> None:
        """Attempt the claimed delivery once."""
        delivery = await self._store.outbox.delivery(claim.member)
        if delivery is None or delivery.state != "pending":
            await self._store.dispatch.release(claim, None)
            return
        body, gone = await asyncio.gather(
            self._store.outbox.event_body(delivery.entry), self._store.outbox.gone_url(delivery.job_id)
        )
        if body is None:
            await self._give_up(claim, delivery, "the event is no longer kept")
        elif gone == delivery.url:
            await self._give_up(claim, delivery, "the destination wants no more of this job")
        elif claim.overdue:
            await self._give_up(claim, delivery, "the destination has been failing for as long as the schedule lasts")
        else:
            await self._attempt(claim, delivery, body)

    async def give_up(self, claim: Claim, why: str) -> None:
        """Have the claimed delivery be a dead letter."""
        delivery = await self._store.outbox.delivery(claim.member)
        if delivery is None or delivery.state != "pending":
            await self._store.dispatch.release(claim, None)
        else:
            await self._give_up(claim, delivery, why)

    async def fail(self, claim: Claim, why: str) -> None:
        """Note an attempt that was not made: it counts in the schedule, and says nothing of the destination."""
        delivery = await self._store.outbox.delivery(claim.member)
        if delivery is None or delivery.state != "pending":
            await self._store.dispatch.release(claim, None)
            return
        answered = Answered(None, f"not sent: {why}")
        made = len(delivery.attempts) + 1 - delivery.schedule_from
        outcome = replace(judge(answered, self._schedule, made=made, rng=self._rng), health="")
        await self._end(claim, delivery, answered, outcome, took_ms=0)

    async def _give_up(self, claim: Claim, delivery: Delivery, why: str) -> None:
        await self._end(claim, delivery, Answered(None, f"not sent: {why}"), GIVEN_UP, took_ms=0)

    async def _attempt(self, claim: Claim, delivery: Delivery, body: bytes) -> None:
        started_s = time.monotonic()
        answered = await self._post(delivery, self._current(delivery, body))
        took_ms = round((time.monotonic() - started_s) * 1000)
        made = len(delivery.attempts) + 1 - delivery.schedule_from
        outcome = judge(answered, self._schedule, made=made, rng=self._rng)
        await self._end(claim, delivery, answered, outcome, took_ms=took_ms)

    def _current(self, delivery: Delivery, body: bytes) -> bytes:
        """Give the event's body; one that comes after its result has expired says so."""
        now_ms = self._store.now_ms()
        if now_ms - delivery.created_at_ms < FRESH_MS:
            return body
        try:
            is_expired = datetime.fromisoformat(_expiry(json.loads(body))).timestamp() * 1000 <= now_ms
        except UNSHOWABLE:  # it has no result
            return body
        return b'{"result_expired":true,' + body.removeprefix(b"{") if is_expired else body

    async def _post(self, delivery: Delivery, body: bytes) -> Answered:
        if fault := url_fault(delivery.url, allow_private=self._settings.webhook_allow_private):
            return Answered(None, f"the URL {fault}")
        secrets = await self._secrets()
        timestamp_s = self._store.now_ms() // 1000
        url = httpx.URL(delivery.url)
        headers = [
            ("host", url.netloc.decode()),  # left to itself httpx decodes punycode first, and fails on an emoji
            ("content-type", "application/json"),
            ("user-agent", USER_AGENT),
            ("accept-encoding", "identity"),
            *webhook_headers(secrets, delivery.event_id, timestamp_s, body),
        ]
        total_s = self._schedule.timeout_s
        connect_s = min(CONNECT_TIMEOUT_S, total_s / 2)
        timeouts = {"connect": connect_s, "pool": connect_s, "read": total_s, "write": total_s, "total": total_s}
        try:
            request = httpx.Request("POST", url, headers=headers, content=body, extensions={"timeout": timeouts})
            response = await self._transport.handle_async_request(request)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return Answered(None, _named(error))
        try:
            said, _ = await read_capped(response, ANSWER_LIMIT_BYTES, decoded=False)
            words = said.decode("utf-8", "replace")
        except httpx.HTTPError as error:  # the head has told all that counts
            words = f"the answer's body broke off: {_named(error)}"
        return Answered(response.status_code, words, retry_after_s(response.headers))

    async def _end(
        self, claim: Claim, delivery: Delivery, answered: Answered, outcome: Outcome, *, took_ms: int
    ) -> None:
        now_ms = self._store.now_ms()
        due_ms = now_ms + round(outcome.wait_s * 1000) if outcome.state == "pending" else None
        words = answered.words.translate(_INVISIBLE)
        attempt = {
            "at": rfc3339(now_ms - took_ms),
            "duration_ms": took_ms,
            "status": answered.status,
            "answer": words,
            "next_at": rfc3339(due_ms),
        }
        counted = "" if outcome is GIVEN_UP else "succeeded" if outcome.state == "delivered" else "failed"
        note: Mapping[str, Any] | None = None
        if outcome.state == "dead":
            note = {"at": rfc3339(now_ms), "event": "webhook.dead", "delivery": delivery.id, "type": delivery.type}
        kept = [_shortened(each) for each in delivery.attempts[:-WHOLE_ANSWERS_KEPT]]
        kept += delivery.attempts[-WHOLE_ANSWERS_KEPT:]
        state = await patiently(
            lambda: self._store.dispatch.settle(
                claim, delivery, [*kept, attempt], outcome, due_ms=due_ms, counted=counted, note=note
            )
        )
        if state is None:  # another has taken it over: it is sent once more, under the same id
            log.warning("lease.lost", job=delivery.job_id, delivery=delivery.id, status=answered.status)
            return
        told = log.info if state == "delivered" else log.warning
        told(
            "delivery.attempted" if state == "pending" else "delivery.ended",
            job=delivery.job_id,
            delivery=delivery.id,
            state=state,
            status=answered.status,
            answer=None if state == "delivered" else words[:LOGGED_CHARS],
            next_at=rfc3339(due_ms),
        )


# What a log or a terminal would obey or not show; JSON would write most of it in six bytes each.
_INVISIBLE = {
    code: "\N{REPLACEMENT CHARACTER}"
    for codes in (range(0x20), range(0x7F, 0xA0), range(0x202A, 0x202F), range(0x2066, 0x206A))
    for code in codes
    if chr(code) not in "\t\r\n"
}


def _shortened(attempt: Mapping[str, Any]) -> Mapping[str, Any]:
    """Keep the start of the answer to an attempt that others have followed."""
    return {**attempt, "answer": str(attempt.get("answer") or "")[:OLD_ANSWER_CHARS]}


def _expiry(event: Mapping[str, Any]) -> str:
    """Give the time at which what an event tells of expires; raise one of ``UNSHOWABLE`` where it tells of nothing."""
    job = event["data"]
    if event["type"] == "job.late_result":
        late = [attempt["late_result"] for attempt in job["attempts"] if "late_result" in attempt]
        return str(max(late, key=lambda result: str(result["at"]))["expires_at"])
    return str(job["result"]["expires_at"])


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:ERROR_SHOWN_CHARS]
