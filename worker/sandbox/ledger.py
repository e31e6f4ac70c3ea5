"""What was asked, accepted, billed and refunded: the books a test or a bench reads afterwards.

Amounts are integer micro-dollars, times integer milliseconds of the wall clock. A task moves by itself: its state is a
function of the clock, and `settle` only books what has ended since. Ended tasks, jobs and submissions are kept up to a
bound, oldest out first; counters never forget.
"""

import heapq
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from worker.sandbox.catalog import Model
from worker.sandbox.fate import Outcome, Step

KEPT_ENDED_TASKS = 200_000
KEPT_SUBMISSIONS = 200_000
KEPT_JOBS = 300_000
NEVER_MS = 1 << 62

State = Literal["running", "success", "fail"]


@dataclass(slots=True)
class Task:
    """One accepted and billed task.

    `told_fail_at_ms` and `told_success_at_ms` are when a look-up first said so plainly. `subject` is its tag, or a
    digest of the body where it has none; `steps_of` is whose look-ups consume `steps`. `first_track_ms` is after how
    long a music task shows its first track, `expiry` what is put beside the result.
    """

    id: str
    alias: str
    model: Model
    key: str
    tag: str
    subject: str
    echo_url: str
    submitted_at_ms: int
    ends_at_ms: int
    outcome: Outcome
    steps: tuple[Step, ...]
    steps_of: Literal["task", "job", "model"]
    first_track_ms: int | None = None
    expiry: Mapping[str, Any] | None = None
    lookups: int = 0
    refunded: bool = False
    told_fail_at_ms: int | None = None
    told_success_at_ms: int | None = None

    @property
    def final_at_ms(self) -> int:
        """When nothing changes any more."""
        if self.outcome.kind == "never":
            return NEVER_MS
        return self.ends_at_ms + int(self.outcome.flip_after_s * 1000)

    def state(self, now_ms: int) -> State:
        """Tell what a look-up would say at `now_ms`, were it answered plainly."""
        if self.outcome.kind == "never" or now_ms < self.ends_at_ms:
            return "running"
        if self.outcome.kind == "false_fail":
            return "success" if now_ms >= self.final_at_ms else "fail"
        if self.outcome.kind in {"fail", "vanish"} or (self.outcome.kind == "body" and self.outcome.failed):
            return "fail"
        return "success"


@dataclass(slots=True)
class Submission:
    """One POST, refused or not; `answered` is None where the connection was dropped or left hanging.

    `code` is that of a refusal. `sent_at_ms` is when the answer had been written; `client_left` tells that the client
    had hung up by then.
    """

    at_ms: int
    alias: str
    model: str
    key: str
    tag: str
    answered: int | None
    how: str
    task_id: str
    code: str = ""
    retry_after_s: float | None = None
    sent_at_ms: int | None = None
    client_left: bool = False


@dataclass(slots=True)
class Tally:
    """Ordinals of one job, or of one job on one model."""

    submitted: int = 0
    accepted: int = 0
    looked: int = 0
    latest: str = ""


@dataclass(slots=True)
class Job(Tally):
    """All submissions that carry one tag.

    `kept` counts tasks billed and not refunded; `by_model` is filled only for jobs that a directive directs.
    """

    kept: int = 0
    by_model: dict[str, Tally] = field(default_factory=dict)

    def of(self, model: str) -> Tally:
        """Give the ordinals on one model."""
        return self.by_model.setdefault(model, Tally())


@dataclass(slots=True)
class ModelCounts:
    """The counters of one model."""

    submissions: int = 0
    accepted: int = 0
    refused: int = 0
    lookups: int = 0
    refunded: int = 0
    succeeded: int = 0
    failed: int = 0
    billed_micros: int = 0
    refunded_micros: int = 0


@dataclass(slots=True)
class Ledger:
    """All books of one gateway.

    `balance_micros` is None for an account without a floor, `keys` holds the first task of each Idempotency-Key.
    `duplicate_keys` and `duplicate_tags` count accepted tasks beyond the first of their key or job; `double_billed`
    those of a job's tasks beyond the first whose price was not given back: what double submission has cost.
    """

    balance_micros: int | None = None
    tasks: dict[str, Task] = field(default_factory=dict)
    submissions: deque[Submission] = field(default_factory=lambda: deque(maxlen=KEPT_SUBMISSIONS))
    jobs: dict[str, Job] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    models: dict[str, ModelCounts] = field(default_factory=dict)
    seen: int = 0
    accepted: int = 0
    accepted_unanswered: int = 0
    dropped: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    lookups: int = 0
    lookups_answered: Counter[str] = field(default_factory=Counter)
    duplicate_keys: int = 0
    duplicate_tags: int = 0
    double_billed: int = 0
    refunds: int = 0
    _ending: list[tuple[int, int, Task]] = field(default_factory=list)
    _ended: deque[str] = field(default_factory=deque)

    def job(self, tag: str) -> Job:
        """Give the job of a tag, made at first sight."""
        found = self.jobs.get(tag)
        if found is None:
            if len(self.jobs) >= KEPT_JOBS:
                del self.jobs[next(iter(self.jobs))]
            found = self.jobs[tag] = Job()
        return found

    def counts(self, model: str) -> ModelCounts:
        """Give the counters of a model."""
        found = self.models.get(model)
        if found is None:
            found = self.models[model] = ModelCounts()
        return found

    def book_task(self, task: Task) -> None:
        """Bill an accepted task and note whether it doubles another of its key or job."""
        price = task.model.price_micros
        self.accepted += 1
        counts = self.counts(task.model.id)
        counts.accepted += 1
        counts.billed_micros += price
        if self.balance_micros is not None:
            self.balance_micros -= price
        if task.key:
            self.duplicate_keys += task.key in self.keys
            self._remember_key(task.key, task.id)
        job = self.job(task.subject)
        if task.tag:
            self.duplicate_tags += job.accepted > 0
            self.double_billed += job.kept > 0
            job.kept += 1
        for tally in (job, job.by_model.get(task.model.id)):
            if tally is not None:
                tally.accepted += 1
                tally.latest = task.id
        self.tasks[task.id] = task
        if task.outcome.kind != "never":
            heapq.heappush(self._ending, (task.final_at_ms, self.accepted, task))

    def book_submission(self, submission: Submission, *, accepted: bool) -> None:
        """Note one POST and how it was answered."""
        self.seen += 1
        self.submissions.append(submission)
        if submission.model:
            self.counts(submission.model).submissions += 1
        if accepted:
            self.accepted_unanswered += submission.answered is None
        elif submission.answered is None:
            self.dropped += 1
        else:
            self.refused[str(submission.answered)] += 1
            if submission.model:
                self.counts(submission.model).refused += 1

    def book_told(self, task: Task, state: State, at_ms: int) -> None:
        """Note that a look-up has told how a task stands."""
        if state == "fail" and task.told_fail_at_ms is None:
            task.told_fail_at_ms = at_ms
        elif state == "success" and task.told_success_at_ms is None:
            task.told_success_at_ms = at_ms

    def settle(self, now_ms: int) -> None:
        """Book every task that has ended by `now_ms`: refund what failed, forget the oldest."""
        while self._ending and self._ending[0][0] <= now_ms:
            task = heapq.heappop(self._ending)[2]
            counts = self.counts(task.model.id)
            if task.state(now_ms) == "fail":
                counts.failed += 1
            else:
                counts.succeeded += 1
            if task.outcome.refunds:
                self._refund(task, counts)
            self._ended.append(task.id)
            if len(self._ended) > KEPT_ENDED_TASKS:
                self.tasks.pop(self._ended.popleft(), None)

    def _refund(self, task: Task, counts: ModelCounts) -> None:
        price = task.model.price_micros
        task.refunded = True
        self.refunds += 1
        counts.refunded += 1
        counts.refunded_micros += price
        if self.balance_micros is not None:
            self.balance_micros += price
        job = self.jobs.get(task.tag)
        if job is not None and task.tag:
            self.double_billed -= job.kept > 1
            job.kept -= 1

    def _remember_key(self, key: str, task_id: str) -> None:
        if len(self.keys) >= KEPT_JOBS and key not in self.keys:
            del self.keys[next(iter(self.keys))]
        self.keys.setdefault(key, task_id)
