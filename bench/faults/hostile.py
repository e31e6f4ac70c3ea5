"""The hostile faults: many jobs of all kinds against the sandbox's hostile mix, each judged by the oracle.

With `fail` an unknown submission is never sent again: nothing may be paid twice. With `retry` it is, once: as many
tasks may be paid in excess as there were unknown submissions, and the worker's own counter must tell of every one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ground import Ground, Rows, ground
from oracle import Fleet, Request, Story, Verdict, judge
from scenarios import Found, Told
from table import Row

MOST_STORIES = 5
SHAPES: tuple[dict[str, Any], ...] = (  # taken in turn
    {"kind": "video"},
    {"kind": "image"},
    {"kind": "voice", "max_attempts": 3},
    {"kind": "video", "model": "hailuo", "fallbacks": ["wan", "sora-2-pro"]},
    {"kind": "audio"},
    {"kind": "music"},
    {"kind": "image", "model": "google/nano-banana-2-1k", "fallbacks": ["google/imagen4-ultra"], "max_attempts": 2},
    {"kind": "video", "model": "runway", "fallbacks": []},
    {"kind": "audio", "model": "speech-to-text", "fallbacks": [], "max_attempts": 3},
    {"kind": "image", "model": "google/imagen4-fast", "fallbacks": [], "max_attempts": 1},
)


@dataclass(frozen=True, slots=True)
class Size:
    """How much is played: jobs, the sandbox's speed, how long a submission and the whole may take.

    `patient` waits for tasks that have vanished, too, which the worker believes after two minutes.
    """

    jobs: int
    speed: float
    submit_timeout_s: float
    within_s: float
    patient: bool


LONG = Size(2000, 15.0, submit_timeout_s=3.0, within_s=600.0, patient=True)  # the slowest answers are too slow
SHORT = Size(180, 30.0, submit_timeout_s=4.0, within_s=180.0, patient=False)


def with_fail(told: Told) -> Found:
    """Play it with UNKNOWN_SUBMIT=fail."""
    return _play(told, "fail")


def with_retry(told: Told) -> Found:
    """Play it with UNKNOWN_SUBMIT=retry."""
    return _play(told, "retry")


def _play(told: Told, policy: str) -> Found:
    size = SHORT if told.short else LONG
    with ground(told.halt, UNKNOWN_SUBMIT=policy, SUBMIT_TIMEOUT_S=f"{size.submit_timeout_s:g}") as here:
        here.control(faults="hostile", seed=told.seed, speed=size.speed)
        here.enqueue([_request(told.seed, number) for number in range(size.jobs)])

        def over() -> bool:
            return here.all_ended() or (not size.patient and _only_vanished(here))

        here.until(over, within_s=size.within_s, every_s=0.5)
        return _report(here, policy, size)


def _request(seed: int, number: int) -> dict[str, Any]:
    job_id = f"h{seed}-{number}"
    return {"id": job_id, "input": {"prompt": "a lighthouse", "sandbox": {"tag": job_id}}, **SHAPES[number % 10]}


def _only_vanished(here: Ground) -> bool:
    """Tell whether all that is left waits for tasks that have vanished, which takes two minutes to believe."""
    tasks = here.tasks()
    left = here.unended()
    return all((tasks.get(view["task_id"]) or {}).get("outcome") == "vanish" for view in left)


def _report(here: Ground, policy: str, size: Size) -> Found:
    views = {view["id"]: view for view in here.views()}
    posts = here.submissions()
    stories = _stories(views, posts, here.tasks(), policy)
    fleet = Fleet(size.submit_timeout_s, used_up(posts))
    verdicts = {job_id: judge(story, fleet) for job_id, story in stories.items()}
    pending = sum(verdict.pending for verdict in verdicts.values())
    ended = sum(view["completed_at"] is not None for view in views.values())
    looking = 0 if size.patient else pending
    wrong = [job_id for job_id, verdict in verdicts.items() if not verdict.right]
    here.until(lambda: here.webhooks() >= ended, within_s=10)
    name = f"hostile, {policy}"
    completed = sum(view["status"] == "completed" for view in views.values())
    rows = [
        Row(name, "jobs", len(views), note=f"{len(posts)} submissions, {completed} completed"),
        Row(name, "jobs that have not ended", size.jobs - ended - looking, 0, _left(looking)),
        Row(name, "jobs that ended otherwise than their faults call for", len(wrong), 0),
        Row(name, "ends without a webhook", ended - here.webhooks(), 0),
        *_paid(here, name, policy, verdicts),
    ]
    return Found(rows, [tell(here, stories[job_id], verdicts[job_id]) for job_id in wrong[:MOST_STORIES]])


def _left(looking: int) -> str:
    return f"{looking} more still look for a vanished task: the long run waits for them" if looking else ""


def _paid(here: Ground, name: str, policy: str, verdicts: Mapping[str, Verdict]) -> list[Row]:
    unsure, hidden, twice, vain, elsewhere = (
        sum(getattr(verdict, what) for verdict in verdicts.values())
        for what in ("unsure", "hidden", "twice", "vain", "elsewhere")
    )
    counted = here.metric("unknown_submits_total")
    books = here.stats()
    note = f"{unsure} unknown submissions, {hidden} of them accepted"
    same_key, kept = books["duplicate_keys"], f"{books['double_billed']} tasks of a job beyond its first not refunded"
    if policy == "fail":
        paid = [
            Row(name, "accepted submissions after one accepted unknown to the worker", twice, 0, note),
            Row(name, "tasks under a key that had one", same_key, 0, kept),
        ]
    else:
        paid = [
            Row(name, "tasks paid for in vain, of unknown submissions", vain, unsure, note),
            Row(name, "tasks under a key that had one", same_key, unsure, kept),
            Row(name, "unknown submissions followed by another model's", elsewhere, 0),
        ]
    told = Row(
        name,
        "unknown submissions that the worker's counter does not tell of",
        abs(unsure - sum(counted.values())),
        0,
        ", ".join(f"{label}: {value:g}" for label, value in counted.items()),
    )
    return [*paid, told]


def used_up(posts: Rows) -> dict[str, list[tuple[int, int]]]:
    """Read from the books when the fleet knew which model to be used up: from a refusal on, for its Retry-After."""
    spans: dict[str, list[tuple[int, int]]] = {}
    for post in posts:
        if post["status"] == 429 and post["code"] != "rate_limit_exceeded" and post["retry_after_s"] is not None:
            until_ms = (post["sent_at_ms"] or post["at_ms"]) + round(post["retry_after_s"] * 1000)
            spans.setdefault(post["model"], []).append((post["at_ms"], until_ms))
    return spans


def _stories(views: Mapping[str, Any], posts: Rows, tasks: Mapping[str, Any], policy: str) -> dict[str, Story]:
    asked = {job_id: SHAPES[int(job_id.rpartition("-")[2]) % len(SHAPES)] for job_id in views}
    by_job: dict[str, Rows] = {job_id: [] for job_id in views}
    for post in posts:
        by_job[post["tag"]].append(post)
    return {
        job_id: Story(
            Request((view["requested_model"], *view["fallbacks"]), int(asked[job_id].get("max_attempts", 5)), policy),
            by_job[job_id],
            tasks,
            view,
        )
        for job_id, view in views.items()
    }


def tell(here: Ground, story: Story, verdict: Verdict) -> str:
    """Write down what was done to a job and what it made of it."""
    view = story.view
    lines = [f"{view['id']}: {verdict.why}", f"  asked for {story.request}"]
    for post in story.posts:
        task = story.tasks.get(post["task_id"] or "", {})
        fate = f" -> {post['task_id']} {task['outcome']} {task['code']} {task['message']}" if task else ""
        times = f"{post['at_ms']} to {post['sent_at_ms']}{', client left' if post['client_left'] else ''}"
        lines.append(
            f"  {times}: {post['model']} {post['step']} {post['status']} {post['code']} "
            f"key {post['idempotency_key']}{fate}"
        )
    lines += [f"  {row}" for row in here.timeline(view["id"])]
    lines.append(f"  {view['status']} {view['failure']}")
    return "\n".join(lines)
