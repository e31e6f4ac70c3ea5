"""Owns how due work is found and held: claims in batches, a lease for each, and nothing done twice at a time.

Theory. A due-set in Redis says what is due when. A runner claims as much as it has slots for, gives each claim to its
duty as a task of its own, prolongs the leases of claims that take long, and sleeps until the next due time or until
something calls it. A duty ends its claim itself, by the change it writes or by a release. What it leaves claimed, by a
crash or because Redis was away, is due again when the lease has run out, here or in another process.

Stopping: a runner takes nothing more; claims that may be repeated (look-ups, deliveries) are handed back at once, and
submissions are waited for.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from config.log import log
from jobs.job import NewerRecord, UnreadableRecord
from worker.claims import LEASE_MS, Claim, Claims, clock_s
from worker.ending import end
from worker.link import ABSENCE, STORE_ERRORS, unreadable

RENEW_S = LEASE_MS / 1000 / 4
LONGEST_SLEEP_S = 1.0  # what another process made due is found after this at the latest
BREATH_S = 0.005  # between two claims: what ends or becomes due meanwhile is gathered
AWAY_PAUSE_S, LONGEST_AWAY_PAUSE_S = 0.25, 2.0
PARTING_S = 1.0  # for so long a Redis that does not answer is waited for at the end
NEVER_MS = 1 << 62

Duty = Callable[[Claim, Claims], Awaitable[None]]


class DueSet(Protocol):
    """Where due work is claimed from; ``on_due`` tells, by ``names``, whom to call when something becomes due."""

    @property
    def names(self) -> Sequence[str]:
        """What it is made of."""

    @property
    def on_due(self) -> dict[str, Callable[[int], None]]:
        """Whom to call, with the time (ms)."""

    async def claim(self, limit: int) -> Claims:
        """Claim what is due."""

    async def renew(self, claims: Sequence[Claim]) -> None:
        """Prolong claims."""

    async def release(self, claim: Claim, due_ms: int | None) -> bool:
        """Give a claim back, due at a time."""


class Bounds(Protocol):
    """What becomes of work that goes wrong."""

    def watched(self, claim: Claim) -> AbstractAsyncContextManager[bool]:
        """Have a claim be worked on; give False where it is not to be."""

    async def crashed(self, claim: Claim, error: Exception) -> None:
        """Put off, or end, what has crashed its duty."""


class Wheel:
    """Runs one duty over a due-set, ``slots`` claims at a time; ``now_ms`` is Redis's time."""

    def __init__(self, due: DueSet, duty: Duty, *, slots: int, now_ms: Callable[[], int], bounds: Bounds) -> None:
        self._due = due
        self._now_ms = now_ms
        self._name = due.names[0]
        self._duty = duty
        self._bounds = bounds
        self._slots = slots
        self._running: dict[asyncio.Task[None], Claim] = {}
        self._held: dict[tuple[str, str], Claim] = {}
        self._called = asyncio.Event()
        self._claiming = asyncio.timeout(None)
        self._stopping = False
        self._grace_s = 0.0
        self._sleeps_until_ms = 0
        self._claimed_s = 0.0
        self._away_pause_s = AWAY_PAUSE_S
        for name in due.names:
            due.on_due[name] = self.call

    @property
    def in_flight(self) -> int:
        """How many claims are being worked on."""
        return len(self._running)

    def call(self, due_ms: int = 0) -> None:
        """Tell the runner of something due at a time: it wakes where it would have slept past it."""
        if due_ms < self._sleeps_until_ms:
            self._called.set()

    async def run(self) -> None:
        """Claim and work until ``stop``, then end what runs as ``stop`` said; survives an absent Redis."""
        renewing = asyncio.create_task(self._renew())
        try:
            while not self._stopping:
                await self._sleep(await self._turn())
            await self._drain()
        finally:
            await end([renewing])

    def stop(self, *, grace_s: float) -> None:
        """Take nothing more; have ``run`` wait up to ``grace_s`` for what runs (0: hand it back at once)."""
        self._stopping = True
        self._grace_s = grace_s
        self._called.set()
        with contextlib.suppress(RuntimeError):  # no claim is under way
            self._claiming.reschedule(asyncio.get_running_loop().time() + PARTING_S)

    async def _drain(self) -> None:
        if self._running and self._grace_s > 0:
            await asyncio.wait(self._running, timeout=self._grace_s)
        left = dict(self._running)
        await end(left)
        if self._grace_s == 0:
            await self._hand_back(list(left.values()))

    async def _hand_back(self, claims: Sequence[Claim]) -> None:
        with contextlib.suppress(*STORE_ERRORS, TimeoutError):
            async with asyncio.timeout(PARTING_S):
                await asyncio.gather(*(self._due.release(claim, self._now_ms()) for claim in claims))

    async def _turn(self) -> float:
        """Claim once; return for how long to sleep, in seconds."""
        self._called.clear()
        self._sleeps_until_ms = NEVER_MS  # whatever becomes due while the claim is under way is looked for again
        free = self._slots - len(self._running)
        if free <= 0:
            return LONGEST_SLEEP_S
        self._claimed_s = clock_s()
        try:
            async with asyncio.timeout(None) as self._claiming:
                claims = await self._due.claim(free)
        except (*ABSENCE, TimeoutError):
            self._away_pause_s = min(self._away_pause_s * 2, LONGEST_AWAY_PAUSE_S)
            return self._away_pause_s
        except Exception:  # noqa: BLE001 - what lies in Redis may be anything, and the others' work goes on
            log.exception("duty.crashed", wheel=self._name)
            return LONGEST_AWAY_PAUSE_S
        self._away_pause_s = AWAY_PAUSE_S
        if self._stopping:
            await self._hand_back(claims.items)
            return 0.0
        for claim in claims.items:
            held = self._held.get((claim.wheel, claim.member))
            if held is not None and not held.held:
                # Our own lease had run out while Redis was away: the claim goes on under its new token. Where it has
                # not, the duty has ended its claim, and is only not through itself: the member is due anew.
                held.token, held.valid_until_s = claim.token, claim.valid_until_s
                continue
            self._held[claim.wheel, claim.member] = claim
            task = asyncio.create_task(self._work(claim, claims))
            self._running[task] = claim
            task.add_done_callback(self._finished)
        if claims.items:
            return BREATH_S
        if claims.next_due_ms is None:
            return LONGEST_SLEEP_S
        return min(max((claims.next_due_ms - claims.now_ms) / 1000, 0.001), LONGEST_SLEEP_S)

    async def _sleep(self, sleep_s: float) -> None:
        if self._stopping:
            return
        self._sleeps_until_ms = self._now_ms() + round(sleep_s * 1000)
        if sleep_s <= BREATH_S:
            await asyncio.sleep(sleep_s)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(sleep_s):
                await self._called.wait()
        if (soon_s := self._claimed_s + BREATH_S - clock_s()) > 0:
            await asyncio.sleep(soon_s)

    def _finished(self, task: asyncio.Task[None]) -> None:
        full = len(self._running) >= self._slots
        claim = self._running.pop(task)
        if self._held.get((claim.wheel, claim.member)) is claim:
            del self._held[claim.wheel, claim.member]
        if full:
            self._called.set()

    async def _work(self, claim: Claim, claims: Claims) -> None:
        try:
            try:
                async with self._bounds.watched(claim) as goes_on:
                    if goes_on:
                        await self._duty(claim, claims)
            except (asyncio.CancelledError, *ABSENCE):
                raise
            except Exception as error:  # noqa: BLE001 - the boundary of every duty
                _tell(claim, error)
                await self._bounds.crashed(claim, error)
        except ABSENCE:
            pass  # logged by the link, once for all; the lease runs out
        except Exception:  # noqa: BLE001 - what crashes here is due again when its lease has run out
            log.exception("duty.crashed", wheel=claim.wheel, member=claim.member)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(RENEW_S)
            aging = clock_s() + LEASE_MS / 1000 - RENEW_S / 2
            claims = [claim for claim in self._running.values() if claim.valid_until_s < aging]
            if claims:
                with contextlib.suppress(*STORE_ERRORS):
                    await self._due.renew(claims)


def _tell(claim: Claim, error: Exception) -> None:
    match error:
        case NewerRecord():
            unreadable("job", claim.member, error)
        case UnreadableRecord():
            log.error("record.unreadable", wheel=claim.wheel, member=claim.member, error=str(error))
        case _:
            log.error("duty.crashed", wheel=claim.wheel, member=claim.member, exc_info=error)
