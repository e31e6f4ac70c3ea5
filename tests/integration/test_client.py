"""The Python client against a real Redis and a real worker: what it does, what it says, and when it gives up."""

import asyncio
import contextlib
import json
import secrets
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import pytest
import redis.asyncio
from harness import PATIENCE_S, Bench, Sandbox, directed, eventually
from redis.asyncio.client import PubSub
from test_redis_away import OwnRedis

from config.models import KINDS, load_models
from jobs import request as requests
from jobs import states
from worker import fleet
from worker.actions import cancel
from worker.calls import read_call
from worker.client import (
    Conflict,
    CredentialsRefused,
    InvalidRequest,
    Job,
    Kind,
    NoAnswer,
    NoSuchJob,
    NotPossible,
    RedisUnavailable,
    Status,
    UnreadableJob,
    WorkerClient,
    WorkerClientError,
    WrongAddress,
)
from worker.client import checks as client_checks
from worker.client import client as client_module
from worker.client import line as client_line
from worker.client.client import LOOK_AGAIN_S
from worker.enqueue import Door
from worker.link import patiently
from worker.main import open_store
from worker.store import REPLY_MS

VIDEO = {"kind": "video", "input": {"prompt": "a lighthouse"}}
SOON_S = 2.0
TOLD_S = 0.2
HELD = directed(duration_s=60)  # a task that does not end while a test looks


@pytest.fixture
async def client(bench: Bench) -> AsyncIterator[WorkerClient]:
    """Open a client on the bench's Redis."""
    async with WorkerClient(bench.redis_url) as client:
        yield client


@pytest.fixture
async def worker(bench: Bench) -> AsyncIterator[None]:
    """Run a worker, and wait until it has said that it is alive."""
    async with bench.worker():
        await eventually(lambda: bench.raw.hlen("onysoft:workers"))  # type: ignore[arg-type,return-value]
        yield


async def queue_is_empty(bench: Bench) -> bool:
    """Tell whether all that was queued has been taken."""
    return await bench.raw.zcard("onysoft:jobs") == 0


def fields_of(error: InvalidRequest) -> list[str]:
    """Name the fields an error names."""
    return [row["field"] for row in error.errors]


def test_words_are_those_of_the_rest() -> None:
    """Kinds, statuses and limits are declared in the client a second time, and are the same."""
    assert get_args(Kind) == tuple(KINDS)
    assert get_args(Status) == tuple(map(str, states.Status))
    assert set(client_checks.ENDED) == set(map(str, states.ENDED))
    assert client_checks.ID.pattern == requests.ID_PATTERN
    assert client_checks.MODEL.pattern == requests.MODEL_PATTERN
    assert client_checks.MAX_REQUEST_BYTES == requests.MAX_REQUEST_BYTES
    assert client_line.ALIVE_MS == fleet.ALIVE_MS


@pytest.mark.usefixtures("worker")
async def test_a_job_from_submit_to_its_end(bench: Bench, client: WorkerClient, sandbox: Sandbox) -> None:
    """Submit answers with the job as taken, wait with its end, and get and list show the same as the other doors."""
    request = {"id": "order-1841", "kind": "image", "input": directed(tag="t"), "metadata": {"customer": 77}}
    job = await client.submit(request)
    assert (job.id, job.kind, job.ended, job.urls) == ("order-1841", "image", False, ())
    assert job.created_at
    assert job.model == job.requested_model is not None
    done = await client.wait(job.id, timeout_s=10)
    assert (done.status, done.ended, done.failure) == ("completed", True, None)
    assert done.urls == tuple((done.result or {})["urls"]) != ()
    assert done.attempts[0]["outcome"] == "succeeded"
    assert done.metadata == {"customer": 77}
    assert await client.get(job.id) == done
    assert (await client.list()).jobs == (done,)
    assert done.view == await bench.ended(job.id)
    assert await client.submit(request) == done
    assert len(sandbox.submissions("t")) == 1


@pytest.mark.usefixtures("worker")
async def test_ids_and_conflicts(client: WorkerClient) -> None:
    """A request without an id gets a new one each time; an id that is taken by another request is a conflict."""
    made = [(await client.submit({**VIDEO, "input": HELD})).id for _ in range(2)]
    assert made[0] != made[1]
    assert all(job_id.startswith("job_") and len(job_id) == 28 for job_id in made)
    await client.submit({**VIDEO, "id": "a", "input": HELD})
    with pytest.raises(Conflict, match="a is taken"):
        await client.submit({**VIDEO, "id": "a", "input": HELD, "model": "sora-2"})


@pytest.mark.usefixtures("worker")
async def test_an_invalid_request_names_its_fields_and_leaves_the_id_free(bench: Bench, client: WorkerClient) -> None:
    """Every fault is named, no record is made, and the mended request is taken under the same id."""
    with pytest.raises(InvalidRequest) as caught:
        await client.submit({**VIDEO, "id": "a", "prompt": "x", "fallbacks": ["m"] * 9})
    assert sorted(fields_of(caught.value)) == ["fallbacks", "prompt"]
    assert "fallbacks: " in str(caught.value)
    assert await client.get("a") is None
    assert not await bench.raw.exists("onysoft:job:a")
    assert (await client.submit({**VIDEO, "id": "a", "input": HELD})).status in {"queued", "submitting", "processing"}
    await eventually(lambda: counted(bench, "invalid_request"))


async def counted(bench: Bench, reason: str) -> bool:
    """Tell whether a rejection has been counted, once."""
    return (await bench.store.counters()).get(("enqueues_rejected_total", "arq", reason)) == 1


@pytest.mark.parametrize(
    ("request_", "names"),
    [
        ("video", ["request"]),
        ({**VIDEO, "id": 7}, ["id"]),
        ({**VIDEO, "id": "no id"}, ["id"]),
        ({}, ["kind", "input"]),
        ({**VIDEO, "kind": "film"}, ["kind"]),
        ({**VIDEO, "input": {"at": datetime.now(UTC)}}, ["input"]),
        ({**VIDEO, "input": {"seed": float("nan")}}, ["input"]),
        ({**VIDEO, "metadata": {"text": "\ud800"}, "deadline_s": float("inf")}, ["metadata", "deadline_s"]),
        ({**VIDEO, "input": {"image": "a" * requests.MAX_REQUEST_BYTES}}, ["request"]),
    ],
    ids=["text", "id-type", "id-form", "empty", "kind", "datetime", "nan", "two", "large"],
)
async def test_what_cannot_be_right_is_not_sent(request_: Any, names: list[str], bench: Bench) -> None:
    """A wrong argument is refused by name before anything goes to Redis."""
    async with WorkerClient("redis://127.0.0.1:1") as client:
        with pytest.raises(InvalidRequest) as caught:
            await client.submit(request_)
    assert fields_of(caught.value) == names
    assert await bench.raw.keys() == []


@pytest.mark.usefixtures("worker")
async def test_the_largest_request_goes_through(client: WorkerClient) -> None:
    """Eleven megabytes of input, less the rest of the request, are taken."""
    job = await client.submit({**VIDEO, "input": {**HELD, "image": "ä" * (requests.MAX_REQUEST_BYTES // 2 - 200)}})
    assert job.created_at


@pytest.mark.usefixtures("worker")
async def test_one_id_ten_times_at_once_is_one_job(client: WorkerClient, sandbox: Sandbox) -> None:
    """Whoever asks first makes the job, and all get it."""
    request = {"id": "once", "kind": "image", "input": directed(tag="once")}
    jobs = await asyncio.gather(*(client.submit(request) for _ in range(10)))
    assert {job.id for job in jobs} == {"once"}
    assert len({job.created_at for job in jobs}) == 1
    ended = await asyncio.gather(*(client.wait("once", timeout_s=10) for _ in range(10)))
    assert {job.status for job in ended} == {"completed"}
    assert len(sandbox.submissions("once")) == 1


@pytest.mark.usefixtures("worker")
async def test_many_at_once_share_few_connections(bench: Bench, client: WorkerClient) -> None:
    """A hundred coroutines submit and wait; the server sees a bounded number of connections at any time."""

    async def connections() -> int:
        return int((await bench.raw.info("clients"))["connected_clients"])

    async def whole(number: int) -> Job:
        job = await client.submit({"id": f"n-{number}", "kind": "image", "input": directed(duration_s=1)})
        return await client.wait(job.id, timeout_s=60)

    before = await connections()
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(whole(number)) for number in range(100)]
        during = 0
        while not all(task.done() for task in running):
            during = max(during, await connections())
            await asyncio.sleep(0.02)
    assert {task.result().status for task in running} == {"completed"}
    assert before < during <= before + client_line.SLOTS + client_line.SEATS + 1


async def test_without_a_worker_a_job_is_promised_and_done_later(bench: Bench, client: WorkerClient) -> None:
    """Submit returns at once with what is known; the job is made by the worker that comes, and can be waited for."""
    started_s = time.monotonic()
    job = await client.submit({"id": "a", "kind": "image", "input": directed(), "fallbacks": ["m"]})
    assert time.monotonic() - started_s < 1
    assert (job.id, job.status, job.created_at, job.model, job.fallbacks) == ("a", "queued", None, None, ("m",))
    assert await client.get("a") is None
    waiting = asyncio.create_task(client.wait("a", timeout_s=15))
    async with bench.worker():
        assert (await waiting).status == "completed"


async def test_without_a_worker_an_invalid_request_becomes_a_failed_job(bench: Bench, client: WorkerClient) -> None:
    """Nobody was told, so the record tells it; and what is submitted again is shown as it stands."""
    await client.submit({**VIDEO, "id": "a", "prompt": "x"})
    async with bench.worker():
        job = await client.wait("a", timeout_s=10)
    assert (job.status, (job.failure or {})["code"]) == ("failed", "invalid_request")
    await bench.raw.delete("onysoft:workers")
    assert await client.submit({**VIDEO, "id": "a", "prompt": "x"}) == job


async def test_without_an_answer_in_time_an_invalid_request_becomes_a_failed_job(bench: Bench) -> None:
    """A caller that has stopped waiting leaves word, and the worker writes down what it could not tell."""
    await say_alive(bench)
    async with WorkerClient(bench.redis_url, answer_timeout_s=0.2) as client:
        started_s = time.monotonic()
        job = await client.submit({**VIDEO, "id": "a", "prompt": "x"})
        assert 0.2 <= time.monotonic() - started_s < SOON_S
        assert (job.status, job.created_at) == ("queued", None)
        with pytest.raises(NoAnswer):
            await client.cancel("nobody")
        async with bench.worker():
            assert ((await client.wait("a", timeout_s=10)).failure or {})["code"] == "invalid_request"
            await eventually(lambda: queue_is_empty(bench))
    assert not await bench.raw.exists("onysoft:job:nobody")
    kept_ms = [await bench.raw.pttl(key) async for key in bench.raw.scan_iter("onysoft:reply:*")]
    assert all(0 < left_ms <= REPLY_MS for left_ms in kept_ms)
    assert len(kept_ms) == 2


async def say_alive(bench: Bench) -> None:
    """Have a worker look alive that is not there."""
    await bench.store.fleet.beat({"id": "ghost", "seen_at_ms": bench.store.now_ms()})


async def test_a_job_canceled_before_its_submission_is_never_submitted(
    bench: Bench, client: WorkerClient, sandbox: Sandbox
) -> None:
    """Both the request and the wish wait for a worker, who takes them in their order."""
    await client.submit({"id": "a", "kind": "image", "input": directed(tag="a"), "deadline_s": 60})
    with pytest.raises(NoAnswer, match="stays queued"):
        await client.cancel("a")
    await bench.store.fleet.pause("image", bench.store.now_ms())
    async with bench.worker():
        assert (await client.wait("a", timeout_s=10)).status == "canceled"
        await bench.store.fleet.resume("image")
        await eventually(lambda: queue_is_empty(bench))
    assert sandbox.submissions("a") == []


async def test_a_wish_waits_for_what_was_queued_before_it(bench: Bench, client: WorkerClient) -> None:
    """While another worker has a request, a wish queued after it is left alone, however long that worker takes."""
    await client.submit({"id": "a", "kind": "image", "input": HELD})
    [(entry, _)] = await bench.raw.zrange("onysoft:jobs", 0, -1, withscores=True)
    await asyncio.sleep(0.005)
    await bench.raw.set(b"arq:in-progress:" + entry, b"1", px=1000)
    with pytest.raises(NoAnswer):
        await client.cancel("a")
    async with bench.worker():
        assert (await client.wait("a", timeout_s=10)).status == "canceled"


@pytest.mark.usefixtures("worker")
async def test_cancel_and_what_it_cannot(client: WorkerClient) -> None:
    """A job under way is canceled, once and again; one that is not there or has ended otherwise is not."""
    await client.submit({**VIDEO, "id": "a", "input": HELD})
    canceled = await client.cancel("a")
    assert canceled.status == "canceled"
    assert (await client.cancel("a")).completed_at == canceled.completed_at
    with pytest.raises(NoSuchJob, match="no job b"):
        await client.cancel("b")
    await client.submit({"id": "c", "kind": "image", "input": directed()})
    await client.wait("c", timeout_s=10)
    with pytest.raises(NotPossible, match="c is completed"):
        await client.cancel("c")


@pytest.mark.usefixtures("worker")
async def test_a_failed_job_is_retried(client: WorkerClient, sandbox: Sandbox) -> None:
    """Retry opens a failed job for another round, which may complete it; a job that goes on is not retried."""
    refused = {"status": 400, "message": "no"}
    await client.submit({"id": "a", "kind": "image", "input": directed(tag="a", submit=[refused])})
    assert (await client.wait("a", timeout_s=10)).status == "failed"
    assert (await client.retry("a")).status == "queued"
    assert (await client.wait("a", timeout_s=10)).status == "completed"
    assert len(sandbox.submissions("a")) == 2
    with pytest.raises(NotPossible, match="a is completed"):
        await client.retry("a")


async def test_wishes_of_plain_arq(bench: Bench, client: WorkerClient) -> None:
    """A backend with plain arq may cancel and retry too; what is not possible is counted and makes no job."""
    await bench.submit(id="a", input=HELD)
    async with bench.worker():
        await bench.pool.enqueue_job("cancel", "a")
        await bench.standing("a", "canceled")
        for number, (function, *args) in enumerate([("cancel", "b"), ("retry", 7), ("retry", "a", "b")]):
            await bench.pool.enqueue_job(function, *args, _job_id=f"entry-{number}")
        await eventually(lambda: queue_is_empty(bench))
        await eventually(lambda: counted(bench, "not_found"))
    counters = await bench.store.counters()
    assert counters["enqueues_rejected_total", "arq", "wrong_arguments"] == 2
    assert [job.id for job in (await client.list()).jobs] == ["a"]


@pytest.mark.parametrize("reply_to", ["", "a" * 31, "A" * 32, "a" * 33, 7, ["a" * 32]])
def test_a_reply_goes_to_a_token_only(reply_to: Any) -> None:
    """Where an answer goes cannot be chosen freely, so that no other key is written."""
    body = {"f": "generate", "a": [VIDEO], "k": {"reply_to": reply_to}, "t": None, "et": 1}
    assert getattr(read_call(json.dumps(body).encode()), "reason", None) == "wrong_arguments"


async def test_lists_by_filters_and_cursors(bench: Bench, client: WorkerClient) -> None:
    """Pages go from the newest to the oldest without repeating, and each filter leaves its own."""
    for number in range(7):
        await bench.submit(id=f"v-{number}", kind="video", model="veo3" if number % 2 else "sora-2")
    await bench.submit(id="i-0", kind="image", model="veo3")
    seen: list[str] = []
    cursor: str | None = None
    while True:
        page = await client.list(limit=3, cursor=cursor)
        seen += [job.id for job in page.jobs]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == ["i-0", *(f"v-{number}" for number in range(6, -1, -1))]
    assert [job.id for job in (await client.list(kind="video", model="veo3")).jobs] == ["v-5", "v-3", "v-1"]
    assert len((await client.list(status="queued")).jobs) == 8
    assert await client.list(status="failed") == client_module.Page((), None)
    await bench.door.refuse({"kind": "film"}, "kind: no", fallback_id="bad")
    assert [job.kind for job in (await client.list(status="failed")).jobs] == ["unknown"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("status", value) for value in ("done", "", 7, ["queued"])),
        *(("kind", value) for value in ("film", 7)),
        *(("model", value) for value in ("", "a b", 7)),
        *(("limit", value) for value in (0, 501, "50", True, 1.5)),
        *(("cursor", value) for value in ("", "-1", "abc", 7, "9" * 16)),
    ],
)
async def test_a_wrong_filter_is_named(name: str, value: Any, client: WorkerClient) -> None:
    """No filter that cannot be right gives an empty list."""
    with pytest.raises(InvalidRequest) as caught:
        await client.list(**{name: value})
    assert fields_of(caught.value) == [name]


async def test_wait_gives_up(bench: Bench, client: WorkerClient) -> None:
    """After the time it says whether there was a job that did not end, or none at all."""
    await bench.submit(id="a")
    started_s = time.monotonic()
    with pytest.raises(TimeoutError, match="a has not ended"):
        await client.wait("a", timeout_s=0.3)
    assert 0.3 <= time.monotonic() - started_s < 1
    with pytest.raises(NoSuchJob, match="no job b"):
        await client.wait("b", timeout_s=0.1)
    for wrong in (-1, float("nan"), "1"):
        with pytest.raises(InvalidRequest, match="timeout_s"):
            await client.wait("a", timeout_s=wrong)  # type: ignore[arg-type]


async def test_wait_hears_of_the_end_at_once(bench: Bench, client: WorkerClient) -> None:
    """The end is heard when it happens, not when the job is looked at again."""
    await bench.submit(id="a")
    waiting = [asyncio.create_task(client.wait("a")) for _ in range(3)]
    await eventually(lambda: heard(client, bench.redis_url))
    started_s = time.monotonic()
    await cancel(bench.store, "a")
    assert {job.status for job in await asyncio.gather(*waiting)} == {"canceled"}
    assert time.monotonic() - started_s < LOOK_AGAIN_S / 2
    assert not client._line.ear._waiting


async def test_wait_survives_lost_connections(bench: Bench, client: WorkerClient) -> None:
    """When all its connections are cut, a wait goes on and hears of the end."""
    await bench.submit(id="a")
    waiting = asyncio.create_task(client.wait("a", timeout_s=15))
    await eventually(lambda: heard(client, bench.redis_url))
    for kind in ("normal", "pubsub"):
        await bench.raw.client_kill_filter(_type=kind, skipme=True)
    assert not await heard(client, bench.redis_url)
    await cancel(bench.store, "a")
    assert (await waiting).status == "canceled"


async def test_a_lone_wait_hears_whatever_befell_the_subscription(
    bench: Bench, client: WorkerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even an error redis-py should not raise ends a subscription only: another is opened, and hears of the end."""
    real, failed = PubSub.subscribe, asyncio.Event()

    async def subscribe(self: PubSub, *channels: Any, **handlers: Any) -> None:
        if not failed.is_set():
            failed.set()
            raise AttributeError("'NoneType' object has no attribute 'writelines'")
        await real(self, *channels, **handlers)

    monkeypatch.setattr(PubSub, "subscribe", subscribe)
    await bench.submit(id="a")
    waiting = asyncio.create_task(client.wait("a", timeout_s=15))
    await failed.wait()
    await eventually(lambda: heard(client, bench.redis_url))
    await asyncio.sleep(0.1)  # so that the look which follows a subscription is over
    await ends_at_once(bench, waiting)


async def test_a_lone_wait_hears_after_others_came_and_went_on_lost_connections(
    bench: Bench, client: WorkerClient
) -> None:
    """Forty waits begin and end while the subscription is cut again and again; the last one is told at once."""
    await bench.submit(id="a")
    waiting = asyncio.create_task(client.wait("a", timeout_s=30))
    quiet = asyncio.Event()

    async def come_and_go() -> None:
        while not quiet.is_set():
            with contextlib.suppress(NoSuchJob, RedisUnavailable):
                await client.wait(f"job-{secrets.randbelow(50)}", timeout_s=secrets.randbelow(30) / 1000)

    others = [asyncio.create_task(come_and_go()) for _ in range(40)]
    for _ in range(20):
        await asyncio.sleep(secrets.randbelow(200) / 1000)
        await bench.raw.client_kill_filter(_type="pubsub")
    quiet.set()
    await asyncio.gather(*others)
    await eventually(lambda: heard(client, bench.redis_url))
    await asyncio.sleep(0.1)
    assert set(client._line.ear._waiting) == {client._keys.changed("a")}
    await ends_at_once(bench, waiting)


async def ends_at_once(bench: Bench, waiting: "asyncio.Task[Job]") -> None:
    """End job a, and see that the wait for it is told, not just looking again."""
    started_s = time.monotonic()
    await cancel(bench.store, "a")
    assert (await waiting).status == "canceled"
    assert time.monotonic() - started_s < TOLD_S


async def test_wait_survives_a_restart_of_redis(bench: Bench, tmp_path: Path) -> None:
    """While Redis is down a wait goes on, other calls say so, and the end is heard after the restart."""
    server, url = OwnRedis(tmp_path), f"unix://{tmp_path}/redis.sock?db=0"
    server.start()
    try:
        async with open_store(url, bench.settings, load_models()) as store, WorkerClient(url) as client:
            await Door(store, bench.settings, load_models(), announce=True).take({**VIDEO, "id": "a"})
            waiting = asyncio.create_task(client.wait("a", timeout_s=20))
            await eventually(lambda: heard(client, url))
            server.kill()
            with pytest.raises(RedisUnavailable):
                await client.get("a")
            await asyncio.sleep(LOOK_AGAIN_S + 0.2)  # so that the wait has found Redis away, too
            assert not waiting.done()
            server.start()
            await patiently(lambda: cancel(store, "a"))
            assert (await waiting).status == "canceled"
    finally:
        server.kill()


async def heard(client: WorkerClient, url: str) -> bool:
    """Tell whether somebody listens to job a."""
    async with redis.asyncio.Redis.from_url(url) as raw:
        return (await raw.pubsub_numsub(client._keys.changed("a")))[0][1] == 1


CALLS: dict[str, Callable[[WorkerClient], Awaitable[Any]]] = {
    "submit": lambda client: client.submit({**VIDEO, "id": "a"}),
    "get": lambda client: client.get("a"),
    "wait": lambda client: client.wait("a"),
    "cancel": lambda client: client.cancel("a"),
    "retry": lambda client: client.retry("a"),
    "list": lambda client: client.list(),
}


@asynccontextmanager
async def mute_server() -> AsyncIterator[tuple[int, list[object]]]:
    """Listen on a port and never say anything; give the port, and who has come."""
    hung_up, came = asyncio.Event(), []

    async def hang(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.append(writer)
        await hung_up.wait()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], came
    finally:
        hung_up.set()
        server.close()


@pytest.mark.parametrize("mute", [False, True])
async def test_redis_away_is_said_soon(*, mute: bool) -> None:
    """Refused or mute, every call says so by its own exception after less than two seconds, and no secret with it.

    Nobody waits twice: who had to wait for a slot takes the word of those before, and none of those tries again.
    """
    assert max(client_line.AWAY_S, client_line.CONNECT_S) < SOON_S
    many = client_line.SLOTS + 8
    async with mute_server() as (port, came), contextlib.AsyncExitStack() as stack:
        url = f"redis://user:s3cret@127.0.0.1:{port if mute else 1}/0"
        clients = {name: await stack.enter_async_context(WorkerClient(url)) for name in CALLS}
        calls = [call(clients[name]) for name, call in CALLS.items() for _ in range(many)]
        async with asyncio.timeout(PATIENCE_S):
            answers = await asyncio.gather(*calls, return_exceptions=True)
        ears = 1
        assert len(came) <= len(clients) * (client_line.SLOTS + ears)
        assert bool(came) is mute
    assert {type(answer) for answer in answers} == {RedisUnavailable}
    assert not any("s3cret" in str(answer) for answer in answers)
    assert all("with the id a" in str(answer) for answer in answers[:many])


@pytest.mark.parametrize("user", ["", "nobody:s3cret@"])
async def test_refused_credentials_are_said_to_be(redis_url: str, redis_client: redis.asyncio.Redis, user: str) -> None:
    """Wrong ones and none: what to set, and not that anything may be queued, which it cannot be."""
    await redis_client.execute_command("ACL", "SETUSER", "default", "resetpass", ">hunter22")
    try:
        async with WorkerClient(redis_url.replace("unix://", f"unix://{user}")) as client:
            with pytest.raises(CredentialsRefused, match="set user and password") as refused:
                await client.submit({"id": "a", "kind": "video", "input": {}})
    finally:
        await redis_client.execute_command("ACL", "SETUSER", "default", "nopass")
    assert "queued" not in str(refused.value)
    assert "s3cret" not in str(refused.value)
    assert await redis_client.keys("onysoft:*") == []


@pytest.mark.parametrize(
    "url",
    [
        "localhost:6379",
        "http://localhost",
        "redis://user:s3/cret@localhost",
        "redis://user:s3cret@localhost?retry=s3cret",
        "",
    ],
)
def test_a_wrong_address_is_refused_without_its_secret(url: str) -> None:
    """What is no Redis URL is said at once, and never repeated."""
    with pytest.raises(ValueError, match="redis_url") as caught:
        WorkerClient(url)
    assert isinstance(caught.value, WorkerClientError)
    assert "s3" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["redis://localhost", "rediss://localhost", "unix:///tmp/redis.sock"])
@pytest.mark.parametrize("parameter", ["foo", "socket_timeout"])
def test_a_wrong_parameter_of_the_address_is_named(scheme: str, parameter: str) -> None:
    """One that is unknown, or cannot have its value, is said at once by its name, without the value."""
    with pytest.raises(WrongAddress, match=f"parameter {parameter} ") as caught:
        WorkerClient(f"{scheme}?db=3&{parameter}=s3cret")
    assert "s3cret" not in str(caught.value)


async def test_parameters_of_the_address_are_heeded(bench: Bench) -> None:
    """What redis-py knows may be set, except what would change how answers are read."""
    await bench.submit(id="a")
    async with WorkerClient(f"{bench.redis_url}&client_name=shop&decode_responses=yes") as client:
        assert await client.get("a")
        assert "shop" in {row["name"] for row in await bench.raw.client_list()}


async def test_a_blocked_loop_is_not_taken_for_an_absent_redis(bench: Bench, client: WorkerClient) -> None:
    """A backend whose own code holds the event loop for seconds gets its answers all the same."""
    await bench.submit(id="a")
    await client.get("a")
    reading = asyncio.create_task(client.get("a"))
    await asyncio.sleep(0)
    time.sleep(client_line.AWAY_S + 0.2)  # noqa: ASYNC251 - just that
    assert await reading


async def test_a_record_of_a_newer_version_is_said_to_be_one(bench: Bench, client: WorkerClient) -> None:
    """Get says why a record cannot be shown, and a list goes on without it."""
    await bench.submit(id="a")
    await bench.submit(id="b")
    await bench.raw.hset("onysoft:job:a", "schema", "99")  # type: ignore[misc]
    await bench.raw.hset("onysoft:job:b", "spec", "{}")  # type: ignore[misc]
    with pytest.raises(UnreadableJob, match="newer version"):
        await client.get("a")
    with pytest.raises(UnreadableJob, match="damaged"):
        await client.get("b")
    assert (await client.list()).jobs == ()


async def test_an_unreadable_record_stops_no_intake(bench: Bench, client: WorkerClient) -> None:
    """A request and a wish for a record this version cannot read are answered, and others are taken."""
    await bench.submit(id="a", input=HELD)
    await bench.raw.hset("onysoft:job:a", "schema", "99")  # type: ignore[misc]
    async with bench.worker():
        await eventually(lambda: bench.raw.hlen("onysoft:workers"))  # type: ignore[arg-type,return-value]
        with pytest.raises(WorkerClientError, match="newer version"):
            await client.submit({**VIDEO, "id": "a"})
        with pytest.raises(WorkerClientError, match="newer version"):
            await client.cancel("a")
        await bench.pool.enqueue_job("generate", {**VIDEO, "id": "a"})
        await eventually(lambda: queue_is_empty(bench))
        assert (await client.submit({**VIDEO, "input": HELD})).created_at


SCRIPT = """
import asyncio
from typing import assert_type

from worker.client import InvalidRequest, Job, Page, Status, WorkerClient


async def main() -> None:
    async with WorkerClient("redis://localhost:6379", prefix="onysoft") as client:
        job = await client.submit({"kind": "video", "input": {}})
        assert_type(job, Job)
        assert_type(await client.get(job.id), Job | None)
        assert_type((await client.wait(job.id, timeout_s=600)).urls, tuple[str, ...])
        status: Status = (await client.cancel(job.id)).status
        page = await client.list(status="failed", limit=50)
        assert_type(page, Page)
        for found in page.jobs:
            print(found.id, found.status == status)
        try:
            await client.list(status="done")  # type: ignore[arg-type]
        except InvalidRequest as error:
            print(error.errors[0]["field"])


asyncio.run(main())
"""


def test_a_backend_is_checked_strictly(tmp_path: Path) -> None:
    """A backend's own strict type checker sees the client's types and no errors."""
    script = tmp_path / "backend.py"
    script.write_text(SCRIPT)
    root = Path(client_module.__file__).parents[2]
    words = ["-m", "mypy", "--strict", "--config-file=", "--no-incremental", str(script)]
    done = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, timeout=120, check=False, cwd=root
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
