"""Random lives of a job: whatever happens in whatever order, the promises of the state machine hold."""

from dataclasses import replace
from itertools import count
from random import Random

from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from config.settings import Settings
from jobs import changes, late, partial
from jobs.changes import Change
from jobs.decide import decide
from jobs.failures import classify, own_failure
from jobs.job import Attempt, Job, Look, Outcome, Spec, from_form, look_form, to_form
from jobs.places import places
from jobs.states import ENDED, LIVE, TRANSITIONS, Status
from jobs.verdict import Acceptance, Failure, Signal, Stage, Transport
from jobs.verdict import Code as FailureCode
from worker.record import read_record, view, write_part
from worker.step import Steps

TERMINAL_EVENTS = {"job.completed", "job.failed", "job.canceled"}
STATUSES = [400, 401, 402, 403, 404, 413, 422, 429, 500, 502, 503, 504]
CODES = [None, "insufficient_balance", "model_blocked", "daily_request_limit_exceeded", "monthly_token_limit_exceeded"]
WORDS = [
    None,
    "Generation failed",
    "prompt flagged as violating content policies",
    "timeout",
    "must be between 1 and 5",
]


def stored(job: Job) -> dict[bytes, bytes]:
    """Write a record the way the store does."""
    form = to_form(job)
    fields = {
        "schema": "1", "rev": job.rev, "status": str(job.status), "spec": write_part(form["spec"]),
        "state": write_part(form["state"]),
        **{f"look:{n}": write_part(look_form(look)) for n, look in job.looks.items()},
    }  # fmt: skip
    if job.result is not None:
        fields["result"] = write_part(job.result)
    return {name.encode(): value.encode() for name, value in fields.items()}


class Life(RuleBasedStateMachine):
    """One job under random events; ``self.now_ms`` only grows."""

    @initialize(
        fallbacks=st.integers(0, 3),
        max_attempts=st.integers(1, 6),
        unknown=st.sampled_from(["retry", "fail"]),
        account=st.sampled_from(["fail", "hold"]),
        deadline_s=st.sampled_from([30, 3600, 172800]),
    )
    def begin_life(self, fallbacks: int, max_attempts: int, unknown: str, account: str, deadline_s: int) -> None:
        """Create a job."""
        self.settings = Settings.from_env({"ACCOUNT_ERRORS": account})
        self.rng = Random(7)
        self.revs = (f"r{n}" for n in count())
        self.now_ms = 1_800_000_000_000
        self.terminal_events = 0
        self.rounds_ended = 0
        self.submissions = 0
        self.sent: list[Attempt] = []
        models = tuple(f"m{n}" for n in range(fallbacks + 1))
        spec = Spec("j", "music", models, "f", self.now_ms, deadline_s * 1000, max_attempts, unknown)
        change = changes.create(spec, now_ms=self.now_ms, rev=next(self.revs))
        self.job = change.after
        self.is_on_submit_wheel = Steps._submit_wheel(change) == self.now_ms
        self.on_track_wheel = set[int]()

    def take(self, change: Change) -> None:
        """Apply a change as the store would, and check what must hold of every change."""
        before = change.before
        assert before is self.job
        if change.event is not None:
            assert change.after.status is TRANSITIONS[before.status][change.event]
        else:
            assert change.after.status is before.status
        ends = TERMINAL_EVENTS & set(change.webhooks)
        assert bool(ends) == (before.status in LIVE and change.after.status in ENDED)
        self.terminal_events += len(ends)
        if change.after.status in ENDED and before.status in LIVE:
            self.rounds_ended += 1
        looks = {**change.after.looks}
        for number, at_ms in change.looks.items():
            if at_ms is None:
                looks.pop(number, None)
        self.job = replace(change.after, looks=looks)
        for number, at_ms in change.looks.items():
            (self.on_track_wheel.discard if at_ms is None else self.on_track_wheel.add)(number)
        if (submit := Steps._submit_wheel(change)) != "keep":
            self.is_on_submit_wheel = submit != "remove"

    def at(self) -> dict[str, object]:
        """Give the time and a rev for the next change."""
        return {"now_ms": self.now_ms, "rev": next(self.revs)}

    @rule(ms=st.integers(1, 40_000))
    def time_passes(self, ms: int) -> None:
        """Let time pass."""
        self.now_ms += ms

    @precondition(lambda self: self.job.status in {Status.QUEUED, Status.WAITING})
    @rule()
    def submit(self) -> None:
        """Begin an attempt when the job is due."""
        self.now_ms = max(self.now_ms, self.job.next_action_at_ms or 0)
        self.take(changes.begin(self.job, **self.at()))
        self.submissions += 1
        assert self.job.current is not None
        self.sent.append(self.job.current)

    @precondition(lambda self: self.job.status is Status.SUBMITTING)
    @rule()
    def accepted(self) -> None:
        """Have the gateway accept."""
        self.take(changes.accept(self.job, f"t{self.submissions}", first_look_ms=2000, **self.at()))

    @precondition(lambda self: self.job.status is Status.SUBMITTING)
    @rule()
    def withdrawn(self) -> None:
        """Take the intent back before anything was sent."""
        self.take(changes.withdraw(self.job, **self.at()))

    def settle(self, failure: Failure, outcome: Outcome | None) -> None:
        """Decide and carry out."""
        decision = decide(self.job, failure, self.settings, now_ms=self.now_ms, rng=self.rng)
        self.take(changes.settle(self.job, failure, decision, outcome=outcome, **self.at()))
        if self.job.next_action_at_ms is not None:
            assert self.job.next_action_at_ms < self.job.deadline_at_ms

    @precondition(lambda self: self.job.status is Status.SUBMITTING)
    @rule(status=st.sampled_from(STATUSES), code=st.sampled_from(CODES), enveloped=st.booleans())
    def refused(self, status: int, code: str | None, enveloped: bool) -> None:  # noqa: FBT001
        """Have the gateway refuse, or answer so that nobody knows."""
        failure = classify(Signal(Stage.SUBMIT, status, code, enveloped=enveloped))
        self.settle(failure, Outcome.UNKNOWN if failure.acceptance is Acceptance.UNKNOWN else Outcome.REFUSED)

    @precondition(lambda self: self.job.status is Status.SUBMITTING)
    @rule(transport=st.sampled_from(list(Transport)))
    def network_failed(self, transport: Transport) -> None:
        """Have the network fail."""
        failure = classify(Signal(Stage.SUBMIT, transport=transport, enveloped=False))
        self.settle(failure, Outcome.UNKNOWN if failure.acceptance is Acceptance.UNKNOWN else Outcome.REFUSED)

    @precondition(lambda self: self.job.status is Status.PROCESSING)
    @rule(code=st.sampled_from([None, "500", "422", "1501"]), words=st.sampled_from(WORDS))
    def generation_failed(self, code: str | None, words: str | None) -> None:
        """Have the generation fail."""
        self.settle(classify(Signal(Stage.RESULT, 200, code, words)), Outcome.FAILED)

    @precondition(lambda self: self.job.status is Status.PROCESSING)
    @rule()
    def timed_out(self) -> None:
        """Track for as long as allowed."""
        self.settle(own_failure(FailureCode.GENERATION_TIMEOUT, "too long"), Outcome.TIMED_OUT)

    @precondition(lambda self: self.job.status is Status.PROCESSING)
    @rule()
    def done(self) -> None:
        """Have the generation end well."""
        current = self.job.current
        assert current is not None
        self.take(changes.complete(self.job, current.number, {"urls": ["https://x.test/1"]}, **self.at()))

    @precondition(lambda self: self.job.status in LIVE)
    @rule()
    def canceled(self) -> None:
        """Cancel."""
        self.take(changes.cancel(self.job, **self.at()))

    @precondition(lambda self: self.job.status in {Status.FAILED, Status.CANCELED})
    @rule()
    def retried(self) -> None:
        """Retry by hand."""
        self.take(changes.retry(self.job, **self.at()))

    @precondition(lambda self: any(a.watched and a is not self.job.current for a in self.job.attempts))
    @rule(status=st.sampled_from(["succeeded", "failed", "unknown"]))
    def late(self, status: str) -> None:
        """Have a task end that had been given up."""
        attempt = next(a for a in self.job.attempts if a.watched and a is not self.job.current)
        if status == "succeeded" and self.job.status in {Status.QUEUED, Status.WAITING}:
            self.take(changes.complete(self.job, attempt.number, {"urls": ["https://x.test/2"]}, **self.at()))
        else:
            self.take(late.end_late(self.job, attempt.number, status=status, urls=[], **self.at()))

    @precondition(lambda self: bool(self.sent))
    @rule(which=st.integers(0, 100))
    def stale_acceptance(self, which: int) -> None:
        """Have an overtaken submission come back with a task id: it is never lost."""
        sent = self.sent.pop(which % len(self.sent))
        kept = f"kept{self.submissions}.{len(self.sent)}"
        self.take(late.keep_task(self.job, sent, kept, first_look_ms=2000, **self.at()))
        [attempt] = [a for a in self.job.attempts if a.task_id == kept]
        assert attempt.watched

    @precondition(lambda self: self.job.current is not None and self.job.current.task_id is not None)
    @rule(polls=st.integers(1, 50))
    def looked(self, polls: int) -> None:
        """Look at the task."""
        current = self.job.current
        assert current is not None
        self.job = replace(self.job, looks={**self.job.looks, current.number: Look(polls)})

    @precondition(lambda self: (current := self.job.current) is not None and current.task_id is not None)
    @rule(polls=st.integers(1, 50))
    def shown_early(self, polls: int) -> None:
        """Have the task show its first track: told once, the look is noted, and nothing else moves."""
        current = self.job.current
        assert current is not None
        if not partial.is_news(self.job, current, ["https://x.test/0"]):
            assert current.partial is not None
            return
        first = {"urls": ["https://x.test/0"], "look": Look(polls), "next_look_at_ms": self.now_ms + 1}
        change = partial.show(self.job, current, **first, **self.at())
        assert (change.webhooks, change.looks) == (("job.partial",), {current.number: self.now_ms + 1})
        assert (change.counted, change.model_health) == ((), None)
        self.take(change)
        shown = view(to_form(self.job))
        assert shown["partial"]["urls"] == ["https://x.test/0"]
        assert shown["attempts"][-1]["polls"] == polls

    @invariant()
    def what_is_shown_early_is_of_the_task_waited_for(self) -> None:
        """Show it at the top only while there is a task to be waited for."""
        current = self.job.current
        assert (view(to_form(self.job))["partial"] is not None) == bool(current and current.partial)

    @invariant()
    def attempts_are_bounded(self) -> None:
        """No round has more attempts than allowed, kept tasks of overtaken submissions aside."""
        overtaken = sum((a.task_id or "").startswith("kept") and a.round == self.job.round for a in self.job.attempts)
        assert self.job.counted() - overtaken <= self.job.spec.max_attempts

    @invariant()
    def each_round_ends_once(self) -> None:
        """Exactly one terminal event for each time the job ended."""
        assert self.terminal_events == self.rounds_ended

    @invariant()
    def numbers_are_unique_and_one_attempt_is_under_way_at_most(self) -> None:
        """Tell attempts apart; an ended job has none under way."""
        numbers = [attempt.number for attempt in self.job.attempts]
        assert len(set(numbers)) == len(numbers)
        under_way = [attempt for attempt in self.job.attempts if attempt.outcome is None]
        assert len(under_way) == (self.job.status in {Status.SUBMITTING, Status.PROCESSING})

    @invariant()
    def wheels_hold_what_the_record_says(self) -> None:
        """Put a job just where whoever repairs wheels would look for it: there is never anything to repair."""
        its = places(self.job)
        assert (its.submit_at_ms is not None) == self.is_on_submit_wheel
        assert set(its.looks) == self.on_track_wheel

    @invariant()
    def the_record_survives_writing_and_reading(self) -> None:
        """Read what was written, and show it."""
        read = read_record(stored(self.job))
        assert from_form("j", read) == self.job
        assert view(read) == view(to_form(self.job))
        assert view(read)["status"] == self.job.status


TestLife = Life.TestCase
TestLife.settings = hypothesis_settings(max_examples=150, stateful_step_count=40, deadline=None)
