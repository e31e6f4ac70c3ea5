"""Owns the doctor's look at Redis, and at the fleet as it shows there.

Nothing is changed. Options that a managed Redis does not tell are said to be unknown, never taken for wrong.
"""

import asyncio
import re
import time
from collections.abc import Iterator

from config.models import Models
from config.settings import Settings
from worker.absence import reason
from worker.doctor.findings import ANSWER_S, Finding, skew
from worker.fleet import Overview
from worker.link import STORE_ERRORS, Link, RedisAway, RedisRefused
from worker.memory import MARK, RedisMemory
from worker.record import rfc3339
from worker.signing_secrets import DIFFERS, UnreadableSecret, signed_otherwise
from worker.store import Store

OLDEST_S = 600.0
FILLING = 0.8
LEAST_REDIS = (6, 2)
OPTIONS = ("appendfsync", "save", "notify-keyspace-events")
SYNCED = {
    "always": "synced before it answers: nothing it has taken is lost",
    "everysec": "synced every second: a power cut may lose the last second or two of jobs taken and tasks accepted",
    "no": "synced when the system likes: a power cut may lose the last half minute of jobs taken and tasks accepted",
}


async def check_redis(url: str, settings: Settings, models: Models) -> list[Finding]:
    """Check Redis and the fleet."""
    link = Link(url)
    store = Store(link, prefix=settings.key_prefix, models=models)
    try:
        async with asyncio.timeout(ANSWER_S):
            return await _redis_answers(link, store, settings)
    except STORE_ERRORS as error:
        return [_no_answer(error)]
    except TimeoutError:
        return [Finding("redis", "problem", f"Redis gave no answer within {ANSWER_S:.0f} s", "check REDIS_URL")]
    finally:
        await link.aclose()


def _no_answer(error: Exception) -> Finding:
    match error:
        case RedisAway():
            says = f"Redis does not answer: {reason(error)}"
        case RedisRefused():
            says = "Redis refuses our credentials"
        case _:
            says = f"Redis refused a command: {error}"
    return Finding("redis", "problem", says, "check REDIS_URL, and that Redis runs and lets us in")


async def _redis_answers(link: Link, store: Store, settings: Settings) -> list[Finding]:
    asked_s = time.time()
    seconds, micros = await link.command("TIME")
    half_s = (time.time() - asked_s) / 2
    info = _read_info(await link.command("INFO"))
    options = {name: await _config(link, name) for name in OPTIONS}
    await store.sync_clock()
    overview = await store.fleet.overview(store.now_ms())
    return [
        *_version(info),
        *_persistence(info, options["appendfsync"], options["save"]),
        *_memory(info),
        *_announcements(options["notify-keyspace-events"]),
        skew("clock, redis", int(seconds) + int(micros) / 1e6 - (asked_s + half_s), "Redis's"),
        *_workers(overview),
        *_queues(overview),
        *_webhooks(overview),
        await _secret(store, settings, overview),
    ]


def _read_info(answer: bytes) -> dict[str, str]:
    rows = (line.partition(":") for line in answer.decode("utf-8", "replace").splitlines() if ":" in line)
    return {name: value for name, _, value in rows}


def _version(info: dict[str, str]) -> Iterator[Finding]:
    text = info.get("redis_version", "unknown")
    numbers = tuple(int(part) for part in re.findall(r"\d+", text)[:2])
    name = f"Valkey {info['valkey_version']} (as Redis {text})" if "valkey_version" in info else f"Redis {text}"
    if numbers < LEAST_REDIS:
        yield Finding("redis", "problem", f"{name} is too old", "use Redis 6.2 or newer, or Valkey")
    else:
        yield Finding("redis", "ok", f"{name} answers")
    if info.get("role", "master") != "master":
        yield Finding("redis role", "problem", "this Redis is a replica", "set REDIS_URL to the primary")


async def _config(link: Link, name: str) -> str | None:
    """Read an option of the server's; None where it does not tell (managed ones often forbid it)."""
    try:
        answer = await link.command("CONFIG", "GET", name)
    except RedisAway:
        raise
    except STORE_ERRORS:
        return None
    return answer[1].decode() if answer else ""


def _persistence(info: dict[str, str], sync: str | None, save: str | None) -> Iterator[Finding]:
    name, mend = "redis persistence", "set `appendonly yes` (and `appendfsync always` to lose nothing at all)"
    if info.get("aof_enabled") == "1":
        if info.get("aof_last_write_status", "ok") != "ok":
            yield Finding(name, "problem", "Redis cannot write its append-only file", "make room on Redis's disk")
        elif sync == "no":
            mend = "CONFIG SET appendfsync always (or everysec), and in its configuration file"
            yield Finding(name, "warning", f"append-only file, {SYNCED[sync]}", mend)
        else:
            synced = SYNCED.get(sync or "", "how often it is synced is not told")
            yield Finding(name, "ok", f"append-only file, {synced}")
    elif save is None:
        says = "no append-only file; whether it saves snapshots is not told (CONFIG is forbidden)"
        yield Finding(name, "warning", says, mend)
    elif save:
        says = f"snapshots only (save {save}): a crash loses what came after the last one"
        yield Finding(name, "warning", says, mend)
    else:
        says = "Redis keeps nothing on disk: a restart loses every job, paid tasks included"
        yield Finding(name, "problem", says, mend)


def _memory(info: dict[str, str]) -> Iterator[Finding]:
    name, policy = "redis memory", info.get("maxmemory_policy", "unknown")
    used = int(info.get("used_memory", 0)) - int(info.get("mem_not_counted_for_evict", 0))
    memory, machine = RedisMemory(used, int(info.get("maxmemory", 0))), int(info.get("total_system_memory", 0))
    most = memory.most_bytes
    mend = "CONFIG SET maxmemory-policy noeviction, and in its configuration file"
    if most and policy != "noeviction":
        says = f"maxmemory-policy is {policy}: Redis throws jobs away when it is full"
        yield Finding(name, "problem", says, mend)
    elif policy != "noeviction":
        yield Finding(name, "warning", f"maxmemory-policy is {policy}: harmless only while maxmemory is not set", mend)
    more = "raise maxmemory, or lower RETENTION_S and restart the workers: ended jobs are pruned every 30 s"
    if memory.is_full:
        says = f"{memory.ratio:.0%} of maxmemory is used (the mark is {MARK:.0%}): {memory.stops}"
        yield Finding(name, "problem", says, more)
    elif memory.ratio > FILLING:
        says = f"{memory.ratio:.0%} of maxmemory is used: above {MARK:.0%} new jobs are refused"
        yield Finding(name, "warning", says, more)
    elif not most and machine and used > machine * FILLING:
        says = f"{used / 1024**2:.0f} MB used, {used / machine:.0%} of the machine's, and no maxmemory"
        yield Finding(name, "warning", says, "set maxmemory: without one the system kills Redis when memory runs out")
    elif policy == "noeviction":
        room = f" of {most / 1024**2:.0f} MB" if most else ", no maxmemory (set one where Redis shares the machine)"
        yield Finding(name, "ok", f"{used / 1024**2:.0f} MB used{room}, {policy}")


def _announcements(flags: str | None) -> Iterator[Finding]:
    name = "redis announcements"
    if flags is None:
        yield Finding(name, "ok", "whether jobs enqueued by plain arq are announced is not told (CONFIG is forbidden)")
    elif "K" in flags and ("z" in flags or "A" in flags):
        yield Finding(name, "ok", "jobs enqueued by plain arq are announced")
    else:
        says = "jobs enqueued by plain arq are not announced: they are taken some 30 ms later"
        yield Finding(name, "ok", says, "to speed it up: CONFIG SET notify-keyspace-events Kz")


# --- the fleet


def _workers(overview: Overview) -> Iterator[Finding]:
    alive = overview.alive
    if alive:
        hosts = ", ".join(sorted({str(worker.get("host")) for worker in alive}))
        yield Finding("workers", "ok", f"{len(alive)} alive on {hosts}")
    else:
        mend = "start `onysoft-worker work` (or `up`) with this REDIS_URL or DATA_DIR and KEY_PREFIX"
        yield Finding("workers", "problem", "none is alive: jobs wait, tasks are not tracked", mend)
    for worker in overview.workers:
        if worker not in alive:
            says = f"{worker.get('host')} pid {worker.get('pid')} is gone since {rfc3339(worker['seen_at_ms'])}"
            if alive:
                yield Finding("workers", "info", f"{says}: others have taken its work over")
            else:
                yield Finding("workers", "warning", says, "it died or hangs: see its log")


def _queues(overview: Overview) -> Iterator[Finding]:
    if overview.hold:
        says = f"submissions are held since {rfc3339(overview.hold_since_ms)}: {overview.hold}"
        yield Finding("hold", "warning", says, "mend the account; a probe goes out by itself and ends the hold")
    for kind, since_ms in overview.paused.items():
        says = f"{kind} is paused since {rfc3339(since_ms)}"
        yield Finding("pause", "warning", says, f"onysoft-worker resume {kind}")
    for model, until_ms in overview.cooldowns.items():
        says = f"{model} is not submitted to until {rfc3339(until_ms)}: its quota is used up"
        yield Finding(
            "cooldown", "warning", says, "wait: one submission tries it then (QUOTA_RESET, where it was not told)"
        )
    if lying := overview.quarantined:
        says = f"{lying} {'job has' if lying == 1 else 'jobs have'} a damaged record and cannot go on"
        mend = (
            "the log names them (job.quarantined), `onysoft-worker show ID` says what is wrong; gone RETENTION_S later"
        )
        yield Finding("quarantine", "warning", says, mend)
    late = {name: depth for name, depth in overview.queues.items() if depth.oldest_s > OLDEST_S}
    for name, depth in late.items():
        says = f"the oldest entry of {name} is due for {depth.oldest_s / 60:.0f} min ({depth.due} are due)"
        yield Finding("queues", "warning", says, "see `onysoft-worker queues`: paused, held, or too few workers")
    if not late:
        yield Finding("queues", "ok", "nothing is due for long")


# --- webhooks


def _webhooks(overview: Overview) -> Iterator[Finding]:
    for destination in overview.failing:
        says = f"{destination.name} has failed {destination.failures} times in a row, {destination.waiting} wait for it"
        yield Finding("webhooks", "warning", says, "mend the receiver: what waits comes by itself")
    if dead := overview.webhooks.get("dead", 0):
        says = f"{dead} {'delivery was' if dead == 1 else 'deliveries were'} given up"
        mend = "`onysoft-worker webhooks list --state dead` says why; `webhooks replay --dead` sends them again"
        yield Finding("webhooks", "warning", says, mend)
    else:
        yield Finding("webhooks", "ok", f"{overview.webhooks.get('pending', 0)} pending, none given up")


async def _secret(store: Store, settings: Settings, overview: Overview) -> Finding:
    name, given = "webhook secret", settings.webhook_secret
    try:
        ours = given or [secret.text for secret in await store.secrets.kept()]
    except UnreadableSecret as error:
        return Finding(name, "problem", str(error), "delete that key, and give receivers the new secret")
    if signed_otherwise(overview.alive, ours, is_set_here=bool(given)):
        return Finding(name, "warning", DIFFERS, "set the same WEBHOOK_SECRET for every process, or for none")
    if given:
        more = f", {len(ours)} while rotating" if len(ours) > 1 else ""
        return Finding(name, "ok", f"WEBHOOK_SECRET is set{more}")
    more = f", {len(ours)} valid while rotating" if len(ours) > 1 else ""
    where = f"kept in Redis{more}" if ours else "made when it is first needed"
    return Finding(name, "ok", f"the deployment's own, {where}: `onysoft-worker webhooks secret` prints it")
