"""Takes jobs through their whole life as a worker does, but for the requests: no gateway, no receiver.

Every step is the worker's own, on its own scripts: taken by the door, claimed, begun, accepted, claimed again,
completed, their webhook claimed and settled, and pruned by the duty of upkeep. What is left out costs Redis nothing.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from processes import Broken
from stage import API_KEY, PREFIX, SECRET

from config.models import KINDS, load_models
from config.settings import Settings
from jobs import changes
from jobs.changes import Change
from jobs.delivering import Outcome
from jobs.pacing import LOOK_UPS, SUBMISSIONS, heard
from worker.claims import Claim
from worker.enqueue import Door
from worker.keys import TRACK_WHEEL, read_track_member, submit_wheel
from worker.main import open_store
from worker.store import Applied, Store
from worker.upkeep import Prune

AT_ONCE = 200
RECEIVERS = 40
PRUNE_EVERY_S = 2.0
PATIENCE_S = 60.0
PROMPT = "a lighthouse at dusk, " * 8
DELIVERED = Outcome("delivered", "well")


class Passage:
    """A store on which jobs pass through."""

    def __init__(self, store: Store, door: Door, *, retention_s: float) -> None:
        self.store = store
        self._door = door
        self._prune = Prune(store, retention_s=retention_s)
        self.settled = self.pruned = 0

    async def run(self, name: str, count: int) -> None:
        """Take so many jobs through, ids all their own, until the last is pruned."""
        goal = self.pruned + count
        done = asyncio.Event()
        wheels = [submit_wheel(kind) for kind in KINDS]
        turns = [
            self._again(done, lambda: self.store.claim(wheels, limit=AT_ONCE, lane=SUBMISSIONS), self._submit),
            self._again(done, lambda: self.store.claim([TRACK_WHEEL], limit=AT_ONCE, lane=LOOK_UPS), self._complete),
            self._again(done, lambda: self.store.dispatch.claim(AT_ONCE), self._deliver),
        ]
        working = [asyncio.create_task(turn) for turn in turns]
        feeding = asyncio.create_task(self._feed(name, count))
        try:
            moved_s, seen = time.monotonic(), -1
            while self.pruned < goal:
                await asyncio.sleep(PRUNE_EVERY_S)
                self.pruned += await self._prune.run_once(self.store.now_ms())
                for task in (*working, feeding):
                    if task.done():
                        task.result()
                if self.pruned + self.settled > seen:
                    moved_s, seen = time.monotonic(), self.pruned + self.settled
                if time.monotonic() - moved_s > PATIENCE_S:
                    raise Broken(f"{self.pruned} of {goal} jobs were pruned, then none any more")
        finally:
            done.set()
            for task in (*working, feeding):
                task.cancel()
            await asyncio.gather(*working, feeding, return_exceptions=True)

    async def _feed(self, name: str, count: int) -> None:
        settled = self.settled
        for at in range(0, count, AT_ONCE):
            while at - (self.settled - settled) > 4 * AT_ONCE:  # noqa: ASYNC110 - the turns tell nobody
                await asyncio.sleep(0.001)
            await asyncio.gather(*(self._take(f"{name}-{number}") for number in range(at, min(at + AT_ONCE, count))))

    async def _take(self, job_id: str) -> None:
        number = int(job_id.rpartition("-")[2])
        url = f"https://receiver-{number % RECEIVERS}.example/hooks/media"
        kind = KINDS[number % len(KINDS)]
        await self._door.take({"id": job_id, "kind": kind, "input": {"prompt": PROMPT}, "webhook_url": url})

    async def _again(
        self, done: asyncio.Event, claim: Callable[[], Awaitable[object]], work: Callable[[Claim], Awaitable[None]]
    ) -> None:
        while not done.is_set():
            claims = await claim()
            items = claims.items  # type: ignore[attr-defined]
            await asyncio.gather(*(work(each) for each in items))
            if not items:
                await asyncio.sleep(0.002)

    async def _submit(self, claim: Claim) -> None:
        store = self.store
        job = await store.get(claim.member)
        if job is None:
            raise Broken(f"{claim.member} is gone")
        begun = changes.begin(job, now_ms=store.now_ms(), rev=store.new_rev())
        await self._write(begun, claim)
        claim.heard = heard(SUBMISSIONS, None, model=job.model)
        told = {"now_ms": store.now_ms(), "rev": store.new_rev()}
        await self._write(changes.accept(begun.after, f"task_{job.id}", first_look_ms=0, **told), claim)

    async def _complete(self, claim: Claim) -> None:
        store, (number, job_id) = self.store, read_track_member(claim.member)
        job = await store.get(job_id)
        if job is None:
            raise Broken(f"{job_id} is gone")
        result = {"urls": [f"https://cdn.example/{job_id}.mp4"], "expires_at": None, "raw": {"id": job_id}}
        told = {"now_ms": store.now_ms(), "rev": store.new_rev()}
        await self._write(changes.complete(job, number, result, **told), claim)

    async def _write(self, change: Change, claim: Claim) -> None:
        if not isinstance(written := await self.store.apply(change, claim=claim), Applied):
            raise Broken(f"{change.after.id} was not written: {written}")

    async def _deliver(self, claim: Claim) -> None:
        delivery = await self.store.outbox.delivery(claim.member)
        if delivery is None:
            raise Broken(f"{claim.member} is gone")
        attempt = {"at": None, "duration_ms": 1, "status": 200, "answer": "", "next_at": None}
        settle = self.store.dispatch.settle
        if await settle(claim, delivery, [attempt], DELIVERED, due_ms=None, counted="succeeded"):
            self.settled += 1


@asynccontextmanager
async def passage(redis_url: str, *, retention_s: float) -> AsyncIterator[Passage]:
    """Open a store for jobs to pass through."""
    settings = Settings.from_env(
        {"ONYSOFT_API_KEY": API_KEY, "REDIS_URL": redis_url, "KEY_PREFIX": PREFIX, "WEBHOOK_SECRET": SECRET}
    )
    models = load_models()
    async with open_store(redis_url, settings, models) as store:
        with contextlib.suppress(asyncio.CancelledError):
            yield Passage(store, Door(store, settings, models, announce=False), retention_s=retention_s)
