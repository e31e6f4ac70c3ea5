"""Owns which deliveries are sent when: each destination's queue, how many go to it at a time, whether it answers.

Theory. A destination is scheme, host, port and path. Its deliveries wait in a queue of its own; one wheel says which
destination has something to be sent when. A claim takes a fair share of each, never more than ``MOST_AT_ONCE`` of one
destination and ``MOST_AT_A_HOST`` of all of a host over the whole fleet, so that a consumer that hangs keeps nobody
else waiting; where a host has no place left, its destinations queue for the next to be free. One that has failed time
after time is tried by one delivery at a time, at growing gaps; the others wait without using up their schedules, and
flow again with the first success. What is being sent is kept by the end of its lease, and sent again by another worker
when that has run out.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from config.log import log
from jobs.delivering import Outcome, Schedule
from jobs.destinations import Destination
from worker.claims import LEASE_MS, Claim, Claims, Clock, Holder, clock_s
from worker.keys import DELIVER_WHEEL, Keys
from worker.link import Argument, Link, unreadable
from worker.outbox import Delivery
from worker.record import UNSHOWABLE, number, rfc3339

MOST_AT_ONCE = 10
MOST_AT_A_HOST = 4 * MOST_AT_ONCE
MOST_FAILING_TOLD, MOST_LOOKED_AT = 100, 1000
MOST_ATTEMPTS_KEPT = 50  # of a delivery that is sent again and again on request


@dataclass(frozen=True, slots=True)
class FailingDestination:
    """A destination that has not answered well for some time; ``waiting`` deliveries are due to it or will be."""

    name: str
    since_ms: int
    failures: int
    waiting: int
    next_try_ms: int

    def view(self) -> dict[str, Any]:
        """Show it as plain JSON."""
        return {
            "destination": self.name,
            "failing_since": rfc3339(self.since_ms),
            "failures": self.failures,
            "waiting": self.waiting,
            "next_try_at": rfc3339(self.next_try_ms),
        }


@dataclass(frozen=True, slots=True)
class Standing:
    """How the sending of webhooks stands.

    ``due``: of all ``entries``, those due and not being sent. ``oldest_ms``: since when the first of them is due whose
    destination does not fail. ``failing``: the first of ``all_failing`` destinations that do.
    """

    entries: int = 0
    due: int = 0
    oldest_ms: int | None = None
    all_failing: int = 0
    failing: tuple[FailingDestination, ...] = ()


class EventTrimmed(Exception):  # noqa: N818 - named after what it says
    """The event of a delivery is no longer kept: there is nothing that could be sent again."""

    def __init__(self, delivery_id: str) -> None:
        super().__init__(f"{delivery_id} cannot be sent again: its event is no longer kept (RETENTION_S); read the job")


class Dispatch:
    """The store's part for sending webhooks. It is the due-set of the delivery duty."""

    def __init__(self, link: Link, keys: Keys, *, clock: Clock, holder: Holder, schedule: Schedule) -> None:
        self._link = link
        self._keys = keys
        self._clock = clock
        self._holder = holder
        self._schedule = schedule
        self._patience_ms = round(schedule.patience_s * 1000)
        self.names = (DELIVER_WHEEL,)
        self.on_due: dict[str, Callable[[int], None]] = {}

    async def claim(self, limit: int) -> Claims:
        """Claim deliveries that are due, under a fresh token; a claim's ``wheel`` is its destination."""
        token = self._holder.next_token()
        sent_s, interrupted = clock_s(), self._link.interrupted
        now_ms = self._clock.now_ms()
        answered_by_ms = now_ms + LEASE_MS + round(self._schedule.timeout_s * 1000)
        now, next_due, *rows = await self._link.script(
            "dispatch",
            [self._keys.one("gate"), self._keys.leases(DELIVER_WHEEL)],
            [
                self._keys.prefix, token, limit, LEASE_MS, int(interrupted), MOST_AT_ONCE, MOST_AT_A_HOST,
                answered_by_ms, self._patience_ms, now_ms,
            ],
        )  # fmt: skip
        if interrupted:
            self._link.interrupted = False
        self._clock.set(int(now), asked_s=sent_s)
        valid_until_s = sent_s + LEASE_MS / 1000
        claims = tuple(
            Claim(
                destination.decode(),
                delivery.decode("utf-8", "replace"),
                token,
                former.decode("utf-8", "replace"),
                valid_until_s,
                overdue=overdue == b"1",
            )
            for destination, delivery, former, overdue in rows
        )
        return Claims(claims, int(now), int(next_due) if next_due else None, held=False)

    async def renew(self, claims: Sequence[Claim]) -> None:
        """Prolong claims by one lease period; those that were lost stay as they are and run out."""
        keys, claims = self._keys, [claim for claim in claims if not claim.ending]
        for destination in {claim.wheel for claim in claims}:
            its = [claim for claim in claims if claim.wheel == destination]
            sent_s = clock_s()
            pairs = [part for claim in its for part in (claim.member, claim.token)]
            lost = set(
                await self._link.script(
                    "renew", [keys.sending(destination), keys.leases(DELIVER_WHEEL)], [LEASE_MS, *pairs]
                )
            )
            for claim in its:
                claim.renewed(sent_s, lost=claim.member.encode() in lost)

    async def release(self, claim: Claim, due_ms: int | None) -> bool:
        """Give a claim back unattempted, due at a time, or out of its queue. Safe to repeat."""
        claim.ending = True
        return bool(
            await self._link.script(
                "undeliver",
                [self._keys.leases(DELIVER_WHEEL), self._keys.delivery(claim.member)],
                [*self.about(claim.wheel), claim.member, claim.token, "" if due_ms is None else due_ms],
            )
        )

    async def settle(
        self,
        claim: Claim,
        delivery: Delivery,
        attempts: Sequence[Mapping[str, Any]],
        outcome: Outcome,
        *,
        due_ms: int | None,
        counted: str,
        note: Mapping[str, Any] | None = None,
    ) -> str | None:
        """Record an attempt of a delivery and what becomes of it; return its state, None where the claim was another's.

        ``counted``: as what the attempt counts, '' where nothing was sent. ``note``: a line of the job's timeline for
        where it is dead. Safe to repeat. The state is not the outcome's where a replay was asked for meanwhile.
        """
        claim.ending = True
        keys = self._keys
        gaps_ms = [round(gap_s * 1000) for gap_s in self._schedule.gaps_s]
        written, more_ms, news, state = await self._link.script(
            "deliver",
            [
                keys.delivery(delivery.id), keys.leases(DELIVER_WHEEL), keys.job(delivery.job_id),
                keys.timeline(delivery.job_id), keys.deliveries(delivery.state), keys.deliveries(outcome.state),
                keys.one("counters"), keys.one("ended"),
            ],
            [
                *self.about(claim.wheel), delivery.id, claim.token, delivery.job_id,
                outcome.state, "" if due_ms is None else due_ms,
                json.dumps(list(attempts), ensure_ascii=False, separators=(",", ":")), len(attempts),
                delivery.url if outcome.gone else "",
                outcome.health, *gaps_ms, round(outcome.asked_s * 1000),
                json.dumps(note, separators=(",", ":")) if note else "",
                f"webhook_attempts_total|{counted}" if counted else "",
                "webhook_dead_letters_total" if outcome.state == "dead" else "",
            ],
        )  # fmt: skip
        if news:
            told = log.warning if news == b"failing" else log.info
            host = Destination.of(
                delivery.url
            ).host  # a path may be a secret: the delivery tells it to whoever may see it
            told(f"destination.{news.decode()}", host=host, job=delivery.job_id, delivery=delivery.id)
        if more_ms:
            self._call(int(more_ms))
        return str(state.decode()) if int(written) else None

    async def replay(self, delivery: Delivery) -> bool:
        """Have a delivery attempted again, under the same ``webhook-id``; False where its job is gone. Safe to repeat.

        It is due at once and begins its schedule anew, after the attempt under way where there is one. A destination
        that fails is tried with it. Raises ``EventTrimmed``.
        """
        keys, destination = self._keys, Destination.of(delivery.url)
        replayed = await self._link.script(
            "replay",
            [
                keys.delivery(delivery.id), keys.leases(DELIVER_WHEEL), keys.job(delivery.job_id),
                keys.deliveries("delivered"), keys.deliveries("dead"), keys.deliveries("pending"), keys.one("events"),
            ],
            [
                *self.about(destination.id), destination.name, destination.host, delivery.id, MOST_ATTEMPTS_KEPT,
            ],
        )  # fmt: skip
        if replayed == b"trimmed":
            raise EventTrimmed(delivery.id)
        await self._link.command("PUBLISH", keys.one("wake"), "due")
        return bool(replayed == b"again")

    def about(self, destination: str) -> tuple[Argument, ...]:
        """Give what a script is told about a destination."""
        return (self._keys.prefix, destination, MOST_AT_ONCE, MOST_AT_A_HOST, self._patience_ms)

    async def hindrance(self, delivery: Delivery) -> FailingDestination | None:
        """Say which failing destination a delivery waits for, if any."""
        name = Destination.of(delivery.url).name if delivery.state == "pending" else None
        failing = (await self.standing()).failing if name else ()
        return next((destination for destination in failing if destination.name == name), None)

    async def standing(self) -> Standing:
        """Read how the sending stands; what cannot be read is left out."""
        keys = self._keys
        entries, due, oldest, all_failing, *rows = await self._link.script(
            "destinations",
            [keys.deliveries("pending"), keys.one("failing")],
            [keys.prefix, MOST_FAILING_TOLD, MOST_LOOKED_AT],
        )
        failing = [destination for row in rows if (destination := _failing(row)) is not None]
        return Standing(int(entries), int(due), int(oldest) if oldest else None, int(all_failing), tuple(failing))

    def _call(self, due_ms: int) -> None:
        if callback := self.on_due.get(DELIVER_WHEEL):
            callback(due_ms)


def _failing(row: Sequence[bytes]) -> FailingDestination | None:
    try:
        name, since, failures, waiting, next_try = row
        return FailingDestination(
            name.decode("utf-8", "replace"), int(since), number(failures) or 0, int(waiting), int(next_try)
        )
    except UNSHOWABLE as error:
        unreadable("destination", repr(row)[:100], error)
        return None
