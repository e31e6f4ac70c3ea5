"""Redis away or unable to write while a paid submission is under way: nothing is sent twice, no task id is lost."""

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio
from harness import Bench, Sandbox, directed, eventually
from redis import Redis
from redis.exceptions import BusyLoadingError
from redis.exceptions import ConnectionError as RedisConnectionError
from structlog.testing import capture_logs

from config.models import load_models
from jobs.states import Status
from worker.claims import LEASE_MS
from worker.embedded import find_server
from worker.link import patiently
from worker.main import open_store

START_TIMEOUT_S = 10.0
LONGER_THAN_A_LEASE_S = LEASE_MS / 1000 + 0.5
SOON_S = 0.3

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


def refused_since(lines: list[Any], job_id: str) -> Callable[[], Any]:
    """Make the check that writing was refused after a job's acceptance was heard."""

    async def check() -> bool:
        heard = [n for n, line in enumerate(lines) if line["event"] == "task.accepted" and line["job"] == job_id]
        return bool(heard) and any("again_in_s" in line for line in lines[heard[0] :])

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
            await eventually(refused_since(lines, job_id))
            await asyncio.sleep(for_s)
            assert (await bench.job(job_id)).status is Status.SUBMITTING
            await allow(bench.raw)
            await assert_done_once(bench, sandbox, job_id)
    assert sandbox.stats()["accepted"] == 1
