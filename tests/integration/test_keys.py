"""What a busy deployment writes to Redis is in the table of docs/redis.md, and goes when that says."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis.asyncio
from harness import Bench, Receiver, Sandbox, directed, eventually
from key_table import STAYS, KeyRow, read_rows

from worker.actions import cancel, retry
from worker.client import WorkerClient
from worker.signing_secrets import make_secret
from worker.upkeep import Prune

ROWS = read_rows()
CALLERS_S, SLACK_S = 30 * 86_400, 5
HOURS_MS = 3 * 3_600_000
FLEETING = {  # there for milliseconds, or only where a host is full or a limit is learned
    "arq:job:ID",
    "arq:in-progress:ID",
    "arq:retry:ID",
    "{p}:jobs",
    "{p}:reply:TOKEN",
    "{p}:failing",
    "{p}:awaited:LANE",
    "{p}:queueing-at:HOST",
    "{p}:sending:ID",
    "{p}:sending-to:HOST",
}
LAST_MINUTE = {"{p}:sent:LANE", "{p}:awaited:LANE"}  # emptied as the next request goes out
DAILY = "daily_request_limit_exceeded"
MODELS = [f"nobodys|own:{n}" for n in range(40)]

Seen = dict[tuple[str, str], int]


def row_of(key: str, kind: str) -> KeyRow:
    """Find the only line of the table that a key is of, by name and type."""
    found = [row for row in ROWS if row.matches(key, "onysoft") and row.type == kind]
    exact = [row for row in found if row.name.replace("{p}", "onysoft") == key]
    longest = sorted(exact or found, key=lambda row: len(row.name))
    assert longest, f"{key} ({kind}) is not in the table of docs/redis.md"
    return longest[-1]


async def look(client: redis.asyncio.Redis, seen: Seen) -> None:
    """Note every key there is: its type, and the longest time to live it was seen with; -1 for none."""
    keys = [key async for key in client.scan_iter(count=1000)]
    async with client.pipeline(transaction=False) as pipe:
        for key in keys:
            pipe.type(key)
            pipe.ttl(key)
        answers = await pipe.execute()
    for key, kind, ttl_s in zip(keys, answers[::2], answers[1::2], strict=True):
        if kind != b"none" and ttl_s != -2:
            name = (key.decode(), kind.decode().replace("zset", "sorted set"))
            endless = ttl_s == -1 or seen.get(name) == -1
            seen[name] = -1 if endless else max(ttl_s, seen.get(name, 0))


@asynccontextmanager
async def looked_at(client: redis.asyncio.Redis) -> AsyncIterator[Seen]:
    """Look at the keys all the time."""
    seen: Seen = {}

    async def keep_looking() -> None:
        while True:
            await look(client, seen)
            await asyncio.sleep(0.01)

    looking = asyncio.create_task(keep_looking())
    try:
        yield seen
    finally:
        looking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await looking
        await look(client, seen)


async def busy(bench: Bench, sandbox: Sandbox, receiver: Receiver) -> None:
    """Have jobs of all sorts go through by all ways, deliveries to receivers that work and do not, and a rotation."""
    sandbox.control(quotas={model: {"code": DAILY, "limit": 0, "retry_after_s": 1} for model in [*MODELS, "veo3"]})
    ids = [await bench.submit(kind="image", model=model, fallbacks=[], input=directed()) for model in MODELS]
    ids.append(await bench.submit(model="veo3", fallbacks=[], input=directed()))
    ids.append(await bench.submit(model="veo3", fallbacks=["sora-2"], input=directed()))
    ids.append(await bench.submit(input=directed(result=["fail"]), webhook_url="http://127.0.0.1:1/hook"))
    ids.append((await bench.door.refuse({"kind": "none"}, "none", fallback_id="refused")).id)  # type: ignore[union-attr]
    for kind in ("video", "image", "music", "audio", "voice"):
        request: dict[str, Any] = {"kind": kind, "input": directed()}
        await bench.pool.enqueue_job("generate", request, _job_id=f"arq-{kind}")
        ids.append(f"arq-{kind}")
    late = await bench.submit(input=directed(duration_s=2), webhook_events=["job.canceled", "job.late_result"])
    await bench.standing(late, "processing")
    async with WorkerClient(bench.redis_url, answer_timeout_s=5) as client:
        ids.append((await client.submit({"kind": "image", "input": directed()})).id)
        await client.cancel(late)
        await asyncio.wait_for(gone(client), 5)
    again = await bench.submit(kind="image", input=directed(duration_s=5))
    await bench.standing(again, "processing")
    await cancel(bench.store, again)
    await retry(bench.store, again)
    await cancel(bench.store, again)
    await bench.store.secrets.rotate(make_secret())
    await bench.store.secrets.rotate(make_secret())
    await bench.store.fleet.pause("voice", bench.store.now_ms())
    await bench.store.fleet.resume("voice")
    await bench.store.count("enqueues_rejected_total", "arq", "not_json")
    receiver.statuses += [500] * 12
    sandbox.control(quotas={})
    for job_id in ids:
        await bench.ended(job_id)
    await eventually(lambda: all_told(bench))


async def gone(client: WorkerClient) -> None:
    """Call for something and go before there is an answer, so that a mark is left."""
    asking = asyncio.create_task(client.submit({"kind": "image", "input": directed(), "id": "gone"}))
    await asyncio.sleep(0.001)
    asking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asking


async def all_told(bench: Bench) -> bool:
    """Tell whether no delivery is pending, and nothing queued or under way but look-ups at late tasks."""
    indexes = [
        f"onysoft:index:{status}:{kind}"
        for status in ("queued", "submitting", "processing", "waiting")
        for kind in ("video", "image", "music", "audio", "voice")
    ]
    left = [*indexes, "onysoft:deliveries:pending", "onysoft:jobs"]
    return not any([await bench.raw.exists(key) for key in left])


@pytest.mark.env(WEBHOOK_SCHEDULE_S="0,0.05,0.05")
async def test_every_key_is_in_the_table_and_goes_when_it_says(
    bench: Bench, sandbox: Sandbox, receiver: Receiver
) -> None:
    """Name, type and time to live of each; after the pruning nothing is left of a job, however it ended."""
    async with looked_at(bench.raw) as seen:
        async with bench.worker():
            await busy(bench, sandbox, receiver)
        rows = {key: row_of(*key) for key in seen}
    found = {row.name for row in rows.values()}
    assert found >= {row.name for row in ROWS if row.type != "channel"} - FLEETING
    for key, row in rows.items():
        ttl_s = seen[key]
        if row.expires:
            assert ttl_s != -1, f"{key[0]} never expires: {row.life}"
        if ttl_s != -1:
            assert row.ttl_s is not None, f"{key[0]} expires: {row.life}"
            assert ttl_s <= max(row.ttl_s, 1) + SLACK_S, f"{key[0]} lives {ttl_s} s: {row.life}"
    now_ms = bench.store.now_ms()
    assert await Prune(bench.store, retention_s=0).run_once(now_ms + HOURS_MS) > len(MODELS)
    left: Seen = {}
    await look(bench.raw, left)
    stay = {key for (key, kind), ttl_s in left.items() if ttl_s == -1 and row_of(key, kind).name not in LAST_MINUTE}
    assert {key for key in stay if not row_of(key, left_type(left, key)).life.startswith(STAYS)} == set()
    gate = await bench.raw.hgetall("onysoft:gate")
    assert not [name for name in gate if name.startswith(b"probing:")]
    for bounded in ("health", "counters"):
        assert b"nobodys" not in b" ".join(await bench.raw.hkeys(f"onysoft:{bounded}"))
    assert await bench.raw.xlen("onysoft:events") == 0


def left_type(left: Seen, key: str) -> str:
    """Give the type a key was seen with."""
    return next(kind for name, kind in left if name == key)
