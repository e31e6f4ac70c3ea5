"""How the chaos bench compares the workers' books with the sandbox's and the receiver's."""

from typing import Any

import audit
from audit import Books

ENDED = "2027-01-15T08:00:00.000Z"
ENDED_MS = 1_800_000_000_000


def attempt(number: int, task: str | None, outcome: str | None, **more: Any) -> dict[str, Any]:
    """Make an attempt of a view."""
    ended = None if outcome is None else ENDED
    return {"number": number, "task_id": task, "outcome": outcome, "ended_at": ended, **more}


def view(status: str, *attempts: dict[str, Any], code: str = "") -> dict[str, Any]:
    """Make a job's view."""
    ended = status in {"completed", "failed", "canceled"}
    failure = {"code": code} if code else None
    completed_at = ENDED if ended else None
    return {"status": status, "completed_at": completed_at, "failure": failure, "attempts": list(attempts)}


def post(job: str, number: int, task: str | None, at_ms: int = ENDED_MS) -> dict[str, Any]:
    """Make a submission."""
    return {"tag": job, "task_id": task, "idempotency_key": f"{job}/1.{number}.0", "at_ms": at_ms}


def hook(job: str, name: str = "e1", kind: str = "job.completed", *, verified: bool = True) -> dict[str, Any]:
    """Make a webhook that came."""
    return {"id": name, "job": job, "type": kind, "task": None, "verified": verified}


def task(job: str, state: str = "success") -> dict[str, Any]:
    """Make a task of the sandbox's."""
    return {"tag": job, "state": state}


def test_a_task_is_accounted_for_by_its_attempt_or_by_one_that_says_it_is_unknown() -> None:
    """Named, unknown, named by nobody; an attempt of another number accounts for nothing."""
    views = {
        "named": view("completed", attempt(1, "t1", "succeeded")),
        "unknown": view("failed", attempt(1, None, "unknown"), code="submit_unknown"),
        "silent": view("failed", attempt(1, None, "refused"), code="server_error"),
        "other": view("failed", attempt(1, None, "unknown"), code="submit_unknown"),
    }
    posts = [post("named", 1, "t1"), post("unknown", 1, "t2"), post("silent", 1, "t3"), post("other", 2, "t4")]
    books = Books(views, [*posts, post("gone", 1, "t5"), post("named", 2, None)], {}, [])
    assert [line.partition(":")[0] for line in audit.unaccounted(books)] == ["silent", "other", "gone"]
    assert (audit.hidden(books), audit.unknown(books)) == (4, 2)


def test_a_submission_after_one_that_was_not_known_to_have_ended_is_named() -> None:
    """Fine after an attempt that had failed by then; not while it ran, nor after one nobody knew of."""
    views = {
        "fine": view("completed", attempt(1, "a1", "failed"), attempt(2, "a2", "succeeded")),
        "early": view("completed", attempt(1, "b1", "failed"), attempt(2, "b2", "succeeded")),
        "blind": view("completed", attempt(1, None, "unknown"), attempt(2, "c2", "succeeded")),
        "kept": view("completed", attempt(1, "d1", "unknown"), attempt(2, "d2", "succeeded")),
    }
    posts = [
        *(post("fine", 1, "a1", ENDED_MS - 900), post("fine", 2, "a2", ENDED_MS + 1)),
        *(post("early", 1, "b1", ENDED_MS - 900), post("early", 2, "b2", ENDED_MS - 100)),
        *(post("blind", 1, "c1", ENDED_MS - 900), post("blind", 2, "c2", ENDED_MS + 1)),
        *(post("kept", 1, "d1", ENDED_MS - 900), post("kept", 2, "d2", ENDED_MS + 1)),
    ]
    found = audit.resubmitted(Books(views, posts, {}, []))
    assert [line.partition(":")[0] for line in found] == ["early", "blind", "kept"]


def test_webhooks_are_held_against_how_the_jobs_ended() -> None:
    """Told once, twice under one id, under two ids, otherwise, with a wrong signature, never."""
    views = {job: view("completed") for job in ("once", "again", "two", "wrong", "forged", "never")}
    hooks = [
        hook("once"),
        *(hook("again", "e2"), hook("again", "e2")),
        *(hook("two", "e3"), hook("two", "e4")),
        hook("wrong", "e5", "job.failed"),
        hook("forged", "e6", verified=False),
        hook("never", "e7", "job.processing"),
        hook("stranger", "e8"),
    ]
    books = Books(views, [], {}, hooks)
    assert audit.untold(books, list(views)) == ["forged", "never"]
    assert [line.partition(":")[0] for line in audit.contradicted(books)] == ["two", "wrong", "stranger"]
    assert (audit.repeated(books), audit.forged(books)) == (1, 1)


def test_results_are_paid_for_once_and_somebody_knows_of_them() -> None:
    """What failed costs nothing; a result counts as known where an attempt or a webhook names its task."""
    tasks = {"t1": task("a"), "t2": task("a"), "t3": task("a", "fail"), "t4": task("b"), "t5": task("b", "running")}
    views = {"a": view("completed", attempt(1, "t1", "succeeded"))}
    books = Books(views, [], tasks, [hook("b") | {"task": "t4"}])
    assert audit.unknown_results(books) == ["t2"]
    assert audit.paid_again(books) == 1


def test_what_has_not_ended_and_how_the_rest_did_is_told() -> None:
    """Codes of failures are counted, most first; a late result counts where it is what completed the job."""
    late = attempt(1, "t1", "succeeded", late_result={"status": "succeeded"})
    views = {"a": view("completed", late), "b": view("failed", code="submit_unknown"), "c": view("waiting")}
    books = Books(views | {"d": view("completed")}, [], {}, [])
    assert audit.unended(books) == ["c"]
    assert audit.ends(books) == "2 completed, 1 submit_unknown, 1 waiting"
    assert audit.late_used(books) == 1
