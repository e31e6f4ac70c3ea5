"""Compares three books: what the workers say of the jobs, what the sandbox billed, what the receiver was told. Pure.

Nothing of the worker's is believed that the others' books do not bear out. A task is accounted for when an attempt of a
job names it, or when the attempt it was submitted for is known to be unknown: then the job says so.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

Rows = Sequence[Mapping[str, Any]]
TERMINAL = {"job.completed": "completed", "job.failed": "failed", "job.canceled": "canceled"}
SAME_MOMENT_MS = 5


@dataclass(frozen=True, slots=True)
class Books:
    """All three: views by job, submissions in their order, tasks by id, webhooks in their order."""

    views: Mapping[str, Mapping[str, Any]]
    posts: Rows
    tasks: Mapping[str, Mapping[str, Any]]
    hooks: Rows

    @property
    def accepted(self) -> dict[str, list[Mapping[str, Any]]]:
        """Give each job's submissions that became tasks."""
        found: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for post in self.posts:
            if post["task_id"]:
                found[post["tag"]].append(post)
        return found

    @property
    def ends(self) -> dict[str, set[tuple[str, str]]]:
        """Give what each job's end was told as: webhook-ids and statuses."""
        found: dict[str, set[tuple[str, str]]] = defaultdict(set)
        for hook in self.hooks:
            if hook["type"] in TERMINAL and hook["verified"]:
                found[hook["job"]].add((hook["id"], TERMINAL[hook["type"]]))
        return found

    @property
    def attempts(self) -> dict[str, Mapping[str, Any]]:
        """Give the attempts that name a task, by it."""
        return {a["task_id"]: a for view in self.views.values() for a in view["attempts"] if a["task_id"]}


# --- what is counted for whoever did the work


def untold(books: Books, jobs: Collection[str]) -> list[str]:
    """Name the jobs whose end nobody was told of."""
    ends = books.ends
    return [job for job in jobs if job not in ends]


def unknown_results(books: Books) -> list[str]:
    """Name the tasks that were paid for and succeeded, and that no job and no webhook names."""
    known = {hook["task"] for hook in books.hooks} | set(books.attempts)
    return [name for name, task in books.tasks.items() if task["state"] == "success" and name not in known]


def paid_again(books: Books) -> int:
    """Count the tasks that succeeded beyond the first of their job."""
    succeeded = Counter(task["tag"] for task in books.tasks.values() if task["state"] == "success")
    return sum(times - 1 for times in succeeded.values())


def repeated(books: Books) -> int:
    """Count the webhooks that came once more under their id."""
    return sum(times - 1 for times in Counter(hook["id"] for hook in books.hooks).values())


def forged(books: Books) -> int:
    """Count the webhooks whose signature does not hold."""
    return sum(not hook["verified"] for hook in books.hooks)


# --- what is counted for the worker, which keeps records


def unended(books: Books) -> list[str]:
    """Name the jobs that have not ended."""
    return [job for job, view in books.views.items() if view["completed_at"] is None]


def unaccounted(books: Books) -> list[str]:
    """Name the accepted tasks that no attempt names, and that were not submitted for one that says it is unknown."""
    attempts = books.attempts
    return [
        f"{post['tag']}: {post['task_id']} ({post['idempotency_key']})"
        for posts in books.accepted.values()
        for post in posts
        if post["task_id"] not in attempts and not _is_unknown(books, post)
    ]


def hidden(books: Books) -> int:
    """Count the accepted tasks whose job can say only that it does not know."""
    attempts = books.attempts
    return sum(post["task_id"] not in attempts for posts in books.accepted.values() for post in posts)


def unknown(books: Books) -> int:
    """Count the attempts of which nobody knows whether they were accepted."""
    return sum(a["outcome"] == "unknown" for view in books.views.values() for a in view["attempts"])


def _is_unknown(books: Books, post: Mapping[str, Any]) -> bool:
    number = int(post["idempotency_key"].rpartition("/")[2].split(".")[1])
    view = books.views.get(post["tag"], {"attempts": ()})
    return any(a["number"] == number and a["outcome"] == "unknown" for a in view["attempts"])


def resubmitted(books: Books) -> list[str]:
    """Name the tasks that were accepted while an earlier one of their job was not known to have ended."""
    attempts = books.attempts
    found = []
    for posts in books.accepted.values():
        for earlier, post in pairwise(posts):
            attempt = attempts.get(earlier["task_id"])
            if attempt is None or attempt["outcome"] in {None, "unknown"}:
                found.append(f"{post['tag']}: {post['task_id']} after {earlier['task_id']}, of which it did not know")
            elif _ms(attempt["ended_at"]) > post["at_ms"] + SAME_MOMENT_MS:
                found.append(f"{post['tag']}: {post['task_id']} while {earlier['task_id']} ran")
    return found


def contradicted(books: Books) -> list[str]:
    """Name the jobs that a webhook says ended otherwise than they did, or of whose end there are two ids."""
    return [
        f"{job}: {sorted(ends)}, is {books.views[job]['status'] if job in books.views else 'unknown'}"
        for job, ends in books.ends.items()
        if len(ends) > 1 or job not in books.views or {status for _, status in ends} != {books.views[job]["status"]}
    ]


def late_used(books: Books) -> int:
    """Count the jobs whose result came of a task that had been given up."""
    return sum(
        a["outcome"] == "succeeded" and "late_result" in a for view in books.views.values() for a in view["attempts"]
    )


def failed_as(books: Books, code: str) -> int:
    """Count the jobs that failed with a code."""
    return sum(view["status"] == "failed" and view["failure"]["code"] == code for view in books.views.values())


def ends(books: Books) -> str:
    """Tell how the jobs ended."""
    found = Counter(
        view["status"] if view["failure"] is None or view["status"] == "completed" else view["failure"]["code"]
        for view in books.views.values()
    )
    return ", ".join(f"{count} {word}" for word, count in found.most_common())


def _ms(rfc3339: str) -> int:
    return round(datetime.fromisoformat(rfc3339).timestamp() * 1000)
