"""Owns what concerns all workers together: who is alive, what is paused, how deep queues are, how models fare.

A worker is alive while it says so every few seconds. Depths and ages are read from the wheels and indexes themselves,
never counted on the side; nothing here goes through the jobs. What cannot be read is left out and logged: one row that
is damaged must not hide the rest.
"""

import asyncio
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from config.models import KINDS
from jobs.pacing import SUBMISSIONS
from jobs.states import Status
from worker.claims import LEASE_MS
from worker.dispatch import Dispatch, FailingDestination
from worker.keys import DELIVER_WHEEL, TRACK_WHEEL, Keys, submit_wheel
from worker.link import STORE_ERRORS, Link, RedisAway, pairs, unreadable
from worker.listing import INDEXED_KINDS
from worker.memory import RedisMemory
from worker.outbox import STATES
from worker.record import UNSHOWABLE, number, rfc3339

BEAT_S = 2.0
ALIVE_MS = 10_000  # a worker that has said nothing for so long is taken for dead
HEARD_MS = LEASE_MS // 2  # a lease that runs out was last renewed longer ago, by one that died then
FORGOTTEN_MS = 3_600_000
OVER_MS = 3_600_000  # so long after its end a cooldown is forgotten, and the probe of a worker that died over it
WHEELS = (*(submit_wheel(kind) for kind in KINDS), TRACK_WHEEL)
QUEUES = ("arq", *WHEELS, DELIVER_WHEEL)


@dataclass(frozen=True, slots=True)
class Depth:
    """How deep a queue is: all its entries, those that are due and not taken, and how long the oldest is overdue."""

    entries: int
    due: int
    oldest_s: float


@dataclass(frozen=True, slots=True)
class Overview:
    """The fleet at a time (``at_ms``)."""

    at_ms: int
    jobs: Mapping[tuple[str, str], int]  # (kind, status) -> how many
    queues: Mapping[str, Depth]
    paused: Mapping[str, int]  # kind -> since (ms), 0 where that is not known
    pause_until_ms: int  # the gateway's requests a minute are used up until then
    hold: str | None  # the failure code for which submissions are held
    hold_since_ms: int | None
    probe_at_ms: int | None
    cooldowns: Mapping[str, int]  # model -> until (ms)
    workers: tuple[Mapping[str, Any], ...]
    webhooks: Mapping[str, int]
    all_failing: int = 0  # destinations of webhooks
    failing: tuple[FailingDestination, ...] = ()  # the first of them
    quarantined: int = 0  # jobs whose record cannot be read
    limit: tuple[int, int] = (0, 0)  # submissions in so many seconds, as the gateway's refusals have taught; 0: none
    memory: RedisMemory = RedisMemory()

    @property
    def alive(self) -> list[Mapping[str, Any]]:
        """The workers that are alive."""
        return [worker for worker in self.workers if self._is_alive(worker)]

    def _is_alive(self, worker: Mapping[str, Any]) -> bool:
        return bool(abs(self.at_ms - worker["seen_at_ms"]) <= ALIVE_MS)  # one seen in the far future is none

    def view(self) -> dict[str, Any]:
        """Show it as plain JSON, times in RFC 3339: what `queues` prints and `GET /v1/queues` answers."""
        limited_ms = self.pause_until_ms if self.pause_until_ms > self.at_ms else None
        held = {"reason": self.hold, "since": rfc3339(self.hold_since_ms), "next_probe_at": rfc3339(self.probe_at_ms)}
        return {
            "at": rfc3339(self.at_ms),
            "queues": [self._queue(name, depth) for name, depth in self.queues.items()],
            "jobs": {
                kind: {str(status): self.jobs.get((kind, status), 0) for status in Status}
                for kind in INDEXED_KINDS
                if kind in KINDS or any(self.jobs.get((kind, status)) for status in Status)
            },
            "hold": held if self.hold else None,
            "rate_limited_until": rfc3339(limited_ms),
            "learned_limit": {"requests": self.limit[0], "per_s": self.limit[1]} if self.limit[0] else None,
            "cooldowns": [
                {"model": model, "until": rfc3339(until_ms)} for model, until_ms in sorted(self.cooldowns.items())
            ],
            "workers": [self._worker(worker) for worker in self.workers],
            "webhooks": dict(self.webhooks),
            "failing_destinations": [destination.view() for destination in self.failing],
            "quarantined": self.quarantined,
            "redis_memory": self.memory.view(),
        }

    def _queue(self, name: str, depth: Depth) -> dict[str, Any]:
        kind = next((kind for kind in KINDS if submit_wheel(kind) == name), None)
        return {
            "name": name,
            "kind": kind,
            "depth": depth.entries,
            "due": depth.due,
            "oldest_s": depth.oldest_s,
            "paused_since": rfc3339(self.paused.get(kind)) if kind else None,
        }

    def _worker(self, worker: Mapping[str, Any]) -> dict[str, Any]:
        told = {name: worker.get(name) for name in ("host", "pid", "in_flight", "concurrency")}
        times = {"started_at": rfc3339(worker.get("started_at_ms")), "seen_at": rfc3339(worker["seen_at_ms"])}
        return {"id": worker["id"], **told, **times, "alive": self._is_alive(worker)}


class Fleet:
    """The store's part for the fleet. ``queue`` is the name of arq's queue."""

    def __init__(self, link: Link, keys: Keys, dispatch: Dispatch) -> None:
        self._link = link
        self._keys = keys
        self._dispatch = dispatch

    # --- workers

    async def beat(self, worker: Mapping[str, Any]) -> None:
        """Say that a worker is alive: its ``id``, ``seen_at_ms``, and what else is worth showing."""
        text = json.dumps(dict(worker), separators=(",", ":"))
        await self._link.script("beat", [self._keys.one("workers")], [worker["id"], text])

    async def leave(self, *worker_ids: str) -> None:
        """Take workers off the list."""
        await self._link.command("HDEL", self._keys.one("workers"), *worker_ids)

    async def is_alive(self, worker_id: str, now_ms: int) -> bool:
        """Tell whether a worker whose lease has run out is heard of all the same: Redis was away, or it is slow."""
        stored = {worker_id: await self._link.command("HGET", self._keys.one("workers"), worker_id)}
        seen = _workers({name: text.decode("utf-8", "replace") for name, text in stored.items() if text})
        return any(abs(now_ms - worker["seen_at_ms"]) <= HEARD_MS for worker in seen)

    # --- pause

    async def pause(self, kind: str, now_ms: int) -> bool:
        """Stop submissions of a kind; False where they are stopped already."""
        return bool(await self._link.command("HSETNX", self._keys.one("gate"), f"paused:{kind}", now_ms))

    async def resume(self, kind: str) -> bool:
        """Start them again, and wake the workers; False where they were not stopped."""
        resumed = await self._link.command("HDEL", self._keys.one("gate"), f"paused:{kind}")
        await self._link.command("PUBLISH", self._keys.one("wake"), "due")
        return bool(resumed)

    # --- submissions

    async def unsent(self, now_ms: int, requests_per_minute: int, *, is_probe: bool) -> None:
        """Give back what a claim took that sent nothing: a hold's probe, a place in the budget of requests a minute."""
        gate = self._keys.one("gate")
        if is_probe:
            await self._link.command("HSET", gate, "probe_at_ms", now_ms)
        if requests_per_minute:
            await self._link.command("HINCRBY", gate, "booked_ms", -(60_000 // requests_per_minute))

    # --- what there is

    async def overview(self, now_ms: int) -> Overview:
        """Read how the fleet stands, as of one moment."""
        sending, memory = await asyncio.gather(self._dispatch.standing(), self._memory_or_none())
        keys, wheels = self._keys, {"arq": self._keys.one("jobs"), **{name: self._keys.wheel(name) for name in WHEELS}}
        rows = [(kind, str(status)) for kind in INDEXED_KINDS for status in Status]
        answers = iter(
            await self._link.atomic(
                [
                    *(("ZCARD", keys.index(status, kind)) for kind, status in rows),
                    *(part for wheel in wheels.values() for part in _depth(wheel, now_ms)),
                    *(("ZCARD", keys.deliveries(state)) for state in STATES),
                    *(("HGETALL", key) for key in (keys.one("gate"), keys.pace(SUBMISSIONS)[0])),
                    *(("HGETALL", keys.one(name)) for name in ("cooldowns", "workers")),
                    ("ZCARD", keys.one("quarantine")),
                ]
            )
        )
        jobs = {row: int(next(answers)) for row in rows}
        queues = {name: _read_depth(next(answers), next(answers), next(answers), now_ms) for name in wheels}
        oldest_s = max(now_ms - sending.oldest_ms, 0) / 1000 if sending.oldest_ms is not None else 0.0
        queues[DELIVER_WHEEL] = Depth(sending.entries, sending.due, oldest_s)
        webhooks = {state: int(next(answers)) for state in STATES}
        gate, pace, cooldowns, workers = (_text(next(answers)) for _ in range(4))
        return Overview(
            at_ms=now_ms,
            jobs=jobs,
            queues=queues,
            paused={kind: _number("gate", field, gate) or 0 for kind in KINDS if (field := f"paused:{kind}") in gate},
            pause_until_ms=_number("pace", "pause_until_ms", pace) or 0,
            limit=(_number("pace", "limit", pace) or 0, (_number("pace", "window_ms", pace) or 0) // 1000),
            hold=gate.get("hold"),
            hold_since_ms=_number("gate", "hold_since_ms", gate),
            probe_at_ms=_number("gate", "probe_at_ms", gate),
            cooldowns={
                model: until_ms
                for model in cooldowns
                if (until_ms := _number("cooldowns", model, cooldowns)) is not None and until_ms > now_ms
            },
            workers=tuple(sorted(_workers(workers), key=lambda worker: str(worker["id"]))),
            webhooks=webhooks,
            quarantined=int(next(answers)),
            all_failing=sending.all_failing,
            failing=sending.failing,
            memory=memory,
        )

    async def memory(self) -> RedisMemory:
        """Read how full Redis is."""
        return RedisMemory.read(await self._link.command("INFO", "memory"))

    async def _memory_or_none(self) -> RedisMemory:
        try:
            return await self.memory()
        except RedisAway:
            raise
        except STORE_ERRORS:  # a managed Redis may forbid it
            return RedisMemory()

    async def health(self) -> dict[str, dict[str, int]]:
        """Read how the models have fared: ``in_a_row`` failures, ``ok_at_ms`` and ``failed_at_ms``, where there are."""
        found: dict[str, dict[str, int]] = {}
        stored = _text(await self._link.command("HGETALL", self._keys.one("health")))
        for name in stored:
            model, _, what = name.rpartition("|")
            value = _number("health", name, stored)
            if value is not None:
                found.setdefault(model, {})[what] = value
        return found

    async def forget_dead(self, now_ms: int) -> None:
        """Forget workers that died long ago, and cooldowns and probes that were over long ago or tell no time.

        One that is just over is kept: the first submission to its model finds out whether the limit was reset.
        """
        workers, cooldowns, gate = (
            pairs(answer)
            for answer in await self._link.atomic(
                ("HGETALL", self._keys.one(name)) for name in ("workers", "cooldowns", "gate")
            )
        )
        probes = {name: until for name, until in gate.items() if name.startswith(b"probing:")}
        seen = {worker["id"]: worker["seen_at_ms"] for worker in _workers(_text(workers))}
        alive = {name for name, seen_at_ms in seen.items() if abs(now_ms - seen_at_ms) <= FORGOTTEN_MS}
        for name, dead in (
            ("workers", [worker for worker in workers if worker.decode("utf-8", "replace") not in alive]),
            ("cooldowns", [model for model, until in cooldowns.items() if (number(until) or 0) <= now_ms - OVER_MS]),
            ("gate", [probe for probe, until in probes.items() if (number(until) or 0) <= now_ms - OVER_MS]),
        ):
            if dead:
                await self._link.command("HDEL", self._keys.one(name), *dead)


def _depth(wheel: str, now_ms: int) -> list[tuple[str | int, ...]]:
    return [("ZCARD", wheel), ("ZCOUNT", wheel, "-inf", now_ms), ("ZRANGE", wheel, 0, 0, "WITHSCORES")]


def _read_depth(entries: int, due: int, first: list[bytes], now_ms: int) -> Depth:
    since_ms = number(first[1]) if first else None
    oldest_s = max(now_ms - since_ms, 0) / 1000 if since_ms is not None else 0.0
    return Depth(int(entries), int(due), round(oldest_s, 3))


def _text(flat: Any) -> dict[str, str]:
    return {name.decode("utf-8", "replace"): value.decode("utf-8", "replace") for name, value in pairs(flat).items()}


def _number(what: str, name: str, stored: Mapping[str, str]) -> int | None:
    """Read a number out of a small hash; None where it is not there, or is none, which is logged."""
    if not (text := stored.get(name)):
        return None
    if (read := number(text)) is None:
        unreadable(what, name, f"{text[:100]!r} is no number")
    return read


def _workers(stored: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Read the workers' entries; each has its ``id`` and a ``seen_at_ms``."""
    for name, text in stored.items():
        try:
            told = json.loads(text, parse_constant=_refuse)
            times = {"seen_at_ms": number(told["seen_at_ms"]), "started_at_ms": number(told.get("started_at_ms"))}
        except UNSHOWABLE as error:
            unreadable("workers", name, f"{type(error).__name__}: {error}")
            continue
        if times["seen_at_ms"] is None:
            unreadable("workers", name, "seen_at_ms is no number")
            continue
        yield {**told, **times, "id": name}


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
