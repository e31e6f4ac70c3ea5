"""Says which end of a job is right, from what the sandbox's books say was done to it. Pure.

It is written from docs of the gateway and from the contract alone and shares no code with the worker, whose tables it
is there to check. It walks a job's submissions in their order, reads what each was met with, and holds the next
submission, or the job's end, against what may follow:

met with                                   an attempt   what may follow
429 per minute, 503, maintenance           no           the same model again
a quota of the model                       no           another model that was not tried; or a wait for the first reset
402, any other definite refusal            no           failed, with the code that goes with it
an answer that was lost or cannot be read  yes          failed (`fail`), or the same key once more (`retry`)
500, a generation that failed              yes          one retry on the model, then the next; the last takes the rest
a content refusal                          yes          one try on the next model, else failed
an input the model refuses, a lost task    yes          failed
a result                                   yes          completed

While a model's quota is used up the fleet may pass it over without a submission: `Fleet.used_up` holds those times. A
submission of unknown acceptance is followed by no other model's: its resend waits for the quota.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import product
from typing import Any

Span = tuple[int, int]  # from and until, ms since 1970
DOUBT_MS = 400  # so close to its timeout the client may or may not have read an answer that was sent
PASSING_OVER_MS = 1_000  # how long past its end a cooldown may still be acted upon

LOST = frozenset({"accept_then_close", "accept_then_reset", "accept_then_hang", "accept_half_body", "accept_garbage"})
NEVER_ANSWERED = frozenset({"close_before", "reset_before", "hang_before"})
QUOTAS = frozenset(
    {
        "daily_token_limit_exceeded",
        "daily_request_limit_exceeded",
        "monthly_token_limit_exceeded",
        "free_model_rate_limit",
    }
)
DEFINITE = {
    400: "invalid_request",
    401: "unauthorized",
    402: "insufficient_balance",
    403: "model_blocked",
    404: "model_not_found",
    413: "payload_too_large",
    422: "model_unsupported",
}
FREE = frozenset({429, 455, 503})
FAILURES = (  # words of a generation failure, in lower case, and what they come to; the first that is found counts
    ("moderation service", "generation_failed"),  # a breakdown, whatever broke
    ("content review failed", "content_rejected"),
    ("range of allowed options", "invalid_input"),
)


@dataclass(frozen=True, slots=True)
class Fleet:
    """What holds for all jobs: how long an answer is waited for, and when which model was known to be used up."""

    submit_timeout_s: float
    used_up: Mapping[str, Sequence[Span]]


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked: the models in their order, the attempts, and what is done about an unknown submission."""

    models: tuple[str, ...]
    max_attempts: int
    on_unknown: str


@dataclass(frozen=True, slots=True)
class Story:
    """A job: what was asked, the books' submissions in their order, its tasks by id, and the job's view."""

    request: Request
    posts: Sequence[Mapping[str, Any]]
    tasks: Mapping[str, Mapping[str, Any]]
    view: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Met:
    """What one submission was met with; `code` is the failure's, `heard` whether its acceptance became known."""

    kind: str  # free, quota, definite, unsure, failed, rejected, done, running
    code: str = ""
    heard: bool = True


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a job went right. `pending`: its task has vanished and is still looked for, which is right as well.

    `unsure` counts submissions of unknown acceptance, `hidden` those of them that had in truth been accepted. `twice`
    counts accepted submissions that were sent after a hidden one, `vain` hidden ones that such a one came after, and
    `elsewhere` unknown submissions that another model's followed instead of a resend.
    """

    right: bool
    why: str = ""
    pending: bool = False
    unsure: int = 0
    hidden: int = 0
    twice: int = 0
    vain: int = 0
    elsewhere: int = 0


class _Wrong(Exception):  # noqa: N818 - named after what it says
    """The job went another way than it should have."""


def judge(story: Story, fleet: Fleet) -> Verdict:
    """Judge a job. Where it is in doubt whether an answer was read, either reading may make it right."""
    first: Verdict | None = None
    for reading in _readings(story, fleet):
        met = [_met(post, story.tasks, heard=heard) for post, heard in zip(story.posts, reading, strict=True)]
        verdict = _counted(story.posts, met)
        try:
            verdict = replace(verdict, pending=_walk(story, met, fleet))
        except _Wrong as wrong:
            first = first or replace(verdict, right=False, why=str(wrong))
        else:
            return verdict
    assert first is not None
    return first


def _readings(story: Story, fleet: Fleet) -> Iterator[tuple[bool, ...]]:
    """Give every way to read which answers came through, the likeliest first."""
    yield from product(*(_heard(post, fleet) for post in story.posts))


def _heard(post: Mapping[str, Any], fleet: Fleet) -> tuple[bool, ...]:
    if post["sent_at_ms"] is None:
        return (False,)
    waited_ms = post["sent_at_ms"] - post["at_ms"]
    likely = not post["client_left"]
    if abs(waited_ms - fleet.submit_timeout_s * 1000) <= DOUBT_MS:
        return likely, not likely
    return (likely,)


def _met(post: Mapping[str, Any], tasks: Mapping[str, Mapping[str, Any]], *, heard: bool) -> Met:
    step, status, code = post["step"], post["status"], str(post["code"])
    if not heard or step in LOST or step in NEVER_ANSWERED:
        return Met("unsure", "submit_unknown", heard=False)
    if post["task_id"]:
        return _end_of(tasks[post["task_id"]])
    if step == "inside_200":
        status = int(code)
    if code in QUOTAS:
        return Met("quota", "model_quota_exceeded")
    if status in FREE:
        return Met("free")
    if status == 500:
        return Met("failed", "server_error")
    if status in DEFINITE:
        return Met("definite", DEFINITE[status])
    return Met("unsure", "submit_unknown", heard=False)  # a proxy's page: it cannot know


def _end_of(task: Mapping[str, Any]) -> Met:
    match task["outcome"]:
        case "success":
            return Met("done")
        case "never":
            return Met("running")
        case "vanish":
            return Met("lost", "task_lost")
        case "done_without_url":
            return Met("failed", "generation_failed")
        case "false_fail" if task["code"] == "524" or task["told_fail_at_ms"] is None:
            return Met("done")  # a timeout is not believed at once, and what nobody was told nobody can act upon
        case _:
            words = str(task["message"]).lower()
            code = next((code for said, code in FAILURES if said in words), "generation_failed")
            kinds = {"content_rejected": "rejected", "invalid_input": "definite"}
            return Met(kinds.get(code, "failed"), code)


def _counted(posts: Sequence[Mapping[str, Any]], met: Sequence[Met]) -> Verdict:
    """Count what was unknown and what was paid for because of it."""
    hidden, twice, vain = 0, 0, 0
    for post, one in zip(posts, met, strict=True):
        if not post["task_id"]:
            continue
        twice += hidden > 0
        vain = hidden
        hidden += not one.heard
    unsure = [post for post, one in zip(posts, met, strict=True) if one.kind == "unsure"]
    elsewhere = sum(
        one.kind == "unsure" and post["model"] != following["model"]
        for post, one, following in zip(posts, met, posts[1:], strict=False)
    )
    return Verdict(right=True, unsure=len(unsure), hidden=hidden, twice=twice, vain=vain, elsewhere=elsewhere)


@dataclass(frozen=True, slots=True)
class _After:
    """What is right after a submission: another to a model (by its place), or an end with a status and a code."""

    place: int | None = None
    same_key: bool = False
    status: str = ""
    code: str = ""


@dataclass(frozen=True, slots=True)
class _SoFar:
    """What a job has had: whether this submission is a resend, whether one was before, whether content was refused."""

    is_resend: bool = False
    resent: bool = False
    rejected: bool = False


def _walk(story: Story, met: Sequence[Met], fleet: Fleet) -> bool:
    """Go through a job. Gives whether it is rightly still waited for; raises ``_Wrong``."""
    if not story.posts:
        raise _Wrong("it was never submitted")
    used, so_far = [0] * len(story.request.models), _SoFar()
    place = _passed_over(story, fleet, 0, story.posts[0], _ms(story.view["created_at"]), used)
    for number, one in enumerate(met):
        used[place] += one.kind not in {"free", "quota", "definite"} or bool(story.posts[number]["task_id"])
        allowed = list(_allowed(story.request, one, place, used, so_far))
        if number + 1 == len(met):
            return _ended(story, one, place, allowed, met)
        here, following = story.posts[number], story.posts[number + 1]
        place = _moved(story, fleet, allowed, here, following, used)
        same_key = following["idempotency_key"] == here["idempotency_key"]
        resent = same_key and (one.kind == "unsure" or so_far.is_resend)
        so_far = _SoFar(resent, so_far.resent or resent, so_far.rejected or one.kind == "rejected")
        _in_time(story, here, following, one)
    raise AssertionError


def _allowed(request: Request, one: Met, place: int, used: Sequence[int], so_far: _SoFar) -> Iterator[_After]:
    """Give what may follow; see the table above."""
    left, alternates = request.max_attempts - sum(used), len(request.models) - 1 - place
    failed = _After(status="failed", code=one.code)
    match one.kind:
        case "done":
            yield _After(status="completed")
        case "free":
            yield _After(place)
        case "quota":
            yield _After(place)  # also where another was free: that is held by `_moved`
            if not so_far.is_resend:
                yield from (_After(at) for at, tries in enumerate(used) if not tries and at != place)
        case "definite" | "lost":
            yield failed
        case "rejected":
            yield _After(place + 1) if alternates and left > 0 and not so_far.rejected else failed
        case "unsure":
            yield from _after_unsure(so_far, place, failed, resend=request.on_unknown == "retry" and left > 0)
        case "failed" if left > 0:
            yield _After(place + 1 if alternates and (used[place] > 1 or left <= alternates) else place)
        case "failed":
            yield failed


def _after_unsure(so_far: _SoFar, place: int, failed: _After, *, resend: bool) -> Iterator[_After]:
    """Give what may follow an unknown submission: "once" may be read as once a job or as once each."""
    if not resend or so_far.resent:
        yield failed
    if resend and not so_far.is_resend:
        yield _After(place, same_key=True)


def _moved(
    story: Story,
    fleet: Fleet,
    allowed: Sequence[_After],
    here: Mapping[str, Any],
    following: Mapping[str, Any],
    used: Sequence[int],
) -> int:
    """Say on which model the next submission rightly is; raise ``_Wrong``."""
    for after in allowed:
        if after.place is None:
            continue
        try:
            place = _passed_over(story, fleet, after.place, following, here["at_ms"], used)
        except _Wrong:
            continue
        if len(allowed) > 1 and after is allowed[0] and place == after.place:
            _no_other_was_free(story, fleet, [a.place for a in allowed[1:]], here, following)
        if after.same_key and place != after.place:
            raise _Wrong("a submission of unknown acceptance was followed by another model's")
        if after.same_key and following["idempotency_key"] != here["idempotency_key"]:
            raise _Wrong("a submission of unknown acceptance was sent again under another key")
        return place
    words = " or ".join(_said(story, after) for after in allowed) or "nothing"
    raise _Wrong(f"after {here['step']} of {here['model']} came a submission to {following['model']}, not {words}")


def _passed_over(
    story: Story, fleet: Fleet, place: int, post: Mapping[str, Any], since_ms: int, used: Sequence[int]
) -> int:
    """Give the place of a submission that is due on `place`, or on an untried model where that one was used up."""
    models = story.request.models
    if models[place] == post["model"]:
        return place
    is_used_up = _was_used_up(fleet, models[place], since_ms, post["at_ms"])
    untried = [at for at, model in enumerate(models) if model == post["model"] and not used[at]]
    if is_used_up and untried:
        return untried[0]
    raise _Wrong(f"a submission to {post['model']} where one to {models[place]} was due")


def _was_used_up(fleet: Fleet, model: str, since_ms: int, until_ms: int) -> bool:
    spans = fleet.used_up.get(model, ())
    return any(begun <= until_ms and over + PASSING_OVER_MS >= since_ms for begun, over in spans)


def _no_other_was_free(
    story: Story,
    fleet: Fleet,
    places: Sequence[int | None],
    here: Mapping[str, Any],
    following: Mapping[str, Any],
) -> None:
    """Hold that a job which came back to its model had found another at its quota meanwhile, or had none to go to."""
    if None in places:  # an end is as right as another submission
        return
    others = [story.request.models[at] for at in places if at is not None]
    if not any(_was_used_up(fleet, model, here["at_ms"], following["at_ms"]) for model in others):
        raise _Wrong(f"it waited for {here['model']} while {' and '.join(others)} were free")


def _in_time(story: Story, here: Mapping[str, Any], following: Mapping[str, Any], one: Met) -> None:
    """Hold that no task was given up while it ran."""
    if not here["task_id"] or one.kind == "unsure":
        return
    ended_ms = story.tasks[here["task_id"]]["ends_at_ms"]
    if ended_ms is None or following["at_ms"] < ended_ms:
        raise _Wrong(f"submitted again while task {here['task_id']} was running")


def _ended(story: Story, one: Met, place: int, allowed: Sequence[_After], met: Sequence[Met]) -> bool:
    view = story.view
    status, code = view["status"], (view["failure"] or {}).get("code", "")
    if status not in {"completed", "failed", "canceled"}:
        if one.kind in {"lost", "running"}:
            return True
        raise _Wrong(f"it is {status} and has not ended; right were {' or '.join(_said(story, a) for a in allowed)}")
    if not any((after.status, after.code) == (status, code) for after in allowed):
        right = " or ".join(_said(story, after) for after in allowed)
        raise _Wrong(f"it ended as {status} {code}; right were {right}".replace("  ", " "))
    _told(story, place, met)
    return False


def _told(story: Story, place: int, met: Sequence[Met]) -> None:
    """Hold the view of an ended job against the books."""
    view, models = story.view, story.request.models
    heard = [p["task_id"] for p, one in zip(story.posts, met, strict=True) if p["task_id"] and one.heard]
    known = [attempt["task_id"] for attempt in view["attempts"] if attempt["task_id"]]
    if known != heard:
        raise _Wrong(f"its attempts name the tasks {known}, the gateway told it of {heard}")
    unknown = sum(attempt["outcome"] == "unknown" for attempt in view["attempts"])
    unsure = sum(one.kind == "unsure" for one in met)
    if unknown != unsure:
        raise _Wrong(f"{unknown} of its attempts are unknown, {unsure} of its submissions were")
    if view["status"] == "completed":
        if view["model"] != models[place] or view["task_id"] != story.posts[-1]["task_id"]:
            raise _Wrong(f"its result is said to be of {view['model']}, task {view['task_id']}")
        if view["degraded"] != (place > 0):
            raise _Wrong(f"degraded is {view['degraded']}")
        if not (view["result"]["urls"] or view["result"].get("text")):
            raise _Wrong("it completed without a result")


def _ms(rfc3339: str) -> int:
    return round(datetime.fromisoformat(rfc3339).timestamp() * 1000)


def _said(story: Story, after: _After) -> str:
    if after.place is not None:
        return f"{story.request.models[after.place]} again" if not after.same_key else "the same once more"
    return f"{after.status} {after.code}".strip()
