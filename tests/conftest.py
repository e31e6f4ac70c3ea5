"""What every test may ask for: one real Redis server for the run, empty at the start of each test."""

import gc
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import redis.asyncio
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from worker.embedded import find_server

START_TIMEOUT_S = 10.0


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Redis]:
    """Run one server for the whole session, on a Unix socket of its own, and hand out a plain client of it.

    Without a server on this machine the tests fail with the message that names the package: they do not skip.
    """
    with tempfile.TemporaryDirectory(prefix="onysoft-test-") as folder:
        listening = Path(folder, "redis.sock")
        options = (
            f"--port 0 --unixsocket {listening} --dir {folder} --appendonly no --notify-keyspace-events Kz".split()
        )
        words = [str(find_server()), *options, "--save", "", "--logfile", f"{folder}/redis.log"]
        with subprocess.Popen(words, env={"LC_ALL": "C"}, start_new_session=True) as server:
            try:
                with Redis(unix_socket_path=str(listening)) as client:
                    await_answer(client, server, Path(folder, "redis.log"))
                    yield client
            finally:
                server.kill()


def await_answer(client: Redis, server: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the server answers; fail with its log if it exits or takes too long."""
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while True:
        with suppress(RedisConnectionError):
            client.ping()
            return
        if server.poll() is not None or time.monotonic() > deadline_s:
            pytest.fail(f"the tests' Redis server did not start:\n{log.read_text() if log.exists() else ''}")
        time.sleep(0.005)


@pytest.fixture(scope="module", autouse=True)
def _what_a_module_leaves() -> Iterator[None]:
    """Have what a module leaves behind complain in its own name.

    Else its finalizers run amid another's test. Where that is while Python 3.11 parses, as Hypothesis makes it do, the
    traceback of the complaint is parsed as well, and the outer one fails: "AST constructor recursion depth mismatch".
    """
    yield
    gc.collect()


@pytest.fixture
def redis_url(redis_server: Redis) -> str:
    """Give the URL of an empty database."""
    redis_server.flushall()
    return f"unix://{redis_server.connection_pool.connection_kwargs['path']}?db=0"


@pytest.fixture
async def redis_client(redis_url: str) -> AsyncIterator[redis.asyncio.Redis]:
    """Give a client of the empty database that answers in bytes."""
    async with redis.asyncio.Redis.from_url(redis_url, decode_responses=False) as client:
        yield client
