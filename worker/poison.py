"""Owns what becomes of work that crashes whoever is at it: it is tried a few times, then ended, and harms no other.

Theory. An exception of a duty is counted in the record (``crashes``), and so is a holder that died (``deaths``: a lease
that was taken over from a worker that is no longer heard of; one that goes on has only left it behind, as where Redis
was away). Both go with the next step of the job or look at its task, and deaths with each claim that is given back, so
that they count in a row. Between crashes the work waits, ever longer. Work whose holders keep dying is suspect: a
process is at one such piece at a time, so that the one that kills it is found and its neighbours, whose turn has not
come, are not blamed for it. In the end

- a job fails as ``internal_error``, in an orderly step like any other: its caller is told, its task still watched;
- one whose record is damaged fails likewise where at least its spec can be read; what was there is kept in ``damaged``;
- else it is quarantined: off the wheels and indexes, its record left to the operator, its id taken;
- a task that was given up before is looked at no more;
- a delivery is a dead letter.

A record of a newer version is nobody's fault: it is given back at once, for a worker of that version.
"""

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace

from config.log import log
from jobs import late
from jobs.attempts import ended_as, watch
from jobs.changes import Change, settle, shown_failure
from jobs.counters import count
from jobs.decide import Fail
from jobs.failures import own_failure
from jobs.job import Job, NewerRecord, Outcome, Spec, UnreadableRecord, read_spec, readable_attempts
from jobs.states import ENDED, Status
from jobs.verdict import Acceptance, Code
from worker.claims import Claim
from worker.deliver import Deliver
from worker.keys import TRACK_WHEEL, read_track_member
from worker.link import ABSENCE, STORE_ERRORS, unreadable
from worker.quarantine import ANOTHERS, MOST_AT_ONCE, UNCOUNTED, as_json
from worker.record import NewerSchema, check_schema
from worker.signing_secrets import UnreadableSecret
from worker.store import Applied, Store
from worker.submit import tell_decision

PAUSES_MS = (1_000, 5_000, 30_000, 120_000)  # after each crash in a row but the last
MOST_CRASHES = len(PAUSES_MS) + 1
SUSPECT_AT, MOST_DEATHS = 3, 10  # of its holders in a row
NEWER_PAUSE_MS = 2_000
QUARANTINE_EVERY_S = 5.0
UNABLE_PAUSE_MS = 300_000  # where the fault is not the job's own, and it cannot be ended either
SIGNED_AGAIN_MS = 60_000
DAMAGES = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError, AssertionError)


class Bounds(ABC):
    """Bounds how often work is tried that goes wrong; what becomes of it then is its heirs' to say."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._alone = asyncio.Lock()

    @asynccontextmanager
    async def watched(self, claim: Claim) -> AsyncIterator[bool]:
        """Have a claim whose holder died worked on, by itself where it is suspect; give False where it is ended."""
        if not claim.former:
            yield True
            return
        died = not await self._is_left_by_the_living(claim)
        if await self._blame(claim, 0) + died < SUSPECT_AT:
            if died:
                await self._blame(claim, MOST_DEATHS)
            yield True
            return
        async with self._alone:
            deaths = await self._blame(claim, MOST_DEATHS if died else 0)
            if deaths < MOST_DEATHS:
                yield True
                return
            log.error("work.poisoned", wheel=claim.wheel, member=claim.member, deaths=deaths)
            await self.end(claim, f"the worker at it died {deaths} times in a row")
            yield False

    async def crashed(self, claim: Claim, error: Exception) -> None:
        """Put off what has crashed its duty, ever longer, and end it at last."""
        due_ms = self._store.now_ms() + UNABLE_PAUSE_MS
        try:
            due_ms = await self._judged(claim, error) or 0
        except ABSENCE:
            raise
        except Exception:  # noqa: BLE001 - nothing may spin, whatever it is
            log.exception("duty.crashed", wheel=claim.wheel, member=claim.member)
        if due_ms:
            await self.release(claim, due_ms)

    async def _judged(self, claim: Claim, error: Exception) -> int | None:
        """Say when a claim is due again; None where it has been ended, or is another's."""
        now_ms = self._store.now_ms()
        if isinstance(error, NewerRecord):
            return now_ms + NEWER_PAUSE_MS
        if isinstance(error, UnreadableSecret):
            return now_ms + SIGNED_AGAIN_MS
        if _is_wrong_type(error) and await self._clear(claim):
            return now_ms + PAUSES_MS[0]
        return await self._bounded(claim, error)

    async def _bounded(self, claim: Claim, error: Exception) -> int | None:
        times = await self._store.quarantine.blame(claim, self.record(claim), "crashes", most=MOST_CRASHES)
        if times == ANOTHERS:
            return None
        if 0 < times < MOST_CRASHES:
            return self._store.now_ms() + PAUSES_MS[times - 1]
        what = (
            f"its record cannot be read ({error.why})" if isinstance(error, UnreadableRecord) else type(error).__name__
        )
        log.error("work.poisoned", wheel=claim.wheel, member=claim.member, crashes=max(times, 1), why=what)
        await self.end(claim, f"this side crashed at it {max(times, 1)} times in a row: {what}; its log has more")
        return None

    async def _is_left_by_the_living(self, claim: Claim) -> bool:
        try:
            return await self._store.is_left_by_the_living(claim)
        except ABSENCE:
            raise
        except STORE_ERRORS:
            return False

    async def _blame(self, claim: Claim, most: int) -> int:
        try:
            return await self._store.quarantine.blame(claim, self.record(claim), "deaths", most=most)
        except ABSENCE:
            raise
        except STORE_ERRORS:
            return UNCOUNTED

    async def _clear(self, claim: Claim) -> int:
        """Move aside what lies in place of our keys; tell how many those were."""
        cleared = await self._store.quarantine.clear()
        with contextlib.suppress(UnreadableRecord, *STORE_ERRORS):
            cleared += await self._store.quarantine.clear_of_job(*await self.place(claim))
        return cleared

    @abstractmethod
    async def place(self, claim: Claim) -> tuple[str, str | None, Spec | None]:
        """Name the job a claim is of, where its webhooks go, and what was asked, where that is known."""

    @abstractmethod
    def record(self, claim: Claim) -> str:
        """Name the key of the record a claim is of."""

    @abstractmethod
    async def release(self, claim: Claim, due_ms: int | None) -> None:
        """Give a claim back."""

    @abstractmethod
    async def end(self, claim: Claim, why: str) -> None:
        """End what a claim is of."""


class JobBounds(Bounds):
    """Bounds the duties of submitting and tracking."""

    def record(self, claim: Claim) -> str:
        """Name the job's key."""
        return self._store.keys.job(_job_id(claim)[1])

    async def place(self, claim: Claim) -> tuple[str, str | None, Spec | None]:
        """Name the job."""
        job = await self._store.get(_job_id(claim)[1])
        return _job_id(claim)[1], job.spec.webhook_url if job else None, job.spec if job else None

    async def release(self, claim: Claim, due_ms: int | None) -> None:
        """Give a claim back."""
        await self._store.release(claim, due_ms)

    async def end(self, claim: Claim, why: str) -> None:
        """Fail the claimed job, or have its late task be looked at no more."""
        number, job_id = _job_id(claim)
        await end_job(self._store, job_id, why, claim=claim, number=number)


class DeliveryBounds(Bounds):
    """Bounds the duty of delivering: a crash is a failed attempt of the delivery's schedule."""

    def __init__(self, store: Store, deliver: Deliver) -> None:
        super().__init__(store)
        self._deliver = deliver

    def record(self, claim: Claim) -> str:
        """Name the delivery's key."""
        return self._store.keys.delivery(claim.member)

    async def place(self, claim: Claim) -> tuple[str, str | None, Spec | None]:
        """Name the delivery's job and its URL."""
        delivery = await self._store.outbox.delivery(claim.member)
        return (delivery.job_id, delivery.url, None) if delivery else ("", None, None)

    async def release(self, claim: Claim, due_ms: int | None) -> None:
        """Give a claim back."""
        await self._store.dispatch.release(claim, due_ms)

    async def end(self, claim: Claim, why: str) -> None:
        """Have the delivery be a dead letter."""
        try:
            await self._deliver.give_up(claim, why)
        except ABSENCE:
            raise
        except (UnreadableRecord, *STORE_ERRORS, *DAMAGES) as error:
            unreadable("delivery", claim.member, error)
            await self._store.quarantine.bury(claim.member)
            await self.release(claim, None)

    async def _bounded(self, claim: Claim, error: Exception) -> int | None:
        if not isinstance(error, (UnreadableRecord, *STORE_ERRORS)):
            with contextlib.suppress(UnreadableRecord, *STORE_ERRORS, *DAMAGES):
                await self._deliver.fail(claim, f"this side crashed: {type(error).__name__}")
                return None
        return await super()._bounded(claim, error)


async def end_job(store: Store, job_id: str, why: str, *, claim: Claim | None = None, number: int = 0) -> None:
    """End a job that cannot be gone on with; ``number`` is the attempt whose task it was about, 0 for none.

    Raises where it can neither be ended nor is its record to blame.
    """
    try:
        job = await store.get(job_id)
    except (NewerRecord, *ABSENCE):
        raise
    except (UnreadableRecord, *STORE_ERRORS) as error:
        await _salvage(store, job_id, error.why if isinstance(error, UnreadableRecord) else str(error), claim)
        return
    if job is None:
        if claim is not None:
            await store.release(claim, None)
        return
    await store.quarantine.clear_of_job(job_id, job.spec.webhook_url, job.spec)
    try:
        change = _ending(job, number, why, now_ms=store.now_ms(), rev=store.new_rev())
        if change is None:
            await _let_go(store, claim)
        elif isinstance(await store.apply(change, claim=claim), Applied):
            tell_decision(change)
        else:
            await _let_go(store, claim, due_ms=store.now_ms() + PAUSES_MS[0])
    except DAMAGES as error:
        if job.ended:
            log.error("work.poisoned", job=job_id, attempt=number, why=f"{type(error).__name__}: {error}")
            await _unwatch(store, job, number, claim)
            return
        await _salvage(store, job_id, f"{type(error).__name__}: {error}", claim)


async def _unwatch(store: Store, job: Job, number: int, claim: Claim | None) -> None:
    """Have a late task be over in its record as well, or it would be put back on its wheel for ever."""
    attempt = job.attempt(number)
    if attempt is not None and (attempt.watched or attempt.may_be_answered):
        now_ms = store.now_ms()
        after = late.end_late(job, number, status="unknown", urls=[], now_ms=now_ms, rev=store.new_rev()).after
        if not await store.quarantine.unwatch(job, after, number):
            await _let_go(store, claim, due_ms=now_ms + PAUSES_MS[0])
            return
    await _let_go(store, claim)


async def _let_go(store: Store, claim: Claim | None, due_ms: int | None = None) -> None:
    if claim is not None:
        await store.release(claim, due_ms)


def _ending(job: Job, number: int, why: str, *, now_ms: int, rev: str) -> Change | None:
    """Say how a job ends of what it did to its workers; None where nothing of it is left to end."""
    attempt = job.attempt(number)
    if number and (job.ended or attempt is None or attempt is not job.current):
        known = attempt is not None and (attempt.watched or attempt.may_be_answered)
        return late.end_late(job, number, status="unknown", urls=[], now_ms=now_ms, rev=rev) if known else None
    if job.ended or (job.status is Status.PROCESSING) != (number > 0):
        return None
    outcome = {Status.PROCESSING: Outcome.ABANDONED, Status.SUBMITTING: Outcome.UNKNOWN}.get(job.status)
    failure = own_failure(Code.INTERNAL_ERROR, why)
    if outcome is Outcome.UNKNOWN:
        failure = replace(failure, acceptance=Acceptance.UNKNOWN)
    rescue = late.rescued(job, outcome=outcome, failure=failure, now_ms=now_ms, rev=rev)
    return rescue or settle(job, failure, Fail(), outcome=outcome, now_ms=now_ms, rev=rev)


async def _salvage(store: Store, job_id: str, why: str, claim: Claim | None) -> None:
    """Fail a job whose record is damaged, by what can be read of it; quarantine it where that is not enough."""
    failed = False
    try:
        stored = await store.quarantine.raw(job_id)
        if stored:
            if _is_newer(stored.get(b"schema", b"0")):
                raise NewerRecord(job_id)
            failed = await _failed(store, job_id, stored, why, claim)
    except ABSENCE:
        raise
    except (*STORE_ERRORS, *DAMAGES) as error:
        unreadable("job", job_id, f"{type(error).__name__}: {error}")
    if failed:
        return
    await store.quarantine.clear()
    member = claim.member if claim is not None and claim.wheel == TRACK_WHEEL else ""
    if await store.quarantine.take(job_id, member, store.now_ms()):
        log.error("job.quarantined", job=job_id, why=why)
    if claim is not None:
        await store.release(claim, None)


async def _failed(store: Store, job_id: str, stored: Mapping[bytes, bytes], why: str, claim: Claim | None) -> bool:
    """Write a failed job over a damaged record, with those of its attempts that can be read."""
    spec = read_spec(job_id, as_json(stored[b"spec"]))
    status = stored.get(b"status", b"").decode()
    known = Status(status) if status in list(Status) else Status.QUEUED
    if known in ENDED:  # its caller has been told
        return False
    now_ms = store.now_ms()
    words = f"the job's record was damaged, and what was there is kept in its field 'damaged': {why}"
    failure = shown_failure(own_failure(Code.INTERNAL_ERROR, words))
    await store.quarantine.clear_of_job(job_id, spec.webhook_url, spec)
    rev = await store.quarantine.keep(job_id, stored, store.new_rev())
    for attempts in (readable_attempts(as_json(stored.get(b"state"))), ()):
        before = Job(spec, rev, known, now_ms, deadline_at_ms=now_ms, attempts=attempts)
        after = replace(before, rev=store.new_rev(), status=Status.FAILED, completed_at_ms=now_ms, failure=failure)
        looks: dict[int, int | None] = {}
        for attempt in attempts:
            if attempt.outcome is None:
                outcome = Outcome.ABANDONED if attempt.task_id else Outcome.UNKNOWN
                ended = ended_as(after, attempt, outcome, now_ms, failure=failure)
                after, looks = after.with_attempt(ended), {**looks, **watch(ended, now_ms)}
        note = {"event": "job.failed", "model": after.model, "code": failure["code"], "message": words}
        counters = (count("failures_total", after.model, failure["code"]),)
        change = Change(before, after, None, note, ("job.failed",), counters, looks=looks)
        try:
            result = await store.apply(change)
        except DAMAGES:
            continue
        if not isinstance(result, Applied):
            return False
        elsewhere = [status for status in Status if status is not Status.FAILED]
        places = [(status, spec.kind, model) for status in elsewhere for model in (None, *spec.models)]
        await store.quarantine.unlist(job_id, (store.keys.index(*place) for place in places))
        if claim is not None and claim.wheel == TRACK_WHEEL:
            await store.release(claim, None)
        tell_decision(change)
        return True
    return False


def _is_newer(schema: bytes) -> bool:
    try:
        check_schema(schema)
    except NewerSchema:
        return True
    except ValueError:
        return False
    return False


def _job_id(claim: Claim) -> tuple[int, str]:
    """Read attempt number, 0 on a submit wheel, and job id out of a claim."""
    if claim.wheel != TRACK_WHEEL:
        return 0, claim.member
    try:
        return read_track_member(claim.member)
    except ValueError:
        return 0, claim.member


def _is_wrong_type(error: Exception) -> bool:
    return isinstance(error, STORE_ERRORS) and ("WRONGTYPE" in str(error) or "wrong kind of value" in str(error))


class Quarantined:
    """Looks after what lies in quarantine: what has been mended goes, and what has lain there for long enough."""

    def __init__(self, store: Store, *, retention_s: float) -> None:
        self._store = store
        self._retention_ms = round(retention_s * 1000)
        self._skip = 0  # how many stay of those that have lain there longer than what is looked at next

    async def run_once(self, now_ms: int) -> int:
        """Look through some of it; return how many have gone. First what lies in place of our keys is moved aside."""
        quarantine = self._store.quarantine
        await quarantine.clear()
        found, gone = await quarantine.oldest(self._skip), 0
        for job_id, since_ms in found:
            if await self._is_done_with(job_id, since_ms, now_ms):
                await quarantine.leave(job_id)
                gone += 1
        self._skip = self._skip + len(found) - gone if len(found) == MOST_AT_ONCE else 0
        return gone

    async def _is_done_with(self, job_id: str, since_ms: int, now_ms: int) -> bool:
        """Whether a job has been mended or is gone; one that has lain there for long enough is deleted."""
        try:
            await self._store.get(job_id)
        except NewerRecord:
            return False
        except ABSENCE:
            raise
        except (UnreadableRecord, *STORE_ERRORS):
            return since_ms <= now_ms - self._retention_ms and await self._store.quarantine.delete(job_id)
        return True
