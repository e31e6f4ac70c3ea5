"""A Redis that fills up: new jobs are refused above the mark, those there are end, and nothing answered 202 is lost."""

import asyncio
import itertools
import json
import re
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import redis.asyncio
from harness import Bench, Receiver, Sandbox, directed, eventually
from structlog.testing import capture_logs
from test_drop_in import check_envelope
from test_redis_away import own_redis as own_redis  # noqa: PLC0414 - a fixture
from test_redis_away import redis_url as redis_url  # noqa: PLC0414 - likewise
from test_redis_away import sent
from test_web import JOB, Api, check_problem, serving

from config.models import load_models
from jobs.job import to_form
from jobs.states import Status
from worker.claims import LEASE_MS, Claim
from worker.client import StorageFull, WorkerClient
from worker.doctor.redis_checks import check_redis
from worker.hindrances import hindrances
from worker.keys import TRACK_WHEEL
from worker.main import open_store
from worker.record import view
from worker.upkeep import Prune

QUEUE = "onysoft:jobs"
PATIENCE_S = 60.0  # buffers of a busy Redis may keep it at its bound for a while
PART_BYTES = 30_000
BALLAST_BYTES = 30_000_000
ROOM_BYTES = 6_000_000


@pytest.fixture
async def api(bench: Bench) -> AsyncIterator[Api]:
    """Serve the API on the bench's Redis."""
    async with serving(bench.redis_url, WEBHOOK_ALLOW_PRIVATE="true") as served:
        await served.store.sync_clock()
        yield served


async def used_bytes(client: redis.asyncio.Redis) -> int:
    """Read what Redis uses."""
    return int((await client.info("memory"))["used_memory"])


async def fill(bench: Bench) -> None:
    """Have Redis be above the mark and below its maxmemory, and every door have seen it."""
    await bench.raw.setrange("ballast", BALLAST_BYTES, "x")
    await bench.raw.config_set("maxmemory", round(await used_bytes(bench.raw) / 0.95))
    await eventually(lambda: refused(bench))


async def empty(bench: Bench) -> None:
    """Give Redis room again."""
    await bench.raw.config_set("maxmemory", 0)


async def refused(bench: Bench) -> bool:
    """Tell whether the bench's door sees that Redis is full."""
    return (await bench.door._room.look()).is_full


async def told_full(api: Api) -> bool:
    """Tell whether a new job is refused over HTTP."""
    return (await api.client.post("/v1/jobs", json={"kind": "none"} | JOB)).status_code == 503


async def test_every_door_of_the_api_says_so(api: Api, bench: Bench) -> None:
    """A new job is 503 with when to come again, alone, in a batch and as a drop-in; one that is there is found."""
    there = (await api.client.post("/v1/jobs", json={**JOB, "id": "there"})).json()
    await fill(bench)
    await eventually(lambda: told_full(api))
    alone = await api.client.post("/v1/jobs", json={**JOB, "id": "new"})
    assert "maxmemory" in check_problem(alone, 503, "storage_full")["detail"]
    assert int(alone.headers["retry-after"]) >= 10
    again = await api.client.post("/v1/jobs", json={**JOB, "id": "there"})
    assert (again.status_code, again.json()["created_at"]) == (200, there["created_at"])
    check_problem(await api.client.post("/v1/jobs", json={**JOB, "id": "there", "model": "x"}), 409, "conflict")
    check_problem(await api.client.post("/v1/jobs", json={**JOB, "kind": "none"}), 422, "invalid_request")
    batch = await api.client.post("/v1/jobs:batch", json={"jobs": [{**JOB, "id": "new"}, {**JOB, "id": "there"}]})
    assert [row["status"] for row in batch.json()["results"]] == [503, 200]
    assert batch.json()["results"][0]["problem"]["code"] == "storage_full"
    assert batch.headers["retry-after"] == alone.headers["retry-after"]
    check_envelope(await api.client.post("/v1/video/generate", json={"model": "veo3"}), 503, "storage_full")
    assert (await api.client.get("/readyz")).status_code == 200
    memory = (await api.client.get("/v1/queues")).json()["redis_memory"]
    assert (memory["takes_jobs"], memory["begins_submissions"]) == (False, True)
    told = re.search(
        r"^onysoft_worker_redis_memory_ratio (\S+)$", (await api.client.get("/metrics")).text, re.MULTILINE
    )
    assert told
    assert 0.9 < float(told[1]) < 1
    found = await check_redis(bench.redis_url, bench.settings, bench.door.models)
    [memory] = [finding for finding in found if finding.name == "redis memory"]
    assert (memory.level, "raise maxmemory" in memory.mend) == ("problem", True)
    await empty(bench)

    async def taken() -> bool:
        return (await api.client.post("/v1/jobs", json={**JOB, "id": "new"})).status_code == 202

    await eventually(taken)
    counters = await bench.store.counters()
    assert counters["enqueues_rejected_total", "http", "storage_full"] >= 3


@pytest.mark.env(WEBHOOK_URL="")
async def test_filled_by_jobs(api: Api, bench: Bench, receiver: Receiver) -> None:
    """Every job that was answered 202 is there and ends, its webhook told; once they are pruned new ones are taken."""
    await bench.raw.config_set("maxmemory", await used_bytes(bench.raw) + ROOM_BYTES)
    taken: set[str] = set()
    codes: set[str] = set()

    async def send(part: int) -> None:
        jobs = [
            {
                "kind": "video", "id": f"f-{part}-{n}", "webhook_url": receiver.url,
                "input": {**directed(), "prompt": "x" * PART_BYTES},
            }
            for n in range(5)
        ]  # fmt: skip
        answer = await api.client.post("/v1/jobs:batch", json={"jobs": jobs})
        for job, row in zip(jobs, answer.json()["results"], strict=True):
            if row["status"] == 202:
                taken.add(str(job["id"]))
            else:
                codes.add(row["problem"]["code"])

    for part in itertools.count():
        await asyncio.gather(send(2 * part), send(2 * part + 1))
        if "storage_full" in codes:
            break
    assert codes == {"storage_full"}
    assert len(taken) > 20
    async with bench.worker():
        for job_id in taken:
            assert (await bench.ended(job_id, within_s=PATIENCE_S))["status"] == "completed"

        async def told() -> bool:
            return {event["data"]["id"] for event in receiver.received} >= taken

        await eventually(told)
        await eventually(lambda: nothing_pending(bench))
    pruned = await Prune(bench.store, retention_s=0).run_once(bench.store.now_ms() + 1000)
    assert pruned == len(taken)
    await eventually(lambda: roomy(api))


async def nothing_pending(bench: Bench) -> bool:
    """Tell whether no delivery is pending."""
    return not await bench.raw.zcard("onysoft:deliveries:pending")


async def roomy(api: Api) -> bool:
    """Tell whether a new job is taken over HTTP."""
    return (await api.client.post("/v1/jobs", json=JOB)).status_code == 202


async def test_no_memory_at_all(bench: Bench, sandbox: Sandbox, receiver: Receiver) -> None:
    """At maxmemory what has been submitted ends, is told of and pruned; what has not waits until there is memory."""
    async with bench.worker():
        await bench.submit(id="paid", input=directed(tag="paid", submit=[{"do": "accept", "delay_s": 1}]))
        await eventually(sent(sandbox, "paid"))
        await bench.store.fleet.pause("image", 1)
        await bench.submit(id="waits", kind="image", input=directed(tag="waits"))
        await bench.raw.config_set("maxmemory", 1)
        await bench.store.fleet.resume("image")
        assert (await bench.ended("paid"))["status"] == "completed"
        await eventually(lambda: nothing_pending(bench))
        assert [event["data"]["id"] for event in receiver.received] == ["paid"]
        assert (await bench.job("waits")).status is Status.QUEUED
        overview = await bench.store.fleet.overview(bench.store.now_ms())
        told = overview.view()["redis_memory"]
        assert (told["takes_jobs"], told["begins_submissions"]) == (False, False)
        [why] = hindrances(view(to_form(await bench.job("waits"))), overview)
        assert "no submission begins" in why
        assert await Prune(bench.store, retention_s=0).run_once(bench.store.now_ms() + 1000) == 1
        assert await bench.raw.keys("onysoft:*paid*") == []
        assert await bench.raw.xlen("onysoft:events") == 0
        assert sandbox.submissions("waits") == []
        await bench.store.fleet.beat({"id": "w", "seen_at_ms": bench.store.now_ms()})
        assert len((await bench.store.fleet.overview(bench.store.now_ms())).alive) == 2
        async with WorkerClient(bench.redis_url) as client:
            assert [job.id for job in (await client.list()).jobs] == ["waits"]
        await empty(bench)
        assert (await bench.ended("waits"))["status"] == "completed"
    assert sandbox.stats()["accepted"] == 2


async def test_a_dead_workers_task_is_taken_over_at_maxmemory(bench: Bench) -> None:
    """What was paid for ends: its lease can be prolonged without memory, and is another's when it has run out."""
    await bench.submit(id="paid", input=directed(duration_s=1))
    async with bench.worker():
        await bench.standing("paid", "processing")
    async with open_store(bench.redis_url, bench.settings, load_models()) as dead:

        async def claimed() -> Sequence[Claim]:
            return (await dead.claim((TRACK_WHEEL,), limit=1)).items

        held = await eventually(claimed)
        lease_ends_ms = await bench.raw.zscore("onysoft:wheel:track", held[0].member)
        await bench.raw.config_set("maxmemory", 1)
        await dead.renew(TRACK_WHEEL, held)
        assert await bench.raw.zscore("onysoft:wheel:track", held[0].member) > lease_ends_ms
    async with bench.worker():
        assert (await bench.ended("paid", within_s=2 * LEASE_MS / 1000))["status"] == "completed"
        await empty(bench)


async def test_entries_of_plain_arq_stay_on_the_queue(bench: Bench) -> None:
    """They are neither rejected nor lost, and taken when there is room; the intake goes on quietly."""
    with capture_logs() as lines:
        async with bench.worker():
            await bench.submit(id="there")
            await fill(bench)
            for n in range(3):
                await bench.pool.enqueue_job("generate", {"kind": "video", "input": directed()}, _job_id=f"q-{n}")
            await bench.pool.enqueue_job("generate", "rubbish", _job_id="rubbish")
            repeated = {"id": "there", "kind": "video", "input": {"prompt": "a lighthouse"}}
            await bench.pool.enqueue_job("generate", repeated, _job_id="again")
            await eventually(lambda: gone(bench, "again"))
            assert [name async for name in bench.raw.scan_iter("onysoft:job:*")] == [b"onysoft:job:there"]
            assert await bench.raw.zcard(QUEUE) == 4
            await empty(bench)
            for n in range(3):
                assert (await bench.ended(f"q-{n}"))["status"] == "completed"
            assert (await bench.ended("rubbish"))["failure"]["code"] == "invalid_request"
    told = [line["event"] for line in lines if line.get("log_level") in {"warning", "error"}]
    assert set(told) <= {"storage.full", "arq.job_rejected"}
    assert told.count("arq.job_rejected") == 1  # the rubbish, once there was room


async def gone(bench: Bench, entry: str) -> bool:
    """Tell whether an entry has left arq's queue."""
    return await bench.raw.zscore(QUEUE, entry) is None


async def test_the_python_client_is_told_at_once(bench: Bench) -> None:
    """It raises with what to do and queues nothing; a job that is there is found, cancel and look go on."""
    async with bench.worker(), WorkerClient(bench.redis_url) as client:
        await bench.store.fleet.pause("video", 1)
        await client.submit({"id": "there", "kind": "video", "input": {}})
        await fill(bench)

        async def told() -> str:
            try:
                await client.submit({"kind": "image", "input": {}})
            except StorageFull as error:
                return str(error)
            return ""

        assert "maxmemory" in await eventually(told)
        await eventually(lambda: nothing_queued(bench))  # where a worker has refused it, arq takes its entry off next
        assert "maxmemory" in await told()
        assert await bench.raw.zcard(QUEUE) == 0
        assert (await client.submit({"id": "there", "kind": "video", "input": {}})).id == "there"
        assert (await client.cancel("there")).status == "canceled"
        await empty(bench)
        await eventually(lambda: submits(client))


async def nothing_queued(bench: Bench) -> bool:
    """Tell whether arq's queue is empty."""
    return not await bench.raw.zcard(QUEUE)


async def submits(client: WorkerClient) -> bool:
    """Tell whether a job is taken from the client."""
    try:
        return (await client.submit({"kind": "image", "input": {}})).created_at is not None
    except StorageFull:
        return False


async def test_a_call_that_found_no_room_is_answered(bench: Bench) -> None:
    """A caller that waits hears of it, and its entry is gone; where it has gone itself, the entry stays."""
    waiting, left = "a" * 32, "b" * 32
    order: Any = {"kind": "video", "input": {}}
    await fill(bench)
    await bench.raw.rpush(f"onysoft:reply:{left}", "gone")
    async with bench.worker():
        await bench.pool.enqueue_job("generate", order, _job_id="left", reply_to=left)
        await bench.pool.enqueue_job("generate", order, _job_id="waiting", reply_to=waiting)
        answer = await bench.raw.blpop([f"onysoft:reply:{waiting}"], timeout=5)
        assert json.loads(answer[1])["problem"]["code"] == "storage_full"
        await eventually(lambda: gone(bench, "waiting"))
        assert await bench.raw.zrange(QUEUE, 0, -1) == [b"left"]
        await empty(bench)
        await eventually(lambda: gone(bench, "left"))
    assert await bench.store.get("left")


async def test_a_mark_that_cannot_be_read_is_none(bench: Bench) -> None:
    """Where Redis forbids INFO, jobs are taken; nobody has said that there is room, so that is not logged."""
    await fill(bench)
    await bench.raw.execute_command("ACL", "SETUSER", "default", "-info")
    with capture_logs() as lines:
        await eventually(lambda: not_refused(bench))
    assert "storage.freed" not in [line["event"] for line in lines]
    overview = await bench.store.fleet.overview(bench.store.now_ms())
    assert overview.view()["redis_memory"]["max_bytes"] is None
    await bench.store.check_role()
    assert await bench.submit(id="a") == "a"
    async with WorkerClient(bench.redis_url) as client:
        assert (await client.submit({"kind": "image", "input": {}})).status == "queued"


async def not_refused(bench: Bench) -> bool:
    """Tell whether the bench's door sees room."""
    return not await refused(bench)
