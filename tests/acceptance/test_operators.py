"""The commands of those who operate it: looking, acting on one job or on many, steering, checking the set-up."""

import asyncio
import json
import signal
import socket
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from harness import API_KEY, Sandbox, eventually
from printed import read, refusal
from product import Api, Place, Receiver, Said, directed, tell
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from worker.embedded import find_server

MANY = 100
QUICKLY_S = 10.0  # most of it is Python, on a loaded machine
REFUSED = [{"status": 400, "code": "invalid_request", "message": "no"}]


@pytest.fixture
async def api(place: Place, sandbox: Sandbox) -> AsyncIterator[Api]:  # noqa: ARG001 - its address must be known first
    """Run ``up`` and talk to it."""
    api = Api(await (await place.started("up")).address())
    yield api
    await api.http.aclose()


async def failing(api: Api, ids: list[str]) -> None:
    """Submit jobs that the gateway refuses once, and would take afterwards; wait until they have failed."""
    await asyncio.gather(*(api.submit(job_id, input=directed(job_id, submit=REFUSED)) for job_id in ids))
    for job_id in ids:
        await api.standing(job_id, "failed")


# --- acting


async def test_a_hundred_failed_jobs_are_retried_by_one_command(place: Place, api: Api, receiver: Receiver) -> None:
    """It counts and asks first; where nobody can be asked it says so; then all are retried, and complete."""
    ids = [f"job-{number}" for number in range(MANY)]
    await failing(api, ids)
    asked, of_none = await asyncio.gather(
        place.run("retry", "--status", "failed"),
        place.run("retry", "--status", "failed", "--kind", "music"),
    )
    assert refusal(asked, 2, str(MANY), "--yes") == ""
    assert of_none.out == "0 retried: no job matches\n"
    said = await place.run("retry", "--code", "invalid_request", "--model", "veo3", "--yes", "--json")
    tell(f"retry of {MANY}: {said.took_s:.1f} s")
    assert read(said) == {"matched": MANY, "retried": MANY, "refused": 0, "reasons": []}
    assert said.took_s < QUICKLY_S
    assert said.err == ""
    await receiver.has_all(ids, within_s=30)


async def test_several_ids_are_acted_on_and_each_refusal_is_told(place: Place, api: Api) -> None:
    """Of several ids those that can be are retried; the status says that some could not be."""
    await failing(api, ["a", "b"])
    await api.submit("fine", input=directed("fine"))
    await api.standing("fine", "completed")
    mixed = await place.run("retry", "a", "fine", "nobody", "--json")
    told = read(mixed, 1)
    assert (told["matched"], told["retried"], told["refused"]) == (3, 1, 2)
    assert {row["id"] for row in told["reasons"]} == {"fine", "nobody"}
    await api.standing("a", "completed")
    one, completed, unknown = await asyncio.gather(
        place.run("retry", "b"), place.run("retry", "fine"), place.run("cancel", "nobody")
    )
    assert one.out.split() == ["b", "queued"]
    assert refusal(completed, 1, "fine is completed") == ""
    assert refusal(unknown, 1, "nobody") == ""


async def test_a_job_canceled_while_its_kind_is_paused_is_never_submitted(
    place: Place, api: Api, sandbox: Sandbox
) -> None:
    """A pause holds submissions of its kind alone; what is canceled meanwhile costs nothing; both may be repeated."""
    paused = await place.run("pause", "video")
    assert "video paused; 0 jobs wait" in paused.out
    ids = [f"held-{number}" for number in range(5)]
    await asyncio.gather(*(api.submit(job_id, input=directed(job_id)) for job_id in ids))
    await api.submit("image", kind="image", input=directed("image"))
    await api.standing("image", "completed")
    one = await place.run("cancel", "held-0", "--json")
    assert read(one)["status"] == "canceled"
    again = await place.run("pause", "video", "--json")
    assert read(again)["changed"] is False
    assert read(again)["waiting"] == len(ids) - 1
    rest = await place.run("cancel", "--status", "queued", "--kind", "video", "--yes")
    assert rest.out == "4 canceled\n"
    resumed, repeated = await place.run("resume", "video"), await place.run("resume", "video")
    assert "video resumed" in resumed.out
    assert "was not paused" in repeated.out
    await api.submit("after", input=directed("after"))
    await api.standing("after", "completed")
    assert {row["tag"] for row in sandbox.submissions()} == {"image", "after"}


# --- looking


async def test_jobs_are_listed_page_by_page(place: Place, api: Api) -> None:
    """The list is the HTTP API's, newest first; a cursor leads on; the table names every job."""
    ids = [f"job-{number}" for number in range(5)]
    for job_id in ids:
        await api.submit(job_id, input=directed(job_id), model="kling")
    for job_id in ids:
        await api.standing(job_id, "completed")
    first, wanted, text = await asyncio.gather(
        place.run("jobs", "--limit", "3", "--json"),
        place.run("jobs", "--status", "completed", "--kind", "video", "--model", "kling", "--json"),
        place.run("jobs"),
    )
    page = read(first)
    assert page == (await api.http.get("/v1/jobs?limit=3")).json()
    rest = read(await place.run("jobs", "--limit", "3", "--cursor", page["next_cursor"], "--json"))
    assert [job["id"] for job in page["jobs"] + rest["jobs"]] == ids[::-1]
    assert rest["next_cursor"] is None
    assert len(read(wanted)["jobs"]) == len(ids)
    assert [line.split()[:4] for line in text.out.splitlines()[1:]] == [
        [job_id, "video", "completed", "kling"] for job_id in ids[::-1]
    ]


async def test_the_fleet_and_its_models_are_told(place: Place, api: Api) -> None:
    """``queues`` and ``models`` tell depths, pauses, workers, attempts and measured durations, in JSON and in text."""
    await api.submit("fine", input=directed("fine", duration_s=0.1), model="kling")
    await api.standing("fine", "completed")
    await place.run("pause", "music")
    queues, queues_text, models, models_text = await asyncio.gather(
        place.run("queues", "--json"), place.run("queues"), place.run("models", "--json"), place.run("models")
    )
    fleet = read(queues)
    assert {row["name"] for row in fleet["queues"]} >= {"arq", "track", "deliver", "submit:video"}
    assert {row["kind"]: bool(row["paused_since"]) for row in fleet["queues"] if row["kind"]}["music"]
    assert fleet["jobs"]["video"]["completed"] == 1
    assert [worker["alive"] for worker in fleet["workers"]] == [True]
    assert fleet["hold"] is None
    rows = {row["model"]: row for row in read(models)["models"]}
    kling = rows["kling"]
    assert (kling["chain"], kling["kinds"], kling["position"]) == ("text-to-video", ["video"], 3)
    assert (kling["status"], kling["attempts"], kling["generation_s"]["count"]) == ("ok", {"succeeded": 1}, 1)
    assert (rows["wan"]["status"], rows["wan"]["generation_s"]) == ("unused", None)
    for text in (queues_text, models_text):
        assert text.status == 0
        assert "music" in text.out
        assert text.err == ""


async def test_watching_a_job_ends_with_its_outcome(place: Place, api: Api) -> None:
    """``watch ID`` tells progress and ends as the job did; of a job that is not there it says so."""
    await api.submit("fine", input=directed("fine", duration_s=0.5))
    await api.submit("fails", input=directed("fails", submit=REFUSED))
    fine, fails, nobody = await asyncio.gather(
        place.run("watch", "fine", "--json"), place.run("watch", "fails"), place.run("watch", "nobody")
    )
    assert read(fine)["status"] == "completed"
    assert "fine completed" in fine.err
    assert (fails.status, "invalid_request" in fails.out) == (1, True)
    assert refusal(nobody, 1, "nobody") == ""


# --- Redis of one's own


@dataclass
class OwnRedis:
    """A Redis server that a test stops and starts at will."""

    folder: Path
    port: int
    options: tuple[str, ...]
    process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"redis://127.0.0.1:{self.port}/0"

    async def start(self) -> None:
        """Start it and wait until it answers."""
        words = f"--port {self.port} --bind 127.0.0.1 --dir {self.folder} --appendonly yes".split()
        log = ("--logfile", f"{self.folder}/redis.log", "--save", "")
        self.process = await asyncio.create_subprocess_exec(
            find_server(), *words, *log, *self.options, env={"LC_ALL": "C"}
        )

        async def answers() -> bool:
            with Redis(port=self.port) as client, suppress(RedisConnectionError):
                return bool(client.ping())
            return False

        await eventually(answers)

    async def stop(self) -> None:
        """Kill it; safe to repeat."""
        process, self.process = self.process, None
        if process is not None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


@pytest.fixture
async def own_redis(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[OwnRedis]:
    """Run a Redis with the options that the test is parametrised with."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    redis = OwnRedis(tmp_path, port, getattr(request, "param", ()))
    await redis.start()
    yield redis
    await redis.stop()


async def test_watching_the_fleet_outlasts_redis(place: Place, own_redis: OwnRedis) -> None:
    """Without a terminal it is a line a refresh, JSON with --json; it says when Redis is away; Ctrl-C ends it well."""
    environ = {"REDIS_URL": own_redis.url}
    as_json, lines = await asyncio.gather(place.start("watch", "--json", **environ), place.start("watch", **environ))

    def objects() -> list[dict[str, Any]]:
        return [json.loads(line) for line in as_json.out.splitlines() if line.endswith("}")]

    await as_json.comes_to(lambda: len(objects()) > 1)
    await lines.comes_to(lambda: "0 workers" in lines.out)
    await own_redis.stop()
    await as_json.comes_to(lambda: "away" in objects()[-1])
    await lines.comes_to(lambda: "away" in lines.out)
    await own_redis.start()
    await as_json.comes_to(lambda: "queues" in objects()[-1])
    for command in (as_json, lines):
        command.send(signal.SIGINT)
        assert await command.ended() == 0
        assert "Traceback" not in command.err
    assert set(objects()[0]) >= {"at", "queues", "jobs", "hold", "cooldowns", "workers", "webhooks"}


async def test_what_redis_cannot_do_is_told_in_one_line(place: Place, own_redis: OwnRedis) -> None:
    """Full, a replica, or gone: no line of the log beside it, and what is to be done."""
    environ = {"REDIS_URL": own_redis.url}
    with Redis(port=own_redis.port) as client:
        client.config_set("maxmemory", 1)
        full, queues = await asyncio.gather(
            place.run("submit", "video", "--input", "prompt=x", **environ), place.run("queues", **environ)
        )
        assert refusal(full, 1, "maxmemory") == ""
        assert "no submission begins" in queues.out
        client.config_set("maxmemory", 0)
        client.replicaof("127.0.0.1", "1")
    on_a_replica = await asyncio.gather(
        *(place.run(*words, **environ) for words in (("pause", "video"), ("work",), ("web",)))
    )
    assert [refusal(said, 1, "read-only replica: set REDIS_URL to the primary") for said in on_a_replica] == [""] * 3
    await own_redis.stop()
    gone = await place.run("models", **environ)
    assert refusal(gone, 1, f"127.0.0.1:{own_redis.port}", "connection refused", "check REDIS_URL") == ""


# --- the doctor


def levels(said: Said, status: int) -> dict[str, str]:
    """Read how bad the doctor found things: the worst for each check."""
    order = ("ok", "info", "warning", "problem")
    worst: dict[str, str] = {}
    for row in read(said, status)["findings"]:
        worst[row["name"]] = max(worst.get(row["name"], "ok"), row["level"], key=order.index)
        assert row["mend"] or row["level"] in {"ok", "info"}, row
    return worst


async def test_the_doctor_finds_nothing_wrong_where_nothing_is(place: Place, api: Api) -> None:
    """A running set-up is well, in text and in JSON, and the key is not shown."""
    assert await api.http.get("/healthz")
    as_json, text = await asyncio.gather(place.run("doctor", "--json"), place.run("doctor"))
    found = levels(as_json, 0)
    assert set(found.values()) == {"ok"}, as_json.out
    assert set(found) >= {"settings", "gateway", "redis", "redis memory", "workers", "webhook destination"}
    assert text.status == 0
    assert API_KEY not in as_json.out + text.out + text.err


async def test_the_doctor_names_a_refused_key_and_idle_jobs(place: Place, sandbox: Sandbox) -> None:
    """A key that the gateway refuses, none at all, and nowhere to keep jobs are problems, not reasons to give up."""
    bad, none, deaf = await asyncio.gather(
        place.run("doctor", "--json", ONYSOFT_API_KEY="not-a-key"),
        place.run("doctor", "--json", ONYSOFT_API_KEY=""),
        place.run("doctor", ONYSOFT_BASE_URL="http://127.0.0.1:1"),
    )
    assert sandbox.stats()["submissions"] == 0
    assert (levels(bad, 1)["gateway"], levels(bad, 1)["gateway key"]) == ("problem", "warning")
    assert "not-a-key" not in bad.out + bad.err
    assert (levels(none, 1)["gateway"], levels(none, 1)["gateway key"]) == ("ok", "problem")
    assert levels(none, 1)["redis"] == "problem"
    assert not place.data_dir.exists()
    assert deaf.status == 1
    assert "cannot be reached" in deaf.out
    assert len(deaf.err.splitlines()) == 1


LRU = ("--maxmemory", "200mb", "--maxmemory-policy", "allkeys-lru")


@pytest.mark.parametrize("own_redis", [LRU], indirect=True)
async def test_the_doctor_names_a_redis_that_throws_jobs_away(
    place: Place,
    sandbox: Sandbox,  # noqa: ARG001 - the gateway that is asked
    own_redis: OwnRedis,
) -> None:
    """A Redis that evicts, without a worker, is a problem; one that is gone, too, within seconds."""
    found = levels(await place.run("doctor", "--json", REDIS_URL=own_redis.url), 1)
    assert (found["redis"], found["redis memory"], found["redis persistence"]) == ("ok", "problem", "ok")
    assert found["workers"] == "problem"
    await own_redis.stop()
    started_s = time.monotonic()
    gone = levels(await place.run("doctor", "--json", REDIS_URL=own_redis.url), 1)
    assert gone["redis"] == "problem"
    assert time.monotonic() - started_s < QUICKLY_S


async def test_the_doctor_names_wrong_settings(place: Place) -> None:
    """Wrong variables are findings, all of them at once, and not the end of the doctor."""
    said = await place.run("doctor", "--json", POLL_MIN_S="soon", MAX_ATTEMPTS="0")
    told = [row["says"] for row in read(said, 1)["findings"] if row["level"] == "problem"]
    assert [text.split(":")[0] for text in told] == ["MAX_ATTEMPTS", "POLL_MIN_S"]


# --- wrong usage

WRONG = [
    (("jobs", "--status", "weird"), ("--status", "queued", "canceled")),
    (("jobs", "--kind", "film"), ("--kind", "video")),
    (("jobs", "--limit", "0"), ("--limit",)),
    (("jobs", "--cursor", "x"), ("--cursor",)),
    (("pause", "film"), ("film", "video")),
    (("resume",), ("KIND",)),
    (("cancel",), ("cancel", "--status")),
    (("cancel", "a", "--status", "queued"), ("not both",)),
    (("cancel", "--status", "failed"), ("--status", "queued")),
    (("cancel", "--kind", "video"), ("--status",)),
    (("retry",), ("retry", "--status")),
    (("retry", "a", "--code", "task_lost"), ("not both",)),
    (("retry", "--status", "queued"), ("--status", "failed")),
    (("retry", "--code", "bad_luck"), ("--code", "task_lost")),
    (("webhooks", "list", "--state", "lost"), ("--state", "dead")),
    (("webhooks", "replay"), ("ID", "--dead", "--since")),
    (("webhooks", "replay", "dlv_1", "--dead"), ("one of",)),
    (("webhooks", "replay", "--since", "yesterday"), ("--since", "30m")),
]


async def test_wrong_usage_is_told_in_one_line(place: Place) -> None:
    """Whatever is wrong with a command's words: status 2, one line that says what is allowed, nothing touched."""
    said: list[Said] = []
    for start in range(0, len(WRONG), 6):  # not all at once: they are Python processes
        said += await asyncio.gather(*(place.run(*words) for words, _ in WRONG[start : start + 6]))
    faults = [
        (words, fault)
        for (words, told), answer in zip(WRONG, said, strict=True)
        if (fault := refusal(answer, 2, *told))
    ]
    assert faults == []
    assert not place.data_dir.exists()
