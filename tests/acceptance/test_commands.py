"""The command line as a user meets it: what it prints where, its exit status, and one line for every mistake."""

import asyncio
import json
import signal
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from harness import API_KEY, SECRET, Sandbox, eventually
from product import Api, Place, Receiver, Said, directed, tell
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from worker.embedded import find_server

CORPUS = Path(__file__).parents[1] / "unit" / "corpus.jsonl"
PASSWORD = "pw-Zu9fWq3x"
TOKEN = "tk-Hq7mRb2c"
QUICKLY_S = 8.0  # most of it is Python, five times at once, on a loaded machine


def one_line(said: Said, status: int, *words: str) -> None:
    """See that a command failed as it should: a status, nothing on standard output, one line that has these words."""
    told = f"status {said.status}, out {said.out!r}, err {said.err!r}"
    assert said.status == status, told
    assert said.out == "", told
    lines = said.err.splitlines()
    assert len(lines) == 1, told
    assert lines[0].startswith("onysoft-worker: "), told
    for word in words:
        assert word in lines[0], told


@pytest.fixture
def taken_port() -> Iterator[str]:
    """Give a port on which somebody else listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield str(server.getsockname()[1])


@pytest.fixture
async def api(place: Place, sandbox: Sandbox) -> AsyncIterator[Api]:  # noqa: ARG001 - its address must be known first
    """Run ``up`` and talk to it."""
    api = Api(await (await place.started("up")).address())
    yield api
    await api.http.aclose()


@dataclass(frozen=True, slots=True)
class GuardedRedis:
    """A Redis that wants a password."""

    process: asyncio.subprocess.Process
    port: int

    def url(self, password: str = PASSWORD) -> str:
        """Make a URL of it."""
        return f"redis://:{password}@127.0.0.1:{self.port}/0"


@pytest.fixture
async def guarded_redis(tmp_path: Path) -> AsyncIterator[GuardedRedis]:
    """Run a Redis that wants a password on a free port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    words = f"--port {port} --bind 127.0.0.1 --dir {tmp_path} --appendonly no --requirepass {PASSWORD}".split()
    process = await asyncio.create_subprocess_exec(
        find_server(), *words, "--save", "", "--logfile", f"{tmp_path}/redis.log", env={"LC_ALL": "C"}
    )
    try:

        async def answers() -> bool:
            with Redis(port=port, password=PASSWORD) as client, suppress(RedisConnectionError):
                return bool(client.ping())
            return False

        await eventually(answers)
        yield GuardedRedis(process, port)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def test_submit_waits_and_tells(place: Place, api: Api) -> None:
    """``submit --wait`` tells progress on standard error and the URL on standard output; its status is the outcome."""
    fine, fails = directed("fine", duration_s=0.5), directed("fails", submit=[{"status": 400, "message": "no prompt"}])
    completed, failed, as_json, plain = await asyncio.gather(
        place.run("submit", "video", "--id", "fine", "--input", f"sandbox={json.dumps(fine['sandbox'])}", "--wait"),
        place.run("submit", "video", "--id", "fails", "--input", f"sandbox={json.dumps(fails['sandbox'])}", "--wait"),
        place.run("submit", "image", "--model", "flux-2/pro-text-to-image", "--input", "n=1", "--wait", "--json"),
        place.run("submit", "image", "--id", "plain", "--input", "prompt=a fox"),
    )
    assert (completed.status, failed.status, as_json.status, plain.status) == (0, 1, 0, 0)
    view = await api.view("fine")
    assert view["result"]["urls"][0] in completed.out.split()
    assert "fine processing" in completed.err
    assert "fine completed" in completed.err
    assert "invalid_input" in failed.out
    assert "fails failed" in failed.err
    shown = json.loads(as_json.out)
    assert (shown["status"], shown["model"], shown["degraded"]) == ("completed", "flux-2/pro-text-to-image", False)
    assert plain.out.split() == ["plain", "queued"]
    assert plain.err == ""
    assert not any("Traceback" in said.err + said.out for said in (completed, failed, as_json, plain))
    shows, again, other, unknown = await asyncio.gather(
        place.run("show", "fine"),
        place.run("submit", "image", "--id", "plain", "--input", "prompt=a fox"),
        place.run("submit", "image", "--id", "plain", "--input", "prompt=a wolf"),
        place.run("show", "nobody"),
    )
    assert shows.status == 0
    assert view["result"]["urls"][0] in shows.out
    assert view["task_id"] in shows.out
    assert again.status == 0
    one_line(other, 1, "plain", "different request")
    one_line(unknown, 1, "nobody")


async def test_why_a_job_does_not_move_is_told(place: Place) -> None:
    """``show`` in text and JSON and ``watch`` say what holds a job up; once it has ended nothing does."""
    await asyncio.gather(place.run("submit", "video", "--id", "held", "--input", "prompt=x"), place.run("jobs"))
    assert (await place.run("pause", "video")).status == 0
    watching = await place.start("watch", "held")
    text, as_json = await asyncio.gather(place.run("show", "held"), place.run("show", "held", "--json"))
    no_worker, paused = json.loads(as_json.out)["hindrances"]
    assert "no worker is alive" in no_worker
    assert paused.startswith("video is paused since 20")
    told = [line.strip() for line in text.out.splitlines() if "held up" in line]
    assert told == [f"held up: {no_worker}", f"held up: {paused}"]
    await watching.comes_to(lambda: "held up" in watching.err)
    assert (await place.run("cancel", "held")).status == 0
    assert await watching.ended() == 1
    assert [line.strip() for line in watching.err.splitlines() if "held up" in line] == told
    shown = await place.run("show", "held", "--json")
    assert json.loads(shown.out)["hindrances"] == []


async def test_a_worker_that_was_killed_is_told_as_gone(place: Place, api: Api) -> None:
    """``queues`` says since when, by the pid its log lines carry; the doctor only notes it while another is alive."""
    lost = await place.started("work")
    [started] = lost.events("process.started")
    assert (started["pid"], started["host"]) == (lost.pid, socket.gethostname())
    await eventually(lambda: _workers(api, 2))
    await lost.kill()

    async def gone() -> bool:
        return [row["alive"] for row in await _workers(api, 2)].count(False) == 1

    await eventually(gone)
    queues, doctor = await asyncio.gather(place.run("queues"), place.run("doctor", "--json"))
    assert f"pid {lost.pid}, 0 of 100 in flight, gone since 20" in queues.out
    levels = {(row["name"], row["level"]) for row in json.loads(doctor.out)["findings"]}
    assert levels >= {("workers", "ok"), ("workers", "info")}
    assert ("workers", "warning") not in levels
    assert doctor.status == 0, doctor.out


async def _workers(api: Api, many: int) -> list[dict[str, Any]]:
    """List the workers once there are so many."""
    found = (await api.http.get("/v1/queues")).json()["workers"]
    return list(found) if len(found) >= many else []


async def test_the_doctor_says_first_what_it_checks(place: Place, guarded_redis: GuardedRedis) -> None:
    """This shell's settings with that Redis, whose wrong password is told in one plain sentence."""
    wrong, none = await asyncio.gather(
        place.run("doctor", REDIS_URL=guarded_redis.url("wrong-" + PASSWORD)), place.run("doctor")
    )
    first = wrong.out.splitlines()[0]
    assert f"settings of this shell, in {place.folder}" in first
    assert f"redis://127.0.0.1:{guarded_redis.port}/0" in first
    assert "Redis refuses our credentials" in wrong.out
    assert "Redis Redis" not in wrong.out
    assert PASSWORD not in wrong.out + wrong.err
    assert f"the embedded Redis in {place.data_dir}" in none.out.splitlines()[0]


PARSED = [  # arguments that cannot be read, and words of the line that says so
    (("submit", "video", "--nope"), ("--nope",)),
    (("submit",), ("kind",)),
    (("submit", "video", "image"), ("image",)),
    (("frobnicate",), ("frobnicate",)),
    (("show",), ("id",)),
    (("sandbox", "--faults", "some"), ("--faults", "hostile")),
    (("sandbox", "--port", "65536"), ("--port",)),
    (("explain", "--stage", "poll", "--status", "x"), ("--status",)),
]
VALUES: list[tuple[tuple[str, ...], dict[str, str], tuple[str, ...]]] = [
    (("submit", "hologram", "--input", "prompt=x"), {}, ("kind", "video")),
    (("submit", "video", "--input", "prompt"), {}, ("--input", "prompt")),
    (("submit", "video", "--input-file", "absent.json"), {}, ("--input-file", "absent.json")),
    (("submit", "video", "--input-file", "list.json"), {}, ("--input-file", "object")),
    (("submit", "video", "--input", "a=1", "--webhook", "ftp://x/"), {}, ("webhook",)),
    (("submit", "video", "--id", "with spaces"), {}, ("id",)),
    (("explain",), {}, ("--stage", "--file")),
    (("explain", "--stage", "later"), {}, ("later", "submit")),
    (("work",), {"ONYSOFT_API_KEY": ""}, ("ONYSOFT_API_KEY",)),
    (("up",), {"ONYSOFT_API_KEY": ""}, ("ONYSOFT_API_KEY",)),
    (("work",), {"POLL_MIN_S": "soon"}, ("POLL_MIN_S", "seconds")),
    (("web",), {"WEBHOOK_SECRET": "hunter2-hunter2"}, ("WEBHOOK_SECRET", "whsec_")),
    (("web",), {"BIND_HOST": "0.0.0.0"}, ("BIND_HOST", "API_TOKENS")),
    (("show", "x"), {"REDIS_URL": f"http://:{PASSWORD}@127.0.0.1/"}, ("REDIS_URL", "redis://")),
    (("work",), {"MODELS_FILE": "absent.toml"}, ("MODELS_FILE",)),
]


def faults_of(said: Said, status: int, *words: str) -> list[str]:
    """Name everything that is wrong with how a command failed."""
    try:
        one_line(said, status, *words)
    except AssertionError as error:
        return [str(error)[-200:]]
    return []


async def test_arguments_that_cannot_be_read_are_told_in_one_line(place: Place) -> None:
    """An unknown option or command, a missing or an impossible argument: status 2 and one line that names it."""
    said = await asyncio.gather(*(place.run(*words, within_s=60) for words, _ in PARSED))
    faults = [(row[0], fault) for answer, row in zip(said, PARSED, strict=True) for fault in faults_of(answer, 2)]
    assert faults == []
    for answer, (_, words) in zip(said, PARSED, strict=True):
        assert all(word in answer.err.lower() for word in words), answer.err


async def test_wrong_values_are_told_in_one_line(place: Place) -> None:
    """A wrong value in an argument or the environment: status 2, one line that names it and quotes no secret."""
    (place.folder / "list.json").write_text("[1]")
    said = await asyncio.gather(*(place.run(*words, within_s=60, **environ) for words, environ, _ in VALUES))
    faults = [
        (row[0], fault) for answer, row in zip(said, VALUES, strict=True) for fault in faults_of(answer, 2, *row[2])
    ]
    assert faults == []
    for answer in said:
        assert PASSWORD not in answer.err
        assert "hunter2" not in answer.err


async def test_what_cannot_be_done_is_told_in_one_line(place: Place, taken_port: str) -> None:
    """No data, no Redis and no free port each end soon with status 1 and one line that says what to do."""
    nowhere = f"redis://:{PASSWORD}@127.0.0.1:1/0"
    no_data = await place.run("show", "x")
    one_line(no_data, 1, str(place.data_dir), "DATA_DIR")
    assert not place.data_dir.exists()
    reading = [place.run(*words, REDIS_URL=nowhere) for words in (("show", "x"), ("submit", "video"), ("work",))]
    by_socket = place.run("show", "x", REDIS_URL=f"unix:///nowhere/redis.sock?db=0&password={PASSWORD}")
    for said in await asyncio.gather(*reading, by_socket):
        one_line(said, 1, "Redis", "REDIS_URL")
        assert PASSWORD not in said.err
        tell(f"dead Redis: {said.took_s:.1f} s  {said.err.strip()}")
        assert said.took_s < QUICKLY_S
    web, up, sandbox = await asyncio.gather(
        place.run("web", PORT=taken_port),
        place.run("up", PORT=taken_port),
        place.run("sandbox", "--port", taken_port),
    )
    one_line(web, 1, taken_port, "PORT")
    one_line(up, 1, taken_port, "PORT")
    one_line(sandbox, 1, taken_port, "--port")


async def test_explain_compares_a_file(place: Place, tmp_path: Path) -> None:
    """``explain --file`` agrees with the repository's corpus, a line each in order, and says where a file differs."""
    rows = [json.loads(line) for line in CORPUS.read_text().splitlines()]
    wrong = tmp_path / "wrong.jsonl"
    rows[1]["expect"]["action"] = "park"
    wrong.write_text("\n".join(map(json.dumps, rows[:3])))
    agreed, as_json, differs, absent = await asyncio.gather(
        place.run("explain", "--file", str(CORPUS)),
        place.run("explain", "--file", str(CORPUS), "--json"),
        place.run("explain", "--file", str(wrong), "--json"),
        place.run("explain", "--file", "absent.jsonl"),
    )
    assert agreed.status == 0, agreed.err
    assert as_json.status == 0
    verdicts = [json.loads(line) for line in as_json.out.splitlines()]
    assert len(verdicts) == len(rows) == len(agreed.out.splitlines())
    assert {tuple(verdict) for verdict in verdicts} == {("code", "category", "action", "rule", "source")}
    expected = [row["expect"].get("code") for row in rows]
    assert [wanted and verdict["code"] for verdict, wanted in zip(verdicts, expected, strict=True)] == expected
    assert differs.status == 1
    assert len(differs.out.splitlines()) == 3
    assert "line 2" in differs.err
    one_line(absent, 1, "absent.jsonl")


async def test_secrets_are_told_to_nobody(
    place: Place,
    sandbox: Sandbox,  # noqa: ARG001 - its address must be known first
    receiver: Receiver,
    guarded_redis: GuardedRedis,
) -> None:
    """Key, webhook secret, token and Redis password are in no output and no log, at debug level and in trouble."""
    environ = {"REDIS_URL": guarded_redis.url(), "API_TOKENS": f"ops:{TOKEN}", "LOG_LEVEL": "debug"}
    refused = directed("refused", submit=[{"status": 401, "code": "invalid_api_key", "message": "no"}])
    up = await place.started("up", **environ)
    said = await asyncio.gather(
        place.run("submit", "video", "--id", "fine", "--input", "prompt=x", "--wait", **environ),
        place.run("submit", "video", "--input", f"sandbox={json.dumps(refused['sandbox'])}", "--wait", **environ),
        place.run("show", "x", **environ | {"REDIS_URL": guarded_redis.url("wrong-" + PASSWORD)}),
        place.run("show", "x", **environ | {"REDIS_URL": f"redis://127.0.0.1:{guarded_redis.port}/0"}),
    )
    assert [answer.status for answer in said] == [0, 1, 1, 1]
    for answer in said[2:]:
        one_line(answer, 1, "Redis refuses our credentials: set user and password in REDIS_URL")
    await receiver.has_all(["fine"], within_s=10)
    client = Api(await up.address())
    for token in (TOKEN, "wrong-" + TOKEN):
        await client.http.get("/v1/jobs/fine", headers={"authorization": f"Bearer {token}"})
    await client.http.aclose()
    guarded_redis.process.kill()
    await up.comes_to(lambda: up.events("redis.away"))
    await up.stop()
    texts = {f"{answer.status} {number}": answer.out + answer.err for number, answer in enumerate(said)}
    texts |= {"up": up.out + up.err, "webhooks": json.dumps(receiver.received)}
    for where, text in texts.items():
        assert "Traceback" not in text, where
        for secret in (API_KEY, SECRET.removeprefix("whsec_"), PASSWORD, TOKEN):
            assert secret not in text, f"{where}: {[line for line in text.splitlines() if secret in line][:2]}"


async def test_sigterm_is_heeded_while_redis_stands_still(
    place: Place,
    sandbox: Sandbox,  # noqa: ARG001 - its address must be known first
    guarded_redis: GuardedRedis,
) -> None:
    """A worker whose Redis answers nothing any more ends well, long before the commands under way time out."""
    worker = await place.started("work", REDIS_URL=guarded_redis.url())
    guarded_redis.process.send_signal(signal.SIGSTOP)
    try:
        await worker.stop(within_s=9)
    finally:
        guarded_redis.process.send_signal(signal.SIGCONT)


async def test_a_key_that_the_gateway_repeats_goes_nowhere(
    place: Place,
    sandbox: Sandbox,  # noqa: ARG001 - the gateway that repeats it
    receiver: Receiver,
) -> None:
    """A key in the gateway's own words is blotted out wherever they are shown: terminal, HTTP, webhook, logs."""
    up = await place.started("up", LOG_LEVEL="debug")
    echoing = directed("echo", submit=[{"status": 401, "code": "invalid_api_key", "message": f"{API_KEY} is void"}])
    words = ("submit", "video", "--id", "echo", "--input", f"sandbox={json.dumps(echoing['sandbox'])}", "--wait")
    said = await place.run(*words)
    assert said.status == 1
    await receiver.has_all(["echo"], within_s=10, kind="job.failed")
    client = Api(await up.address())
    view = await client.view("echo")
    await client.http.aclose()
    shows = await place.run("show", "echo", "--json")
    places = {"submit": said.out + said.err, "show": shows.out, "logs": up.err, "HTTP": json.dumps(view)}
    places |= {"webhook": json.dumps(receiver.received)}
    assert [where for where, text in places.items() if API_KEY in text] == []
    assert "is void" in view["failure"]["message"]


async def test_a_command_is_quick_to_explain_itself(place: Place) -> None:
    """``--help`` of the product and of each command ends well and names the options; ``--version`` is told."""
    started_s = time.monotonic()
    words = [(), ("submit",), ("sandbox",), ("retry",), ("webhooks",)]
    for said in await asyncio.gather(*(place.run(*name, "--help") for name in words)):
        assert said.status == 0
        assert "--help" in said.out
        assert said.err == ""
    tell(f"five times --help: {time.monotonic() - started_s:.1f} s")
    version = await place.run("--version")
    assert (version.status, version.out.split()[0]) == (0, "onysoft-worker")
