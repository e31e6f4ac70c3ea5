"""Redis away or unable to write while a paid submission is under way: nothing is sent twice, no task id is lost."""

import asyncio
import random
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio
from harness import Bench, Sandbox, directed, eventually
from redis import Redis
from redis.exceptions import BusyLoadingError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from structlog.testing import capture_logs
from test_web import JOB, check_problem, serving

from config.models import load_models
from jobs.changes import begin
from jobs.states import Status
from worker.acceptances import Acceptances
from worker.claims import LEASE_MS
from worker.embedded import find_server
from worker.link import ReadOnlyReplica, patiently
from worker.main import CannotStart, open_store, up, web, work
from worker.spool import Spool, SpooledTask
from worker.web import services

START_TIMEOUT_S = 10.0
LONGER_THAN_A_LEASE_S = LEASE_MS / 1000 + 0.5
SOON_S = 0.3
REPLICA = "this Redis is a read-only replica: set REDIS_URL to the primary"

pytestmark = pytest.mark.env(SUBMIT_TIMEOUT_S="30")


class OwnRedis:
    """A server that writes every command to disk before it answers, and that a test may kill and start again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.listening = folder / "redis.sock"
        self._server: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it on what its append-only file holds, and wait until it answers."""
        options = (
            f"--port 0 --unixsocket {self.listening} --dir {self._folder} --appendonly yes --appendfsync always "
            "--notify-keyspace-events Kz --maxmemory-policy noeviction"
        ).split()
        words = [str(find_server()), *options, "--save", "", "--logfile", str(self._folder / "redis.log")]
        self._server = subprocess.Popen(words, env={"LC_ALL": "C"}, start_new_session=True)
        deadline_s = time.monotonic() + START_TIMEOUT_S
        with Redis(unix_socket_path=str(self.listening)) as client:
            while True:
                with suppress(RedisConnectionError, BusyLoadingError):
                    client.ping()
                    return
                if self._server.poll() is not None or time.monotonic() > deadline_s:
                    pytest.fail("the test's own Redis server did not start")
                time.sleep(0.005)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Have it stand still."""
        assert self._server is not None
        self._server.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            if self._server is not None:  # it was not killed meanwhile
                self._server.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """Kill it as the kernel would."""
        if self._server is not None:
            self._server.kill()
            self._server.wait()
            self._server = None


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[OwnRedis]:
    """Run a server of the test's own."""
    server = OwnRedis(tmp_path)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def redis_url(own_redis: OwnRedis) -> str:
    """Have the bench work on that server."""
    return f"unix://{own_redis.listening}?db=0"


@asynccontextmanager
async def another_worker(bench: Bench) -> AsyncIterator[None]:
    """Run a worker as another process would: with a connection and claims of its own."""
    async with (
        open_store(bench.redis_url, bench.settings, load_models()) as store,
        replace(bench, store=store).worker(),
    ):
        yield


def sent(sandbox: Sandbox, *tags: str) -> Callable[[], Any]:
    """Make the check that the gateway has seen each of the tags."""

    async def check() -> bool:
        return all(sandbox.submissions(tag) for tag in tags)

    return check


def logged(lines: list[Any], event: str, **values: Any) -> Callable[[], Any]:
    """Make the check that a line was logged."""

    async def check() -> bool:
        return any(line["event"] == event and values.items() <= line.items() for line in lines)

    return check


def spool_of(bench: Bench) -> Spool:
    """Give what the bench's workers keep on disk."""
    return Spool(bench.settings.data_dir, prefix=bench.settings.key_prefix)


def spooled(bench: Bench, tasks: int) -> Callable[[], Any]:
    """Make the check that so many accepted tasks lie on disk."""

    async def check() -> bool:
        return spool_of(bench).counts() == (tasks, 0)

    return check


async def assert_done_once(bench: Bench, sandbox: Sandbox, job_id: str) -> None:
    """Wait for the job's end and compare our books with the gateway's."""
    view = await bench.ended(job_id)
    [row] = sandbox.submissions(job_id)
    assert view["status"] == "completed"
    [attempt] = view["attempts"]
    assert attempt["outcome"] == "succeeded"
    assert attempt["task_id"] == row["task_id"]
    assert not [counter for counter in await bench.store.counters() if "submit_unknown" in counter]


async def test_redis_killed_for_longer_than_a_lease_while_posts_are_in_flight(
    bench: Bench, sandbox: Sandbox, own_redis: OwnRedis
) -> None:
    """Answers that come while Redis is dead and after it is back are kept, and nobody takes the jobs over."""
    delays_s = {"answered-while-away": 2.0, "answered-after": LONGER_THAN_A_LEASE_S + 2}
    async with bench.worker(), another_worker(bench):
        for tag, delay_s in delays_s.items():
            await bench.submit(id=tag, input=directed(tag=tag, submit=[{"do": "accept", "delay_s": delay_s}]))
        await eventually(sent(sandbox, *delays_s))
        own_redis.kill()
        await asyncio.sleep(LONGER_THAN_A_LEASE_S)
        own_redis.start()
        async with another_worker(bench):
            await patiently(bench.store.ping)
            for tag in delays_s:
                await assert_done_once(bench, sandbox, tag)
    assert sandbox.stats()["accepted"] == len(delays_s)


async def read_only(client: redis.asyncio.Redis) -> None:
    """Make Redis the replica of a dead host, as a failover does."""
    await client.execute_command("REPLICAOF", "127.0.0.1", "1")


async def writable(client: redis.asyncio.Redis) -> None:
    """Make it a primary again."""
    await client.execute_command("REPLICAOF", "NO", "ONE")


@pytest.mark.parametrize(
    ("refuse", "allow", "for_s"),
    [
        (read_only, writable, SOON_S),
        (read_only, writable, LONGER_THAN_A_LEASE_S),
    ],
    ids=["for_a_moment", "for_longer_than_a_lease"],
)
async def test_writes_refused_between_a_post_and_its_answer(
    refuse: Callable[[redis.asyncio.Redis], Any],
    allow: Callable[[redis.asyncio.Redis], Any],
    for_s: float,
    bench: Bench,
    sandbox: Sandbox,
) -> None:
    """An answer that cannot be written is held until it can: one submission, and the job completes."""
    with capture_logs() as lines:
        async with bench.worker(), another_worker(bench):
            job_id = await bench.submit(id="t", input=directed(tag="t", submit=[{"do": "accept", "delay_s": 2}]))
            await eventually(sent(sandbox, "t"))
            await refuse(bench.raw)
            await eventually(logged(lines, "task.accepted", job=job_id))
            await eventually(spooled(bench, 1))
            await asyncio.sleep(for_s)
            assert (await bench.job(job_id)).status is Status.SUBMITTING
            await allow(bench.raw)
            await assert_done_once(bench, sandbox, job_id)
            await eventually(spooled(bench, 0))
    assert sandbox.stats()["accepted"] == 1
    assert [line["event"] for line in lines if line["event"].startswith("redis.")][:1] == ["redis.away"]


@pytest.mark.env(SHUTDOWN_GRACE_S="0.2")
async def test_an_accepted_task_outlives_redis_and_its_worker(
    bench: Bench, sandbox: Sandbox, own_redis: OwnRedis
) -> None:
    """Told to end while Redis is dead, a worker leaves the task id on disk; the next one stores it, and pays once."""
    async with bench.worker():
        job_id = await bench.submit(id="t", input=directed(tag="t", submit=[{"do": "accept", "delay_s": 1}]))
        await eventually(sent(sandbox, "t"))
        own_redis.kill()
        await eventually(spooled(bench, 1))
    own_redis.start()
    await patiently(bench.store.ping)
    assert (await bench.job(job_id)).status is Status.SUBMITTING
    async with another_worker(bench):
        await assert_done_once(bench, sandbox, job_id)
        await eventually(spooled(bench, 0))


@pytest.mark.env(SHUTDOWN_GRACE_S="0.2", SUBMIT_TIMEOUT_S="30")
async def test_an_accepted_task_outlives_a_redis_that_answers_nothing_and_its_worker(
    bench: Bench, sandbox: Sandbox, own_redis: OwnRedis
) -> None:
    """A Redis that stands still refuses nothing: the task id lies on disk soon, and when the worker is told to end."""
    async with AsyncExitStack() as worker:
        await worker.enter_async_context(bench.worker())
        for tag, delay_s in (("soon", 0.5), ("at-the-end", 3.0)):
            await bench.submit(id=tag, input=directed(tag=tag, submit=[{"do": "accept", "delay_s": delay_s}]))
        await eventually(sent(sandbox, "soon", "at-the-end"))
        with own_redis.frozen(), capture_logs() as lines:
            await eventually(logged(lines, "task.accepted", job="soon"))
            await eventually(spooled(bench, 1), within_s=5)
            await eventually(logged(lines, "task.accepted", job="at-the-end"))
            ending = asyncio.create_task(worker.aclose())
            await eventually(spooled(bench, 2), within_s=5)
            own_redis.kill()
            await ending
    own_redis.start()
    await patiently(bench.store.ping)
    async with another_worker(bench):
        for tag in ("soon", "at-the-end"):
            await assert_done_once(bench, sandbox, tag)
        await eventually(spooled(bench, 0))


async def test_a_foreign_key_keeps_no_accepted_task_out(bench: Bench, sandbox: Sandbox) -> None:
    """What lies in the place of the job's timeline while it is submitted is moved aside, and the task is stored."""
    async with bench.worker():
        await bench.submit(id="t", input=directed(tag="t", submit=[{"do": "accept", "delay_s": 0.5}]))
        await eventually(sent(sandbox, "t"))
        await bench.raw.set("onysoft:timeline:t", "foreign")
        await assert_done_once(bench, sandbox, "t")


async def test_a_spooled_task_that_cannot_be_stored_keeps_no_other(bench: Bench) -> None:
    """A newer version's job waits for its worker, a task set aside for its job to come back; all others are stored."""
    spool = spool_of(bench)
    for name in ("newer", "fine"):
        await bench.submit(id=name)
    await bench.raw.hset("onysoft:job:newer", "schema", "99")  # type: ignore[misc]
    attempt = begin(await bench.job("fine"), now_ms=1, rev="r", patience_ms=1).after.attempts[0]
    for name in ("back", "newer", "fine"):
        spool.keep(SpooledTask(name, attempt, f"task-{name}", None))
    spool.set_aside(SpooledTask("back", attempt, "task-back", None))
    await bench.submit(id="back")
    (bench.settings.data_dir / "accepted" / "odd.json").write_text('{"prefix": "onysoft", "sent": 1}')
    acceptances = Acceptances(bench.store, spool_of(bench), bench.settings, random.Random(1))
    await acceptances.recover()
    assert spool.counts() == (2, 0)  # the newer one's and the rubbish
    for name in ("back", "fine"):
        assert [attempt.task_id for attempt in (await bench.job(name)).attempts] == [f"task-{name}"]


async def test_a_spooled_task_whose_job_is_gone_is_set_aside(bench: Bench) -> None:
    """An older state of Redis was restored, say: the file stays for the operator, and the others are stored."""
    job_id = await bench.submit(id="here")
    attempt = begin(await bench.job(job_id), now_ms=1, rev="r", patience_ms=1).after.attempts[0]
    spool = spool_of(bench)
    for job, task in (("gone", "task_1"), ("here", "task_2")):
        spool.keep(SpooledTask(job, attempt, task, None))
    (bench.settings.data_dir / "accepted" / "rubbish.json").write_text('{"prefix": "onysoft"')
    Spool(bench.settings.data_dir, prefix="other").keep(SpooledTask("gone", attempt, "task_3", None))
    with capture_logs() as lines:
        async with bench.worker():
            await eventually(logged(lines, "task.jobless", job="gone", task="task_1"))
            await eventually(logged(lines, "task.kept", job="here", task="task_2"))
    assert spool.counts() == (2, 1)  # the rubbish and the other deployment's; the one without a job
    assert [attempt.task_id for attempt in (await bench.job(job_id)).attempts][:1] == ["task_2"]


async def test_a_replica_is_named_as_such(bench: Bench) -> None:
    """Nobody starts on one; who finds itself on one is not ready; a write says what to set, not that Redis is away."""
    async with serving(bench.redis_url) as api:
        assert (await api.client.get("/readyz")).status_code == 200
        await read_only(bench.raw)
        with capture_logs() as lines:
            answers = [await api.client.get("/readyz") for _ in range(3)]
            answers += [await api.client.post("/v1/jobs", json=JOB), await api.client.post("/v1/queues/video/pause")]
        assert all(REPLICA in check_problem(answer, 503, "unavailable")["detail"] for answer in answers)
        assert len(lines) <= 1
        for process in (work, web, up):
            with pytest.raises(ReadOnlyReplica, match=REPLICA):
                await process(bench.redis_url, bench.settings, load_models())
        with pytest.raises(ReadOnlyReplica, match=REPLICA):
            await bench.submit(id="t")
        assert await bench.store.get("t") is None
        await writable(bench.raw)
        assert (await api.client.get("/readyz")).status_code == 200


async def test_who_cannot_reach_redis_says_where_and_why(bench: Bench) -> None:
    """The address without its password, and the reason."""
    url = "redis://user:s3cret@127.0.0.1:1/0"
    with pytest.raises(CannotStart) as refused:
        await work(url, replace(bench.settings, redis_url=url), load_models())
    assert str(refused.value) == "Redis at redis://127.0.0.1:1/0 does not answer (connection refused): check REDIS_URL"


async def test_a_silent_redis_is_logged_once_a_minute(
    bench: Bench, own_redis: OwnRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many requests wait in vain; and a Redis that did not tell how full it is was not full."""
    monkeypatch.setattr(services, "_told_silent_s", -services.TOLD_EVERY_S)
    async with serving(bench.redis_url) as api:
        with capture_logs() as lines:
            with own_redis.frozen():
                answers = await asyncio.gather(*(api.client.post("/v1/jobs", json=JOB) for _ in range(5)))
            await patiently(api.store.ping)
    assert {answer.status_code for answer in answers} == {503}
    assert [line["event"] for line in lines] == ["redis.away"]


async def test_redis_that_stood_still_costs_nobody_a_claim(bench: Bench, sandbox: Sandbox, own_redis: OwnRedis) -> None:
    """Claims that waited in a frozen Redis for longer than a lease take nothing over: none could be renewed."""
    async with bench.worker(), another_worker(bench):
        slow = [{"do": "accept", "delay_s": LONGER_THAN_A_LEASE_S + 2}]
        await bench.submit(id="t", input=directed(tag="t", submit=slow))
        await eventually(sent(sandbox, "t"))
        with own_redis.frozen():
            await asyncio.sleep(LONGER_THAN_A_LEASE_S)
        await patiently(bench.store.ping)
        await assert_done_once(bench, sandbox, "t")
    assert sandbox.stats()["accepted"] == 1


async def test_the_error_of_a_script_is_nobody_elses(bench: Bench) -> None:
    """Also where the script had to be sent first: what left together with it is answered by itself."""
    await bench.raw.set("onysoft:gate", "x")
    await bench.raw.script_flush()
    claimed, answered = await asyncio.gather(
        bench.store.claim(["submit:video"], limit=1), bench.store.quarantine.count(), return_exceptions=True
    )
    assert isinstance(claimed, ResponseError)
    assert answered == 0
