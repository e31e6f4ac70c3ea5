"""Records that are damaged, or of another version: they end, lie in quarantine or are left alone, and harm no other."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest
from harness import Bench, Receiver, directed, eventually
from redis.exceptions import ResponseError
from structlog.testing import capture_logs
from test_jobs_api import web as web  # noqa: PLC0414 - a fixture
from test_web import Api

from jobs.job import NewerRecord, UnreadableRecord
from worker import actions, poison
from worker.client import UnreadableJob, WorkerClient
from worker.link import Argument
from worker.poison import JobBounds, Quarantined
from worker.quarantine import ASIDE_MS, MOST_AT_ONCE
from worker.record import SCHEMA
from worker.upkeep import Deadlines, Prune

LONG_MS = 86_400_000 * 365


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poison, "PAUSES_MS", (10, 20, 30, 40))
    monkeypatch.setattr(poison, "NEWER_PAUSE_MS", 20)


async def dump(bench: Bench, *patterns: str) -> dict[bytes, Any]:
    """Give what lies in Redis under names like these, byte for byte; a hash by its fields, which have no order."""
    names = sorted({name for pattern in patterns for name in await bench.raw.keys(pattern)})
    hashes = {name for name in names if await bench.raw.type(name) == b"hash"}
    return {name: await (bench.raw.hgetall(name) if name in hashes else bench.raw.dump(name)) for name in names}


async def quarantined(bench: Bench) -> list[str]:
    """Name the jobs in quarantine."""
    return [name.decode() for name in await bench.raw.zrange("onysoft:quarantine", 0, -1)]


DAMAGES: dict[str, dict[str, Any]] = {
    "truncated": {"state": '{"updated_at_ms": 17'},
    "foreign": {"state": '["nothing"]'},
    "numbers": {"state": '{"updated_at_ms": "x", "attempts": []}'},
    "status": {"status": "simmering"},
    "schema": {"schema": "x"},
    "bytes": {"state": b"\xff\xfe"},
    "empty": {"state": ""},
    "rev": {"rev": ""},
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_record_with_its_spec_ends_as_failed(bench: Bench, receiver: Receiver, damage: str) -> None:
    """Its caller is told, what was there is kept, its indexes are tidy, and it can be retried."""
    job_id = await bench.submit(input=directed())
    before = await bench.raw.hgetall(f"onysoft:job:{job_id}")
    await bench.raw.hset(f"onysoft:job:{job_id}", mapping=DAMAGES[damage])
    async with bench.worker():
        assert (await bench.ended(await bench.submit(input=directed())))["status"] == "completed"

        async def failed() -> list[dict[str, Any]]:
            return receiver.of(job_id)

        [event] = await eventually(failed)
        assert (event["type"], event["data"]["failure"]["code"]) == ("job.failed", "internal_error")
        assert "its field 'damaged'" in event["data"]["failure"]["message"]
        kept = json.loads(await bench.raw.hget(f"onysoft:job:{job_id}", "damaged"))
        assert kept["spec"] == before[b"spec"].decode()
        overview = await bench.store.fleet.overview(bench.store.now_ms())
        assert {row: n for row, n in overview.jobs.items() if n} == {
            ("video", "failed"): 1, ("video", "completed"): 1,
        }  # fmt: skip
        assert overview.quarantined == 0
        await actions.retry(bench.store, job_id)
        assert (await bench.ended(job_id))["status"] == "completed"


async def test_tasks_of_a_damaged_record_are_kept(bench: Bench, receiver: Receiver) -> None:
    """Those of its attempts that can be read are shown, and the one that runs is looked at until it ends."""
    job_id = await bench.submit(input=directed(duration_s=60))
    async with bench.worker():
        await bench.standing(job_id, "processing")
        state = json.loads(await bench.raw.hget(f"onysoft:job:{job_id}", "state"))
        state |= {"model_index": 99, "attempts": ["rubbish", *state["attempts"]]}
        await bench.raw.hset(f"onysoft:job:{job_id}", "state", json.dumps(state))
        await eventually(lambda: _received(receiver, 1))
        failed = await bench.ended(job_id)
    assert (failed["failure"]["code"], failed["attempts"][0]["outcome"]) == ("internal_error", "abandoned")
    assert failed["task_id"] is not None
    assert await bench.raw.zrange("onysoft:wheel:track", 0, -1) == [f"1:{job_id}".encode()]


@pytest.mark.parametrize("damage", ["spec", "string", "models"])
async def test_a_record_that_says_nothing_is_quarantined(bench: Bench, web: Api, damage: str) -> None:
    """It is off all lists, its id stays taken, everyone says what is wrong, and it is gone when its time has come."""
    job_id = await bench.submit(id="lost", input=directed())
    if damage == "string":
        await bench.raw.set("onysoft:job:lost", "x")
    elif damage == "models":  # what no key can be named by
        spec = json.loads(await bench.raw.hget("onysoft:job:lost", "spec"))
        await bench.raw.hset("onysoft:job:lost", "spec", json.dumps({**spec, "models": ["\ud83d"]}))
    else:
        await bench.raw.hset("onysoft:job:lost", "spec", "\ufffd")
    before = await dump(bench, "onysoft:job:lost")
    with capture_logs() as logs:
        async with bench.worker():

            async def lies_there() -> bool:
                return await quarantined(bench) == [job_id]

            await eventually(lies_there)
            assert (await bench.ended(await bench.submit(input=directed())))["status"] == "completed"
    assert [line["job"] for line in logs if line["event"] == "job.quarantined"] == [job_id]
    found = await bench.raw.hgetall("onysoft:job:lost") if damage != "string" else {}
    assert b"crashes" in found or before == await dump(bench, "onysoft:job:lost")
    for key in ("wheel:submit:video", "deadlines", "index:queued:video"):
        assert await bench.raw.zscore(f"onysoft:{key}", job_id) is None
    fleet = (await web.client.get("/v1/queues")).json()
    assert fleet["quarantined"] == 1
    await bench.raw.zadd("onysoft:quarantine", {"lost": 0})
    assert await Quarantined(bench.store, retention_s=60).run_once(bench.store.now_ms()) == 1
    assert await dump(bench, "onysoft:*:lost") == {}


async def test_what_was_mended_by_hand_is_in_quarantine_no_more(bench: Bench) -> None:
    """So is what was deleted by hand."""
    await bench.submit(id="mended", input={})
    await bench.raw.zadd("onysoft:quarantine", {"mended": 1, "gone": 2})
    assert await Quarantined(bench.store, retention_s=60).run_once(bench.store.now_ms()) == 2
    assert await quarantined(bench) == []
    assert (await bench.job("mended")).status == "queued"


async def test_a_job_with_a_pending_delivery_stays_in_quarantine(bench: Bench) -> None:
    """Its record is deleted when that is settled; whatever lies there behind it has its turn."""
    await bench.submit(id="old")
    await actions.cancel(bench.store, "old")
    await bench.raw.hset("onysoft:job:old", "state", "{")
    await bench.store.quarantine.take("old", "", 1)
    await bench.raw.zadd("onysoft:quarantine", {f"gone{n}": n for n in range(2, 2 + 2 * MOST_AT_ONCE)})
    looking, now_ms = Quarantined(bench.store, retention_s=1), bench.store.now_ms()
    for _ in range(4):
        await looking.run_once(now_ms)
    assert await quarantined(bench) == ["old"]
    assert await bench.raw.exists("onysoft:job:old")
    await bench.raw.hset("onysoft:job:old", "pending", 0)
    assert await looking.run_once(now_ms) == 1
    assert await dump(bench, "onysoft:*:old") == {}


async def test_doors_say_what_is_wrong_with_a_record(bench: Bench, web: Api) -> None:
    """A damaged one is a problem of its own, a newer one asks to be asked of elsewhere; neither is a bug's answer."""
    for name in ("damaged", "newer"):
        await bench.submit(id=name, input={})
    await bench.raw.hset("onysoft:job:damaged", "spec", "{")
    await bench.raw.hset("onysoft:job:newer", "schema", SCHEMA + 1)
    request = {"kind": "video", "input": {}}
    async with WorkerClient(bench.redis_url) as client:
        for name, status, code in (("damaged", 500, "record_damaged"), ("newer", 503, "newer_version")):
            answers = [
                await web.client.get(f"/v1/jobs/{name}"),
                await web.client.get(f"/v1/jobs/{name}/stream"),
                await web.client.get(f"/v1/jobs/{name}/deliveries"),
                await web.client.post(f"/v1/jobs/{name}/cancel"),
                await web.client.post(f"/v1/jobs/{name}/retry"),
                await web.client.post("/v1/jobs", json={"id": name, **request}),
            ]
            assert [(each.status_code, each.json()["code"]) for each in answers] == [(status, code)] * len(answers)
            assert (await web.client.get(f"/v1/video/status/{name}")).status_code == status
            with pytest.raises(UnreadableJob, match=name):
                await client.get(name)
        assert "a newer version" in answers[0].json()["detail"]


# --- keys of another type


async def test_what_was_moved_aside_before_stays(bench: Bench) -> None:
    """Each time under a name of its own, and only for a week."""
    for rubbish in ("first", "second"):
        await bench.raw.set("onysoft:deadlines", rubbish)
        assert await bench.store.quarantine.clear() == 1
    kept = [b"onysoft:aside:deadlines", b"onysoft:aside:deadlines:2"]
    assert await bench.raw.mget(kept) == [b"first", b"second"]
    assert all([0 < await bench.raw.pttl(name) <= ASIDE_MS for name in kept])
    assert await bench.store.quarantine.clear() == 0


async def test_what_another_worker_made_good_meanwhile_stays_in_its_place(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it has been made anew by then or is gone; the job that met what lay there is tried again at once."""
    job_id = await bench.submit()
    [claim] = (await bench.store.claim(["submit:video"], limit=1)).items
    await bench.raw.delete("onysoft:events", "onysoft:deadlines")
    await bench.raw.mset({"onysoft:events": "x", "onysoft:deadlines": "x"})
    link = bench.store._link
    script = link.script

    async def script_after_another(name: str, keys: Sequence[str], args: Sequence[Argument]) -> Any:
        if name == "set_aside":
            monkeypatch.setattr(link, "script", script)
            await bench.store.quarantine.clear()
            await bench.raw.xadd("onysoft:events", {"x": "y"})
        return await script(name, keys, args)

    monkeypatch.setattr(link, "script", script_after_another)
    monkeypatch.setattr(poison, "UNABLE_PAUSE_MS", LONG_MS)
    await JobBounds(bench.store).crashed(claim, ResponseError("WRONGTYPE Operation"))
    assert await bench.raw.zscore("onysoft:wheel:submit:video", job_id) < bench.store.now_ms() + LONG_MS / 2
    assert await bench.raw.hget(f"onysoft:job:{job_id}", "crashes") is None
    assert await bench.raw.type("onysoft:events") == b"stream"
    assert sorted(await bench.raw.keys("onysoft:aside:*")) == [b"onysoft:aside:deadlines", b"onysoft:aside:events"]
    assert await bench.raw.get("onysoft:aside:events") == b"x"


# --- the sequence


@pytest.mark.parametrize("lost", [None, "2", "9" * 30, "x", "list"])
async def test_a_sequence_that_was_lost_goes_on_above_all_there_is(bench: Bench, lost: str | None) -> None:
    """Jobs and events that come then are listed behind those before, none beside another."""
    before = [await bench.submit() for _ in range(5)]
    await bench.raw.delete("onysoft:sequence")
    if lost == "list":
        await bench.raw.rpush("onysoft:sequence", "x")
    elif lost is not None:
        await bench.raw.set("onysoft:sequence", lost)
    if lost is not None:  # what is lost is noticed by the next step
        assert await bench.store.quarantine.clear() > 0
    after = [await bench.submit() for _ in range(2)]
    listed = await bench.raw.zrange("onysoft:index:queued:video", 0, -1, withscores=True)
    assert [name.decode() for name, _ in listed] == [*before, *after]
    assert len({score for _, score in listed}) == len(listed)
    assert await bench.store.quarantine.clear() == 0


async def test_a_sequence_goes_on_above_the_events(bench: Bench) -> None:
    """Also where no job is left that was numbered; a score that was never given out does not count."""
    await actions.cancel(bench.store, await bench.submit())
    [*_, event] = await bench.store.outbox.feed(None, limit=50)
    await bench.raw.delete("onysoft:sequence", *await bench.raw.keys("onysoft:index:*"), "onysoft:deliveries:pending")
    await bench.raw.zadd("onysoft:index:failed:video", {"x": float("inf"), "y": 1e300})
    assert await bench.store.quarantine.clear() == 1
    assert event.sequence < int(await bench.raw.get("onysoft:sequence")) < event.sequence + 2000
    assert await bench.store.quarantine.clear() == 0


# --- versions side by side


async def test_what_a_newer_version_has_written_is_left_to_it(bench: Bench, receiver: Receiver) -> None:
    """Every part leaves it alone, byte for byte, and goes on with the others; when it is mended it is taken at once."""
    for name in ("queued", "processing", "ended"):
        await bench.submit(id=name, webhook_events=[], input=directed(duration_s=60 * (name != "ended")))
    async with bench.worker():
        await bench.ended("ended")
        await bench.standing("processing", "processing")
        await bench.standing("queued", "processing")
    await actions.cancel(bench.store, "queued")
    await actions.retry(bench.store, "queued")
    newer = {name: await bench.raw.hget(f"onysoft:job:{name}", "state") for name in ("queued", "processing", "ended")}
    for name, state in newer.items():
        changed = {**json.loads(state), "of_the_future": 1}
        await bench.raw.hset(f"onysoft:job:{name}", mapping={"schema": 99, "state": json.dumps(changed)})
    await bench.raw.zadd("onysoft:deadlines", dict.fromkeys(newer, 1))
    before = await dump(bench, "onysoft:job:*", "onysoft:timeline:*", "onysoft:input:*", "onysoft:deliveries-of:*")
    receiver.received.clear()
    async with bench.worker():
        for name in newer:
            await bench.raw.zadd("onysoft:wheel:submit:video", {name: 0})
            await bench.raw.zadd("onysoft:wheel:track", {f"1:{name}": 0})
        healthy = [await bench.submit(id=f"healthy{n}", input=directed()) for n in range(10)]
        assert {(await bench.ended(name))["status"] for name in healthy} == {"completed"}
        await asyncio.gather(
            Prune(bench.store, retention_s=1).run_once(bench.store.now_ms() + LONG_MS),
            Deadlines(bench.store).run_once(bench.store.now_ms() + LONG_MS),
            Quarantined(bench.store, retention_s=1).run_once(bench.store.now_ms() + LONG_MS),
        )
        for act in (actions.cancel, actions.retry):
            with pytest.raises(NewerRecord):
                await act(bench.store, "queued")
        after = await dump(bench, "onysoft:job:*", "onysoft:timeline:*", "onysoft:input:*", "onysoft:deliveries-of:*")
        assert {name: after[name] for name in before} == before
        for name, state in newer.items():  # as the newer one would hand it back
            await bench.raw.hset(f"onysoft:job:{name}", mapping={"schema": SCHEMA, "state": state})
        await actions.cancel(bench.store, "processing")
        assert await quarantined(bench) == []
    assert {event["data"]["id"] for event in receiver.received} <= set(healthy)


async def test_a_delivery_of_a_newer_version_is_left_to_it(bench: Bench, receiver: Receiver) -> None:
    """It waits; it neither fails nor is it sent."""
    await bench.submit(id="j")
    await actions.cancel(bench.store, "j")
    [delivery] = await bench.store.outbox.of_job("j")
    assert int(await bench.raw.hget(f"onysoft:delivery:{delivery.id}", "schema")) == SCHEMA
    await bench.raw.hset(f"onysoft:delivery:{delivery.id}", "schema", SCHEMA + 1)
    before = await dump(bench, "onysoft:delivery:*")
    async with bench.worker():
        assert (await bench.ended(await bench.submit(input=directed())))["status"] == "completed"
        await eventually(lambda: _received(receiver, 1))
        assert {name: (await dump(bench, "onysoft:delivery:*"))[name] for name in before} == before
        await bench.raw.hset(f"onysoft:delivery:{delivery.id}", "schema", SCHEMA)
        await eventually(lambda: _received(receiver, 2))


async def _received(receiver: Receiver, count: int) -> bool:
    return len(receiver.received) >= count


async def test_a_worker_raises_the_schema_of_what_it_writes(bench: Bench) -> None:
    """An older record that a step has been written to may hold what only this version knows."""
    job_id = await bench.submit(input=directed())
    await bench.raw.hset(f"onysoft:job:{job_id}", "schema", 1)
    await actions.cancel(bench.store, job_id)
    assert int(await bench.raw.hget(f"onysoft:job:{job_id}", "schema")) == SCHEMA


# --- deliveries


@pytest.mark.parametrize("damage", ["attempts", "job", "type"])
async def test_a_damaged_delivery_is_a_dead_letter(bench: Bench, receiver: Receiver, damage: str) -> None:
    """It is out of the way of the others, and its job can be pruned."""
    await bench.submit(id="j")
    await actions.cancel(bench.store, "j")
    [delivery] = await bench.store.outbox.of_job("j")
    key = f"onysoft:delivery:{delivery.id}"
    if damage == "type":
        await bench.raw.delete(key)
        await bench.raw.set(key, "x")
    elif damage == "attempts":
        await bench.raw.hset(key, "attempts", "{")
    else:
        await bench.raw.hdel(key, "url")
    async with bench.worker():
        await bench.ended(await bench.submit(input=directed()))
        await eventually(lambda: _received(receiver, 1))

        async def none_pending() -> bool:
            return await bench.raw.zcard("onysoft:deliveries:pending") == 0

        await eventually(none_pending)
    with pytest.raises((UnreadableRecord, Exception)):
        await bench.store.outbox.delivery(delivery.id)
    assert await bench.raw.zcard("onysoft:deliveries:dead") == (0 if damage == "type" else 1)
    if damage != "type":
        assert await bench.raw.hget("onysoft:job:j", "pending") == b"0"
