"""Owns the duty of submitting: from a job that is due to a task id, or to what follows when there is none.

The steps, over one record: read, rule out, write the intent, POST, write what came of it. A crash before the intent
costs nothing; one after it leaves a ``submitting`` job whose claim runs out, and whoever takes it over treats the
submission as of unknown acceptance. A task id that was answered is always stored, whatever happened to the claim.
"""

import json
import random
from dataclasses import replace

from config.log import log
from config.settings import Settings
from jobs import changes, late
from jobs.changes import Change
from jobs.decide import Decision, Park, decide, quota_reset_ms
from jobs.failures import classify, own_failure
from jobs.job import Job, Look, Outcome
from jobs.polling import next_look_ms
from jobs.states import Status
from jobs.verdict import Code, Failure, Signal, Stage
from worker.claims import Claim, Claims
from worker.gateway import Accepted, Gateway, Refused, Unknown
from worker.link import patiently
from worker.store import Applied, Exists, Stale, Store

COOLING_CODE = "daily_request_limit_exceeded"


class Submit:
    """The submit duty. Call it with a claim of a submit wheel."""

    def __init__(self, store: Store, gateway: Gateway, settings: Settings, rng: random.Random) -> None:
        self._store = store
        self._gateway = gateway
        self._settings = settings
        self._rng = rng

    async def __call__(self, claim: Claim, claims: Claims) -> None:
        """Submit the claimed job once, or decide why not."""
        job = await self._store.get(claim.member)
        if job is None or job.ended or job.status is Status.PROCESSING:
            await self._store.release(claim, None)
            return
        failure, outcome = self._objection(job, claims)
        if failure is not None:
            await self._settle(claim, job, failure, outcome)
            return
        body = submission_body(job.model, await self._store.input(job.id))
        job = await self._begin(claim, job)
        if job is None or job.current is None:
            return
        if not claim.held:  # this process or Redis stood still for longer than the lease: another may be at it
            await self._withdraw(job)
            return
        answer = await self._gateway.submit(job.spec.kind, body, idempotency_key=job.current.key, tally=claim.counters)
        match answer:
            case Accepted():
                await self._accept(claim, job, answer)
            case Refused(failure):
                await self._settle(claim, job, failure, Outcome.REFUSED)
            case Unknown(failure):
                await self._settle(claim, job, failure, Outcome.UNKNOWN)

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

    async def _begin(self, claim: Claim, job: Job) -> Job | None:
        patience_ms = round(self._settings.submit_timeout_s * 1000)
        change = changes.begin(job, now_ms=self._store.now_ms(), rev=self._store.new_rev(), patience_ms=patience_ms)
        if isinstance(await patiently(lambda: self._store.apply(change, claim=claim)), Applied):
            return change.after
        await self._store.release(claim, self._store.now_ms())
        return None

    async def _withdraw(self, job: Job) -> None:
        """Take an intent back that was not followed by a POST, unless another has judged it already."""
        change = changes.withdraw(job, now_ms=self._store.now_ms(), rev=self._store.new_rev())
        await patiently(lambda: self._store.apply(change))

    async def _accept(self, claim: Claim, job: Job, answer: Accepted) -> None:
        first_look_ms = next_look_ms(Look(), age_ms=0, settings=self._settings, rng=self._rng)
        change = changes.accept(
            job,
            answer.task_id,
            first_look_ms=first_look_ms,
            now_ms=self._store.now_ms(),
            rev=self._store.new_rev(),
            cost=answer.cost,
        )
        # Logged before it is written: should Redis never come back, the task id of a paid task is still known.
        log.info("task.accepted", job=job.id, model=job.model, task=answer.task_id)
        if not isinstance(await patiently(lambda: self._store.apply(change, claim=claim), whatever=True), Applied):
            await self._keep(claim, job, answer, first_look_ms)

    async def _keep(self, claim: Claim, job: Job, answer: Accepted, first_look_ms: int) -> None:
        """Store a task id although the job has moved on: canceled meanwhile, or taken over."""
        sent = job.current
        assert sent is not None
        while True:
            found = await patiently(lambda: self._store.get(job.id), whatever=True)
            if found is None:
                log.warning("task.kept", job=job.id, task=answer.task_id, note="the job's record is gone")
                return
            if any(attempt.task_id == answer.task_id for attempt in found.attempts):
                return  # it had been written, only the answer to the writing was lost
            change = late.keep_task(
                found,
                sent,
                answer.task_id,
                first_look_ms=first_look_ms,
                now_ms=self._store.now_ms(),
                rev=self._store.new_rev(),
                cost=answer.cost,
            )
            change = replace(change, counters=(*change.counters, *claim.counters))
            if isinstance(await self._insist(change), Applied):
                log.warning("task.kept", job=job.id, task=answer.task_id)
                return

    async def _insist(self, change: Change) -> Applied | Exists | Stale:
        return await patiently(lambda: self._store.apply(change), whatever=True)

    async def _settle(self, claim: Claim, job: Job, failure: Failure, outcome: Outcome | None) -> None:
        now_ms = self._store.now_ms()
        rev = self._store.new_rev()
        if rescue := late.rescued(job, outcome=outcome, failure=failure, now_ms=now_ms, rev=rev):
            if isinstance(await patiently(lambda: self._store.apply(rescue, claim=claim)), Stale):
                await self._store.abandon(claim)
            return
        decision = decide(job, failure, self._settings, now_ms=now_ms, rng=self._rng)
        change = changes.settle(job, failure, decision, outcome=outcome, now_ms=now_ms, rev=self._store.new_rev())
        change = self._with_cooldown(change, job, failure, decision, outcome)
        result = await patiently(lambda: self._store.apply(change, claim=claim))
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
            if change is None or isinstance(await self._insist(change), Applied):
                return

    def _with_cooldown(
        self, change: Change, job: Job, failure: Failure, decision: Decision, outcome: Outcome | None
    ) -> Change:
        """Have the fleet spare a model that has just said it is at its limit."""
        if failure.code is not Code.MODEL_QUOTA_EXCEEDED or outcome is None:
            return change
        until_ms = (
            decision.at_ms
            if isinstance(decision, Park)
            else quota_reset_ms(failure, self._settings.quota_reset, change.after.updated_at_ms)
        )
        return changes.cooled(change, job.model, until_ms)


def tell_decision(change: Change) -> None:
    """Log what became of a failure, with the note of the job's timeline."""
    note = dict(change.note)
    event = str(note.pop("event"))
    log.info(event, job=change.after.id, **{name: value for name, value in note.items() if value is not None})


def submission_body(model: str, input_json: bytes) -> bytes:
    """Put the model in front of the job's own parameters without reading them again."""
    head = b'{"model":' + json.dumps(model, ensure_ascii=False).encode()
    return head + (b"," if len(input_json) > len(b"{}") else b"") + input_json[1:]
