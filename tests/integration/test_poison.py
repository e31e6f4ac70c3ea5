"""Work that crashes or kills whoever is at it ends after a few tries, and harms no other."""

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
from typing import Any

import pytest
from harness import API_KEY, Bench, Receiver, Sandbox, directed, eventually
from structlog.testing import capture_logs
from test_jobs_api import web as web  # noqa: PLC0414 - a fixture

from config.models import load_models
from worker import poison
from worker.claims import Claim
from worker.ending import end
from worker.link import RedisAway
from worker.main import open_store
from worker.poison import MOST_CRASHES, JobBounds
from worker.store import Store

OLD_MS = 86_400_000 * 30
HUGE = 10**400
SUBMIT = "onysoft:wheel:submit:video"


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poison, "PAUSES_MS", (10, 20, 30, 40))


async def part(bench: Bench, job_id: str, name: str, **changed: Any) -> None:
    """Change values within a part of a record by hand."""
    found = json.loads(await bench.raw.hget(f"onysoft:job:{job_id}", name))
    await bench.raw.hset(f"onysoft:job:{job_id}", name, json.dumps({**found, **changed}))


async def attempt(bench: Bench, job_id: str, **changed: Any) -> None:
    """Change values of a record's last attempt by hand."""
    state = json.loads(await bench.raw.hget(f"onysoft:job:{job_id}", "state"))
    state["attempts"][-1].update(changed)
    await bench.raw.hset(f"onysoft:job:{job_id}", "state", json.dumps(state))


def times(logs: Any, event: str) -> int:
    """Count the lines of an event."""
    return sum(line["event"] == event for line in logs)


async def test_a_job_that_crashes_its_duty_ends_as_failed(bench: Bench, receiver: Receiver) -> None:
    """After five crashes, with what crashed and its webhook; those beside it never notice."""
    job_id = await bench.submit()
    await bench.raw.delete(f"onysoft:input:{job_id}")
    await bench.raw.rpush(f"onysoft:input:{job_id}", "x")
    with capture_logs() as logs:
        async with bench.worker():
            healthy = [await bench.submit(input=directed()) for _ in range(20)]
            assert {(await bench.ended(name))["status"] for name in healthy} == {"completed"}
            failed = await bench.ended(job_id)
            await eventually(lambda: told(receiver, job_id))
    assert (failed["status"], failed["failure"]["code"]) == ("failed", "internal_error")
    assert "5 times in a row: ResponseError" in failed["failure"]["message"]
    assert (times(logs, "duty.crashed"), times(logs, "work.poisoned")) == (MOST_CRASHES, 1)
    assert [event["type"] for event in receiver.of(job_id)] == ["job.failed"]
    assert await bench.raw.zcard("onysoft:wheel:submit:video") == 0


async def told(receiver: Receiver, job_id: str) -> list[dict[str, Any]]:
    """Give what a job's webhooks have told."""
    return receiver.of(job_id)


async def test_a_job_whose_input_is_gone_is_not_submitted_without_it(bench: Bench, sandbox: Sandbox) -> None:
    """It ends as failed: what would be generated of nothing is paid all the same."""
    job_id = await bench.submit()
    await bench.raw.delete(f"onysoft:input:{job_id}")
    async with bench.worker():
        failed = await bench.ended(job_id)
    assert failed["failure"]["code"] == "internal_error"
    assert "its input is gone" in failed["failure"]["message"]
    assert sandbox.submissions() == []


async def test_a_paid_task_whose_looks_crash_is_kept_and_watched(bench: Bench) -> None:
    """The attempt ends with the job, its task is shown and looked at late; where that crashes as well, it ends."""
    job_id = await bench.submit(input=directed(duration_s=60))
    async with bench.worker():
        await bench.standing(job_id, "processing")
        await attempt(bench, job_id, adopted_at_ms=HUGE)  # what no float can hold
        failed = await bench.ended(job_id)
        [ended] = failed["attempts"]
        assert (failed["failure"]["code"], ended["outcome"]) == ("internal_error", "abandoned")
        assert ended["failure"]["code"] == "internal_error"
        assert ended["task_id"] == failed["task_id"] is not None
        assert await bench.raw.zrange("onysoft:wheel:track", 0, -1) == [f"1:{job_id}".encode()]
        await part(bench, job_id, "spec", kind="\ud83d")  # what no URL can hold
        await bench.raw.zadd("onysoft:wheel:track", {f"1:{job_id}": 0})

        async def off() -> bool:
            return not await bench.raw.zcard("onysoft:wheel:track")

        await eventually(off)


async def test_crashes_in_a_row_are_forgotten_with_the_next_step(bench: Bench) -> None:
    """What has crashed now and then is not ended for it."""
    job_id = await bench.submit(input=directed(duration_s=0.5))
    await bench.raw.hset(f"onysoft:job:{job_id}", mapping={"crashes": 4, "deaths": 9})
    async with bench.worker():
        await bench.standing(job_id, "processing")
        assert await bench.raw.hmget(f"onysoft:job:{job_id}", "crashes", "deaths") == [None, None]
        await bench.raw.hset(f"onysoft:job:{job_id}", mapping={"crashes": 4, "deaths": 9})

        async def forgotten() -> bool:
            return await bench.raw.hmget(f"onysoft:job:{job_id}", "crashes", "deaths") == [None, None]

        await eventually(forgotten)
        assert (await bench.ended(job_id))["status"] == "completed"


# --- deaths


async def test_work_whose_holders_die_ends_in_the_end(bench: Bench) -> None:
    """A lease that was taken over is counted; the tenth holder's end is the job's, its neighbours' are forgotten."""
    poisoned, healthy = await bench.submit(), [await bench.submit(input=directed()) for _ in range(3)]
    for job_id in (poisoned, *healthy):
        await bench.raw.hset("onysoft:leases:submit:video", job_id, "dead.1")
        await bench.raw.hset(f"onysoft:job:{job_id}", "deaths", 9 if job_id == poisoned else 5)
    await bench.raw.hset("onysoft:gate", "takeover_from_ms", 0)
    bench.store._link.interrupted = False
    async with bench.worker():
        failed = await bench.ended(poisoned)
        assert {(await bench.ended(name))["status"] for name in healthy} == {"completed"}
    assert failed["failure"]["code"] == "internal_error"
    assert "died 10 times in a row" in failed["failure"]["message"]


async def taken_over(store: Store, bench: Bench) -> Claim:
    """Claim the one job whose lease has run out."""
    await bench.raw.zadd(SUBMIT, dict.fromkeys(await bench.raw.zrange(SUBMIT, 0, -1), 1))
    [claim] = (await store.claim([SUBMIT.removeprefix("onysoft:wheel:")], limit=1)).items
    return claim


async def deaths(bench: Bench, job_id: str) -> bytes | None:
    """Read how many deaths are counted."""
    return await bench.raw.hget(f"onysoft:job:{job_id}", "deaths")


async def test_what_the_living_leave_behind_is_no_death(bench: Bench) -> None:
    """Outage after outage leaves work to whoever comes next, its holder or another: nothing is blamed on the job."""
    job_id = await bench.submit()
    await bench.raw.hset("onysoft:gate", "takeover_from_ms", 0)
    async with open_store(bench.redis_url, bench.settings, load_models()) as other:
        stores = [bench.store, bench.store, other, other]
        for store in stores:
            store._link.interrupted = False
        for turn in range(3 * poison.MOST_DEATHS):
            for store in stores:
                await store.fleet.beat({"id": store.holder, "seen_at_ms": store.now_ms()})
            store = stores[turn % len(stores)]
            claim = await taken_over(store, bench)
            with contextlib.suppress(RedisAway):
                async with JobBounds(store).watched(claim) as goes_on:
                    assert goes_on
                    raise RedisAway("away")
            assert await deaths(bench, job_id) is None
        last = await taken_over(other, bench)
        await other.fleet.leave(other.holder)
        claim = await taken_over(bench.store, bench)
        assert claim.former == last.token
        async with JobBounds(bench.store).watched(claim) as goes_on:
            assert goes_on
        assert await deaths(bench, job_id) == b"1"


async def test_a_suspect_that_the_living_left_behind_is_worked_on_by_itself(bench: Bench) -> None:
    """No death is added, and none is forgotten: two such pieces are not worked on at a time."""
    job_ids = [await bench.submit(), await bench.submit()]
    await bench.raw.hset("onysoft:gate", "takeover_from_ms", 0)
    bench.store._link.interrupted = False
    for job_id in job_ids:
        await bench.raw.hset("onysoft:leases:submit:video", job_id, f"{bench.store.holder}.0")
        await bench.raw.hset(f"onysoft:job:{job_id}", "deaths", poison.MOST_DEATHS - 1)
    bounds = JobBounds(bench.store)
    first, second = (await bench.store.claim(["submit:video"], limit=2)).items
    async with bounds.watched(first) as goes_on:
        assert goes_on
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05), bounds.watched(second):
                pass
    assert [await deaths(bench, job_id) for job_id in job_ids] == [b"9", b"9"]


async def test_whoever_gives_a_claim_back_has_not_died_of_it(bench: Bench) -> None:
    """Deaths before it are not in a row with those after; crashes are, since they are given back as well."""
    job_id = await bench.submit()
    await bench.raw.hset(f"onysoft:job:{job_id}", mapping={"crashes": 3, "deaths": 9})
    [claim] = (await bench.store.claim(["submit:video"], limit=1)).items
    assert await bench.store.release(claim, bench.store.now_ms())
    assert await bench.raw.hmget(f"onysoft:job:{job_id}", "crashes", "deaths") == [b"3", None]


WORKER = """
import sys
from worker import claims
claims.LEASE_MS = 1000
from worker import poison
poison.SUSPECT_AT, poison.MOST_DEATHS = 2, 4
from worker.cli import run
sys.argv = ["onysoft-worker", "work"]
run()
"""


class Deadly:
    """A gateway by whose answers whoever looks at the task ``deadly`` is killed: what it does to workers of itself."""

    def __init__(self) -> None:
        self.url = ""
        self.looks = 0
        self._victim: asyncio.subprocess.Process | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request, where it comes in whole."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError), contextlib.closing(writer):
            await self._answer(reader, writer)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = re.search(r"content-length: (\d+)", head.lower())
        body = await reader.readexactly(int(length[1])) if length else b""
        data: dict[str, Any] = {
            "task_id": "deadly" if b"deadly" in body else f"fine-{id(body)}",
            "status": "processing",
        }
        if head.startswith("GET"):
            data = {"status": "completed", "result": {"urls": ["https://a.test/1"]}}
            if "deadly" in head and self._victim is not None and self._victim.returncode is None:
                self.looks += 1
                self._victim.send_signal(signal.SIGKILL)
                return
        answer = json.dumps({"success": True, "data": data}).encode()
        lines = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(answer)}\r\n\r\n"
        writer.write(lines.encode() + answer)
        await writer.drain()

    async def workers(self, env: dict[str, str]) -> None:
        """Run a worker, and another whenever it has been killed."""
        while True:
            self._victim = await asyncio.create_subprocess_exec(sys.executable, "-c", WORKER, env={**os.environ, **env})
            try:
                await self._victim.wait()
            finally:
                with contextlib.suppress(ProcessLookupError):
                    self._victim.kill()


async def test_a_job_that_kills_its_workers_is_found_and_ends(bench: Bench) -> None:
    """Each worker that looks at its task dies of it; it fails in the end, and those beside it complete."""
    deadly = Deadly()
    server = await asyncio.start_server(deadly.serve, "127.0.0.1", 0)
    deadly.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    poisoned = await bench.submit(input={"prompt": "deadly"})
    healthy = [await bench.submit(input={"prompt": "fine"}) for _ in range(30)]
    env = {"ONYSOFT_API_KEY": API_KEY, "ONYSOFT_BASE_URL": deadly.url, "REDIS_URL": bench.redis_url,
           "POLL_MIN_S": "0.05", "POLL_MAX_S": "0.1", "LOG_LEVEL": "error"}  # fmt: skip
    async with server:
        running = asyncio.create_task(deadly.workers(env))
        try:
            assert {(await bench.ended(name, within_s=60))["status"] for name in healthy} == {"completed"}
            failed = await bench.ended(poisoned, within_s=60)
        finally:
            await end([running])
    assert (failed["failure"]["code"], failed["task_id"]) == ("internal_error", "deadly")
    assert "died 4 times in a row" in failed["failure"]["message"]
    assert deadly.looks >= 4
