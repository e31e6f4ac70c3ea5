"""Owns our data in Redis: one typed method for each script, and nothing else touches the keys of ``worker.keys``.

Theory. A job is a hash with a ``rev`` that every write replaces by a new random one. A write names the rev it was
computed from, so that two writers cannot both win, and the same write sent twice (an answer was lost) is recognised by
its own rev and done once. ``apply`` writes a whole ``Change`` in one script: record, wheels, index, counters, events,
deliveries, timeline. A wheel is a sorted set of due times; claiming a member moves its score to the end of the lease
and notes the claim's token beside it, so that work whose holder died is due again by itself. Crash anywhere: what was
written is whole, what was claimed comes back after one lease.

Time is Redis's: each claim brings the server's clock, and between claims it is carried on by ``clock_s``.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from config.log import log
from config.models import Models
from jobs.changes import Change
from jobs.counters import Counter
from jobs.delivering import Schedule
from jobs.job import Job, Look, UnreadableRecord, look_form
from jobs.pacing import SUBMISSIONS
from worker.claims import LEASE_MS, Claim, Claims, Clock, Holder, clock_s
from worker.dispatch import Dispatch
from worker.fleet import Fleet
from worker.housekeeping import Housekeeping
from worker.ids import new_rev
from worker.keys import DELIVER_WHEEL, TRACK_WHEEL, Keys, read_track_member, submit_wheel
from worker.link import STORE_ERRORS, Argument, Link, ReadOnlyReplica, RedisAway, pairs
from worker.listing import Listing
from worker.mending import Mending
from worker.news import News
from worker.outbox import Outbox
from worker.quarantine import Quarantine, as_json
from worker.reading import decode
from worker.record import write_part
from worker.signing_secrets import KeptSecrets
from worker.step import Steps, heard_of

_UPTIME = re.compile(rb"uptime_in_seconds:(\d+)")

REPLY_MS = 60_000  # how long an answer is kept for the caller to fetch


@dataclass(frozen=True, slots=True)
class Applied:
    """The change is written; ``sequence`` is the job's, ``number`` that of the submission which begins with it."""

    sequence: int
    number: int = 0


@dataclass(frozen=True, slots=True)
class Exists:
    """A new job's id is taken, by this job."""

    job: Job
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Stale:
    """The record moved on (``rev``), is gone (``gone``), or the claim is another's (``lease``): nothing was written."""

    why: str


@dataclass(frozen=True, slots=True)
class Wait:
    """A submission is not to begin yet: the fleet has learned something since its claim. Nothing was written."""

    until_ms: int


@dataclass(frozen=True, slots=True)
class Wheels:
    """Wheels of the store as one due-set; ``lane`` is what paces their requests, if anything."""

    store: "Store"
    names: tuple[str, ...]
    lane: str = ""
    requests_per_minute: int = 0

    @property
    def on_due(self) -> dict[str, Callable[[int], None]]:
        """Whom to call when something becomes due."""
        return self.store.on_due

    async def claim(self, limit: int) -> Claims:
        """Claim what is due."""
        return await self.store.claim(
            self.names, limit=limit, lane=self.lane, requests_per_minute=self.requests_per_minute
        )

    async def renew(self, claims: Sequence[Claim]) -> None:
        """Prolong claims."""
        for name in self.names:
            if its := [claim for claim in claims if claim.wheel == name]:
                await self.store.renew(name, its)

    async def release(self, claim: Claim, due_ms: int | None) -> bool:
        """Give a claim back."""
        return await self.store.release(claim, due_ms)


class Store:
    """The only user of our Redis data, with its parts. ``models`` bounds the labels of counters."""

    def __init__(self, link: Link, *, prefix: str, models: Models, schedule: Schedule | None = None) -> None:
        schedule = schedule or Schedule()
        self.keys = Keys(prefix)
        self.outbox = Outbox(link, self.keys)
        self._clock, self._holder = Clock(), Holder()
        self.dispatch = Dispatch(link, self.keys, clock=self._clock, holder=self._holder, schedule=schedule)
        self.fleet = Fleet(link, self.keys, self.dispatch)
        self.listing = Listing(link, self.keys)
        self.news = News(link, self.keys)
        self.quarantine = Quarantine(link, self.keys)
        self.housekeeping = Housekeeping(link, self.keys)
        self.mending = Mending(link, self.keys, self.dispatch, self._holder)
        self.secrets = KeptSecrets(link, self.keys, self.now_ms)
        self._link = link
        self._first_delivery_ms = round(schedule.delays_s[0] * 1000)
        self._steps = Steps(self.keys, models, first_delivery_ms=self._first_delivery_ms)
        self.on_due = self.dispatch.on_due  # wheel -> what to tell of work due at a time

    async def sync_clock(self) -> None:
        """Read Redis's clock, and whether it has only just started."""
        asked_s = clock_s()
        seconds, micros = await self._link.command("TIME")
        self._clock.set(int(seconds) * 1000 + int(micros) // 1000, asked_s=asked_s)
        uptime = _UPTIME.search(await self._link.command("INFO", "server"))
        self._link.interrupted |= uptime is None or int(uptime[1]) * 1000 < LEASE_MS

    async def check_role(self) -> None:
        """Raise ``ReadOnlyReplica`` where Redis takes no writes; one that does not tell is taken for a primary."""
        try:
            told = await self._link.command("INFO", "replication")
        except RedisAway:
            raise
        except STORE_ERRORS:
            return
        if b"role:slave" in told and b"slave_read_only:0" not in told:
            raise ReadOnlyReplica

    async def ping(self) -> None:
        """Ask Redis for a sign of life."""
        await self._link.command("PING")

    @property
    def holder(self) -> str:
        """Name this process in its claims."""
        return self._holder.id

    async def is_left_by_the_living(self, claim: Claim) -> bool:
        """Tell whether a claim was taken over from a worker that goes on: Redis was away, or stood still, meanwhile."""
        former = Holder.of(claim.former)
        return former == self.holder or await self.fleet.is_alive(former, self.now_ms())

    def now_ms(self) -> int:
        """Tell the time by Redis's clock, in milliseconds since 1970."""
        return self._clock.now_ms()

    def new_rev(self) -> str:
        """Make a rev for a change."""
        return new_rev()

    # --- jobs

    async def apply(
        self,
        change: Change,
        *,
        claim: Claim | None = None,
        input_json: bytes = b"",
        announce: bool = False,
        is_hold_probe: bool = False,
    ) -> Applied | Exists | Stale | Wait:
        """Write a change whole or not at all; safe to repeat. ``announce`` wakes workers in other processes.

        ``Wait`` is the answer only to a submission's beginning; ``is_hold_probe`` where it tries a hold, or has.

        Raises ``RedisAway`` when it is unknown whether it was written: repeat it.
        """
        job, before = change.after, change.before
        steps, events = self._steps, self._steps.events(change)
        answer = await self._link.script(
            "apply",
            steps.keys(change, claim, events),
            steps.arguments(
                change, claim, events, input_json=input_json, announce=announce, is_hold_probe=is_hold_probe
            ),
        )
        match answer[0]:
            case b"ok" | b"again":
                if claim is not None:
                    claim.told()
                self._wake(change, deliveries=any(event.delivery for event in events))
                number, news = answer[2:] or (0, b"")
                if news == b"held":
                    log.warning("fleet.held", job=job.id, code=change.lesson.hold)
                elif news:
                    log.info("fleet.resumed", job=job.id)
                return Applied(int(answer[1]), int(number))
            case b"wait":
                return Wait(int(answer[1]))
            case b"exists":
                stored = dict(zip(answer[1::2], answer[2::2], strict=True))
                return Exists(decode(job.id, stored), stored.get(b"fingerprint", b"").decode())
            case _:
                if claim is not None and answer[1] == b"lease":
                    log.warning("lease.lost", job=job.id, wheel=claim.wheel, revision=before and before.rev)
                return Stale(answer[1].decode())

    def _wake(self, change: Change, *, deliveries: bool) -> None:
        if change.submit_at_ms is not None:
            self._call(submit_wheel(change.after.spec.kind), change.submit_at_ms)
        if deliveries:
            self._call(DELIVER_WHEEL, change.after.updated_at_ms + self._first_delivery_ms)
        for at_ms in change.looks.values():
            if at_ms is not None:
                self._call(TRACK_WHEEL, at_ms)

    def _call(self, wheel: str, due_ms: int) -> None:
        if callback := self.on_due.get(wheel):
            callback(due_ms)

    async def get(self, job_id: str) -> Job | None:
        """Read a job; raise ``NewerRecord`` for a newer version's, ``UnreadableRecord`` for a damaged one."""
        (found,) = await self._link.each([("HGETALL", self.keys.job(job_id))])
        if isinstance(found, Exception):
            if "WRONGTYPE" not in str(found):
                raise found
            raise UnreadableRecord(job_id, "something else lies in its place") from found
        return decode(job_id, pairs(found)) if found else None

    async def is_taken_by_others(self, job_id: str) -> bool:
        """Tell whether something that no worker of ours has written lies where a job's record goes."""
        keys = self.keys
        places = {keys.job(job_id): b"hash", keys.input(job_id): b"string", keys.timeline(job_id): b"list",
                  keys.deliveries_of(job_id): b"list"}  # fmt: skip
        found = await self._link.together(("TYPE", key) for key in places)
        return any(kind not in {b"none", ours} for kind, ours in zip(found, places.values(), strict=True))

    async def input(self, job_id: str) -> bytes:
        """Read a job's input as canonical JSON; raise ``UnreadableRecord`` where it is gone."""
        found: bytes | None = await self._link.command("GET", self.keys.input(job_id))
        if not found:
            raise UnreadableRecord(job_id, "its input is gone")
        return found

    async def timeline(self, job_id: str) -> list[dict[str, Any]]:
        """Read what happened to a job, oldest first; what cannot be read is left out."""
        (found,) = await self._link.each([("LRANGE", self.keys.timeline(job_id), 0, -1)])
        lines = [as_json(line) for line in found] if isinstance(found, list) else []
        return [line for line in lines if isinstance(line, dict) and {"at", "event"} <= line.keys()]

    async def count(self, name: str, *labels: str) -> None:
        """Raise a counter that goes with no job."""
        await self._link.command("HINCRBY", self.keys.one("counters"), *self._steps.counter(Counter(name, labels)))

    async def reply(self, token: str, answer: bytes) -> bool:
        """Answer a caller of the arq door, who has a minute to fetch it; False where it has said that it went."""
        return int(await self._link.script("reply", [self.keys.reply(token)], [answer, REPLY_MS])) == 1

    async def counters(self) -> dict[tuple[str, ...], int]:
        """Read all counters: name and labels, and what each has come to."""
        found = pairs(await self._link.command("HGETALL", self.keys.one("counters")))
        return {
            tuple(name.decode("utf-8", "replace").split("|")): int(value)
            for name, value in found.items()
            if value.isdigit()
        }

    # --- wheels

    async def claim(self, wheels: Sequence[str], *, limit: int, lane: str = "", requests_per_minute: int = 0) -> Claims:
        """Claim what is due on the wheels, under a fresh token. ``lane`` is what paces the requests, if anything."""
        token = self._holder.next_token()
        sent_s, interrupted = clock_s(), self._link.interrupted
        keys = [self.keys.one("gate"), self.keys.one("cooldowns"), *self.keys.pace(lane)]
        answered_by_ms = self.now_ms() + LEASE_MS
        for wheel in wheels:
            keys += [self.keys.wheel(wheel), self.keys.leases(wheel)]
        names = [wheel.rpartition(":")[2] for wheel in wheels]
        now, next_due, held, cooldowns, number, limited, *rows = await self._link.script(
            "claim",
            keys,
            [token, limit, LEASE_MS, int(interrupted), lane, requests_per_minute, answered_by_ms, *names],
        )
        if interrupted:
            self._link.interrupted = False
        self._clock.set(int(now), asked_s=sent_s)
        valid_until_s = sent_s + LEASE_MS / 1000
        return Claims(
            tuple(
                Claim(
                    wheels[row[0] - 1],
                    row[1].decode("utf-8", "replace"),
                    token,
                    row[2].decode("utf-8", "replace"),
                    valid_until_s,
                    number=int(number) + position,
                    limited=limited == b"1",
                )
                for position, row in enumerate(rows)
            ),
            int(now),
            int(next_due) if next_due else None,
            held == b"1",
            {
                model.decode("utf-8", "replace"): int(until)
                for model, until in pairs(cooldowns).items()
                if until.isdigit()
            },
        )

    async def tell(self, claim: Claim) -> None:
        """Tell the fleet what became of a submission whose claim was lost meanwhile."""
        if claim.heard is None:
            return
        keys = [self.keys.one("gate"), self.keys.one("cooldowns"), *self.keys.pace(claim.heard.lane)]
        await self._link.script("tell", keys, heard_of(claim))
        claim.heard = None

    async def renew(self, wheel: str, claims: Sequence[Claim]) -> None:
        """Prolong claims by one lease period; those that were lost stay as they are and run out."""
        sent_s = clock_s()
        pairs = [part for claim in claims for part in (claim.member, claim.token)]
        lost = set(
            await self._link.script("renew", [self.keys.wheel(wheel), self.keys.leases(wheel)], [LEASE_MS, *pairs])
        )
        for claim in claims:
            claim.renewed(sent_s, lost=claim.member.encode() in lost)

    async def release(self, claim: Claim, due_ms: int | None, *, look: Look | None = None) -> bool:
        """Give a claim back, due at a time, or off the wheel; ``look`` notes what a look-up saw. Safe to repeat."""
        field_name, value, job_id = "", "", claim.member
        if claim.wheel == TRACK_WHEEL:
            try:
                attempt, job_id = read_track_member(claim.member)
            except ValueError:
                attempt = 0
            if look is not None:
                field_name, value = f"look:{attempt}", write_part(look_form(look))
        keys = [
            self.keys.wheel(claim.wheel), self.keys.leases(claim.wheel), self.keys.job(job_id),
            self.keys.one("counters"), *self.keys.pace(claim.heard.lane if claim.heard else SUBMISSIONS),
        ]  # fmt: skip
        what, _, _, *numbers = heard_of(claim)
        args: list[Argument] = [claim.member, claim.token, "" if due_ms is None else due_ms, field_name, value]
        args += [what, *numbers]
        args += [part for counter in claim.counters for part in self._steps.counter(counter)]
        released = bool(await self._link.script("release", keys, args))
        if released:
            claim.told()
        return released

    async def abandon(self, claim: Claim) -> None:
        """Leave a member to whoever has changed its job meanwhile; what was done under the claim is still counted."""
        if not await self.release(claim, self.now_ms()):
            key = self.keys.one("counters")
            await self._link.together(("HINCRBY", key, *self._steps.counter(counter)) for counter in claim.counters)
            claim.told()

    # --- announcements

    async def listen(self, called: Callable[[], None]) -> NoReturn:
        """Call back whenever another process has made work due; raise ``RedisAway`` when the connection is lost."""
        await self._link.listen(self.keys.one("wake"), called)
