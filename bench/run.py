"""Runs every measurement on loopback and prints one table: ``python bench/run.py [--json]``, in some three minutes.

What is measured, against what and how stands in each measurement's own file: ``cost.py`` (CPU and memory of a job),
``latency.py`` (enqueue to submission), ``idle.py``, ``crowd.py`` (lists with many jobs); the limits are in
``guards.py``. Exits 1 if something broke, and 0 whatever was measured: a limit that is passed is printed as ``OVER``.
Linux only, since it reads Linux's process clocks.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import cost
import crowd
import idle
import latency
from guards import judge
from processes import Broken
from stage import Fsync, Stage, is_started

INSTANT = cost.Load("instant", jobs=1000, answer_s=0.0, duration_s=0.0, poll_s=0.0, concurrency=50)
LIFELIKE = cost.Load("lifelike", jobs=200, answer_s=0.5, duration_s=2.0, poll_s=0.5, concurrency=200)
LATENCY_JOBS = 150
FEWER_JOBS = 40
CROWD_JOBS = 100_000
QUICK_LOOKS = {"POLL_MIN_S": "0.01", "POLL_MAX_S": "0.01"}
Tables = dict[str, list[Any]]


class Run:
    """All measurements in their order; one that breaks is noted, and the others go on."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.tables: Tables = {"costs": [], "latencies": [], "idle": [], "crowd": [], "broken": []}

    def all(self) -> Tables:
        """Do all of it."""
        yardstick = cost.bare_loop
        for load, contender in (
            *((INSTANT, who) for who in (yardstick, cost.onysoft, yardstick, cost.naive_arq)),  # before it and after
            *((LIFELIKE, who) for who in (yardstick, cost.onysoft, cost.naive_arq)),
        ):
            self._do("costs", f"{load.name}, {contender.__name__}", contender, self._stage, load)
        fewer = replace(INSTANT, jobs=INSTANT.jobs // 2)
        self._do("costs", "instant, onysoft, fsync everysec", cost.onysoft, self._stage, fewer, "everysec")
        self._latencies("always", LATENCY_JOBS, announcing=True)
        self._latencies("everysec", FEWER_JOBS, announcing=True)
        self._latencies("always", FEWER_JOBS, announcing=False)
        with self._stage.redis("everysec") as redis, self._stage.worker("web", redis) as web:
            self._do("crowd", f"{CROWD_JOBS} jobs", crowd.measure, web, redis, jobs=CROWD_JOBS)
        return self.tables

    def _do(self, table: str, name: str, call: Callable[..., Any], *args: Any, **more: Any) -> None:
        sys.stderr.write(f"  {time.monotonic() - BEGAN_S:5.1f} s  {name}\n")
        try:
            self.tables[table].append(call(*args, **more))
        except Broken as error:
            self.tables["broken"].append(f"{name}: {error}")

    def _latencies(self, fsync: Fsync, jobs: int, *, announcing: bool) -> None:
        label = ("" if fsync == "always" else f", fsync {fsync}") + ("" if announcing else ", no keyspace events")
        stage = self._stage
        with stage.redis(fsync, announcing=announcing) as redis:
            with stage.worker("up", redis, **QUICK_LOOKS) as up:
                url = up.said(is_started)
                if announcing:
                    self._do("latencies", f"HTTP{label}", latency.by_http, stage, up, url, jobs=jobs, label=label)
                self._do("latencies", f"arq{label}", latency.by_arq, stage, up, redis, jobs=jobs, label=label)
            if announcing and fsync == "always":
                with stage.worker("up", redis) as up:  # a fresh one, with its defaults
                    up.said(is_started)
                    self._do("idle", "idle", idle.measure, up, redis)


def _guarded(tables: Tables) -> dict[str, float]:
    by = {(row.load, row.who): row for row in tables["costs"]}
    values = {f"enqueue to submission, {row.door}, p50": row.p50_ms for row in tables["latencies"]}
    for row in tables["idle"]:
        values["idle CPU of up"] = row.up_percent
    for row in tables["crowd"]:
        values["the slowest look at 100,000 jobs"] = max(row.slowest_ms.values())
        values["POST /v1/jobs with 100,000 jobs there, p50"] = row.post_p50_ms
        values["commands that went through the keys"] = row.scans
    for load in ("instant", "lifelike"):
        ours, bare, naive = (by.get((load, who)) for who in ("onysoft-worker", "bare loop", "naive arq"))
        if not (ours and bare and naive):
            continue
        bare_ms, both_ms = _mean(tables, load, "bare loop"), ours.cpu_ms + ours.redis_ms
        naive_ms = naive.cpu_ms + naive.redis_ms
        values[f"CPU per job, worker alone, over the bare loop, {load}"] = ours.cpu_ms / bare_ms
        values[f"CPU per job, worker and Redis, over the bare loop, {load}"] = both_ms / bare_ms
        values[f"CPU per job, worker and Redis, over naive arq and Redis, {load}"] = both_ms / naive_ms
        values[f"peak memory of the worker, {load}"] = ours.peak_mb
    return values


def _mean(tables: Tables, load: str, who: str) -> float:
    return statistics.mean(row.cpu_ms for row in tables["costs"] if (row.load, row.who) == (load, who))


def fsync_ms(folder: str = "/var/tmp") -> float:
    """Time an fdatasync of a small append, in the median: what ``appendfsync always`` pays here."""
    took = []
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        for _ in range(100):
            file.write(b"x" * 300)
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            took.append((time.perf_counter() - began) * 1000)
    return statistics.median(took)


def show(tables: Tables, machine: dict[str, Any]) -> None:
    """Print everything as one table."""
    words = "  ".join(f"{name} {value}" for name, value in machine.items())
    print(f"\n{words}")
    row = "{:<9} {:<28} {:>5} {:>7} {:>10} {:>9} {:>22} {:>8}"
    print(
        "\n"
        + row.format("load", "contender", "jobs", "jobs/s", "CPU ms/job", "Redis ms", "submit+look+hook", "peak MB")
    )
    for c in tables["costs"]:
        made = f"{c.submissions:.2f}+{c.lookups:.2f}+{c.webhooks:.2f}={c.requests:.2f}"
        print(
            row.format(
                c.load, c.who, c.jobs, f"{c.jobs_per_s:.0f}", f"{c.cpu_ms:.2f}", f"{c.redis_ms:.2f}", made,
                f"{c.peak_mb:.0f}",
            )
        )  # fmt: skip
    row = "{:<42} {:>5} {:>8} {:>8} {:>8} {:>8}"
    print("\n" + row.format("enqueue to submission, ms", "jobs", "p50", "p95", "p99", "max"))
    for t in tables["latencies"]:
        times = (f"{value:.1f}" for value in (t.p50_ms, t.p95_ms, t.p99_ms, t.max_ms))
        print(row.format(t.door, t.jobs, *times))
    for i in tables["idle"]:
        print(f"\nidle for {idle.SPAN_S:.0f} s: up {i.up_percent:.2f} % of a core, its Redis {i.redis_percent:.2f} %")
    for c in tables["crowd"]:
        print(
            f"\n{c.jobs} jobs there (filled at {c.filled_per_s:.0f} a second, {c.memory_mb:.0f} MB), ms    p50 slowest"
        )
        for name, slowest_ms in c.slowest_ms.items():
            print(f"{name:<62} {c.p50_ms[name]:>7.1f} {slowest_ms:>7.1f}")
        print(f"{'POST /v1/jobs':<62} {c.post_p50_ms:>7.1f}")
    row = "{:<66} {:>9} {:>6} {:<3} {}"
    print("\n" + row.format("guard", "measured", "limit", "", ""))
    for guard in judge(_guarded(tables)):
        verdict = "ok" if guard.ok else "OVER"
        print(row.format(guard.name, f"{guard.measured:.2f}", f"{guard.limit:g}", guard.unit, verdict))
    for words in tables["broken"]:
        print(f"BROKEN  {words[:300]}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    options = parser.parse_args()
    if not Path("/proc/self/status").exists():
        sys.stderr.write("bench: needs Linux, whose process clocks it reads\n")
        return 1
    load_before = os.getloadavg()[0]
    try:
        with Stage() as stage:
            tables = Run(stage).all()
    except Broken as error:
        sys.stderr.write(f"bench: broken: {error}\n")
        return 1
    machine = {
        "cores": os.cpu_count(),
        "load before": f"{load_before:.2f}",
        "fdatasync ms": f"{fsync_ms():.2f}",
        "took s": f"{time.monotonic() - BEGAN_S:.0f}",
    }
    if options.json:
        broken = tables.pop("broken")
        found = {name: [asdict(row) for row in rows] for name, rows in tables.items()} | {"broken": broken}
        guards = [asdict(guard) | {"ok": guard.ok} for guard in judge(_guarded(tables))]
        print(json.dumps({"machine": machine, **found, "guards": guards}, indent=1))
    else:
        show(tables, machine)
        broken = tables["broken"]
    return 1 if broken else 0


BEGAN_S = time.monotonic()

if __name__ == "__main__":
    sys.exit(main())
