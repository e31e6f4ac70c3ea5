"""The HTTP door under abuse: idle and slow clients, floods of faults, polls that nobody waits for, misspelt names."""

import asyncio
import contextlib
import json
import os
import re
import resource
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from harness import Bench, directed, eventually
from structlog.testing import capture_logs
from test_web import JOB, Api, check_problem, faulty_fields, serving, until
from test_web import api as api  # noqa: PLC0414 - a fixture
from test_web import locked as locked  # noqa: PLC0414 - a fixture

from config.models import load_models
from config.settings import SettingsError
from jobs.request import MAX_FAULTS
from worker.upkeep import Prune
from worker.web.app import WebServer
from worker.web.connection import LIMITS_S, Phase
from worker.web.listener import connections_allowed

FILES = 200
HEAD = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
POST = b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
JSON = {"content-type": "application/json"}
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture(name="few")
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let there be few connections, and little time for a head."""
    monkeypatch.setattr("worker.web.server.connections_allowed", lambda: 5)
    monkeypatch.setitem(LIMITS_S, Phase.HEAD, 0.3)
    monkeypatch.setitem(LIMITS_S, Phase.REST, 0.3)


@pytest.fixture
async def small(redis_url: str, request: pytest.FixtureRequest) -> AsyncIterator[Api]:
    """Serve few connections at a time."""
    request.getfixturevalue("few")
    async with serving(redis_url) as api:
        await api.store.sync_clock()
        yield api


@asynccontextmanager
async def dripping(writer: asyncio.StreamWriter) -> AsyncIterator[None]:
    """Send a byte every now and then, until the block ends or the server hangs up."""

    async def drip() -> None:
        while not writer.transport.is_closing():
            writer.write(b"x")
            await asyncio.sleep(0.05)

    drops = asyncio.create_task(drip())
    try:
        yield
    finally:
        drops.cancel()


async def answered(streams: Streams, *, within_s: float = 5) -> bytes:
    """Read until the server hangs up."""
    async with asyncio.timeout(within_s):
        try:
            return await streams[0].read()
        finally:
            streams[1].close()


# --- connections


@pytest.fixture
def scarce(redis_url: str, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Run a web process that may open few files; give its address and its log."""
    said = tmp_path / "web.log"
    environ = {**os.environ, "REDIS_URL": redis_url, "PORT": "0", "LOG_FORMAT": "json"}

    def restrict() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (FILES // 2, FILES))

    with said.open("wb") as log:
        command = [sys.executable, "-m", "worker", "web"]
        with subprocess.Popen(command, env=environ, stderr=log, preexec_fn=restrict) as process:  # noqa: PLW1509
            deadline_s = time.monotonic() + 20
            while not (address := re.search(r'"address": "([^"]+)"', said.read_text())):
                assert process.poll() is None, said.read_text()
                assert time.monotonic() < deadline_s, said.read_text()
                time.sleep(0.05)
            try:
                yield address[1], said
            finally:
                process.terminate()


async def test_idle_connections_cost_nobody_else_anything(scarce: tuple[str, Path]) -> None:
    """With more half-open connections than it may open files, a process answers whoever asks, and logs a few lines."""
    address, said = scarce
    port = httpx.URL(address).port
    idle = await asyncio.gather(*(asyncio.open_connection("127.0.0.1", port) for _ in range(FILES + 50)))
    for _, writer in idle:
        with contextlib.suppress(OSError):
            writer.write(b"GET /healthz HT")
    async with httpx.AsyncClient(base_url=address, trust_env=False, timeout=5, verify=False) as client:
        for _ in range(20):
            assert (await client.get("/healthz")).status_code == 200
        assert (await client.get("/readyz")).status_code == 200
        assert (await client.post("/v1/jobs", json=JOB)).status_code == 202
    for _, writer in idle:
        writer.transport.abort()
    assert "Traceback" not in said.read_text()
    assert len(said.read_text().splitlines()) < 10
    assert "too_many_connections" in said.read_text()


async def test_without_file_descriptors_connections_are_closed(api: Api) -> None:
    """Where nothing can be opened any more, whoever comes is hung up on, and the log says so in a line."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    streams = [await api.connect() for _ in range(4)]  # the client's descriptors have to be there before
    with capture_logs() as logs:
        coming = []
        for _ in range(40):
            made = socket.socket()
            made.setblocking(False)  # noqa: FBT003
            coming.append(made)
        lowest = os.open(os.devnull, os.O_RDONLY)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
        try:
            loop = asyncio.get_running_loop()
            for made in coming:
                await loop.sock_connect(made, ("127.0.0.1", api.server.port))
            async with asyncio.timeout(5):
                for made in coming:
                    with contextlib.suppress(ConnectionResetError):
                        assert await loop.sock_recv(made, 1) == b""
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    for made in coming:
        made.close()
    assert [(line["event"], line["reason"]) for line in logs] == [("request.refused", "no_file_descriptors")]
    for _, writer in streams:
        writer.close()
    assert (await api.client.get("/healthz")).status_code == 200


@pytest.mark.parametrize(("files", "connections"), [(200, 100), (600, 300), (1024, 624), (1 << 20, 4096), (-1, 4096)])
def test_connections_leave_files_to_others(
    files: int, connections: int, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """Of the files a process may open, what Redis, the gateway and webhooks need is not given to clients."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (files, files))
    assert connections_allowed() == connections


async def test_a_newcomer_takes_the_place_of_who_waits_longest(small: Api) -> None:
    """Beyond the limit the connection that is longest without a request is closed, and one with a request never."""
    reader, writer = await small.connect()
    writer.write(POST + b"Content-Length: 100\r\n\r\n{")
    await until(lambda: small.state.tasks)
    idle = [await small.connect() for _ in range(12)]
    await until(lambda: len(small.state.connections) <= 5)
    assert (await small.client.get("/healthz")).status_code == 200
    writer.write(b" " * 98 + b"}")
    assert (await asyncio.wait_for(reader.readline(), 5)).startswith(b"HTTP/1.1 422 ")
    for _, other in (*idle, (reader, writer)):
        other.close()


async def test_who_is_one_too_many_is_asked_to_come_again(small: Api) -> None:
    """Where every connection has a request under way, the next one is told so, and the requests go on."""
    busy = [await small.connect() for _ in range(5)]
    for _, writer in busy:
        writer.write(POST + b"Content-Length: 2\r\n\r\n{")
    await until(lambda: len(small.state.tasks) == 5)
    for _ in range(3):
        answer = await small.client.get("/healthz")
        check_problem(answer, 503, "unavailable")
        assert int(answer.headers["retry-after"]) > 0
    for reader, writer in busy:
        writer.write(b"}")
        assert (await reader.readline()).startswith(b"HTTP/1.1 422 ")
        writer.close()
    await until(lambda: not small.state.tasks)
    assert (await small.client.get("/healthz")).status_code == 200


async def test_a_head_has_to_come_in_time(small: Api) -> None:
    """Whoever does not finish a request's head is told so, also after a first request."""
    streams = await small.connect()
    streams[1].write(HEAD + b"\r\n")
    await until(lambda: small.state.total_requests)
    started_s = time.monotonic()
    streams[1].write(b"GET /")
    assert b"HTTP/1.1 408 " in await answered(streams)
    assert time.monotonic() - started_s < 1.5


async def test_a_dripping_head_is_cut_off(small: Api) -> None:
    """The time for a head is one for all of it."""
    _, writer = await small.connect()
    started_s = time.monotonic()
    async with dripping(writer):
        await until(lambda: small.state.connections)
        await until(lambda: not small.state.connections)
    assert 0.25 < time.monotonic() - started_s < 1.5
    writer.close()


async def test_a_silent_connection_is_closed(small: Api) -> None:
    """A connection on which nothing ever comes is closed without a word."""
    assert await answered(await small.connect()) == b""


async def test_a_kept_connection_may_be_idle(small: Api) -> None:
    """Between two whole requests the time for a head does not run."""
    reader, writer = await small.connect()
    for _ in range(2):
        writer.write(HEAD + b"\r\n")
        assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200 ")
        await asyncio.sleep(0.5)
    writer.close()


async def test_pipelined_requests_are_all_answered(small: Api) -> None:
    """Requests that are sent in one go are answered in their order."""
    streams = await small.connect()
    streams[1].write((HEAD + b"\r\n") * 5 + HEAD + b"Connection: close\r\n\r\n")
    assert (await answered(streams)).count(b'{"status":"ok"}') == 6


@pytest.mark.usefixtures("few")
async def test_what_is_dropped_has_a_time_as_well(redis_url: str) -> None:
    """The rest of a body that nobody reads, because its request was refused, cannot hold a connection by dripping."""
    async with serving(redis_url, API_TOKENS="t0ken") as locked:
        reader, writer = await locked.connect()
        writer.write(POST + b"Content-Length: 1000\r\n\r\n{")
        assert (await reader.readline()).startswith(b"HTTP/1.1 401 ")
        async with dripping(writer):
            await until(lambda: not locked.state.connections)
        writer.close()


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/jobs:batch", "/v1/video/generate"])
async def test_a_body_has_to_come_in_time(api: Api, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that stops coming is refused, and its connection closed."""
    monkeypatch.setattr("worker.web.body.MAX_SILENCE_S", 0.2)
    streams = await api.connect()
    streams[1].write(POST.replace(b"/v1/jobs", path.encode()) + b"Content-Length: 1000\r\n\r\n{")
    answer = await answered(streams)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"request_timeout" in answer
    monkeypatch.setattr("worker.web.body.MAX_SILENCE_S", 5)
    monkeypatch.setattr("worker.web.body.MAX_READING_S", 0.3)
    reader, writer = await api.connect()
    writer.write(POST.replace(b"/v1/jobs", path.encode()) + b"Content-Length: 1000\r\n\r\n{")
    async with dripping(writer):
        assert (await asyncio.wait_for(reader.readline(), 5)).startswith(b"HTTP/1.1 408 ")
    writer.close()


async def test_who_reads_nothing_is_hung_up_on(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that asks for much and takes none of it does not keep its connection."""
    monkeypatch.setattr("worker.web.connection.STALLED_S", 0.3)
    _, writer = await api.connect()
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    for _ in range(40):
        writer.write(b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await until(lambda: api.state.tasks)
    await until(lambda: not api.state.connections)
    writer.transport.abort()


async def test_who_reads_slowly_gets_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that takes its answer bit by bit, for much longer than one that takes nothing has, gets it whole."""
    monkeypatch.setattr("worker.web.connection.STALLED_S", 0.3)
    monkeypatch.setitem(LIMITS_S, Phase.IDLE, 0.2)
    size_bytes = 12 << 20

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        headers = [(b"content-length", str(size_bytes).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": bytes(size_bytes)})

    server = WebServer(app, "127.0.0.1", 0)
    running = asyncio.create_task(server.run())
    reader, writer = await asyncio.open_connection("127.0.0.1", await server.started())
    writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    taken_bytes = 0
    while taken_bytes < size_bytes and (piece := await reader.read(1 << 20)):
        taken_bytes += len(piece)
        await asyncio.sleep(0.02)  # it is just this slowness
    assert taken_bytes == size_bytes
    writer.close()
    server.stop()
    await running


# --- floods of faults


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/jobs:batch"])
async def test_a_flood_of_unknown_fields(api: Api, path: str) -> None:
    """A body of nothing but unknown fields is answered soon, in few words, and others hardly wait for it."""
    body = json.dumps({f"{number:x}": 0 for number in range(900_000)})
    started_s = time.process_time()
    answer = await api.client.post(path, content=body, headers=JSON)
    assert time.process_time() - started_s < 8  # it was 18 once
    fields = faulty_fields(answer)
    assert len(fields) == MAX_FAULTS + 1
    assert "more" in answer.json()["errors"][-1]["message"]
    assert len(answer.content) < 64 << 10
    assert answer.text.count("must be a list" if "batch" in path else "on_unknown_submit") <= 1


async def test_a_batch_of_floods(api: Api) -> None:
    """Each request of a batch is answered in few words."""
    item = {**JOB, **{"k" * 4 + f"{number:x}": 0 for number in range(900)}}
    started_s = time.process_time()
    answer = await api.client.post("/v1/jobs:batch", json={"jobs": [item] * 900})
    assert time.process_time() - started_s < 10
    results = answer.json()["results"]
    assert [result["status"] for result in results] == [422] * 900
    assert max(len(json.dumps(result)) for result in results) < 4 << 10
    long_names = {**JOB, **{f"{number:04}" * 250: 0 for number in range(900)}}
    (result,) = (await api.client.post("/v1/jobs:batch", json={"jobs": [long_names]})).json()["results"]
    assert len(json.dumps(result, ensure_ascii=False)) < 4 << 10


async def rejected(logs: Any) -> list[Any]:
    """List the lines that tell of a rejection."""
    return [line for line in logs if line["event"] == "arq.job_rejected"]


async def test_a_flood_through_arq_is_a_short_line(bench: Bench) -> None:
    """The log line and the failed job of a request with endless faults are short."""
    with capture_logs() as logs:
        async with bench.worker():
            job = await bench.pool.enqueue_job("generate", {f"k{number}": 0 for number in range(20_000)})
            assert job is not None
            ended = await bench.ended(job.job_id)
            lines = await eventually(lambda: rejected(logs))
    assert len(lines) == 1
    assert len(str(lines[0])) < 4000
    assert len(ended["failure"]["message"]) <= 2000


# --- polls that nobody waits for


async def test_a_long_poll_ends_with_its_client(bench: Bench) -> None:
    """Whoever hangs up is no longer waited for."""
    job_id = await bench.submit(input=directed())
    async with serving(bench.redis_url) as api:
        streams = [await api.connect() for _ in range(50)]
        for _, writer in streams:
            writer.write(f"GET /v1/jobs/{job_id}?wait_s=60 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        await until(lambda: len(api.state.tasks) == 50)
        await asyncio.sleep(0.1)
        for _, writer in streams:
            writer.transport.abort()
        started_s = time.monotonic()
        await api.idle()
        assert time.monotonic() - started_s < 1
        assert api.store.news._waiting == {}


async def test_a_long_poll_survives_what_is_sent_after_it(bench: Bench) -> None:
    """A second request on the connection of a long poll waits for its answer, and both are answered."""
    job_id = await bench.submit(input=directed())
    async with serving(bench.redis_url) as api:
        streams = await api.connect()
        streams[1].write(f"GET /v1/jobs/{job_id}?wait_s=0.5 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        await until(lambda: api.store.news._waiting)
        streams[1].write(HEAD + b"Connection: close\r\n\r\n")
        answer = await answered(streams)
    assert answer.index(b'"queued"') < answer.index(b'{"status":"ok"}')


# --- the feed


async def test_the_feed_of_nothing_has_a_cursor_that_holds(bench: Bench) -> None:
    """Where all events are pruned, who begins to read gets a cursor that is not expired, and misses nothing."""
    async with serving(bench.redis_url) as api:
        page = (await api.client.get("/v1/events")).json()
        assert page == {"events": [], "next_cursor": "0-0"}
        async with bench.worker():
            job_id = await bench.submit(input=directed(), webhook_url=None)
            await bench.ended(job_id)

            async def none_pending() -> bool:
                return not await bench.raw.zcard("onysoft:deliveries:pending")

            await eventually(none_pending)
        await Prune(bench.store, retention_s=0).run_once(bench.store.now_ms() + 1000)
        page = (await api.client.get("/v1/events")).json()
        assert page["events"] == []
        after = {"cursor": page["next_cursor"]}
        assert (await api.client.get("/v1/events", params=after)).json() == page
        async with bench.worker():
            await bench.ended(await bench.submit(id="next", input=directed()))
        events = (await api.client.get("/v1/events", params=after)).json()["events"]
        assert [event["data"]["id"] for event in events] == ["next"]


# --- names


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/jobs/none?wait=1"),
        ("GET", "/v1/jobs/none/stream?wait=1"),
        ("POST", "/v1/jobs/none/cancel?wait=1"),
        ("POST", "/v1/jobs/none/retry?wait=1"),
        ("GET", "/v1/jobs/none/deliveries?wait=1"),
        ("POST", "/v1/deliveries/none/replay?wait=1"),
        ("GET", "/v1/events?wait=1"),
        ("GET", "/v1/queues?wait=1"),
        ("GET", "/v1/models?wait=1"),
        ("POST", "/v1/queues/video/pause?wait=1"),
        ("POST", "/v1/queues/video/resume?wait=1"),
        ("GET", "/v1/jobs/none?wait_s=1&wait_s=2"),
        ("GET", "/v1/jobs?limit=1&limit=2"),
    ],
)
async def test_a_misspelt_or_repeated_parameter_is_named(api: Api, method: str, path: str) -> None:
    """A parameter that an address does not have, or has twice, is refused by name, and nothing is done."""
    answer = await api.client.request(method, path)
    assert faulty_fields(answer) == [path.partition("?")[2].partition("=")[0]]
    assert (await api.client.get("/v1/queues")).json()["queues"][0]["paused_since"] is None


async def test_a_flood_of_parameters(api: Api) -> None:
    """However many parameters there are, the answer is short."""
    answer = await api.client.get("/v1/jobs?" + "&".join(f"x{number}=" for number in range(2000)))
    assert len(faulty_fields(answer)) == MAX_FAULTS + 1
    assert len(answer.content) < 8 << 10


@pytest.mark.parametrize(
    ("host", "address"), [("::1", "http://[::1]:{}"), ("127.0.0.1", "http://127.0.0.1:{}")]
)  # fmt: skip
async def test_the_address_is_one(host: str, address: str) -> None:
    """What is said about where the server is can be opened as it is."""

    async def app(*_: Any) -> None:
        raise AssertionError

    server = WebServer(app, host, 0)
    assert server.address == address.format(server.port)
    server._socket.close()


@pytest.mark.parametrize("text", ['[chains]\nx = ["a|b"]', '[models."a|b"]\ntext_output = true'])
def test_a_models_name_is_one_label(tmp_path: Path, text: str) -> None:
    """A model whose name could not be counted under is a fault of the models file."""
    path = tmp_path / "models.toml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=r"a\|b:? must not contain \|"):
        load_models(path)
