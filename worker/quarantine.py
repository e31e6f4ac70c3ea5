"""Owns what is kept of work that cannot be gone on with: how often it went wrong, and where it lies in the end.

``crashes`` and ``deaths`` stand in the record they are of, and go with the next step that is written of it. A job whose
record can be neither read nor made readable is off every wheel and index, and in ``quarantine`` by the time it was
found; its record stays for the operator. What lies in one of our keys and has not its type is moved aside: it would
stop everybody.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from config.log import log
from config.models import KINDS
from jobs.destinations import Destination
from jobs.job import Job, Spec, to_form
from jobs.pacing import LOOK_UPS, SUBMISSIONS
from jobs.states import Status
from worker.claims import Claim
from worker.keys import DELIVER_WHEEL, TRACK_WHEEL, Keys, submit_wheel, track_member
from worker.link import Link, pairs
from worker.listing import INDEXED_KINDS
from worker.outbox import STATES
from worker.record import SCHEMA, number, write_part

ASIDE_MS = 604_800_000  # how long what was moved aside is kept
MOST_AT_ONCE = 100
UNCOUNTED, ANOTHERS = -1, -2
KEPT_FIELDS = ("spec", "state", "status", "result", "schema")

What = Literal["crashes", "deaths"]


class Quarantine:
    """The store's part for work that cannot be gone on with."""

    def __init__(self, link: Link, keys: Keys) -> None:
        self._link = link
        self._keys = keys

    async def blame(self, claim: Claim, record: str, what: What, *, most: int) -> int:
        """Count a crash or a death in the record that a claim is of, up to ``most``; tell how many by now, in a row.

        ``UNCOUNTED`` where there is no record, ``ANOTHERS`` where the claim has been lost.
        """
        is_delivery = record == self._keys.delivery(claim.member)
        leases = self._keys.leases(DELIVER_WHEEL if is_delivery else claim.wheel)
        return int(await self._link.script("blame", [leases, record], [claim.member, claim.token, what, most, SCHEMA]))

    async def raw(self, job_id: str) -> Mapping[bytes, bytes]:
        """Read a record as it lies there; raise ``ResponseError`` where it is none."""
        return pairs(await self._link.command("HGETALL", self._keys.job(job_id)))

    async def keep(self, job_id: str, stored: Mapping[bytes, bytes], fresh_rev: str) -> str:
        """Note in a record what it was before it is made readable again, and give its rev, a fresh one for none.

        What was noted first stays.
        """
        kept = {name: stored.get(name.encode(), b"").decode("utf-8", "backslashreplace") for name in KEPT_FIELDS}
        await self._link.command("HSETNX", self._keys.job(job_id), "damaged", json.dumps(kept))
        rev = stored.get(b"rev", b"").decode("utf-8", "replace")
        if not rev or rev.encode() != stored[b"rev"]:
            await self._link.command("HSET", self._keys.job(job_id), "rev", fresh_rev)
            return fresh_rev
        return rev

    async def take(self, job_id: str, track_member: str, now_ms: int) -> bool:
        """Put a job there; False where it lay there before."""
        keys = self._keys
        wheels = [
            key for kind in KINDS for name in [submit_wheel(kind)] for key in (keys.wheel(name), keys.leases(name))
        ]
        places = [keys.one("quarantine"), keys.one("deadlines"), keys.one("ended"), keys.wheel(TRACK_WHEEL)]
        places += [keys.leases(TRACK_WHEEL), *wheels, *_indexes(keys)]
        return bool(await self._link.script("quarantine", places, [job_id, now_ms, len(KINDS), track_member]))

    async def unwatch(self, before: Job, after: Job, number: int) -> bool:
        """Write the state of an ended job in which an attempt's task is over; False where it has moved on."""
        keys = self._keys
        places = [keys.job(before.id), keys.wheel(TRACK_WHEEL), keys.leases(TRACK_WHEEL)]
        state = write_part(to_form(after)["state"])
        args = [before.rev, after.rev, state, track_member(number, before.id)]
        return bool(await self._link.script("unwatch", places, args))

    async def bury(self, delivery_id: str) -> bool:
        """Give a delivery up whose record cannot be read; False where it was not pending."""
        keys, job_id = self._keys, ""
        if await self._link.command("TYPE", keys.delivery(delivery_id)) == b"hash":
            job_id = (await self._link.command("HGET", keys.delivery(delivery_id), "job") or b"").decode(
                "utf-8", "replace"
            )
        places = [keys.delivery(delivery_id), keys.deliveries("pending"), keys.deliveries("dead"), keys.job(job_id)]
        return bool(await self._link.script("bury", places, [delivery_id]))

    async def count(self) -> int:
        """Count the jobs that lie there."""
        return int(await self._link.command("ZCARD", self._keys.one("quarantine")))

    async def oldest(self, skip: int = 0) -> list[tuple[str, int]]:
        """Name some of those that have lain there longest, without the first ``skip``; with since when (ms)."""
        last = skip + MOST_AT_ONCE - 1
        found = await self._link.command("ZRANGE", self._keys.one("quarantine"), skip, last, "WITHSCORES")
        return [
            (job_id.decode("utf-8", "replace"), int(float(at_ms)))
            for job_id, at_ms in zip(found[::2], found[1::2], strict=True)
        ]

    async def leave(self, job_id: str) -> None:
        """Take a job out: it has been mended, or deleted."""
        await self._link.command("ZREM", self._keys.one("quarantine"), job_id)

    async def delete(self, job_id: str) -> bool:
        """Delete a record that cannot be read, with what belongs to it; False where a delivery of it is pending."""
        keys = self._keys
        fields, ids = await self._link.each(
            [("HGET", keys.job(job_id), "pending"), ("LRANGE", keys.deliveries_of(job_id), 0, -1)]
        )
        if isinstance(fields, bytes) and (number(fields) or 0) > 0:
            return False
        for delivery_id in ids if isinstance(ids, list) else ():
            name = delivery_id.decode("utf-8", "replace")
            await self._link.together(("ZREM", keys.deliveries(state), name) for state in STATES)
            await self._link.command("DEL", keys.delivery(name))
        await self.unlist(job_id, _indexes(keys))
        await self._link.together(("ZREM", keys.one(name), job_id) for name in ("quarantine", "ended", "deadlines"))
        of_job = [keys.job(job_id), keys.input(job_id), keys.timeline(job_id), keys.deliveries_of(job_id)]
        await self._link.command("DEL", *of_job)
        return True

    async def unlist(self, job_id: str, indexes: Iterable[str]) -> None:
        """Take a job out of indexes."""
        await self._link.together(("ZREM", index, job_id) for index in indexes)

    async def clear(self) -> int:
        """Move aside what lies in the keys there is one of and has not their type; tell how many keys that were."""
        return await self._clear(_types(self._keys)) + await self._mend_sequence()

    async def clear_of_job(self, job_id: str, webhook_url: str | None, spec: Spec | None = None) -> int:
        """Move aside what lies in a job's keys, in those of where its webhooks go, in the indexes of its models.

        Not its record, nor its input.
        """
        models = [(spec.kind, model) for model in spec.models] if spec else []
        indexes = [self._keys.index(status, *place) for status in Status for place in models]
        return await self._clear({**_types_of_job(self._keys, job_id, webhook_url), **dict.fromkeys(indexes, "zset")})

    async def _clear(self, expected: Mapping[str, str]) -> int:
        """Move aside what is of another type than expected; tell how many keys were, whoever moved them."""
        found = await self._link.together(("TYPE", key) for key in expected)
        wrong = [
            (key, wanted)
            for (key, wanted), kind in zip(expected.items(), found, strict=True)
            if kind not in {b"none", wanted.encode()}
        ]
        for key, wanted in wrong:
            aside = f"{self._keys.prefix}:aside:{key.removeprefix(f'{self._keys.prefix}:')}"
            moved = await self._link.script("set_aside", [key], [wanted, aside, ASIDE_MS])
            if moved:
                kind, name = (part.decode("utf-8", "replace") for part in moved)
                log.error("key.set_aside", key=key, type=kind, kept_as=name)
        return len(wrong)

    async def _mend_sequence(self) -> int:
        """Have the sequence go on above all that is in use, where its key holds less; tell whether it did."""
        keys = self._keys
        indexes = [*_indexes(keys), *(keys.deliveries(state) for state in STATES)]
        number = await self._link.script("mend_sequence", [keys.one("sequence"), keys.one("events"), *indexes], [])
        if number:
            log.error("sequence.restored", goes_on_from=int(number))
        return int(number > 0)


def _indexes(keys: Keys) -> list[str]:
    return [keys.index(status, kind) for status in Status for kind in INDEXED_KINDS]


def _types(keys: Keys) -> dict[str, str]:
    """Name the keys there is one of, with the types they have."""
    wheels = [TRACK_WHEEL, *(submit_wheel(kind) for kind in KINDS)]
    sets: Sequence[str] = [
        *(keys.wheel(name) for name in (*wheels, DELIVER_WHEEL)),
        *(keys.one(name) for name in ("deadlines", "ended", "failing", "quarantine", "jobs")),
        *(keys.deliveries(state) for state in STATES),
        *(key for lane in (SUBMISSIONS, LOOK_UPS) for key in keys.pace(lane)[1:]),
        *_indexes(keys),
    ]
    hashes: Sequence[str] = [
        *(keys.leases(name) for name in (*wheels, DELIVER_WHEEL)),
        *(keys.one(name) for name in ("counters", "gate", "cooldowns", "health", "workers")),
        *(keys.pace(lane)[0] for lane in (SUBMISSIONS, LOOK_UPS)),
    ]
    others = {keys.one("events"): "stream", keys.one("upkeep"): "string", keys.one("sequence"): "string"}
    return {**dict.fromkeys(sets, "zset"), **dict.fromkeys(hashes, "hash"), **others}


def _types_of_job(keys: Keys, job_id: str, webhook_url: str | None) -> dict[str, str]:
    destination = Destination.of(webhook_url or "")
    return {
        keys.timeline(job_id): "list",
        keys.deliveries_of(job_id): "list",
        keys.destination(destination.id): "hash",
        keys.waiting(destination.id): "zset",
        keys.sending(destination.id): "zset",
        f"{keys.prefix}:host:{destination.host}": "hash",
        f"{keys.prefix}:sending-to:{destination.host}": "zset",
        f"{keys.prefix}:queueing-at:{destination.host}": "zset",
    }


def as_json(stored: bytes | None) -> Any:
    """Read a part of a damaged record; None for what is none."""
    try:
        return json.loads(stored or b"null")
    except (ValueError, RecursionError):
        return None
