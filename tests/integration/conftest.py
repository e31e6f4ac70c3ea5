"""What integration tests may ask for: the sandbox as a process, a webhook receiver, and a worker's surroundings."""

import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator

import pytest
import redis.asyncio
import uvicorn
from arq.connections import ArqRedis
from harness import API_KEY, BOOKS, SECRET, Bench, Receiver, Sandbox, eventually, json_bytes

from config.models import load_models
from config.settings import Settings
from worker.enqueue import Door
from worker.main import open_store


@pytest.fixture(scope="session")
def sandbox_process() -> Iterator[str]:
    """Run the sandbox without faults for the whole session."""
    command = [sys.executable, "-m", "worker.sandbox", "--port", "0", "--faults", "none", "--speed", "100"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}) as p:
        assert p.stderr is not None
        ready = p.stderr.readline()
        address = re.search(r"http://\S+", ready)
        assert address, f"the sandbox did not start: {ready}{p.stderr.read()}"
        yield address[0]
        p.terminate()
        p.communicate()


@pytest.fixture
def sandbox(sandbox_process: str) -> Sandbox:
    """Give the sandbox with empty books and no faults."""
    BOOKS.post(f"{sandbox_process}/sandbox/reset").raise_for_status()
    return Sandbox(sandbox_process)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """Run a receiver on a free port."""
    box = Receiver("")
    server = uvicorn.Server(
        uvicorn.Config(
            box.asgi,
            port=0,
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=1,
        )
    )
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign]
    serving = asyncio.create_task(server.serve())

    async def started() -> bool:
        return server.started

    await eventually(started)
    port = server.servers[0].sockets[0].getsockname()[1]
    box.url = f"http://127.0.0.1:{port}/hook"
    yield box
    server.should_exit = True
    await serving


@pytest.fixture
async def bench(
    request: pytest.FixtureRequest,
    redis_url: str,
    redis_client: redis.asyncio.Redis,
    sandbox: Sandbox,
    receiver: Receiver,
) -> AsyncIterator[Bench]:
    """Set up everything a worker needs. ``@pytest.mark.env(NAME=value)`` changes its environment."""
    marker = request.node.get_closest_marker("env")
    data_dir = str(request.getfixturevalue("tmp_path") / "data")
    settings = Settings.from_env(
        {
            "ONYSOFT_API_KEY": API_KEY, "ONYSOFT_BASE_URL": sandbox.url, "REDIS_URL": redis_url,
            "WEBHOOK_ALLOW_PRIVATE": "true", "WEBHOOK_SECRET": SECRET, "WEBHOOK_URL": receiver.url,
            "WEBHOOK_SCHEDULE_S": "0,0.05,0.1", "RETRY_BASE_S": "0.05", "RETRY_CAP_S": "0.2", "POLL_MIN_S": "0.05",
            "POLL_MAX_S": "0.3", "SUBMIT_TIMEOUT_S": "3", "SHUTDOWN_GRACE_S": "3", "DATA_DIR": data_dir,
            **(marker.kwargs if marker else {}),
        }
    )  # fmt: skip
    models = load_models()
    pool = ArqRedis.from_url(redis_url)
    pool.job_serializer, pool.job_deserializer = json_bytes, json.loads
    pool.default_queue_name = settings.queue_name
    async with open_store(redis_url, settings, models) as store:
        yield Bench(settings, store, Door(store, settings, models, announce=True), pool, redis_client, redis_url)
    await pool.aclose()
