"""Changes of a record that guard money: kept task ids, idempotency keys, rescues, adoptions, lessons for the fleet."""

from dataclasses import replace
from random import Random

import pytest

from config.settings import Settings
from jobs import changes, late
from jobs.decide import Decision, Fail, FailOver, Hold, Retry, decide
from jobs.failures import classify, own_failure
from jobs.job import Attempt, Job, Outcome, Spec
from jobs.polling import LATE_GAP_MS
from jobs.states import Event, Status
from jobs.verdict import Code, Failure, Signal, Stage

NOW_MS = 1_800_000_000_000
LATER_MS = NOW_MS + 50_000
SETTINGS = Settings.from_env({})
GENERATION_FAILED = classify(Signal(Stage.RESULT, 200, None, "Video generation failed"))
TIMED_OUT = own_failure(Code.GENERATION_TIMEOUT, "too long")
UNKNOWN = classify(Signal(Stage.SUBMIT, 502))
SERVER_ERROR = classify(Signal(Stage.SUBMIT, 500))
GENERATION_FAILED = classify(Signal(Stage.RESULT, 200, "501"))
DAILY = classify(Signal(Stage.SUBMIT, 429, "daily_request_limit_exceeded"))
POLICY = classify(Signal(Stage.SUBMIT, 400, None, "prompt flagged as violating content policies"))


class Longest(Random):
    """Jitter that is always the longest."""

    def uniform(self, a: float, b: float) -> float:
        """Give the upper bound."""
        return max(a, b)


def job_of(models: int = 1, *, max_attempts: int = 5) -> Job:
    """Make a new job with that many models in its chain."""
    spec = Spec("j", "video", tuple("abcdefgh"[:models]), "f", NOW_MS, 172_800_000, max_attempts, "retry")
    return changes.create(spec, now_ms=NOW_MS, rev="0").after


def begun(job: Job) -> Job:
    """Begin an attempt."""
    return changes.begin(job, now_ms=NOW_MS, rev="1").after


def running(job: Job, task_id: str) -> Job:
    """Begin an attempt and have it accepted."""
    return changes.accept(begun(job), task_id, first_look_ms=1, now_ms=NOW_MS, rev="2").after


def settled(
    job: Job, failure: Failure, outcome: Outcome | None, settings: Settings = SETTINGS
) -> tuple[Job, Decision, changes.Change]:
    """Decide on a failure and carry the decision out, with the longest backoff."""
    decision = decide(job, failure, settings, now_ms=NOW_MS, rng=Longest())
    change = changes.settle(job, failure, decision, outcome=outcome, now_ms=NOW_MS, rev="3")
    return change.after, decision, change


def lost(job: Job) -> tuple[Job, Attempt]:
    """Begin an attempt whose answer is lost; give the waiting job and what was sent."""
    job = begun(job)
    sent = job.current
    assert sent is not None
    return settled(job, UNKNOWN, Outcome.UNKNOWN)[0], sent


def kept(job: Job, sent: Attempt, task_id: str = "kept") -> changes.Change:
    """Keep the task id of an overtaken submission."""
    return late.keep_task(job, sent, task_id, first_look_ms=7, now_ms=LATER_MS, rev="9")


def attempt_of(job: Job, task_id: str) -> Attempt:
    """Find the one attempt with a task."""
    [attempt] = [attempt for attempt in job.attempts if attempt.task_id == task_id]
    return attempt


def test_a_task_id_of_the_attempt_under_way_is_accepted() -> None:
    """The same attempt is still submitting: the task becomes the one its job waits for."""
    job = begun(job_of())
    assert job.current is not None
    change = kept(job, job.current)
    assert change.event is Event.ACCEPT
    assert change.after.status is Status.PROCESSING
    assert change.after.current == replace(job.current, task_id="kept")
    assert change.looks == {1: LATER_MS + 7}
    assert change.webhooks == ("job.processing",)


def test_a_task_id_that_comes_while_the_job_waits_for_the_resend_is_adopted() -> None:
    """The wait for the resend of that very submission ends: the task is tracked and nothing is sent again."""
    job, sent = lost(job_of(2))
    assert job.status is Status.WAITING
    change = kept(job, sent)
    assert change.event is Event.ADOPT
    assert change.after.status is Status.PROCESSING
    assert change.after.current == replace(sent, task_id="kept", adopted_at_ms=change.after.updated_at_ms)
    assert (change.after.next_action_at_ms, change.submit_at_ms, change.after.failure) == (None, None, None)
    assert change.looks == {1: LATER_MS + 7}


def test_a_resend_under_way_takes_the_task_id_and_a_second_one_is_kept_aside() -> None:
    """Both ids of one key survive: the first is tracked, the resend's own is watched beside it."""
    job, first = lost(job_of())
    job = begun(job)
    second = job.current
    assert second is not None
    assert second.key == first.key
    job = kept(job, first, "t1").after
    assert job.current == replace(second, task_id="t1")
    change = kept(job, second, "t2")
    assert change.event is None
    assert change.after.current == job.current
    aside = attempt_of(change.after, "t2")
    assert (aside.outcome, aside.watched, aside.number) == (Outcome.ABANDONED, True, 3)
    assert change.looks == {3: LATER_MS + LATE_GAP_MS}


def test_a_task_id_that_comes_after_a_cancel_is_kept_aside() -> None:
    """The job stays canceled and its task is watched."""
    job = begun(job_of())
    sent = job.current
    assert sent is not None
    job = changes.cancel(job, now_ms=NOW_MS, rev="4").after
    change = kept(job, sent)
    assert change.event is None
    assert change.after.status is Status.CANCELED
    assert change.after.current is None
    [aside] = change.after.attempts
    assert (aside.task_id, aside.outcome, aside.watched) == ("kept", Outcome.ABANDONED, True)
    assert change.webhooks == ()


@pytest.mark.parametrize("accepted", [False, True], ids=["submitting", "processing"])
def test_a_task_id_never_disturbs_a_later_attempt(accepted: bool) -> None:  # noqa: FBT001
    """With another model's attempt under way the task goes aside and ``current`` stays as it was."""
    job, sent = lost(job_of(2))
    job = settled(begun(job), POLICY, Outcome.REFUSED)[0]
    assert job.model == "b"
    job = running(job, "later") if accepted else begun(job)
    change = kept(job, sent)
    assert change.event is None
    assert change.after.status is job.status
    assert change.after.current == job.current
    assert change.after.attempts[-1] == job.current
    assert change.submit_at_ms is None
    aside = attempt_of(change.after, "kept")
    assert (aside.number, aside.model, aside.outcome, aside.watched) == (1, "a", Outcome.ABANDONED, True)


def test_a_withdrawn_attempts_task_id_gets_a_number_of_its_own() -> None:
    """Where the attempt is no longer in the record, its number may be another's by now: none is overwritten."""
    job = begun(job_of(2))
    sent = job.current
    assert sent is not None
    job = begun(settled(job, DAILY, Outcome.REFUSED)[0])
    assert job.current is not None
    assert job.current.number == sent.number
    change = kept(job, sent)
    assert change.after.current == job.current
    assert sorted(attempt.number for attempt in change.after.attempts) == [1, 2]
    assert attempt_of(change.after, "kept").model == "a"


@pytest.mark.parametrize("waiting", [False, True], ids=["queued", "waiting"])
def test_a_task_id_of_an_earlier_round_is_adopted(waiting: bool) -> None:  # noqa: FBT001
    """A job opened again waits for the task it has paid for before, as long as it has not sent anything new."""
    job, _ = lost(job_of())
    job = begun(job)
    sent = job.current
    assert sent is not None
    job = settled(job, UNKNOWN, Outcome.UNKNOWN)[0]
    assert job.status is Status.FAILED
    job = changes.retry(job, now_ms=NOW_MS, rev="5").after
    if waiting:
        job = settled(job, DAILY, None)[0]
        assert job.status is Status.WAITING
    change = kept(job, sent)
    assert change.event is Event.ADOPT
    assert (change.after.status, change.after.round) == (Status.PROCESSING, 2)
    assert change.after.current is not None
    assert (change.after.current.task_id, change.after.current.round) == ("kept", 2)
    assert change.submit_at_ms is None


def test_a_retry_waits_for_the_answer_a_cancel_has_overtaken() -> None:
    """What was under way when the job was canceled may be answered yet; then nothing new is sent."""
    job = begun(job_of())
    sent = job.current
    assert sent is not None
    job = changes.cancel(job, now_ms=NOW_MS + 100, rev="c").after
    change = changes.retry(job, now_ms=NOW_MS + 200, rev="r")
    assert change.submit_at_ms == sent.answered_by_ms
    adopted = kept(change.after, sent)
    assert (adopted.event, adopted.after.status) == (Event.ADOPT, Status.PROCESSING)
    later = sent.answered_by_ms
    assert later is not None
    assert changes.retry(job, now_ms=later, rev="r").submit_at_ms == later


def test_a_resend_in_a_later_round_keeps_the_key() -> None:
    """A gateway that heeds the key makes one generation of the two submissions."""
    job, first = lost(job_of())
    job = settled(begun(job), UNKNOWN, Outcome.UNKNOWN)[0]
    again = begun(changes.retry(job, now_ms=NOW_MS, rev="r").after)
    assert again.current is not None
    assert again.current.key == first.key


def test_an_attempt_is_counted_once_however_often_it_turns() -> None:
    """Given up, adopted and done after all: the first outcome counts, and the record tells the rest."""
    job = changes.accept(begun(job_of()), "t", first_look_ms=7, now_ms=NOW_MS, rev="a").after
    canceled = changes.cancel(job, now_ms=NOW_MS, rev="c")
    adopted = changes.retry(canceled.after, now_ms=NOW_MS, rev="r")
    done = changes.complete(adopted.after, 1, {"urls": ["u"]}, now_ms=NOW_MS, rev="d")
    counted = [counter for change in (canceled, adopted, done) for counter in change.counted]
    assert [counter.labels[1] for counter in counted if counter.name == "attempts_total"] == ["abandoned"]
    assert [counter.labels[1] for counter in counted if counter.name == "jobs_total"] == ["canceled", "completed"]


def test_an_unknown_is_resent_once_a_round_even_after_a_kept_task() -> None:
    """A kept task turns its attempt's outcome, but the resend it caused still counts as the only one."""
    job, sent = lost(job_of())
    job = settled(begun(job), SERVER_ERROR, Outcome.REFUSED)[0]
    job = kept(job, sent).after
    assert [attempt.outcome for attempt in job.attempts] == [Outcome.ABANDONED, Outcome.REFUSED]
    job, decision, _ = settled(begun(job), UNKNOWN, Outcome.UNKNOWN)
    assert isinstance(decision, Fail)
    assert job.failure is not None
    assert job.failure["code"] == "submit_unknown"


def test_a_key_goes_along_until_a_task_has_come_of_it() -> None:
    """Also past a resend that was refused: a gateway that heeds the key answers with the first one's task."""
    job, sent = lost(job_of())
    job = begun(settled(begun(job), SERVER_ERROR, Outcome.REFUSED)[0])
    assert job.current is not None
    assert job.current.key == sent.key
    job = changes.accept(job, "t", first_look_ms=1, now_ms=NOW_MS, rev="5").after
    job = begun(settled(job, GENERATION_FAILED, Outcome.FAILED)[0])
    assert job.current is not None
    assert job.current.key != sent.key


def test_a_kept_task_beside_an_adopted_one_allows_no_second_resend() -> None:
    """Two ids of one key, the tracked one fails: the next attempt has a new key and is not resent."""
    job, first = lost(job_of())
    job = begun(job)
    second = job.current
    assert second is not None
    job = kept(kept(job, first, "t1").after, second, "t2").after
    job = settled(job, GENERATION_FAILED, Outcome.FAILED)[0]
    job = begun(job)
    assert job.current is not None
    assert job.current.key not in {attempt.key for attempt in job.attempts[:-1]}
    assert isinstance(settled(job, UNKNOWN, Outcome.UNKNOWN)[1], Fail)


def test_a_resend_on_the_same_model_has_the_same_key() -> None:
    """What may have been accepted is sent again under the key it was sent with."""
    job, sent = lost(job_of(2))
    job = begun(job)
    assert job.current is not None
    assert (job.current.key, job.current.model) == (sent.key, sent.model)


def test_another_model_has_another_key_although_the_number_is_used_again() -> None:
    """A refusal that costs no attempt frees the number, but the next model's submission is another generation."""
    job = begun(job_of(2))
    first = job.current
    job = begun(settled(job, DAILY, Outcome.REFUSED)[0])
    second = job.current
    assert first is not None
    assert second is not None
    assert first.number == second.number
    assert (first.model, second.model) == ("a", "b")
    assert first.key != second.key


def test_another_model_has_another_key_after_an_unknown() -> None:
    """The key of a lost submission goes along to its own model only."""
    job, sent = lost(job_of(2))
    job = begun(settled(begun(job), POLICY, Outcome.REFUSED)[0])
    assert job.current is not None
    assert job.current.model == "b"
    assert job.current.key != sent.key


def test_a_key_is_not_sent_for_ever() -> None:
    """A gateway that answers a key the same way each time is asked with another one in the end."""
    job, first = lost(job_of())
    job = settled(begun(job), UNKNOWN, Outcome.UNKNOWN)[0]
    keys = []
    for number in range(3):
        job = begun(changes.retry(job, now_ms=NOW_MS, rev=f"r{number}").after)
        assert job.current is not None
        keys.append(job.current.key)
        job = changes.cancel(job, now_ms=NOW_MS, rev=f"c{number}").after
    assert keys[0] == first.key
    assert keys[1] != first.key


def late_beside_a_running_one(status: str) -> Job:
    """Make a job whose first task ended late while its second runs."""
    job = settled(running(job_of(), "t1"), TIMED_OUT, Outcome.TIMED_OUT)[0]
    job = running(job, "t2")
    urls = ["https://x.test/1"] if status == "succeeded" else []
    return late.end_late(job, 1, status=status, urls=urls, now_ms=NOW_MS, rev="5").after


def test_a_late_success_rescues_a_job_that_then_fails() -> None:
    """The paid result of the first task completes the job where the second failed, instead of another attempt."""
    job = late_beside_a_running_one("succeeded")
    change = late.rescued(job, outcome=Outcome.FAILED, now_ms=LATER_MS, rev="6")
    assert change is not None
    assert change.event is Event.COMPLETE
    assert change.after.status is Status.COMPLETED
    assert change.after.result is not None
    assert change.after.result["urls"] == ["https://x.test/1"]
    assert [attempt.outcome for attempt in change.after.attempts] == [Outcome.SUCCEEDED, Outcome.FAILED]
    assert change.submit_at_ms is None
    assert change.webhooks == ("job.completed",)


def test_nothing_rescues_a_job_without_a_late_success_of_this_round() -> None:
    """A late failure is no result, and an earlier round's success was announced and is not this one's."""
    job = late_beside_a_running_one("failed")
    assert late.rescued(job, outcome=Outcome.FAILED, now_ms=LATER_MS, rev="6") is None
    job = changes.cancel(late_beside_a_running_one("succeeded"), now_ms=NOW_MS, rev="6").after
    job = changes.retry(job, now_ms=NOW_MS, rev="7").after
    assert job.round == 2
    assert late.rescued(job, outcome=Outcome.FAILED, now_ms=LATER_MS, rev="8") is None


def test_a_retry_adopts_a_running_task_and_tracks_it_anew() -> None:
    """The task that still runs is waited for again, with its tracking time starting now."""
    job = changes.cancel(running(job_of(2), "t"), now_ms=NOW_MS, rev="4").after
    change = changes.retry(job, now_ms=LATER_MS, rev="5")
    assert change.event is Event.ADOPT
    assert change.after.status is Status.PROCESSING
    current = change.after.current
    assert current is not None
    assert (current.task_id, current.round, current.started_at_ms) == ("t", 2, NOW_MS)
    assert current.tracked_from_ms == LATER_MS
    assert change.looks == {1: LATER_MS}
    assert change.submit_at_ms is None


def test_backoff_grows_with_attempts_although_acceptance_resets_deferrals() -> None:
    """Generations that keep failing are retried ever more slowly."""
    job, waits_s = job_of(), []
    while True:
        job = running(job, "t")
        assert job.deferrals == 0
        job, decision, _ = settled(job, GENERATION_FAILED, Outcome.FAILED)
        if not isinstance(decision, Retry):
            break
        waits_s.append((decision.at_ms - NOW_MS) / 1000)
    assert waits_s == [2, 4, 8, 16]


@pytest.mark.parametrize(
    ("status", "words", "releases"),
    [(422, "custom_mode is required", True), (400, "prompt flagged as violating content policies", True),
     (422, None, False), (413, None, False), (404, None, False), (402, None, False), (401, None, False),
     (500, None, False)],
)  # fmt: skip
@pytest.mark.parametrize("policy", ["fail", "hold"])
def test_only_a_verdict_on_the_input_releases_a_hold(
    status: int,
    words: str | None,
    releases: bool,  # noqa: FBT001
    policy: str,
) -> None:
    """What judges the input has let the account pass; a 402 shows the contrary, what stands before both nothing."""
    failure = classify(Signal(Stage.SUBMIT, status, None, words))
    settings = Settings.from_env({"ACCOUNT_ERRORS": policy})
    _, decision, change = settled(begun(job_of()), failure, Outcome.REFUSED, settings)
    assert change.lesson.release_hold is releases
    held = policy == "hold" and status in {401, 402}
    assert isinstance(decision, Hold) is held
    assert (change.lesson.hold is not None) is held


def test_an_unknown_submission_releases_no_hold() -> None:
    """An answer that was lost says nothing of the account."""
    assert not settled(begun(job_of()), UNKNOWN, Outcome.UNKNOWN)[2].lesson.release_hold


def test_one_attempt_still_tries_the_alternate_after_a_refused_submission() -> None:
    """With ``max_attempts=1`` a content refusal that cost nothing is tried on the next model, and only there."""
    assert (POLICY.code, POLICY.counts_as_attempt) == (Code.CONTENT_REJECTED, False)
    job, decision, _ = settled(begun(job_of(3, max_attempts=1)), POLICY, Outcome.REFUSED)
    assert decision == FailOver(NOW_MS, 1)
    assert job.model == "b"
    assert isinstance(settled(begun(job), POLICY, Outcome.REFUSED)[1], Fail)
    assert isinstance(settled(running(job, "t"), GENERATION_FAILED, Outcome.FAILED)[1], Fail)
