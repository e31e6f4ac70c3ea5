"""What is counted of money: each attempt that is paid for and of no use once, and every unknown submission."""

from collections import Counter
from dataclasses import replace
from random import Random

import pytest

from config.settings import Settings
from jobs import changes, late
from jobs.changes import Change
from jobs.decide import decide
from jobs.failures import believed, classify, own_failure
from jobs.job import TAKEN_OVER, Attempt, Job, Outcome, Spec, from_form, to_form
from jobs.money import Resolution, Waste, waste_of
from jobs.states import Status
from jobs.verdict import Code, Failure, Signal, Stage
from worker.cli.tables import _money_notes
from worker.money_report import money_view

NOW_MS = 1_800_000_000_000
SETTINGS = Settings.from_env({})
LOST = classify(Signal(Stage.SUBMIT, 502))
TAKEN = own_failure(Code.SUBMIT_UNKNOWN, "the worker died")
TIMED_OUT = own_failure(Code.GENERATION_TIMEOUT, "too long")
FAILED = classify(Signal(Stage.RESULT, 200, None, "Video generation failed"))
REFUSED = classify(Signal(Stage.SUBMIT, 422))
USD = {"amount": 0.3, "currency": "USD"}


class Life:
    """A job whose changes are carried out one after the other, and what they count of money."""

    def __init__(self, *, max_attempts: int = 5, unknown: str = "retry") -> None:
        spec = Spec("j", "video", ("a", "b"), "f", NOW_MS, 172_800_000, max_attempts, unknown)
        self.now_ms = NOW_MS
        self.counted: Counter[tuple[str, ...]] = Counter()
        self.looks: dict[int, int | None] = {}
        self.job = changes.create(spec, now_ms=NOW_MS, rev="0").after

    def take(self, change: Change) -> "Life":
        """Carry a change out."""
        for counter in change.counted:
            if counter.name.startswith(("paid_unused", "unknown_submits")):
                self.counted[(counter.name.removesuffix("_total"), *counter.labels)] += counter.by
        self.job, self.looks = change.after, {**self.looks, **change.looks}
        self.now_ms += 1000
        return self

    def at(self) -> dict[str, object]:
        """Give the time and a rev for the next change."""
        return {"now_ms": self.now_ms, "rev": str(self.now_ms)}

    def begin(self) -> Attempt:
        """Begin an attempt."""
        self.take(changes.begin(self.job, patience_ms=20_000, **self.at()))
        assert self.job.current is not None
        return self.job.current

    def run(self, task_id: str = "t") -> "Life":
        """Begin an attempt and have it accepted."""
        self.begin()
        return self.take(changes.accept(self.job, task_id, first_look_ms=1, **self.at()))

    def settle(self, failure: Failure, outcome: Outcome) -> "Life":
        """Decide on a failure and carry the decision out."""
        decision = decide(self.job, failure, SETTINGS, now_ms=self.now_ms, rng=Random(1))
        return self.take(changes.settle(self.job, failure, decision, outcome=outcome, **self.at()))

    def end_late(self, number: int, status: str, cost: object = None) -> "Life":
        """Have a task end that had been given up."""
        urls = ["https://x.test/1"] if status == "succeeded" else []
        return self.take(late.end_late(self.job, number, status=status, urls=urls, cost=cost, **self.at()))

    def cancel(self) -> "Life":
        """Cancel."""
        return self.take(changes.cancel(self.job, **self.at()))

    def retry(self) -> "Life":
        """Open it again."""
        return self.take(changes.retry(self.job, **self.at()))


def test_a_late_success_of_an_ended_job_is_counted_with_its_cost_once() -> None:
    """Canceled, then the task ends well; opened again and completed otherwise it is not counted anew."""
    life = Life().run().cancel()
    assert not life.counted
    life.end_late(1, "succeeded", USD)
    expected = {("paid_unused", "a", "late_success"): 1, ("paid_unused_cost", "USD", "late_success"): 300_000}
    assert life.counted == expected
    assert life.job.attempts[0].cost == USD
    life.retry().run("t2")
    life.take(changes.complete(life.job, 2, {"urls": ["https://x.test/2"]}, **life.at()))
    assert life.counted == expected


def test_a_late_success_is_counted_only_when_the_job_has_done_without_it() -> None:
    """While another task runs it may be needed yet; the other's result makes it one paid for nothing."""
    life = Life().run().settle(TIMED_OUT, Outcome.TIMED_OUT).run("t2").end_late(1, "succeeded", USD)
    assert not life.counted
    done = changes.complete(life.job, 2, {"urls": ["https://x.test/2"]}, **life.at())
    assert life.take(done).counted["paid_unused", "a", "late_success"] == 1


def test_a_late_success_that_rescues_its_job_was_not_for_nothing() -> None:
    """The task that failed instead costs nothing that is told of."""
    life = Life().run().settle(TIMED_OUT, Outcome.TIMED_OUT).run("t2").end_late(1, "succeeded")
    rescue = late.rescued(life.job, outcome=Outcome.FAILED, failure=FAILED, **life.at())
    assert rescue is not None
    assert not life.take(rescue).counted
    assert life.job.attempts[1].failure is not None
    assert life.job.attempts[1].failure["code"] == "generation_failed"


def test_a_late_success_of_an_earlier_round_rescues_a_job_opened_again() -> None:
    """It came to light since, so whoever opened the job again did not know of it."""
    life = Life(max_attempts=1).run()
    life.take(
        late.keep_task(life.job, replace(life.job.attempts[0], number=9, key="k"), "t2", first_look_ms=1, **life.at())
    )
    life.cancel().retry()
    assert life.job.current is not None
    older = next(attempt for attempt in life.job.attempts if attempt.round == 1)
    life.end_late(older.number, "succeeded")
    rescue = late.rescued(life.job, outcome=Outcome.FAILED, failure=FAILED, **life.at())
    assert rescue is not None
    assert life.take(rescue).job.status is Status.COMPLETED
    assert life.job.attempt(older.number) in life.job.attempts
    assert not life.counted


def test_a_task_whose_end_was_never_seen_is_counted() -> None:
    """After a day of looking."""
    life = Life().run().cancel().end_late(1, "unknown")
    assert life.counted == {("paid_unused", "a", "never_ended"): 1}


def test_a_late_failure_is_not_counted() -> None:
    """A failed generation is not what is meant: the gateway says whether it is billed."""
    assert not Life().run().cancel().end_late(1, "failed").counted


@pytest.mark.parametrize("unknown", ["retry", "fail"])
def test_a_lost_answer_is_maybe_paid_at_once(unknown: str) -> None:
    """Its sender has stopped listening, so nothing more can be learned."""
    life = Life(unknown=unknown)
    life.begin()
    life.settle(LOST, Outcome.UNKNOWN)
    resolution = "resent" if unknown == "retry" else "failed"
    assert life.counted == {("paid_unused", "a", "maybe_paid"): 1, ("unknown_submits", resolution): 1}
    if unknown == "retry":
        life.run("t2")
        life.take(changes.complete(life.job, 2, {"urls": ["https://x.test/2"]}, **life.at()))
        assert sum(life.counted.values()) == 2


def test_a_submission_canceled_under_way_is_settled_when_its_answer_cannot_come_any_more() -> None:
    """Until then it stands on the track wheel; then it is one that may have been paid."""
    life = Life()
    sent = life.begin()
    life.cancel()
    assert life.counted == {("unknown_submits", "canceled"): 1}
    assert life.looks == {1: sent.answered_by_ms}
    assert life.job.attempts[0].failure is not None
    assert life.job.attempts[0].failure["rule"] == "own_canceled"
    life.take(late.give_up_answer(life.job, 1, **life.at()))
    assert life.counted["paid_unused", "a", "maybe_paid"] == 1
    assert life.looks == {1: None}
    assert not life.job.attempts[0].may_be_answered


def test_a_submission_accepted_after_all_is_told_and_counted_for_what_becomes_of_it() -> None:
    """Canceled under way, then its task id turns up, then its result: one attempt for nothing, not two."""
    life = Life()
    sent = life.begin()
    life.cancel().take(late.keep_task(life.job, sent, "t", first_look_ms=1, **life.at()))
    assert life.counted == {("unknown_submits", "canceled"): 1, ("unknown_submits", "accepted"): 1}
    life.end_late(1, "succeeded")
    assert life.counted["paid_unused", "a", "late_success"] == 1
    assert ("paid_unused", "a", "maybe_paid") not in life.counted


def test_a_submission_refused_after_all_cost_nothing() -> None:
    """Canceled under way, then its refusal comes: the record says so, and nothing is awaited any more."""
    life = Life()
    sent = life.begin()
    life.cancel()
    change = late.note_refusal(life.job, sent, REFUSED, **life.at())
    assert change is not None
    life.take(change)
    assert life.counted == {("unknown_submits", "canceled"): 1, ("unknown_submits", "refused"): 1}
    assert life.looks == {1: None}
    [attempt] = life.job.attempts
    assert (attempt.outcome, attempt.failure and attempt.failure["code"]) == (Outcome.REFUSED, "model_unsupported")
    assert late.note_refusal(life.job, sent, REFUSED, **life.at()) is None


def test_a_submission_whose_worker_was_taken_for_dead_is_awaited() -> None:
    """The worker may only have stood still: its task id is adopted by the job that waits for the resend."""
    assert TAKEN.rule == TAKEN_OVER
    life = Life()
    sent = life.begin()
    life.settle(TAKEN, Outcome.UNKNOWN)
    assert life.counted == {("unknown_submits", "resent"): 1}
    assert life.looks == {1: sent.answered_by_ms}
    life.take(late.keep_task(life.job, sent, "t", first_look_ms=1, **life.at()))
    assert life.job.status is Status.PROCESSING
    assert life.counted["unknown_submits", "accepted"] == 1
    life.take(changes.complete(life.job, 1, {"urls": ["https://x.test/1"]}, **life.at()))
    assert not any(name.startswith("paid") for name, *_ in life.counted)


def test_an_answer_that_comes_after_it_was_given_up_is_watched_all_the_same() -> None:
    """What was closed opens again: a task id is never lost."""
    life = Life()
    sent = life.begin()
    life.cancel().take(late.give_up_answer(life.job, 1, **life.at()))
    life.take(late.keep_task(life.job, sent, "t", first_look_ms=1, **life.at()))
    [attempt] = life.job.attempts
    assert attempt.watched


def test_an_unknown_submission_beside_a_late_result_is_resolved_by_it() -> None:
    """The late result completes the job, so nothing is sent again."""
    life = Life().run().settle(TIMED_OUT, Outcome.TIMED_OUT)
    life.begin()
    life.end_late(1, "succeeded")
    rescue = late.rescued(life.job, outcome=Outcome.UNKNOWN, failure=LOST, **life.at())
    assert rescue is not None
    assert life.take(rescue).counted["unknown_submits", "completed"] == 1


@pytest.mark.parametrize(
    "cost",
    [None, 3, {"amount": 1}, {"amount": -1, "currency": "USD"}, {"amount": 1e300, "currency": "USD"},
     {"amount": 1, "currency": "a|b"}, {"amount": "1", "currency": "USD"}, {"amount": 0, "currency": "USD"}],
    ids=str,
)  # fmt: skip
def test_only_a_sane_amount_of_a_currency_is_summed(cost: object) -> None:
    """Whatever the gateway tells, labels stay bounded and sums whole."""
    life = Life().run().cancel().end_late(1, "succeeded", cost)
    assert life.counted == {("paid_unused", "a", "late_success"): 1}


def attempt(outcome: Outcome | None, failure: Failure | None = None, **more: object) -> Attempt:
    """Make an attempt with a task."""
    shown = changes.shown_failure(failure) if failure else None
    return replace(Attempt(1, "a", 0, 1, "k", NOW_MS, "t", outcome=outcome, failure=shown), **more)  # type: ignore[arg-type]


TIMEOUT_524 = believed(classify(Signal(Stage.RESULT, 200, "524", "generate task timeout")))
TASK_LOST = believed(classify(Signal(Stage.POLL, 404)))
SAID_BY_A_REFUSAL = classify(Signal(Stage.RESULT, 500, "x", "Video generation failed"))


@pytest.mark.parametrize(
    ("seen", "may_run", "watched"),
    [
        (attempt(None), True, True),
        (attempt(Outcome.TIMED_OUT, TIMED_OUT), True, True),
        (attempt(Outcome.ABANDONED), True, True),
        (attempt(Outcome.FAILED, TIMEOUT_524), False, True),
        (attempt(Outcome.FAILED, TASK_LOST), False, True),
        (attempt(Outcome.FAILED, SAID_BY_A_REFUSAL), False, True),
        (attempt(Outcome.FAILED, FAILED), False, False),
        (attempt(Outcome.SUCCEEDED), False, False),
        (attempt(Outcome.UNKNOWN, LOST, task_id=None), False, False),
        (attempt(Outcome.REFUSED, REFUSED, task_id=None), False, False),
        (attempt(Outcome.TIMED_OUT, TIMED_OUT, late={"status": "failed", "at_ms": 1, "urls": []}), False, False),
        (attempt(Outcome.FAILED, TIMEOUT_524, late={"status": "failed", "at_ms": 1, "urls": []}), False, False),
    ],
)  # fmt: skip
def test_which_tasks_are_watched(seen: Attempt, may_run: bool, watched: bool) -> None:  # noqa: FBT001
    """What may run, and what failed of something that has turned into a success before; not what has ended for good."""
    assert (seen.may_run, seen.watched) == (may_run, watched)


def test_a_failure_that_may_flip_is_watched_but_never_adopted() -> None:
    """A retry pays for a new task rather than wait for one that has failed, which is looked at beside it."""
    life = Life(max_attempts=1).run().settle(TIMEOUT_524, Outcome.FAILED)
    assert life.job.status is Status.FAILED
    assert life.looks[1] is not None
    change = changes.retry(life.job, **life.at())
    assert change.after.status is Status.QUEUED
    assert late.last_word(life.job.attempts[0]) == "failed"
    assert late.last_word(attempt(Outcome.FAILED, TASK_LOST)) == late.last_word(attempt(Outcome.ABANDONED)) == "unknown"


def test_the_sum_over_what_was_done_is_all_there_were() -> None:
    """What was learned afterwards comes on top."""
    counters = {("unknown_submits_total", str(resolution)): 2 for resolution in Resolution}
    counters |= {("paid_unused_total", "veo3", str(waste)): 1 for waste in Waste}
    counters |= {("paid_unused_cost_total", "USD", "late_success"): 250_000, ("jobs_total", "video", "failed"): 9}
    view = money_view(counters)
    assert view["unknown_submits"]["total"] == 8
    assert view["paid_unused"] == {
        "total": 3,
        "reasons": {"late_success": 1, "never_ended": 1, "maybe_paid": 1},
        "models": {"veo3": 3},
        "cost": {"USD": 0.25},
    }
    assert money_view({})["paid_unused"]["total"] == 0


def test_records_of_before_are_read() -> None:
    """A look without a refusal and an attempt canceled without a failure, as they were written before."""
    job = Life().run().cancel().job
    form = to_form(job)
    form["looks"] = {1: {"polls": 3, "refused": 1, "doubt": None, "doubts": 0, "doubted_at_ms": 0}}
    del form["state"]["attempts"][0]["failure"]
    read: Job = from_form("j", form)
    assert read.looks[1].refusal is None
    assert read.attempts[0].watched
    unknown = replace(read.attempts[0], task_id=None, outcome=Outcome.UNKNOWN)
    assert unknown.may_be_answered
    assert waste_of(read, unknown) is None


def test_the_fleets_sheet_tells_of_money_only_where_there_is_something_to_tell() -> None:
    """A line each, with the reasons that occur and what they cost."""
    assert list(_money_notes(money_view({}))) == []
    counters = {
        ("paid_unused_total", "veo3", "late_success"): 2,
        ("paid_unused_cost_total", "USD", "late_success"): 550_000,
        ("unknown_submits_total", "resent"): 1,
        ("unknown_submits_total", "accepted"): 1,
    }
    unused, unknown = (" ".join(line.plain.split()) for line in _money_notes(money_view(counters)))
    assert unused == "paid unused 2 attempts: 2 late_success; 0.55 USD told"
    assert unknown == "unknown 1 submission: 1 resent, 1 accepted"
