"""Redis under fuzz: whatever its keys turn into, workers live on, healthy jobs complete, damaged ones come to an end.

Seeded: the same damages each time, though to jobs that have come as far as they have.
"""

import contextlib
import json
import random
from typing import Any

import pytest
from harness import Bench, directed, eventually
from redis.exceptions import ResponseError
from structlog.testing import capture_logs
from test_jobs_api import web as web  # noqa: PLC0414 - a fixture
from test_web import Api

from jobs.job import NewerRecord, UnreadableRecord
from worker import actions, main, poison, reconcile
from worker.enqueue import Conflict

SEEDS, ROUNDS = (23, 33), 5
PATIENCE_S = 100.0  # what has crashed a duty is put off by half a minute the third time
SHOWING = ("/v1/queues", "/v1/models", "/metrics", "/v1/jobs", "/v1/events")
TEXTS = (b"", b"x", b"\xff\xfe", b"[]", b"{}", b"null", b"-1", b"1e400", b"9" * 40, b'"\\ud83d"', b"[" * 2000)
OF_JOBS = ("job:", "input:", "timeline:", "deliveries-of:", "delivery:")
# What is known to nobody else when it is gone: the walk that puts such things back is another part's.
SPARED = ("secret", "secrets-before", "aside:", "reply:", "workers", "ended")


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poison, "PAUSES_MS", (10, 20, 30, 40))
    monkeypatch.setattr(poison, "NEWER_PAUSE_MS", 50)
    monkeypatch.setattr(poison, "UNABLE_PAUSE_MS", 200)
    monkeypatch.setattr(main, "QUARANTINE_EVERY_S", 0.1)
    monkeypatch.setattr(main, "DEADLINES_EVERY_S", 0.2)
    monkeypatch.setattr(reconcile, "ROUND_EVERY_S", 0.5)


class Vandal:
    """Damages what lies in Redis."""

    def __init__(self, bench: Bench, seed: int) -> None:
        self._raw = bench.raw
        self._rng = random.Random(seed)
        self.done: list[str] = []

    async def damage(self) -> None:
        """Damage a key of ours."""
        keys = [key for key in sorted(await self._raw.keys("onysoft:*")) if not self._is_spared(key)]
        jobs = [key for key in keys if key.removeprefix(b"onysoft:").decode("utf-8", "replace").startswith(OF_JOBS)]
        key = self._rng.choice(jobs if jobs and self._rng.random() < 0.7 else keys)
        how = self._rng.choice((self._replace, self._within, self._within, self._within))
        await how(key, (await self._raw.type(key)).decode())

    @staticmethod
    def _is_spared(key: bytes) -> bool:
        return key.removeprefix(b"onysoft:").decode("utf-8", "replace").startswith(SPARED)

    def _note(self, *what: object) -> None:
        self.done.append(" ".join(map(repr, what))[:200])

    async def _replace(self, key: bytes, kind: str) -> None:
        self._note(key, kind, "replaced")
        await self._raw.delete(key)
        await (self._raw.rpush(key, b"x") if kind == "string" else self._raw.set(key, self._rng.choice(TEXTS)))

    async def _within(self, key: bytes, kind: str) -> None:
        try:
            await self._damage_within(key, kind)
        except ResponseError:  # it has become something else meanwhile
            self._note(key, "was quicker")

    async def _damage_within(self, key: bytes, kind: str) -> None:
        text = self._rng.choice(TEXTS)
        match kind:
            case "hash":
                fields = sorted(await self._raw.hkeys(key))
                if not fields:
                    return
                field = self._rng.choice(fields)
                value = await self._raw.hget(key, field) or b""
                damaged = self._rng.choice((text, value[: len(value) // 2], self._changed(value)))
                self._note(key, field, damaged[:60])
                await self._raw.hset(key, field, damaged)
            case "string":
                self._note(key, text[:60])
                await self._raw.set(key, text)
            case "list":
                self._note(key, "pushed", text[:60])
                await self._raw.lpush(key, text)
            case "zset":
                score = self._rng.choice((float("inf"), -1.0, 1e300, 0.0))
                self._note(key, "added", text[:60], score)
                await self._raw.zadd(key, {text: score})
            case "stream":
                self._note(key, "added")
                await self._raw.xadd(key, {text: text})

    def _changed(self, value: bytes) -> bytes:
        """Put rubbish in the place of one part of a JSON object."""
        try:
            found = json.loads(value)
        except ValueError:
            return value + b"x"
        if not isinstance(found, dict) or not found:
            return b"{}"
        name = self._rng.choice(sorted(found))
        found[name] = self._rng.choice((None, "x", -1, 10**400, [], {}, [None], True))
        return json.dumps(found).encode()


async def jobs_of_all_sorts(bench: Bench, tag: int) -> list[str]:
    """Have jobs that wait, run, fail over, are canceled, and end."""
    sorts: list[dict[str, Any]] = [
        directed(),
        directed(duration_s=0.5),
        directed(submit=[{"status": 500, "code": "internal_error", "message": "x"}]),
        directed(result=[{"fail": {"code": "x", "message": "it failed"}}]),
    ]
    made = [await submitted(bench, f"j{tag}-{n}", sort) for n, sort in enumerate(sorts)]
    canceled = await submitted(bench, f"c{tag}", directed(duration_s=0.4))
    with contextlib.suppress(UnreadableRecord, ResponseError, actions.NotPossible, actions.NoSuchJob):
        await actions.cancel(bench.store, canceled)
    return [*made, canceled]


async def submitted(bench: Bench, job_id: str, asked: dict[str, Any]) -> str:
    """Enqueue a job, again where the keys are damaged that are everybody's, until these are mended."""

    async def taken() -> bool:
        try:
            await bench.submit(id=job_id, input=asked)
        except ResponseError:
            return False
        except (UnreadableRecord, Conflict):
            pass
        return True

    await eventually(taken)
    return job_id


async def has_come_to_an_end(bench: Bench, job_id: str) -> bool:
    """Say whether a job has ended, or lies in quarantine, or is left to a newer version."""
    try:
        job = await bench.store.get(job_id)
    except NewerRecord:
        return True
    except UnreadableRecord:
        # One that had ended before it was damaged is left as it is until it is pruned.
        places = [f"onysoft:{name}" for name in ("quarantine", "ended")]
        return any([await bench.raw.type(key) == b"zset" and await bench.raw.zscore(key, job_id) for key in places])
    return job is None or job.ended


@pytest.mark.parametrize("seed", SEEDS)
async def test_nothing_that_lies_in_redis_stops_the_work(bench: Bench, web: Api, seed: int) -> None:
    """After each damage a fresh job completes and every page is shown; in the end each job has come to one."""
    vandal, jobs = Vandal(bench, seed), list[str]()

    left: list[str] = []

    async def come_to_an_end() -> bool:
        left[:] = [job_id for job_id in jobs if not await has_come_to_an_end(bench, job_id)]
        return not left

    with capture_logs() as logs:
        async with bench.worker():
            for number in range(ROUNDS):
                jobs += await jobs_of_all_sorts(bench, number)
                for _ in range(3):
                    await vandal.damage()
                fresh = await submitted(bench, f"fresh{number}", directed())
                assert await bench.ended(fresh, within_s=PATIENCE_S), vandal.done
                assert await wrongs(web, jobs[-5:]) == [], vandal.done
            try:
                await eventually(come_to_an_end, within_s=PATIENCE_S)
            finally:
                assert left == [], vandal.done
    assert not [line for line in logs if line["event"] == "intake.restarted"]


async def wrongs(web: Api, jobs: list[str]) -> list[str]:
    """Ask for everything; name what is answered as only a bug would be."""
    asked = [*SHOWING, *(f"/v1/jobs/{job}{more}" for job in jobs for more in ("", "/deliveries"))]
    answers = {path: await web.client.get(path) for path in asked}
    return [path for path, answer in answers.items() if answer.status_code == 500 and "internal_error" in answer.text]
