"""How soon the work of a worker that is killed, or stands still, is done by another: a few rounds of each.

One worker holds submissions, look-ups and deliveries that are under way; another comes and finds nothing to do. Then
the first is killed or stopped. What the other does with each claim tells its time: it settles the submission as of
unknown acceptance, its look-up completes the job, its delivery arrives. A worker that was stopped goes on afterwards:
by then its submissions have been answered, and the task ids must be kept although another has judged them.
"""

import json
import random
import signal
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from cast import Durable, Member
from ground import Ground
from processes import Broken, python
from stage import Http
from storm import Found, Scene, Told, address_of, scene, start
from table import Row

EACH = 10
BOUND_S = 15.0
WITHIN_S = 30.0
ANSWERED_S = 12.0  # how long the gateway takes to answer a submission that is held
PATIENCE = {"SUBMIT_TIMEOUT_S": "60", "WEBHOOK_TIMEOUT_S": "60"}
MODEL = {"kind": "image", "model": "flux-2/pro-text-to-image", "fallbacks": []}
Deed = Literal["SIGKILL", "SIGSTOP"]


@dataclass
class Measured:
    """Seconds from the deed until each claim was acted on by the other; ``unkept`` task ids were not kept."""

    submissions: list[float] = field(default_factory=list)
    look_ups: list[float] = field(default_factory=list)
    deliveries: list[float] = field(default_factory=list)
    unkept: int = 0

    def add(self, other: "Measured") -> None:
        """Take another round's."""
        self.submissions += other.submissions
        self.look_ups += other.look_ups
        self.deliveries += other.deliveries
        self.unkept += other.unkept


def takeover(told: Told) -> Found:
    """Play the rounds, two at a time."""
    rng = random.Random(told.seed)
    deeds: Sequence[Deed] = ("SIGKILL",) if told.short else ("SIGKILL", "SIGSTOP") * 3
    rounds = [(deed, rng.uniform(0.0, 3.0)) for deed in deeds]
    measured: dict[Deed, Measured] = {deed: Measured() for deed in dict.fromkeys(deeds)}
    with ThreadPoolExecutor(2) as pool:
        for deed, found in pool.map(lambda each: (each[0], _round(told, *each)), rounds):
            measured[deed].add(found)
    return Found([row for deed, found in measured.items() for row in _rows(told, deed, found, deeds.count(deed))])


def _rows(told: Told, deed: Deed, found: Measured, rounds: int) -> list[Row]:
    name = "takeover after SIGKILL" if deed == "SIGKILL" else "takeover after SIGSTOP"
    bound = None if told.short else BOUND_S
    held = {
        "a submission": found.submissions,
        "a look-up": found.look_ups,
        "a delivery": found.deliveries,
    }
    count = sum(map(len, held.values()))
    rows = [Row(name, "claims held", count, None, f"{rounds} rounds")]
    rows += [Row(name, f"longest until {what} was taken over, s", max(of), bound) for what, of in held.items()]
    if deed == "SIGSTOP":
        rows.append(Row(name, "task ids answered to a stopped worker and not kept", found.unkept, 0))
    return rows


def _round(told: Told, deed: Deed, pause_s: float) -> Measured:
    with scene(told) as here, ExitStack() as stack:
        redis = Durable(here.stage, here.stage.folder / "redis")
        environ = here.environ(redis) | PATIENCE
        web = Member(here.stage, "web", python("-m", "worker", "web"), environ)
        one, other = (Member(here.stage, name, python("-m", "worker", "work"), environ) for name in ("one", "other"))
        start(stack, [redis, web, one])
        ground = Ground(here.stage, web.said(), [redis.process, web.process], told.halt)
        _hold(here, ground, address_of(web)())
        start(stack, [other])
        told.halt.wait(pause_s)
        before = len(here.hooks())
        at_ms = time.time() * 1000
        one.process.send(getattr(signal, deed))
        if not ground.until(lambda: _all_done(here, ground, before), within_s=WITHIN_S):
            raise Broken(f"not all was taken over within {WITHIN_S:g} s of a {deed}")
        measured = _measured(here, ground, at_ms)
        if deed == "SIGSTOP":
            one.process.send(signal.SIGCONT)
            ground.until(lambda: _unkept(ground) == 0, within_s=10)
            measured.unkept = _unkept(ground)
        return measured


def _hold(here: Scene, ground: Ground, web_url: str) -> None:
    """Have the one worker there is hold submissions, look-ups and deliveries."""
    receiver = here.lines["receiver"]
    _enqueue(web_url, [_job("warm", {"duration_s": 0.1}, f"{receiver}/hooks/media")])
    _await(ground, lambda: here.count()["told"] == 1)
    submissions = [{"submit": [{"do": "accept", "delay_s": ANSWERED_S}], "duration_s": 0.1} for _ in range(EACH)]
    look_ups = [{"lookups": ["hang"], "duration_s": 0.1} for _ in range(EACH)]
    deliveries = [{"duration_s": 0.1} for _ in range(EACH)]
    _enqueue(
        web_url,
        [
            *(_job(f"s-{number}", directive) for number, directive in enumerate(submissions)),
            *(_job(f"l-{number}", directive) for number, directive in enumerate(look_ups)),
            *(_job(f"d-{number}", each, f"{receiver}/held") for number, each in enumerate(deliveries)),
        ],
    )

    def all_held() -> bool:
        looked = sum(task["lookups"] > 0 for task in ground.tasks().values() if task["tag"].startswith("l-"))
        sent = sum(post["tag"].startswith("s-") for post in ground.submissions())
        return looked == sent == here.count()["held"] == EACH

    _await(ground, all_held)


def _await(ground: Ground, holds: Any) -> None:
    if not ground.until(holds, within_s=15, every_s=0.1):
        raise Broken("a worker could not be given enough to hold")


def _job(job_id: str, directive: Mapping[str, Any], url: str | None = None) -> dict[str, Any]:
    hook = {"webhook_url": url} if url else {}
    return {"id": job_id, "input": {"prompt": "a lighthouse", "sandbox": {"tag": job_id, **directive}}, **MODEL, **hook}


def _enqueue(web_url: str, jobs: Sequence[Mapping[str, Any]]) -> None:
    http = Http(web_url)
    try:
        status, answer = http.call("POST", "/v1/jobs:batch", json.dumps({"jobs": jobs}).encode())
    finally:
        http.close()
    if status != 200 or any(row["status"] != 202 for row in answer["results"]):
        raise Broken(f"jobs were not taken: {status} {str(answer)[:300]}")


def _all_done(here: Scene, ground: Ground, before: int) -> bool:
    return len(here.hooks()) - before >= EACH and ground.all_ended()


def _measured(here: Scene, ground: Ground, at_ms: float) -> Measured:
    ended = {view["id"]: datetime.fromisoformat(view["completed_at"]).timestamp() for view in ground.views()}
    took = {job: round(end_s - at_ms / 1000, 2) for job, end_s in ended.items()}
    arrived = [row for row in here.hooks() if row["job"].startswith("d-") and not row["held"]]
    return Measured(
        [time_s for job, time_s in took.items() if job.startswith("s-")],
        [time_s for job, time_s in took.items() if job.startswith("l-")],
        [round((row["at_ms"] - at_ms) / 1000, 2) for row in arrived],
    )


def _unkept(ground: Ground) -> int:
    """Count the tasks of held submissions that their jobs do not name."""
    named = {attempt["task_id"] for view in ground.views() for attempt in view["attempts"]}
    return sum(name not in named for name, task in ground.tasks().items() if task["tag"].startswith("s-"))
