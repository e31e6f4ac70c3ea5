"""Owns the duty of tracking: one look at one task, and what follows from it.

No slot is held while a task runs: between two looks it is only an entry of the track wheel. A refused look says nothing
about the task and never ends it at once. A task is given up by time only on a look that succeeded and still says
running. What was given up is looked at rarely until it ends, since it is paid for.
"""

import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from config.log import log
from config.models import Models
from config.settings import Settings
from jobs import changes, late, partial
from jobs.changes import Change
from jobs.decide import Fail, decide
from jobs.expiry import expires_at_ms
from jobs.failures import believed, classify, own_failure
from jobs.job import Attempt, Job, Look, Outcome, rfc3339
from jobs.pacing import LOOK_UPS, heard
from jobs.polling import clear, late_lifetime_ms, late_look_ms, next_look_ms, refused, weigh
from jobs.states import Status
from jobs.verdict import Code, Failure, Patience
from worker.answers import Done, LookRefused, Running, TaskFailed
from worker.claims import Claim, Claims
from worker.gateway import Gateway
from worker.keys import read_track_member
from worker.link import patiently
from worker.store import Applied, Store
from worker.submit import tell_decision
from worker.unrecognised import Unrecognised

UNTOLD_LIFETIMES = 7  # for so much longer a task given up is looked at while no look-up succeeds
# Assumed: an error that speaks of the generation in place of the task's state is believed when it is said again, so
# long apart; one that comes as a server error much later, since a refused look-up says nothing about a task.
DOUBTFUL_PATIENCE, REFUSAL_PATIENCE = Patience(2, 10.0), Patience(10, 300.0)


class Track:
    """The track duty. Call it with a claim of the track wheel."""

    def __init__(self, store: Store, gateway: Gateway, settings: Settings, models: Models, rng: random.Random) -> None:
        self._store = store
        self._gateway = gateway
        self._settings = settings
        self._models = models
        self._rng = rng
        self._words_seen: set[str] = set()
        self._unrecognised = Unrecognised()

    async def __call__(self, claim: Claim, _claims: Claims) -> None:
        """Look once at the claimed task."""
        try:
            number, job_id = read_track_member(claim.member)
        except ValueError:
            await self._store.release(claim, None)
            return
        job = await self._store.get(job_id)
        attempt = job.attempt(number) if job else None
        if job is not None and attempt is not None and attempt.may_be_answered:
            await self._await_answer(claim, job, attempt)
            return
        if job is None or attempt is None or attempt.task_id is None or not attempt.watched:
            await self._store.release(claim, None)
            return
        answer = await self._gateway.look(
            job.spec.kind,
            attempt.task_id,
            text_output=attempt.model in self._models.text_models,
            tally=claim.counters,
        )
        refusal = classify(answer.signal) if isinstance(answer, LookRefused) else None
        told = heard(LOOK_UPS, refusal)
        if claim.limited or told.what == "refused":
            claim.heard = told
        if job.current is attempt and job.status is Status.PROCESSING:
            await self._follow(claim, job, attempt, answer)
        else:
            await self._follow_late(claim, job, attempt, answer)

    # --- the task a job waits for

    async def _follow(
        self, claim: Claim, job: Job, attempt: Attempt, answer: Running | Done | TaskFailed | LookRefused
    ) -> None:
        look = changes.look_of(job, attempt.number)
        match answer:
            case Running(word, urls):
                self._tell_word(word, attempt)
                await self._still_running(claim, job, attempt, clear(look), urls)
            case Done(cost=cost):
                now_ms, rev = self._store.now_ms(), self._store.new_rev()
                seen, result = _looked(job, attempt, clear(look)), _dated(answer, now_ms)
                change = changes.complete(seen, attempt.number, result, now_ms=now_ms, rev=rev, cost=cost)
                await self._write(claim, change)
            case TaskFailed():
                failure = self._judge(job, attempt, answer)
                await self._weigh(claim, _costing(job, attempt, answer.cost), attempt, look, failure)
            case LookRefused(signal):
                failure = classify(signal)
                if failure.patience is not None:
                    await self._weigh(claim, job, attempt, look, failure)
                else:
                    await self._again(claim, job, attempt, refused(look, failure, self._store.now_ms()))

    def _judge(self, job: Job, attempt: Attempt, answer: TaskFailed) -> Failure:
        """Give the verdict on a failed generation; one that a refusal of the look-up speaks of is doubted."""
        failure = classify(answer.signal)
        self._unrecognised.tell(failure, job_id=job.id, model=attempt.model)
        if answer.doubtful and failure.patience is None:
            is_refusal = (failure.http_status or 0) >= 400
            return replace(failure, patience=REFUSAL_PATIENCE if is_refusal else DOUBTFUL_PATIENCE)
        return failure

    async def _weigh(self, claim: Claim, job: Job, attempt: Attempt, look: Look, failure: Failure) -> None:
        look, certain = weigh(look, failure, self._store.now_ms())
        if certain:
            job = _looked(job, attempt, look)
            await self._settle(claim, job, believed(failure), Outcome.FAILED)
        else:
            await self._again(claim, job, attempt, look)

    async def _still_running(self, claim: Claim, job: Job, attempt: Attempt, look: Look, urls: tuple[str, ...]) -> None:
        limit_s = self._settings.track_timeout_s or self._models.track_timeouts_s.get(job.spec.kind, 3600)
        if self._store.now_ms() - attempt.tracked_from_ms >= limit_s * 1000:
            words = f"the task was still running after {limit_s:g} s of tracking; it is still watched"
            failure = own_failure(Code.GENERATION_TIMEOUT, words)
            await self._settle(claim, _looked(job, attempt, look), failure, Outcome.TIMED_OUT)
        else:
            await self._again(claim, job, attempt, look, urls)

    async def _again(self, claim: Claim, job: Job, attempt: Attempt, look: Look, urls: tuple[str, ...] = ()) -> None:
        """Look again later, unless the job's deadline has passed: then its task becomes a late one.

        ``urls``: what the task shows already; told where it is news.
        """
        now_ms = self._store.now_ms()
        if now_ms >= job.deadline_at_ms:
            words = "the job's deadline passed while the task was running; the task is still watched"
            failure = own_failure(Code.DEADLINE_EXCEEDED, words)
            await self._settle(claim, _looked(job, attempt, look), failure, Outcome.ABANDONED)
            return
        age_ms = now_ms - attempt.tracked_from_ms
        gap_ms = next_look_ms(look, age_ms=age_ms, settings=self._settings, rng=self._rng)
        due_ms = min(now_ms + gap_ms, job.deadline_at_ms)
        if partial.is_news(job, attempt, urls):
            rev = self._store.new_rev()
            change = partial.show(job, attempt, urls, look=look, next_look_at_ms=due_ms, now_ms=now_ms, rev=rev)
            await self._write(claim, change)
        else:
            await patiently(lambda: self._store.release(claim, due_ms, look=look))

    async def _settle(self, claim: Claim, job: Job, failure: Failure, outcome: Outcome) -> None:
        now_ms = self._store.now_ms()
        rev = self._store.new_rev()
        if rescue := late.rescued(job, outcome=outcome, failure=failure, now_ms=now_ms, rev=rev):
            await self._write(claim, rescue)
            return
        decision = decide(job, failure, self._settings, now_ms=now_ms, rng=self._rng)
        if failure.code is Code.DEADLINE_EXCEEDED:
            decision = Fail()
        await self._write(
            claim,
            changes.settle(job, failure, decision, outcome=outcome, now_ms=now_ms, rev=rev),
        )

    async def _write(self, claim: Claim, change: Change) -> None:
        if isinstance(await patiently(lambda: self._store.apply(change, claim=claim)), Applied):
            tell_decision(change)
        else:  # canceled meanwhile, or the claim is another's: look again from the record as it is now
            await self._store.abandon(claim)

    # --- a task that was given up

    async def _await_answer(self, claim: Claim, job: Job, attempt: Attempt) -> None:
        """Close the books on a submission that was given up once its answer cannot come any more."""
        now_ms, until_ms = self._store.now_ms(), attempt.answered_by_ms or 0
        if now_ms < until_ms:
            await self._store.release(claim, until_ms)
        else:
            change = late.give_up_answer(job, attempt.number, now_ms=now_ms, rev=self._store.new_rev())
            await self._write(claim, change)

    async def _follow_late(
        self, claim: Claim, job: Job, attempt: Attempt, answer: Running | Done | TaskFailed | LookRefused
    ) -> None:
        now_ms = self._store.now_ms()
        given_up_ms = now_ms - (attempt.ended_at_ms or attempt.started_at_ms)
        look = changes.look_of(job, attempt.number)
        match answer:
            case Done(cost=cost):
                await self._finish_late(claim, job, attempt, _dated(answer, now_ms), cost, now_ms)
                return
            case TaskFailed():
                failure = self._judge(job, attempt, answer)
                look, certain = weigh(look, failure, now_ms)
                known = attempt.outcome is Outcome.FAILED and failure.patience is not None  # what ended it, once more
                if certain and not known:
                    await self._end_late(claim, job, attempt, "failed", cost=answer.cost, now_ms=now_ms)
                    return
            case LookRefused(signal):
                look = refused(look, classify(signal), now_ms)
            case Running():
                look = clear(look)
        # One refused look says nothing of the task, however long it had not been looked at.
        is_told = not isinstance(answer, LookRefused) or classify(answer.signal).patience is not None
        if given_up_ms >= late_lifetime_ms(attempt) * (1 if is_told else UNTOLD_LIFETIMES):
            await self._end_late(claim, job, attempt, late.last_word(attempt), now_ms=now_ms)
        else:
            due_ms = now_ms + late_look_ms(given_up_ms, self._rng)
            await patiently(lambda: self._store.release(claim, due_ms, look=look))

    async def _finish_late(
        self,
        claim: Claim,
        job: Job,
        attempt: Attempt,
        result: Mapping[str, Any],
        cost: Mapping[str, Any] | None,
        now_ms: int,
    ) -> None:
        """Use a late result, of whatever round, where the job still tries and waits for no other task; else record it.

        What is recorded is announced, and used all the same should that other task come to nothing.
        """
        if job.status in {Status.QUEUED, Status.WAITING}:
            rev = self._store.new_rev()
            change = changes.complete(job, attempt.number, result, now_ms=now_ms, rev=rev, cost=cost)
            await self._write(claim, change)
        else:
            await self._end_late(claim, job, attempt, "succeeded", result, cost=cost, now_ms=now_ms)

    async def _end_late(
        self,
        claim: Claim,
        job: Job,
        attempt: Attempt,
        status: str,
        result: Mapping[str, Any] | None = None,
        *,
        now_ms: int,
        cost: Mapping[str, Any] | None = None,
    ) -> None:
        found = result or {}
        change = late.end_late(
            job,
            attempt.number,
            status=status,
            urls=list(found.get("urls", [])),
            more=found,
            cost=cost,
            now_ms=now_ms,
            rev=self._store.new_rev(),
        )
        await self._write(claim, change)

    def _tell_word(self, word: str | None, attempt: Attempt) -> None:
        """Warn once about each status word nobody knows; the task is taken to be running."""
        if word is not None and word not in self._words_seen and len(self._words_seen) < 1000:
            self._words_seen.add(word)
            log.warning("task.word_unknown", word=word[:100], model=attempt.model)


def _dated(answer: Done, now_ms: int) -> dict[str, Any]:
    """Give a result with when its URLs are expected to stop working."""
    return {**answer.result, "expires_at": rfc3339(expires_at_ms(answer.expiries, now_ms))}


def _looked(job: Job, attempt: Attempt, look: Look) -> Job:
    """Put what the last look saw into the record, so that the attempt's end knows it."""
    return replace(job, looks={**job.looks, attempt.number: look})


def _costing(job: Job, attempt: Attempt, cost: Mapping[str, Any] | None) -> Job:
    """Put what a failed generation cost into the record, where the gateway told."""
    return job if cost is None else job.with_attempt(replace(attempt, cost=cost))
