"""The storm: the same jobs, faults and gateway for the worker and for a naive one, and what the books say of it."""

import asyncio
import contextlib
import json
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import audit
from audit import Books
from cast import Durable, Happened, Keeper, Member
from doors import Doors, requests
from errand import Place
from ground import PACE, Ground, Halt
from processes import Broken, Process, python
from redis import Redis
from schedule import LONG, SHORT, WORKERS, Size, draw
from stage import API_KEY, BENCH, KIND, MODEL, PREFIX, QUEUE, SECRET, Http, Stage
from table import Row

HERE = BENCH / "chaos"
GRACE_S = 10.0
SUBMIT_TIMEOUT_S = 5.0
SETTINGS = {
    **PACE,
    "LOG_LEVEL": "info",
    "UNKNOWN_SUBMIT": "fail",
    "SUBMIT_TIMEOUT_S": f"{SUBMIT_TIMEOUT_S:g}",
    "SHUTDOWN_GRACE_S": f"{GRACE_S:g}",
    "WEBHOOK_SCHEDULE_S": "0,1,3,6,12,24,60,60,60,60",
    "REQUESTS_PER_MINUTE": "100000",  # the 429s of the mix come by chance: there is no limit to learn from them
}
ENDS_WITHIN_S = {"the worker": 200.0, "naive": 120.0}
ENQUEUES_WITHIN_S = 120.0  # after the storm
CRASHED = re.compile(r'"event": ?"duty.crashed"|^Traceback \(most recent call last\)', re.MULTILINE)
EVENT = re.compile(r'"event": ?"([^"]+)"')
MOST_STORIES = 8


@dataclass(frozen=True, slots=True)
class Told:
    """How a run is to be: its seed, whether short, and what stops it."""

    seed: int
    short: bool
    halt: Halt

    @property
    def size(self) -> Size:
        """How much is played."""
        return SHORT if self.short else LONG


@dataclass(frozen=True, slots=True)
class Found:
    """Rows of the table, the stories of what went wrong, and what happened when."""

    rows: Sequence[Row]
    stories: Sequence[str] = ()
    happened: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Scene:
    """What there is beside the members: the stage, the inbox, and the proxy with its two lines."""

    stage: Stage
    inbox_url: str
    lines: Mapping[str, str]
    proxy: Process

    def count(self) -> dict[str, int]:
        """Ask the inbox how many jobs it was told of."""
        return dict(_ask(self.inbox_url, "/-/count"))

    def hooks(self) -> list[dict[str, Any]]:
        """Read all that came to the inbox."""
        return list(_ask(self.inbox_url, "/-/books")["rows"])

    def environ(self, redis: Durable) -> dict[str, str]:
        """Give the environment of our processes."""
        return {
            "ONYSOFT_API_KEY": API_KEY, "ONYSOFT_BASE_URL": self.lines["gateway"], "REDIS_URL": redis.url_of_db,
            "KEY_PREFIX": PREFIX, "WEBHOOK_ALLOW_PRIVATE": "true", "WEBHOOK_SECRET": SECRET, "PORT": "0",
            "DATA_DIR": str(self.stage.folder / "data"), **SETTINGS,
        }  # fmt: skip


@contextlib.contextmanager
def scene(told: Told) -> Iterator[Scene]:
    """Start sandbox, inbox and proxy."""
    told.halt.wait(0)
    with Stage() as stage, contextlib.ExitStack() as stack:
        inbox = stack.enter_context(stage.running(python(str(HERE / "inbox.py"), SECRET)))
        inbox_url = inbox.said(_address)
        places = {"gateway": stage.gateway_url, "receiver": inbox_url}
        leads = [f"{name}={url.removeprefix('http://')}" for name, url in places.items()]
        proxy = stack.enter_context(stage.running(python(str(HERE / "proxy.py"), *leads)))
        lines = {name: proxy.said(lambda line, name=name: _address(line, name)) for name in places}
        _ask(stage.gateway_url, "/sandbox/control", {"faults": "default", "seed": told.seed, "speed": told.size.speed})
        yield Scene(stage, inbox_url, lines, proxy)


def ours(told: Told) -> Found:
    """Play the storm with three worker processes and a web process."""
    with scene(told) as here, contextlib.ExitStack() as stack:
        redis = Durable(here.stage, here.stage.folder / "redis")
        environ = here.environ(redis)
        web = Member(here.stage, "web", python("-m", "worker", "web"), environ)
        workers = [Member(here.stage, name, python("-m", "worker", "work"), environ) for name in WORKERS]
        start(stack, [redis, web, *workers])
        keeper = Keeper([redis, web, *workers], here.proxy.tell, told.halt, grace_s=GRACE_S)
        doors = Doors(address_of(web), redis.url_of_db)
        jobs = requests(told.seed, told.size.jobs, f"{here.lines['receiver']}/hooks/media")
        storm_s = _play(told, keeper, doors, jobs)
        ground = Ground(here.stage, web.said(), [redis.process, web.process, *(w.process for w in workers)], told.halt)
        began_s = time.monotonic()
        ground.until(ground.all_ended, within_s=ENDS_WITHIN_S["the worker"], every_s=0.5)
        ended = sum(view["completed_at"] is not None for view in ground.views())
        ground.until(lambda: here.count()["told"] >= ended, within_s=60)
        after_s = time.monotonic() - began_s
        books = _books(here, ground, {view["id"]: view for view in ground.views()})
        logs = "\n".join(p.log.read_text(errors="replace") for w in [web, *workers] for p in w.processes)
        asked = [job["id"] for job in jobs]
        rows = [
            *_of_jobs(doors, books, asked),
            *_of_money(books, ground),
            *_of_webhooks(books),
            *_of_upkeep(books, ground, logs),
            *_of_deeds(keeper.happened, logs),
            _row("seconds of the storm", round(storm_s), None),
            _row("seconds after it until all had ended and was told", round(after_s), None),
        ]
        if any(row.verdict == "OVER" for row in rows):
            _show_crashes([web, *workers])
        return Found(rows, _stories(doors, books, asked, ground), keeper.happened.told)


def naive(told: Told) -> Found:
    """Play the storm with three naive arq workers."""
    with scene(told) as here, contextlib.ExitStack() as stack:
        redis = Durable(here.stage, here.stage.folder / "redis")
        place = Place(here.lines["gateway"], "", API_KEY, SECRET, KIND, MODEL, 0.5, 100, redis.url_of_db)
        words = python(str(HERE / "naive.py"), json.dumps(asdict(place)))
        workers = [Member(here.stage, name, words, {}, _is_ready) for name in WORKERS]
        start(stack, [redis, *workers])
        keeper = Keeper([redis, *workers], here.proxy.tell, told.halt, grace_s=GRACE_S)
        doors = Doors(lambda: "", redis.url_of_db, only_arq=True)
        jobs = requests(told.seed, told.size.jobs, f"{here.lines['receiver']}/hooks/media")
        _play(told, keeper, doors, jobs)
        client = Redis.from_url(redis.url_of_db)
        give_up_s = time.monotonic() + (ENDS_WITHIN_S["naive"] if not told.short else 20.0)
        while client.zcard(QUEUE) and time.monotonic() < give_up_s:
            keeper.look_after()
            told.halt.wait(0.5)
        left = client.zcard(QUEUE)
        ground = Ground(here.stage, "", [redis.process], told.halt)
        books = _books(here, ground, {})
        asked = [job["id"] for job in jobs]
        return Found(_of_naive(books, asked, left, keeper.happened), (), keeper.happened.told)


def start(stack: contextlib.ExitStack, members: Sequence[Member]) -> None:
    for member in members:
        stack.callback(member.close)
        member.start()
        if member.name == "redis":
            member.said()
    for member in members:
        member.said()


def _play(told: Told, keeper: Keeper, doors: Doors, jobs: list[dict[str, Any]]) -> float:
    """Enqueue while the faults go on, until both are over."""
    faults = [fault for fault in draw(told.seed, told.size) if not (doors.only_arq and fault.whom == "web")]
    failed: list[BaseException] = []

    def enqueue() -> None:
        try:
            asyncio.run(doors.enqueue(jobs, told.size.enqueue_s))
        except BaseException as error:  # noqa: BLE001 - it is raised where somebody hears it
            failed.append(error)

    thread = threading.Thread(target=enqueue, daemon=True)
    began_s = time.monotonic()
    keeper.plan(faults)
    thread.start()
    give_up_s = began_s + told.size.storm_s + ENQUEUES_WITHIN_S
    keeper.play(lambda: not thread.is_alive() or time.monotonic() > give_up_s)
    if thread.is_alive():
        raise Broken(f"{len(jobs) - len(doors.taken.ids)} jobs were still not taken: {doors.taken.again}")
    if failed:
        raise Broken(f"enqueueing broke: {failed[0]!r}")
    return time.monotonic() - began_s


def _books(here: Scene, ground: Ground, views: Mapping[str, Any]) -> Books:
    return Books(views, ground.submissions(), ground.tasks(), here.hooks())


# --- the rows


def _row(what: str, figure: float, bound: float | None, note: str = "") -> Row:
    return Row("the worker", what, figure, bound, note)


def _of_jobs(doors: Doors, books: Books, asked: Sequence[str]) -> list[Row]:
    again = ", ".join(f"{count} {why}" for why, count in sorted(doors.taken.again.items()))
    lost = [job for job in asked if job in doors.taken.ids and job not in books.views]
    return [
        _row("jobs enqueued", len(doors.taken.ids), None, f"half by HTTP; repeated: {again or 'none'}"),
        _row("refused for good", len(doors.taken.refused), 0),
        _row("enqueued and lost", len(lost), 0),
        _row("not ended", len(audit.unended(books)), 0, audit.ends(books)),
        _row("failed by a crash of a duty's", audit.failed_as(books, "internal_error"), 0),
        _row("failed as submit_unknown", audit.failed_as(books, "submit_unknown"), None),
        _row("slowest answer to POST /v1/jobs, ms", round(doors.taken.slowest_s * 1000), None),
    ]


def _of_money(books: Books, ground: Ground) -> list[Row]:
    keys = ground.stats()["duplicate_keys"]
    hidden = audit.hidden(books)
    return [
        _row("accepted tasks", sum(map(len, books.accepted.values())), None),
        _row("accepted tasks unaccounted for", len(audit.unaccounted(books)), 0),
        _row("submissions of unknown acceptance", audit.unknown(books), None, f"{hidden} of them had been accepted"),
        _row("accepted after one that was not known to have ended", len(audit.resubmitted(books)), 0),
        _row("tasks under a key that had one", keys, 0),
        _row("results paid for twice", audit.paid_again(books), 0),
        _row("results paid for that nobody knows of", len(audit.unknown_results(books)), None, "all said to be"),
    ]


def _of_webhooks(books: Books) -> list[Row]:
    ended = [job for job, view in books.views.items() if view["completed_at"] is not None]
    return [
        _row("webhooks received", len(books.hooks), None),
        _row("jobs nobody was told the end of", len(audit.untold(books, ended)), 0),
        _row("ends told otherwise than they were, or twice", len(audit.contradicted(books)), 0),
        _row("webhooks with a wrong signature", audit.forged(books), 0),
        _row("webhooks that came once more, same webhook-id", audit.repeated(books), None),
    ]


def _of_upkeep(books: Books, ground: Ground, logs: str) -> list[Row]:
    repairs = ground.metric("upkeep_repairs_total")
    events = Counter(EVENT.findall(logs))
    what = ", ".join(f"{name}: {count:g}" for name, count in sorted(repairs.items()) if count)
    return [
        _row("repairs by the reconciler", sum(repairs.values()), None, what),
        _row("leases found lost by their holder", events["lease.lost"], None),
        _row("task ids kept that came after a takeover", events["task.kept"], None),
        _row("late results used", audit.late_used(books), None),
    ]


def _of_deeds(happened: Happened, logs: str) -> list[Row]:
    deeds = [_row(deed, count, None) for deed, count in sorted(happened.deeds.items())]
    return [
        *deeds,
        _row("SIGTERMs not answered by exit 0 in time", len(happened.ended_badly), 0, "; ".join(happened.ended_badly)),
        _row("longest way out after SIGTERM, ms", round(happened.grace_s * 1000), None),
        _row("processes that ended unasked", len(happened.ended_unasked), 0, "; ".join(happened.ended_unasked)[:600]),
        _row("starts that found no Redis", happened.kept_out, None),
        _row("crashes and tracebacks in logs", len(CRASHED.findall(logs)), 0),
    ]


def _of_naive(books: Books, asked: Sequence[str], left: int, happened: Happened) -> list[Row]:
    def row(what: str, figure: float, note: str = "") -> Row:
        return Row("naive arq", what, figure, None, note)

    failed = sum(("failed" in {status for _, status in ends}) for ends in books.ends.values())
    return [
        row("jobs enqueued", len(asked)),
        row("not ended", left, "still in the queue"),
        row("jobs nobody was told the end of", len(audit.untold(books, asked))),
        row("jobs told of as failed", failed),
        row("accepted tasks", sum(map(len, books.accepted.values()))),
        row("results paid for that nobody knows of", len(audit.unknown_results(books))),
        row("results paid for twice", audit.paid_again(books)),
        row("processes that ended unasked", len(happened.ended_unasked)),
    ]


def _stories(doors: Doors, books: Books, asked: Sequence[str], ground: Ground) -> list[str]:
    lost = [f"{job}: lost" for job in asked if job in doors.taken.ids and job not in books.views]
    wrong = [
        *doors.taken.refused, *lost, *(f"{job}: not ended" for job in audit.unended(books)),
        *(f"{each}: unaccounted for" for each in audit.unaccounted(books)), *audit.resubmitted(books),
        *audit.contradicted(books), *(f"{job}: nobody was told" for job in audit.untold(books, sorted(books.views))),
    ]  # fmt: skip
    return [_story(words, books, ground) for words in wrong[:MOST_STORIES]]


def _story(words: str, books: Books, ground: Ground) -> str:
    job = words.partition(":")[0]
    lines = [words]
    lines += [
        f"  {post['at_ms']} {post['model']} {post['step']} {post['status']} {post['task_id']}"
        for post in books.posts
        if post["tag"] == job
    ]
    if job in books.views:
        lines += [f"  {row}" for row in ground.timeline(job)]
    lines += [f"  {hook}" for hook in books.hooks if hook["job"] == job]
    return "\n".join(lines)


def _show_crashes(members: Sequence[Member]) -> None:
    """Print the lines that tell of crashes, for whoever looks into them."""
    for member in members:
        for process in member.processes:
            for line in process.log.read_text(errors="replace").splitlines():
                if CRASHED.search(line):
                    sys.stderr.write(f"{member.name}: {line[:3000]}\n")


# --- talking


def _ask(url: str, path: str, body: Any = None) -> Any:
    http = Http(url)
    try:
        return http.call("POST" if body else "GET", path, json.dumps(body).encode() if body else None)[1]
    finally:
        http.close()


def address_of(member: Member) -> Callable[[], str]:
    """Give where a member listens, once it does again: what was there before while it is only starting."""
    last = member.said()

    def address() -> str:
        nonlocal last
        last = member.heard() or last
        return last

    return address


def _address(line: str, name: str = "") -> str | None:
    match = re.search(rf"{name} on (http://\S+)", line)
    return match[1] if match else None


def _is_ready(line: str) -> str | None:
    return "ready" if line.strip() == "ready" else None
