"""Owns what is told to the outside: the events of jobs, in order, and the deliveries of webhooks, with their log.

An event is an entry of one stream, with the body it was made with; a delivery points to it. ``pending`` deliveries are
on the deliver wheel, ``delivered`` and ``dead`` ones are kept for their readers until their job is pruned.
"""

import json
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from jobs.job import NewerRecord, UnreadableRecord
from worker.index import read_top
from worker.keys import Keys
from worker.link import STORE_ERRORS, Link, pairs, unreadable
from worker.record import UNSHOWABLE, NewerSchema, check_schema, number, rfc3339

STATES = ("pending", "delivered", "dead")
PAGE = 200


@dataclass(frozen=True, slots=True)
class Delivery:
    """A webhook on its way: to ``url``, with the body of an event; ``attempts`` is its log.

    ``schedule_from`` is how many of the attempts the schedule no longer counts: those before a replay.
    """

    id: str
    event_id: str
    type: str
    job_id: str
    url: str
    state: str
    entry: str
    sequence: int
    created_at_ms: int
    attempts: tuple[Mapping[str, Any], ...]
    next_at_ms: int | None = None
    schedule_from: int = 0

    def view(self) -> dict[str, Any]:
        """Show it as the contract does."""
        return {
            "id": self.id,
            "event_id": self.event_id,
            "type": self.type,
            "job_id": self.job_id,
            "url": self.url,
            "state": self.state,
            "created_at": rfc3339(self.created_at_ms),
            "next_attempt_at": rfc3339(self.next_at_ms) if self.state == "pending" else None,
            "attempts": [dict(attempt) for attempt in self.attempts],
        }


@dataclass(frozen=True, slots=True)
class Event:
    """An entry of the feed: ``cursor`` is where to go on after it, ``body`` what a webhook of it carries."""

    cursor: str
    id: str
    sequence: int
    type: str
    body: Mapping[str, Any]

    def view(self) -> dict[str, Any]:
        """Show it as the contract does."""
        return {"id": self.id, "sequence": self.sequence, **self.body}


class CursorExpired(Exception):  # noqa: N818 - named after what it says
    """Events after the cursor are no longer kept."""


class Outbox:
    """The store's part for events and deliveries."""

    def __init__(self, link: Link, keys: Keys) -> None:
        self._link = link
        self._keys = keys

    # --- deliveries

    async def delivery(self, delivery_id: str) -> Delivery | None:
        """Read a delivery; raise ``UnreadableRecord`` for a damaged one, ``NewerRecord`` for a newer version's."""
        found = pairs(await self._link.command("HGETALL", self._keys.delivery(delivery_id)))
        try:
            return _read(found) if found else None
        except NewerSchema as error:
            raise NewerRecord(delivery_id, what="delivery") from error
        except UNSHOWABLE as error:
            why = f"{type(error).__name__}: {error}"
            raise UnreadableRecord(delivery_id, why, what="delivery") from error

    async def of_job(self, job_id: str) -> list[Delivery]:
        """Read a job's deliveries, oldest first; what cannot be read is left out."""
        (ids,) = await self._link.each([("LRANGE", self._keys.deliveries_of(job_id), 0, -1)])
        return await self._all(_name(each) for each in ids) if isinstance(ids, list) else []

    async def page(self, state: str | None, *, before: int | None = None, limit: int) -> list[Delivery]:
        """Read deliveries of a state, or of any, newest first; ``before`` is the sequence of the last one before.

        One that cannot be read, or that went meanwhile, is left out.
        """
        return await self._all(name for _, name in await self._top(state, before, limit))

    async def every(self, state: str | None, *, since_ms: int = 0) -> AsyncIterator[Delivery]:
        """Go through deliveries, newest first, down to those made at a time; none comes twice."""
        before: int | None = None
        while top := await self._top(state, before, PAGE):
            for delivery in await self._all(name for _, name in top):
                if delivery.created_at_ms < since_ms:
                    return
                yield delivery
            before = top[-1][0]

    async def _top(self, state: str | None, before: int | None, limit: int) -> list[tuple[int, str]]:
        indexes = [self._keys.deliveries(each) for each in ([state] if state else STATES)]
        return read_top(await self._link.script("top", indexes, ["" if before is None else before, limit]))

    async def _all(self, ids: Iterable[str]) -> list[Delivery]:
        names = list(ids)
        rows = await self._link.each(("HGETALL", self._keys.delivery(name)) for name in names)
        read = (_read_or_none(*row) for row in zip(names, rows, strict=True))
        return [delivery for delivery in read if delivery is not None]

    async def event_body(self, entry: str) -> bytes | None:
        """Read the snapshot an event was made with."""
        found = await self._link.command("XRANGE", self._keys.one("events"), entry, entry)
        return pairs(found[0][1]).get(b"body") if found else None

    async def gone_url(self, job_id: str) -> str | None:
        """Name the URL that wants no more of this job (it answered 410)."""
        found = await self._link.command("HGET", self._keys.job(job_id), "gone_url")
        return found.decode() if found else None

    # --- events

    async def feed(self, after: str | None, *, limit: int) -> list[Event]:
        """Read events in order, after a cursor or from the oldest kept; raise ``CursorExpired``.

        One that cannot be read is left out, and never leaves the page empty while there are more.
        """
        while True:
            start = "-" if after is None else f"({after}"
            rows, trimmed = await self._link.together(
                [
                    ("XRANGE", self._keys.one("events"), start, "+", "COUNT", limit),
                    ("HGET", self._keys.one("gate"), "events_trimmed"),
                ]
            )
            if after is not None and _entry(after) < (_stored_entry(trimmed) or (0, 0)):
                raise CursorExpired
            events = [event for entry, row in rows if (event := _event(entry.decode(), pairs(row))) is not None]
            if events or not rows:
                return events
            after = rows[-1][0].decode()

    async def trimmed(self) -> str:
        """Name the cursor up to which events are no longer kept: where the feed begins when it is empty."""
        found = await self._link.command("HGET", self._keys.one("gate"), "events_trimmed")
        return found.decode() if _stored_entry(found) else "0-0"

    async def trim(self, before_ms: int) -> None:
        """Drop events older than a time, but none that a pending delivery still needs.

        Where none of the first pending deliveries can be read, nothing is known of the rest, and nothing is dropped.
        """
        events, pending = self._keys.one("events"), self._keys.deliveries("pending")
        ids = await self._link.command("ZRANGE", pending, 0, PAGE - 1)
        found = await self._link.each(("HGET", self._keys.delivery(_name(each)), "entry") for each in ids)
        needed = [entry for each in found if (entry := _stored_entry(each)) is not None]
        if ids and not needed:
            return
        bound = "{}-{}".format(*min([(before_ms, 0), *needed]))
        await self._link.script("trim", [events, self._keys.one("gate")], [bound])


def _name(stored: bytes) -> str:
    return stored.decode("utf-8", "replace")


def _entry(text: str) -> tuple[int, int]:
    """Read the id of a stream's entry; raise ``ValueError`` for what is none."""
    ms, _, count = text.partition("-")
    return int(ms), int(count or 0)


def _stored_entry(stored: object) -> tuple[int, int] | None:
    """Read the id of a stream's entry where one should be stored; None for anything else."""
    try:
        return _entry(stored.decode()) if isinstance(stored, bytes) else None
    except ValueError:
        return None


def _event(entry: str, row: Mapping[bytes, bytes]) -> Event | None:
    """Read an event; None where it cannot be. Those of before there were sequences have 0."""
    try:
        body = json.loads(row[b"body"])
        told = {name: body[name] for name in ("type", "timestamp", "data")}
        return Event(entry, row[b"id"].decode(), number(row.get(b"seq")) or 0, row[b"type"].decode(), told)
    except UNSHOWABLE as error:
        unreadable("events", entry, f"{type(error).__name__}: {error}")
        return None


def _read_or_none(delivery_id: str, row: Any) -> Delivery | None:
    """Read a delivery for a list; None where there is none, or none that can be read."""
    try:
        if isinstance(row, Exception):
            raise row
        return _read(pairs(row)) if row else None
    except (*UNSHOWABLE, *STORE_ERRORS) as error:
        unreadable("delivery", delivery_id, f"{type(error).__name__}: {error}")
        return None


def _read(found: Mapping[bytes, bytes]) -> Delivery:
    check_schema(found.get(b"schema", b"1"))
    text = {name.decode(): value.decode() for name, value in found.items()}
    next_at_ms = text.get("next_at_ms")
    return Delivery(
        text["id"], text["event_id"], text["type"], text["job"], text["url"], text["state"], text["entry"],
        int(text["seq"]), int(text["created_at_ms"]), tuple(json.loads(text["attempts"])),
        int(next_at_ms) if next_at_ms else None, int(text.get("schedule_from", 0)),
    )  # fmt: skip
