"""Owns the duty of submitting: from a job that is due to a task id, or to what follows when there is none.

The steps, over one record: read, rule out, write the intent, POST, write what came of it. A crash before the intent
costs nothing; one after it leaves a ``submitting`` job whose claim runs out, and whoever takes it over treats the
submission as of unknown acceptance. A task id that was answered is always stored, whatever happened to the claim.
"""

import json
import random
from functools import partial

from config.log import log
from config.settings import Settings
from jobs import changes, late
from jobs.changes import Change
from jobs.decide import decide, quota_reset_ms
from jobs.failures import classify, own_failure
from jobs.job import Job, Outcome
from jobs.pacing import SUBMISSIONS, Heard, heard
from jobs.states import Status
from jobs.verdict import Code, Failure, Signal, Stage
from worker.acceptances import Acceptances
from worker.claims import Claim, Claims
from worker.gateway import Accepted, Gateway, NotSent, Refused, Unknown
from worker.link import patiently
from worker.store import Applied, Stale, Store, Wait

COOLING_CODE = "daily_request_limit_exceeded"
FIRST_SILENCE_MS, LONGEST_SILENCE_MS = 1_000, 60_000


class Submit:
    """The submit duty. Call it with a claim of a submit wheel."""

    def __init__(
        self, store: Store, gateway: Gateway, acceptances: Acceptances, settings: Settings, rng: random.Random
    ) -> None:
        self._store = store
        self._gateway = gateway
        self._acceptances = acceptances
        self._settings = settings
        self._rng = rng

    async def __call__(self, claim: Claim, claims: Claims) -> None:
        """Submit the claimed job once, or decide why not; whatever became of the claim, what was heard is told."""
        if not await self._submit(claim, claims):
            await self._store.fleet.unsent(claims.now_ms, self._settings.requests_per_minute, is_probe=claims.held)
        await self._store.tell(claim)

    async def _submit(self, claim: Claim, claims: Claims) -> bool:
        """Take the steps; tell whether a POST went out."""
        job = await self._store.get(claim.member)
        if job is None or job.ended or job.status is Status.PROCESSING:
            await self._store.release(claim, None)
            return False
        failure, outcome = self._objection(job, claims)
        if failure is not None:
            await self._settle(claim, job, failure, outcome, claims)
            return False
        body = submission_body(job.model, await self._store.input(job.id))
        if not await self._may_resend(claim, job):
            return False
        job = await self._begin(claim, job, is_hold_probe=claims.held)
        if job is None or job.current is None:
            return False
        answer = await self._gateway.submit(
            job.spec.kind,
            body,
            idempotency_key=job.current.key,
            may_send=lambda: claim.held,
            tally=claim.counters,
        )
        match answer:
            case NotSent():  # this process or Redis stood still for longer than the lease: another may be at it
                claim.heard = Heard(SUBMISSIONS, "lost", job.model)
                await self._withdraw(job)
                return False
            case Accepted():
                claim.heard = heard(SUBMISSIONS, None, model=job.model)
                await self._acceptances.record(claim, job, answer)
            case Refused(failure):
                claim.heard = heard(SUBMISSIONS, failure, model=job.model)
                await self._settle(claim, job, failure, Outcome.REFUSED, claims)
            case Unknown(failure):
                claim.heard = heard(SUBMISSIONS, failure, model=job.model)
                await self._settle(claim, job, failure, Outcome.UNKNOWN, claims)
        return True

    def _objection(self, job: Job, claims: Claims) -> tuple[Failure | None, Outcome | None]:
        """Name what stands against submitting at all, and how it ends an attempt that was begun."""
        if job.status is Status.SUBMITTING:
            words = "the worker that was submitting died: the gateway may have accepted"
            return own_failure(Code.SUBMIT_UNKNOWN, words), Outcome.UNKNOWN
        if claims.now_ms >= job.deadline_at_ms:
            return own_failure(Code.DEADLINE_EXCEEDED, "the job's deadline passed before a submission"), None
        until_ms = claims.cooldowns.get(job.model, 0)
        if until_ms > claims.now_ms:
            words = f"{job.model} is at its limit; nothing was sent"
            wait_s = (until_ms - claims.now_ms) / 1000
            return classify(Signal(Stage.SUBMIT, 429, COOLING_CODE, words, retry_after_s=wait_s)), None
        return None, None

    async def _may_resend(self, claim: Claim, job: Job) -> bool:
        """Let a submission of unknown acceptance be sent again only when the gateway has answered something since.

        Until then the claim goes back, each time for as long as the silence has lasted.
        """
        last = job.attempts[-1] if job.attempts else None
        if last is None or last.outcome is not Outcome.UNKNOWN or last.ended_at_ms is None:
            return True
        silence_ms = self._store.now_ms() - last.ended_at_ms
        if await self._gateway.answers(within_s=silence_ms / 1000, tally=claim.counters):
            return True
        gap_ms = min(max(silence_ms, FIRST_SILENCE_MS), LONGEST_SILENCE_MS)
        await self._store.release(claim, min(self._store.now_ms() + gap_ms, job.deadline_at_ms))
        return False

    async def _begin(self, claim: Claim, job: Job, *, is_hold_probe: bool) -> Job | None:
        patience_ms = round(self._settings.submit_timeout_s * 1000)
        change = changes.begin(job, now_ms=self._store.now_ms(), rev=self._store.new_rev(), patience_ms=patience_ms)
        match await patiently(lambda: self._store.apply(change, claim=claim, is_hold_probe=is_hold_probe)):
            case Applied(_, number):
                claim.number = number
                return change.after
            case Wait(until_ms):
                await self._store.release(claim, min(until_ms, job.deadline_at_ms))
            case _:
                await self._store.release(claim, self._store.now_ms())
        return None

    async def _withdraw(self, job: Job) -> None:
        """Take an intent back that was not followed by a POST, unless another has judged it already."""
        change = changes.withdraw(job, now_ms=self._store.now_ms(), rev=self._store.new_rev())
        await patiently(lambda: self._store.apply(change))

    async def _settle(self, claim: Claim, job: Job, failure: Failure, outcome: Outcome | None, claims: Claims) -> None:
        now_ms = self._store.now_ms()
        rev = self._store.new_rev()
        if rescue := late.rescued(job, outcome=outcome, failure=failure, now_ms=now_ms, rev=rev):
            if isinstance(await patiently(lambda: self._store.apply(rescue, claim=claim)), Stale):
                await self._store.abandon(claim)
            return
        decision = decide(job, failure, self._settings, now_ms=now_ms, rng=self._rng, cooldowns=claims.cooldowns)
        change = changes.settle(job, failure, decision, outcome=outcome, now_ms=now_ms, rev=self._store.new_rev())
        if failure.code is Code.MODEL_QUOTA_EXCEEDED and outcome is not None:  # it has just said so itself
            was_due = claims.cooldowns.get(job.model, now_ms + 1) <= now_ms
            until_ms = quota_reset_ms(failure, self._settings.quota_reset, now_ms, was_due=was_due)
            change = changes.cooled(change, job.model, until_ms)
        is_probe = claims.held and outcome is not None
        result = await patiently(lambda: self._store.apply(change, claim=claim, is_hold_probe=is_probe))
        if isinstance(result, Stale):
            await self._store.abandon(claim)
            await self._note_refusal(job, failure, outcome)
            return
        tell_decision(change)

    async def _note_refusal(self, job: Job, failure: Failure, outcome: Outcome | None) -> None:
        """Note that a submission was refused which was canceled, or taken for lost, while its answer was under way."""
        sent = job.current
        if sent is None or outcome is not Outcome.REFUSED:
            return
        while found := await patiently(lambda: self._store.get(job.id)):
            now_ms, rev = self._store.now_ms(), self._store.new_rev()
            change = late.note_refusal(found, sent, failure, now_ms=now_ms, rev=rev)
            if change is None or isinstance(
                await patiently(partial(self._store.apply, change), whatever=True), Applied
            ):
                return


def tell_decision(change: Change) -> None:
    """Log what became of a failure, with the note of the job's timeline."""
    note = dict(change.note)
    event = str(note.pop("event"))
    log.info(event, job=change.after.id, **{name: value for name, value in note.items() if value is not None})


def submission_body(model: str, input_json: bytes) -> bytes:
    """Put the model in front of the job's own parameters without reading them again."""
    head = b'{"model":' + json.dumps(model, ensure_ascii=False).encode()
    return head + (b"," if len(input_json) > len(b"{}") else b"") + input_json[1:]
