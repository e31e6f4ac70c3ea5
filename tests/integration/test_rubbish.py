"""What cannot be read in Redis hides nothing else: a bad row is left out and logged, the rest is shown."""

import asyncio
import json
from typing import Any

import pytest
from harness import Bench, directed, eventually
from structlog.testing import capture_logs
from test_jobs_api import web as web  # noqa: PLC0414 - a fixture
from test_web import Api

from worker import actions, link
from worker.fleet import FORGOTTEN_MS
from worker.listing import Filter
from worker.main import open_store
from worker.record import number, rfc3339
from worker.upkeep import Prune

SHOWING = ("/v1/queues", "/v1/models", "/metrics", "/v1/jobs", "/v1/events")


@pytest.fixture(autouse=True)
def _nothing_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "_told", {})


async def shown(web: Api) -> dict[str, Any]:
    """Ask for everything; check that all of it answers, and give what was said."""
    answers = {path: await web.client.get(path) for path in SHOWING}
    assert {path: answer.status_code for path, answer in answers.items()} == dict.fromkeys(SHOWING, 200)
    return {path: answer.text if path == "/metrics" else answer.json() for path, answer in answers.items()}


def left_out(logs: Any) -> list[tuple[str, str]]:
    """Name the rows that were told to be unreadable."""
    return [(line["what"], line["row"]) for line in logs if line["event"] == "record.unreadable"]


@pytest.mark.parametrize(
    "rubbish",
    ["", "no json", "[]", "{}", "1", '{"id":"x"}', '{"id":"x","seen_at_ms":"abc"}', '{"id":"x","seen_at_ms":Infinity}'],
)
async def test_a_worker_that_cannot_be_read(bench: Bench, web: Api, rubbish: str) -> None:
    """It is left out, told of once, and taken off the list at the next upkeep."""
    await bench.store.fleet.beat({"id": "well", "seen_at_ms": bench.store.now_ms(), "started_at_ms": 10**18})
    await bench.raw.hset("onysoft:workers", "x", rubbish)
    with capture_logs() as logs:
        for _ in range(3):
            answers = await shown(web)
    workers = answers["/v1/queues"]["workers"]
    assert [(worker["id"], worker["alive"]) for worker in workers] == [("well", True)]
    assert "onysoft_worker_workers 1.0" in answers["/metrics"]
    assert left_out(logs) == [("workers", "x")]
    await bench.store.fleet.forget_dead(bench.store.now_ms())
    assert await bench.raw.hkeys("onysoft:workers") == [b"well"]


async def test_a_worker_of_the_far_future_is_not_alive(bench: Bench) -> None:
    """What was seen at a time that is not to come is neither alive nor kept."""
    now_ms = bench.store.now_ms()
    await bench.store.fleet.beat({"id": "w", "seen_at_ms": 10**18})
    overview = await bench.store.fleet.overview(now_ms)
    assert not overview.alive
    assert overview.view()["workers"][0]["alive"] is False
    await bench.store.fleet.forget_dead(now_ms)
    assert not (await bench.store.fleet.overview(now_ms)).workers


async def test_cooldowns_that_tell_no_time(bench: Bench, web: Api) -> None:
    """One that is no number is left out, an absurd one has the last time there is; both leave the rest shown."""
    later_ms = bench.store.now_ms() + 60_000
    cooldowns = {"veo3": later_ms, "a": "garbage", "b": "", b"\xff": "x", "absurd": 10**18, "real": "1e400"}
    await bench.raw.hset("onysoft:cooldowns", mapping=cooldowns)
    with capture_logs() as logs:
        answers = await shown(web)
    listed = {row["model"]: row["until"] for row in answers["/v1/queues"]["cooldowns"]}
    assert listed == {"absurd": "9999-01-01T00:00:00.000Z", "veo3": rfc3339(later_ms)}
    assert {row for _, row in left_out(logs)} == {"a", "\ufffd", "real"}


async def test_cooldowns_that_are_over_are_forgotten(bench: Bench) -> None:
    """Upkeep drops them after an hour, so that what is sent with every claim does not grow for ever."""
    now_ms = bench.store.now_ms()
    over = {f"m{number}": now_ms - 3_600_000 - number for number in range(100)}
    await bench.raw.hset("onysoft:cooldowns", mapping={**over, "rubbish": "x", b"\xff": "", "on": now_ms + 60_000})
    await bench.raw.hset("onysoft:cooldowns", "just over", now_ms - 1)
    await Prune(bench.store, retention_s=60).run_once(now_ms)
    assert set(await bench.raw.hkeys("onysoft:cooldowns")) == {b"on", b"just over"}


async def test_a_gate_of_rubbish(bench: Bench, web: Api) -> None:
    """A pause stays one whatever stands for its time; what is no number counts as not there."""
    fields = ("hold_since_ms", "probe_at_ms", "paused:video", "events_trimmed")
    await bench.raw.hset("onysoft:gate", mapping={**dict.fromkeys(fields, "x"), "hold": b"\xff", "paused:image": ""})
    await bench.raw.hset("onysoft:pace:submit", mapping={"pause_until_ms": "x", "limit": b"\xff", "window_ms": "-1"})
    answers = await shown(web)
    fleet = answers["/v1/queues"]
    paused = {row["kind"]: row["paused_since"] for row in fleet["queues"] if row["paused_since"]}
    assert paused == dict.fromkeys(("video", "image"), "1970-01-01T00:00:00.000Z")
    assert fleet["rate_limited_until"] is None
    assert fleet["hold"] == {"reason": "\ufffd", "since": None, "next_probe_at": None}
    await bench.raw.hset("onysoft:gate", mapping=dict.fromkeys(fields, 10**18))
    await bench.raw.hset("onysoft:pace:submit", "pause_until_ms", 10**18)
    assert (await shown(web))["/v1/queues"]["rate_limited_until"] == "9999-01-01T00:00:00.000Z"


async def test_health_of_rubbish(bench: Bench, web: Api) -> None:
    """A model's other values are shown."""
    health = {"veo3|in_a_row": "x", "veo3|ok_at_ms": 10**18, "veo3|failed_at_ms": -5, "alone": 1, b"\xff|in_a_row": "1"}
    await bench.raw.hset("onysoft:health", mapping=health)
    await bench.raw.zadd("onysoft:wheel:track", {"x": float("-inf")})
    models = {row["model"]: row for row in (await shown(web))["/v1/models"]["models"]}
    assert models["veo3"]["failures_in_a_row"] == 0
    assert models["veo3"]["last_success_at"] == "9999-01-01T00:00:00.000Z"
    assert models["veo3"]["last_failure_at"] == "1970-01-01T00:00:00.000Z"


async def test_lists_leave_out_what_cannot_be_shown(bench: Bench, web: Api) -> None:
    """A page, the jobs that ended last and a walk through all show every job but the damaged ones."""
    names = ["models", "type", "spec", "state", "newer", "gone"]
    for name in ["first", *names, "last"]:
        await bench.submit(id=name, input={})
        await actions.cancel(bench.store, name)
    spec = json.loads(await bench.raw.hget("onysoft:job:models", "spec"))
    await bench.raw.hset("onysoft:job:models", "spec", json.dumps({**spec, "models": []}))
    await bench.raw.delete("onysoft:job:type", "onysoft:job:gone")
    await bench.raw.set("onysoft:job:type", "x")
    await bench.raw.hset("onysoft:job:spec", "spec", "[]")
    await bench.raw.hset("onysoft:job:state", "state", "\ufffd")
    await bench.raw.hset("onysoft:job:newer", "schema", "99")
    with capture_logs() as logs:
        for _ in range(2):
            assert [job["id"] for job in (await shown(web))["/v1/jobs"]["jobs"]] == ["last", "first"]
        assert [job["id"] for job in await bench.store.listing.ended_last(50)] == ["last", "first"]
        assert [job["id"] async for job in bench.store.listing.every(Filter("canceled"))] == ["last", "first"]
    assert sorted(left_out(logs)) == sorted(("job", name) for name in names if name != "gone")


async def test_an_absurd_time_of_a_job_is_shown(bench: Bench, web: Api) -> None:
    """The job is listed, with the nearest time that can be written."""
    await bench.submit(id="j", input={})
    state = json.loads(await bench.raw.hget("onysoft:job:j", "state"))
    await bench.raw.hset("onysoft:job:j", "state", json.dumps({**state, "updated_at_ms": 10**18}))
    assert (await shown(web))["/v1/jobs"]["jobs"][0]["updated_at"] == "9999-01-01T00:00:00.000Z"


@pytest.mark.parametrize(
    ("stored", "read"),
    [
        (b"12", 12), ("12", 12), ("-3", -3), ("1.5e3", 1500), (7.9, 7), (10**18, 10**18),
        (b"", None), ("x", None), (b"\xff", None), ("1e400", None), ("nan", None), (float("inf"), None),
        ("9" * 5000, None), (None, None), (True, None), ([], None), ({}, None),
    ],
)  # fmt: skip
def test_numbers_are_read_out_of_anything(stored: object, read: int | None) -> None:
    """One reader for all: a number, or None."""
    assert number(stored) == read


@pytest.mark.parametrize("at_ms", [10**18, 10**400, -(10**18), float("inf"), float("-inf"), float("nan"), -1])
def test_any_time_can_be_written(at_ms: float) -> None:
    """A time that is none is the nearest that is."""
    assert rfc3339(at_ms) in {"1970-01-01T00:00:00.000Z", "9999-01-01T00:00:00.000Z"}


def test_what_is_unreadable_is_told_within_bounds() -> None:
    """Each row once, and not all of them where everything is rubbish."""
    with capture_logs() as logs:
        for number_of in range(link.MOST_TOLD * 2):
            for _ in range(3):
                link.unreadable("job", str(number_of), "why")
    assert left_out(logs) == [("job", str(number_of)) for number_of in range(link.MOST_TOLD)]


async def test_events_without_a_sequence_or_damaged(bench: Bench, web: Api) -> None:
    """Events of before there were sequences have 0; a damaged one is left out, and holds nobody up."""
    body = json.dumps({"type": "job.completed", "timestamp": "t", "data": {}})
    whole = {"id": "evt_1", "type": "job.completed", "job": "j", "body": body}
    await bench.raw.xadd("onysoft:events", {**whole, "id": "old"})
    for damage in ({"body": "x"}, {"body": "[]"}, {"body": "{}"}, {"id": b"\xff"}):
        await bench.raw.xadd("onysoft:events", {**whole, **damage})
    await bench.raw.xadd("onysoft:events", {"foreign": "x"})
    await bench.raw.xadd("onysoft:events", {**whole, "id": "new", "seq": 7})
    seen, cursor = [], {}
    while page := (await web.client.get("/v1/events", params={"limit": 1, **cursor})).json():
        if not page["events"]:
            break
        seen += [(event["id"], event["sequence"]) for event in page["events"]]
        cursor = {"cursor": page["next_cursor"]}
    assert seen == [("old", 0), ("new", 7)]


async def test_a_page_read_while_jobs_move_has_each_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs that go back and forth between two statuses are neither repeated nor left out, however reads are split."""
    monkeypatch.setattr(link, "MAX_BATCH", 4)
    ids = [f"m{number}" for number in range(20)]
    for job_id in ids:
        await bench.submit(id=job_id, input={})
    stop = asyncio.Event()
    pages: list[list[str]] = []
    async with open_store(bench.redis_url, bench.settings, bench.door.models) as other, asyncio.TaskGroup() as group:

        async def move(job_id: str) -> None:
            while not stop.is_set():
                await actions.cancel(other, job_id)
                await actions.retry(other, job_id)

        for job_id in ids:
            group.create_task(move(job_id))
        for _ in range(60):
            pages.append([job["id"] for job in (await bench.store.listing.page(Filter(), limit=50)).jobs])
            assert await bench.store.listing.count(Filter()) == len(ids)
            overview = await bench.store.fleet.overview(bench.store.now_ms())
            assert sum(overview.jobs.values()) == len(ids)
        stop.set()
    assert pages == [list(reversed(ids))] * 60


async def test_a_job_in_two_indexes_is_listed_once(bench: Bench) -> None:
    """The one that is left of a half-written step does not repeat the job, nor shorten a page."""
    for number_of in range(40):
        await bench.submit(id=f"d{number_of}", input={})
        await bench.raw.zadd("onysoft:index:canceled:video", {f"d{number_of}": number_of + 1})
    for limit in (1, 7, 40):
        page = await bench.store.listing.page(Filter(), limit=limit)
        assert [job["id"] for job in page.jobs] == [f"d{number_of}" for number_of in reversed(range(40 - limit, 40))]
    assert [job["id"] async for job in bench.store.listing.every(Filter())] == [f"d{n}" for n in reversed(range(40))]


async def test_a_walk_through_deliveries_goes_on_past_what_is_gone(bench: Bench, web: Api) -> None:
    """A whole page without a readable delivery ends neither the walk nor a job's list."""
    for name in ("old", "between", "new"):
        await bench.submit(id=name, webhook_events=["job.canceled"])
        await actions.cancel(bench.store, name)
    first, middle, last = [delivery async for delivery in bench.store.outbox.every("pending")]
    await bench.raw.hdel(f"onysoft:delivery:{middle.id}", "url")
    assert [d.id for d in await bench.store.outbox.page(None, limit=9)] == [first.id, last.id]
    assert (await web.client.get("/v1/jobs/between/deliveries")).json() == {"deliveries": []}
    # What has gone meanwhile fills a whole page between the two that are there.
    await bench.raw.zadd("onysoft:deliveries:pending", {first.id: 5000})
    await bench.raw.zadd("onysoft:deliveries:pending", {f"gone{number}": 1000 + number for number in range(450)})
    assert [d.id async for d in bench.store.outbox.every(None)] == [first.id, last.id]


async def test_events_are_kept_for_pending_deliveries_behind_a_damaged_one(bench: Bench) -> None:
    """The first pending delivery without a record does not take the guard from the others; none readable, none goes."""
    await bench.submit(id="j", webhook_events=["job.canceled"])
    await actions.cancel(bench.store, "j")
    later_ms = bench.store.now_ms() + FORGOTTEN_MS
    for ghosts in (3, 300):
        await bench.raw.zadd("onysoft:deliveries:pending", {f"ghost{n}": -n for n in range(ghosts)})
        await bench.store.outbox.trim(later_ms)
        assert await bench.raw.xlen("onysoft:events") == 1
    await bench.raw.delete("onysoft:deliveries:pending")
    await bench.store.outbox.trim(later_ms)
    assert await bench.raw.xlen("onysoft:events") == 0


async def test_a_worker_works_beside_rubbish(bench: Bench) -> None:
    """A job runs to its end while the small hashes hold rubbish."""
    for name in ("workers", "cooldowns", "health"):
        await bench.raw.hset(f"onysoft:{name}", "x", "rubbish")
    await bench.raw.hset("onysoft:gate", mapping={"pause_until_ms": "x", "booked_ms": "x"})
    async with bench.worker():
        job = await bench.ended(await bench.submit(input=directed()))
        assert job["status"] == "completed"
        await eventually(lambda: _delivered(bench))
        await Prune(bench.store, retention_s=60).run_once(bench.store.now_ms())


async def _delivered(bench: Bench) -> bool:
    return await bench.raw.zcard("onysoft:deliveries:pending") == 0
