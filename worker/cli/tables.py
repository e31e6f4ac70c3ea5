"""Owns how lists are shown in a terminal: jobs, queues and what stands beside them, models, deliveries, findings.

Made of the same plain JSON that ``--json`` prints and the HTTP API answers, so that both always say the same.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from jobs.states import ENDED, Status
from worker.cli.job_sheet import last_answer, next_try
from worker.cli.terminal import ROOMY_COLUMNS, ago, ahead, clock, counted, cut, duration, plain, styled, table

Row = Mapping[str, Any]
AGE_COLUMNS = 150  # with less room the URL of a webhook matters more than its age


# --- jobs


def jobs_table(jobs: Iterable[Row], now_ms: int, *, columns: int) -> Table:
    """Show jobs, a line each."""
    names = ["id", "kind", "status", "model", "tries", "age", "next", "failure"]
    if columns < ROOMY_COLUMNS:
        names.remove("kind")
    rows = table(names, right=["tries", "age"], whole=["id", "status", "next"])
    rows.columns[0].no_wrap = False  # an id is folded rather than cut: it is what the other commands want
    for job in jobs:
        cells = _job_cells(job, now_ms)
        rows.add_row(*(cells[name] for name in names))
    return rows


def _job_cells(job: Row, now_ms: int) -> dict[str, Text | str]:
    ended = job["status"] in ENDED
    return {
        "id": Text(job["id"]),
        "kind": job["kind"],
        "status": styled(job["status"]),
        "model": cut(job["model"], "bold" if job["degraded"] else ""),
        "tries": str(len(job["attempts"])),
        "age": ago(job["created_at"], now_ms, word=""),
        "next": f"{ago(job['completed_at'], now_ms)}" if ended else ahead(job["next_action_at"], now_ms),
        "failure": cut(job["failure"]["code"] if job["failure"] else ""),
    }


# --- the fleet


def fleet_sheet(view: Row, now_ms: int, *, columns: int) -> list[RenderableType]:
    """Show how the fleet stands: queues, jobs, and what an operator should know."""
    queues, jobs = _queues(view["queues"], now_ms), _jobs(view["jobs"])
    side_by_side = columns >= ROOMY_COLUMNS + 10
    tables: list[RenderableType] = [Columns([queues, jobs], padding=(0, 3))] if side_by_side else [queues, Text(), jobs]
    return [*tables, Text(), *_notes(view, now_ms)]


def _queues(queues: Iterable[Row], now_ms: int) -> Table:
    rows = table(
        ["queue", "depth", "due", "oldest", "paused"], right=["depth", "due", "oldest"], whole=["queue", "paused"]
    )
    for queue in queues:
        rows.add_row(
            Text(queue["name"], style="" if queue["depth"] else "dim"),
            _number(queue["depth"]),
            _number(queue["due"]),
            duration(queue["oldest_s"]) if queue["oldest_s"] else "",
            Text(ago(queue["paused_since"], now_ms), style="yellow"),
        )
    return rows


def _jobs(jobs: Mapping[str, Mapping[str, int]]) -> Table:
    rows = table(["jobs", *Status], right=Status, whole=["jobs"])
    for kind, counts in jobs.items():
        quiet = "" if any(counts.values()) else "dim"
        rows.add_row(Text(kind, style=quiet), *(_number(counts[status], status) for status in Status))
    return rows


def _number(count: int, status: str = "") -> Text:
    return Text(str(count), style=styled(status).style if count else "dim")


def _notes(view: Row, now_ms: int) -> Iterator[Text]:
    """Say in a line each what holds the fleet up, who works, and how webhooks do."""
    if hold := view["hold"]:
        since, probe = ago(hold["since"], now_ms, word=""), ahead(hold["next_probe_at"], now_ms)
        yield _note("held", f"{hold['reason']} for {since}; next probe {probe}", "bold red")
    if not view["redis_memory"]["takes_jobs"]:
        yield _note("redis full", _full(view["redis_memory"]), "bold red")
    if until := view["rate_limited_until"]:
        yield _note("rate limit", f"submissions go on {ahead(until, now_ms)}", "yellow")
    if limit := view["learned_limit"]:
        yield _note("limit", f"{limit['requests']} submissions in {limit['per_s']} s, learned from refusals", "dim")
    for row in view["cooldowns"]:
        yield _note(
            "cooldown",
            f"{plain(row['model'])} until {clock(row['until'], day=True)} ({ahead(row['until'], now_ms)})",
            "yellow",
        )
    alive = [worker for worker in view["workers"] if worker["alive"]]
    if not alive:
        yield _note("workers", "none is alive: start `onysoft-worker work` (or `up`)", "bold red")
    for worker in view["workers"]:
        load = f"{worker['in_flight']} of {worker['concurrency']} in flight"
        life = (
            f"up {ago(worker['started_at'], now_ms, word='')}"
            if worker["alive"]
            else f"gone since {clock(worker['seen_at'], day=True)} ({ago(worker['seen_at'], now_ms)})"
        )
        words = f"{plain(worker['host'])} pid {worker['pid']}, {load}, {life}"
        yield _note("worker", words, "" if worker["alive"] else "dim")
    hooks = view["webhooks"]
    words = "  ".join(f"{count} {state}" for state, count in hooks.items())
    yield _note("webhooks", words, "yellow" if hooks.get("dead") else "")
    for row in view["failing_destinations"]:
        since, tried = ago(row["failing_since"], now_ms, word=""), ahead(row["next_try_at"], now_ms)
        words = f"{plain(row['destination'])} for {since}; {row['waiting']} wait, next try {tried}"
        yield _note("failing", words, "yellow")
    if quarantined := view["quarantined"]:
        words = f"{counted(quarantined, 'job')} with a damaged record: see job.quarantined in the log, then `show ID`"
        yield _note("quarantine", words, "yellow")
    yield from _money_notes(view["money"])


def _money_notes(money: Row) -> Iterator[Text]:
    """Say what was, or may have been, paid for nothing, where there is any."""
    unused, unknown = money["paid_unused"], money["unknown_submits"]
    if unused["total"]:
        why = ", ".join(f"{count} {reason}" for reason, count in unused["reasons"].items() if count)
        cost = "".join(f"; {amount:g} {plain(currency)} told" for currency, amount in unused["cost"].items())
        yield _note("paid unused", f"{counted(unused['total'], 'attempt')}: {why}{cost}", "yellow")
    if unknown["total"]:
        what = ", ".join(f"{count} {name}" for name, count in unknown.items() if count and name != "total")
        yield _note("unknown", f"{counted(unknown['total'], 'submission')}: {what}", "yellow")


def _note(name: str, words: str, style: str = "") -> Text:
    return Text.assemble((f"{name:<11} ", "bold"), (words, style))


def ended_lines(jobs: Iterable[Row], now_ms: int) -> list[Text]:
    """Tell of ended jobs, a line each."""
    return [
        Text.assemble(
            f"{ago(job['completed_at'], now_ms):>11}  ",
            styled(job["status"]),
            f"  {job['id']}  {plain(job['model'])}  ",
            (job["failure"]["code"] if job["failure"] else "", "red"),
            no_wrap=True,
            overflow="ellipsis",
        )
        for job in jobs
    ]


def fleet_line(view: Row) -> str:
    """Tell how the fleet stands in one line of text."""
    totals = {status: sum(counts[status] for counts in view["jobs"].values()) for status in Status}
    paused = [queue["kind"] for queue in view["queues"] if queue["paused_since"]]
    oldest_s = max(queue["oldest_s"] for queue in view["queues"])
    words = [
        clock(view["at"], day=True),
        *(f"{count} {status}" for status, count in totals.items() if count or status not in ENDED),
        f"oldest due {duration(oldest_s)}",
        f"{sum(worker['alive'] for worker in view['workers'])} workers",
        f"webhooks: {view['webhooks']['pending']} pending, {view['webhooks']['dead']} dead",
        *([f"held: {view['hold']['reason']}"] if view["hold"] else []),
        *([] if view["redis_memory"]["takes_jobs"] else [f"redis full: {_full(view['redis_memory'])}"]),
        *([f"paused: {', '.join(paused)}"] if paused else []),
        *([f"cooling: {', '.join(plain(row['model']) for row in view['cooldowns'])}"] if view["cooldowns"] else []),
    ]
    return "  ".join(words)


def _full(memory: Row) -> str:
    if memory["begins_submissions"]:
        return "new jobs are refused, those there are go on"
    return "new jobs are refused, and no submission begins until there is room"


# --- models


def models_table(view: Row, now_ms: int, *, columns: int) -> Table:
    """Show the models of the models file, chain by chain."""
    names = [
        "chain",
        "#",
        "model",
        "status",
        "in a row",
        "last ok",
        "last failure",
        "ok",
        "failed",
        "mean",
        "p50",
        "p95",
    ]
    if columns < ROOMY_COLUMNS:
        names = ["chain", "model", "status", "ok", "failed", "p50", "p95"]
    rows = table(names, right=["#", "in a row", "ok", "failed", "mean", "p50", "p95"], whole=["status"])
    before = None
    for model in view["models"]:
        cells = _model_cells(model, now_ms, first=model["chain"] != before)
        before = model["chain"]
        rows.add_row(*(cells[name] for name in names))
    return rows


def _model_cells(model: Row, now_ms: int, *, first: bool) -> dict[str, Text | str]:
    took = model["generation_s"] or {}
    attempts = model["attempts"]
    chain = f"{model['chain']}{' (' + ', '.join(model['kinds']) + ')' if model['kinds'] else ''}"
    status = styled(model["status"])
    if model["cooldown_until"]:
        status.append(f" {ahead(model['cooldown_until'], now_ms)}")
    return {
        "chain": cut((chain if model["chain"] else "-") if first else ""),
        "#": str(model["position"] or ""),
        "model": cut(model["model"], "dim" if model["status"] == "unused" else ""),
        "status": status,
        "in a row": _number(model["failures_in_a_row"], "failed"),
        "last ok": ago(model["last_success_at"], now_ms),
        "last failure": ago(model["last_failure_at"], now_ms),
        "ok": _number(attempts.get("succeeded", 0)),
        "failed": _number(sum(attempts.values()) - attempts.get("succeeded", 0), "failed"),
        **{name: duration(took[name]) if took else "" for name in ("mean", "p50", "p95")},
    }


# --- webhooks


def deliveries_table(deliveries: Iterable[Row], now_ms: int, *, failing: Collection[str] = (), columns: int) -> Table:
    """Show deliveries of webhooks, a line each; ``failing`` names the destinations that others wait for."""
    names = ["id", "job", "type", "state", "tries", "last answer", "age", "next", "to"]
    if columns < ROOMY_COLUMNS:
        names = ["id", "job", "state", "tries", "last answer", "next"]
    elif columns < AGE_COLUMNS:
        names.remove("age")
    rows = table(names, right=["tries", "age"], whole=["id", "type", "state", "next"])
    rows.columns[names.index("last answer")].min_width = len("last answer")
    for delivery in deliveries:
        cells = {
            "id": delivery["id"],
            "job": cut(delivery["job_id"]),
            "type": plain(delivery["type"]),
            "state": styled(delivery["state"]),
            "tries": str(len(delivery["attempts"])),
            "last answer": cut(last_answer(delivery)),
            "age": ago(delivery["created_at"], now_ms, word=""),
            "next": next_try(delivery, now_ms, failing),
            "to": cut(delivery["url"]),
        }
        rows.add_row(*(cells[name] for name in names))
    return rows


# --- findings


def findings_sheet(findings: Sequence[Row]) -> Group:
    """Show what was checked, with how to mend it below what is not well."""
    rows = table(["", "check", "finding"], whole=["", "check"])
    rows.show_header = False
    for row in findings:
        said = Text(plain(row["says"]))
        if row["mend"]:
            said.append(f"\n{plain(row['mend'])}", style="dim" if row["level"] == "ok" else "bold")
        rows.add_row(styled(row["level"]), row["name"], said)
    rows.columns[-1].overflow = "fold"
    return Group(rows)
