"""Each Lua script over whatever may lie in Redis: it answers or refuses, and where it refuses nothing has changed.

The calls are real ones: a deployment at work is recorded, with what lay in Redis before each. Each is then repeated
with one key at a time holding something else.
"""

import asyncio
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from importlib.resources import files
from typing import Any, NamedTuple

import pytest
from harness import Bench, Receiver, directed, eventually
from redis import Redis
from redis.exceptions import OutOfMemoryError, ResponseError

from jobs.destinations import Destination
from jobs.pacing import SUBMISSIONS, Heard
from worker import actions
from worker.keys import submit_wheel
from worker.link import Argument, Link, script_source
from worker.listing import Filter
from worker.reconcile import Reconciler
from worker.signing import make_secret
from worker.upkeep import Prune

SCRIPTS = sorted(
    name
    for file in files("worker").joinpath("lua").iterdir()
    if (name := file.name.removesuffix(".lua")) not in {"pace", "destination", "sequence"}  # included by others
)
CALLS_OF_EACH, CASES_OF_EACH = 4, 150
NEED_MEMORY = {"apply", "replay", "rotate"}  # new jobs, submissions that begin, and what an operator asks for
RUBBISH = (b"", b"x", b"\xff\xfe", b"1e400", b"-1", b"nan", b"9" * 30, b"[", b'{"a":1}')
SCORES = (float("inf"), float("-inf"), -1.0, 1e300)

State = dict[bytes, bytes]


class Call(NamedTuple):
    """A call of a script, and what lay in Redis before it."""

    name: str
    keys: tuple[str | bytes, ...]
    args: tuple[Argument, ...]
    state: State


def lying(db: Redis) -> State:
    """Give all that lies in Redis, byte for byte."""
    names = sorted(db.keys())
    pipe = db.pipeline(transaction=False)
    for name in names:
        pipe.dump(name)
    return dict(zip(names, pipe.execute(), strict=True))


def lay(db: Redis, state: State) -> None:
    """Have just this lie in Redis."""
    pipe = db.pipeline(transaction=False)
    pipe.flushdb()
    for name, dumped in state.items():
        pipe.restore(name, 0, dumped)
    pipe.execute()


OTHERS: dict[str, tuple[str, Any]] = {
    "string": ("set", b"x"),
    "list": ("rpush", b"x"),
    "set": ("sadd", b"x"),
    "hash": ("hset", {b"x": b"y"}),
    "zset": ("zadd", {b"x": 1}),
    "stream": ("xadd", {b"x": b"y"}),
}


def other_things(db: Redis, key: bytes) -> list[tuple[str, str, bytes, Any]]:
    """Name what a key is to hold in turn: each other type, and its own with rubbish in it."""
    kind = db.type(key).decode()
    things = [("replace", call, key, value) for other, (call, value) in OTHERS.items() if other != kind]
    match kind:
        case "hash":
            fields = [*db.hkeys(key), b"\xff"]
            things += [("beside", "hset", key, {field: rubbish}) for field in fields for rubbish in RUBBISH]
        case "zset":
            members = [*db.zrange(key, 0, 2), b"x", b"\xff", b"1:x"]
            things += [("beside", "zadd", key, {member: score}) for member in members for score in SCORES]
        case "string":
            things += [("replace", "set", key, rubbish) for rubbish in RUBBISH]
        case "list":
            things += [("beside", "lpush", key, rubbish) for rubbish in RUBBISH]
    return things


def cases(db: Redis, calls: Sequence[Call], rng: random.Random) -> Iterator[tuple[Call, str, str, bytes, Any]]:
    """Choose among all there are; every key of every call is met."""
    found = []
    for call in calls:
        lay(db, call.state)
        for key in sorted({*call.state, *(key if isinstance(key, bytes) else key.encode() for key in call.keys)}):
            things = list(other_things(db, key))
            found += [(call, *thing) for thing in rng.sample(things, min(len(things), 12))]
    rng.shuffle(found)
    yield from found[:CASES_OF_EACH]


def alike(db: Redis, one: bytes | None, other: bytes | None) -> bool:
    """Say whether two dumps hold the same; those of a hash may have another order."""
    if one == other or one is None or other is None:
        return one == other
    held = []
    for dumped in (one, other):
        db.restore("compared", 0, dumped, replace=True)
        held.append(db.hgetall("compared") if db.type("compared") == b"hash" else dumped)
    db.delete("compared")
    return bool(held[0] == held[1])


def fault(db: Redis, call: Call, how: str, put: str, key: bytes, value: Any) -> str:
    """Repeat a call over something else; say what is wrong with how it went, if anything."""
    lay(db, call.state)
    if how == "replace":
        db.delete(key)
    if put == "hset":
        db.hset(key, mapping=value)
    else:
        getattr(db, put)(key, value)
    before = lying(db)
    try:
        db.execute_command("EVALSHA", script_source(call.name)[0], len(call.keys), *call.keys, *call.args)
    except ResponseError as error:
        after = lying(db)
        changed = [name for name in sorted({*before, *after}) if not alike(db, before.get(name), after.get(name))]
        return f"{call.name}, {key!r} {put} {value}: {error}; it had changed {changed}" if changed else ""
    return ""


class Recorder:
    """Keeps calls of scripts as they are made; a few of each, by how they were answered."""

    def __init__(self, db: Redis) -> None:
        self.calls: dict[str, list[Call]] = defaultdict(list)
        self._db = db
        self._answers: dict[str, set[str]] = defaultdict(set)

    def note(self, call: Call, answer: Any) -> None:
        """Keep a call where it was answered as none before."""
        shape = f"{len(call.args)} {len(answer) if isinstance(answer, list) else answer}"
        if shape not in self._answers[call.name] and len(self.calls[call.name]) < CALLS_OF_EACH:
            self._answers[call.name].add(shape)
            self.calls[call.name].append(call)

    def listen(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Record all links of this process."""
        original = Link.script

        async def script(link: Link, name: str, keys: Sequence[str], args: Sequence[Argument]) -> Any:
            is_known = len(self.calls[name]) >= CALLS_OF_EACH
            state = {} if is_known else lying(self._db)
            answer = await original(link, name, keys, args)
            if not is_known:
                self.note(Call(name, tuple(keys), tuple(args), state), answer)
            return answer

        monkeypatch.setattr(Link, "script", script)


async def work(bench: Bench, receiver: Receiver) -> None:
    """Have jobs end well and badly, and be refused; have webhooks die and be sent again."""
    receiver.statuses += [500, 410, 500, 500, 500, 500]
    limited = {"submit": [{"status": 429, "code": "rate_limit_exceeded", "message": "slow", "retry_after_s": 0.1}]}
    broken = {"result": [{"fail": {"code": "x", "message": "content policy"}}]}
    async with bench.worker():
        jobs = [await bench.submit(input=directed(**more)) for more in ({}, limited, broken, {})]
        canceled = await bench.submit(input=directed(duration_s=60))
        await bench.standing(canceled, "processing")
        await actions.cancel(bench.store, canceled)
        await asyncio.gather(*(bench.ended(job_id) for job_id in jobs))

        async def quiet() -> bool:
            return not await bench.raw.zcard("onysoft:deliveries:pending")

        await eventually(quiet)
        for delivery in await bench.store.outbox.of_job(canceled):
            await bench.store.dispatch.replay(delivery)
        await bench.store.dispatch.standing()
        await bench.store.listing.page(Filter(), limit=5)
        await eventually(quiet)


async def by_hand(bench: Bench) -> None:
    """Have the rest of the scripts be used: claims prolonged and given back, what is lost, ended or put away."""
    store, now_ms = bench.store, bench.store.now_ms()
    jobs = [await bench.submit() for _ in range(3)]
    await actions.cancel(store, jobs[0])
    wheel = submit_wheel("video")
    claims = await store.claim([wheel], limit=2, lane=SUBMISSIONS)
    await store.renew(wheel, claims.items)
    lost, held = claims.items
    lost.heard = Heard(SUBMISSIONS, "refused", "veo3", pause_ms=5)
    await store.tell(lost)
    await store.quarantine.blame(held, store.keys.job(held.member), "crashes", most=5)
    await store.release(held, now_ms)
    deliveries = (await store.dispatch.claim(5)).items
    await store.dispatch.renew(deliveries)
    for delivery in deliveries:
        await store.dispatch.release(delivery, now_ms)
        await store.quarantine.bury(delivery.member)
    await store.quarantine.take(lost.member, "", now_ms)
    ended = await bench.job(jobs[0])
    await store.quarantine.unwatch(ended, ended, 1)
    await bench.raw.set("onysoft:failing", "x")
    await store.quarantine.clear()
    await Prune(store, retention_s=0).run_once(now_ms + 60_000)
    await store.secrets.rotate(make_secret())
    await store.reply("token", b"{}")


async def walks(bench: Bench) -> None:
    """Have things fallen out of their places be put back."""
    mending = bench.store.mending
    await mending.elect()
    waiting, ended = await bench.submit(), await bench.submit()
    await actions.cancel(bench.store, ended)
    [delivery] = await bench.store.outbox.of_job(ended)
    destination = Destination.of(delivery.url).id
    call = await bench.pool.enqueue_job("generate", {"kind": "video", "input": {}})
    assert call is not None
    await bench.raw.zrem("onysoft:jobs", call.job_id)
    await bench.raw.zrem("onysoft:wheel:submit:video", waiting)
    await bench.raw.zadd("onysoft:index:failed:image:x", {"ghost": 1})
    await bench.raw.hset("onysoft:leases:submit:video", "ghost", "x")
    for places in ([f"onysoft:waiting:{destination}"], ["onysoft:wheel:deliver"]):
        await bench.raw.delete(*places)
        await Reconciler(bench.store).run_once()
    walker = Reconciler(bench.store)
    for _ in range(3):
        await walker.run_once()
    await mending.keep_bodies(0, 10)
    await bench.store.housekeeping.forget_ended("ghost")
    await mending.resign()


@pytest.fixture
async def recorded(
    bench: Bench, receiver: Receiver, redis_server: Redis, monkeypatch: pytest.MonkeyPatch
) -> dict[str, list[Call]]:
    """Record a deployment that uses every script."""
    recorder = Recorder(redis_server)
    recorder.listen(monkeypatch)
    await work(bench, receiver)
    await by_hand(bench)
    await walks(bench)
    return recorder.calls


async def test_a_script_that_refuses_has_changed_nothing(recorded: dict[str, list[Call]], redis_server: Redis) -> None:
    """Whatever lies in any of the keys: it reads and checks all of it before it writes."""
    assert sorted(recorded) == SCRIPTS
    rng = random.Random(1)
    faults = [
        wrong
        for name in SCRIPTS
        for case in cases(redis_server, recorded[name], rng)
        if (wrong := fault(redis_server, *case))
    ]
    assert faults == []


async def test_what_goes_on_at_maxmemory_needs_none(recorded: dict[str, list[Call]], redis_server: Redis) -> None:
    """A Redis without memory refuses only what begins something: what is done with what is there it writes."""
    refused = set()
    for call in (call for name in SCRIPTS for call in recorded[name]):
        lay(redis_server, call.state)
        redis_server.config_set("maxmemory", 1)
        try:
            redis_server.execute_command("EVALSHA", script_source(call.name)[0], len(call.keys), *call.keys, *call.args)
        except OutOfMemoryError:
            refused.add(call.name)
        except ResponseError as error:
            assert "OOM" in str(error)  # noqa: PT017 - as up to Redis 6.2
            refused.add(call.name)
        finally:
            redis_server.config_set("maxmemory", 0)
    assert refused <= NEED_MEMORY
