"""What the doctor makes of what it is told, where no network is needed."""

from pathlib import Path

import pytest
from redis.exceptions import ResponseError
from structlog.testing import capture_logs

from config.settings import Settings
from jobs.job import Attempt
from worker.doctor.diagnosis import _data_dir, _scope, _spool
from worker.doctor.findings import SKEW_S, Finding, skew
from worker.doctor.redis_checks import _memory, _no_answer, _persistence, _queues, _version, _webhooks, _workers
from worker.fleet import ALIVE_MS, Depth, Overview
from worker.link import RedisAway, RedisRefused
from worker.spool import Spool, SpooledTask

NOW_MS = 1_800_000_000_000


def worst(*findings: Finding) -> str:
    """Name the worst level."""
    return max((finding.level for finding in findings), key=("ok", "info", "warning", "problem").index)


def test_accepted_tasks_on_disk(tmp_path: Path) -> None:
    """Nothing is said of none; what waits for a worker is a warning, what has no job a problem for the operator."""
    settings = Settings.from_env({"DATA_DIR": str(tmp_path)})
    assert list(_spool(settings)) == []
    spool = Spool(tmp_path, prefix=settings.key_prefix)
    spool.keep(SpooledTask("a", Attempt(1, "veo3", 0, 1, "a/1", NOW_MS), "task_1", None))
    assert [found.level for found in _spool(settings)] == ["warning"]
    spool.set_aside(SpooledTask("b", Attempt(1, "veo3", 0, 1, "b/1", NOW_MS), "task_2", None))
    assert [found.level for found in _spool(settings)] == ["warning", "problem"]
    assert {task.task_id for task in spool.tasks()} == {"task_1"}


def test_accepted_tasks_without_a_disk(tmp_path: Path) -> None:
    """A directory that cannot be written to is logged with the task id, and nothing is raised."""
    (tmp_path / "file").write_text("")
    with capture_logs() as lines:
        Spool(tmp_path / "file", prefix="p").keep(SpooledTask("a", Attempt(1, "m", 0, 1, "k", 1), "task_1", None))
    assert [(line["event"], line["task"]) for line in lines] == [("task.not_spooled", "task_1")]


MEMORY = [  # maxmemory, used, policy: level
    (0, 10, "noeviction", "ok"),
    (0, 10, "allkeys-lru", "warning"),
    (100, 10, "noeviction", "ok"),
    (100, 81, "noeviction", "warning"),
    (100, 91, "noeviction", "problem"),
    (100, 101, "noeviction", "problem"),
    (0, 81, "noeviction", "warning"),
    (100, 10, "allkeys-lru", "problem"),
    (100, 99, "volatile-ttl", "problem"),
]


@pytest.mark.parametrize(("most", "used", "policy", "level"), MEMORY)
def test_memory(most: int, used: int, policy: str, level: str) -> None:
    """Eviction with a limit is a problem, and so is a memory above the mark; one that is nearly full is a warning."""
    info = {"maxmemory": str(most), "used_memory": str(used), "maxmemory_policy": policy, "total_system_memory": "100"}
    found = list(_memory(info))
    assert worst(*found) == level
    assert any("no submission begins" in finding.says for finding in found) == (0 < most <= used)


@pytest.mark.parametrize(
    ("info", "level"),
    [
        ({"redis_version": "6.2.14"}, "ok"),
        ({"redis_version": "7.2.4", "valkey_version": "8.0.1"}, "ok"),
        ({"redis_version": "6.0.16"}, "problem"),
        ({"redis_version": "10.0.0"}, "ok"),
        ({}, "problem"),
        ({"redis_version": "7.4.0", "role": "slave"}, "problem"),
    ],
)
def test_version(info: dict[str, str], level: str) -> None:
    """Redis from 6.2 on and Valkey serve; a replica does not."""
    assert worst(*_version(info)) == level


AOF, NONE = {"aof_enabled": "1"}, {"aof_enabled": "0"}


@pytest.mark.parametrize(
    ("info", "sync", "save", "level", "word"),
    [
        (AOF, "always", "", "ok", "nothing it has taken is lost"),
        (AOF, "everysec", "", "ok", "last second"),
        (AOF, "no", "", "warning", "half minute"),
        (AOF, None, None, "ok", "not told"),
        (AOF | {"aof_last_write_status": "err"}, "always", "", "problem", "cannot write"),
        (NONE, "everysec", "3600 1", "warning", "snapshots"),
        (NONE, "everysec", "", "problem", "every job"),
        (NONE, None, None, "warning", "not told"),
    ],
)
def test_persistence(info: dict[str, str], sync: str | None, save: str | None, level: str, word: str) -> None:
    """What a crash would lose is said; what a managed Redis does not tell is not taken for wrong."""
    (finding,) = _persistence(info, sync, save)
    assert (finding.level, word in finding.says) == (level, True)


def test_the_clock_may_differ_a_little() -> None:
    """Up to five seconds are fine, either way."""
    assert skew("clock", SKEW_S, "theirs").level == "ok"
    assert "behind" in skew("clock", SKEW_S + 1, "theirs").says
    assert "ahead" in skew("clock", -SKEW_S - 1, "theirs").says


def test_the_fleet_is_judged() -> None:
    """No living worker is a problem; the last to be seen, holds, pauses, cooldowns and late queues are warnings."""
    silent = {"id": "w", "host": "h", "pid": 1, "seen_at_ms": NOW_MS - ALIVE_MS - 1}
    queues = {"submit:video": Depth(3, 2, 700.0)}
    fleet = Overview(NOW_MS, {}, queues, {"image": 1}, 0, "unauthorized", 1, 2, {"veo3": NOW_MS}, (silent,), {})
    assert [finding.level for finding in _workers(fleet)] == ["problem", "warning"]
    assert [finding.name for finding in _queues(fleet)] == ["hold", "pause", "cooldown", "queues"]
    assert {finding.level for finding in _queues(fleet)} == {"warning"}


def test_a_dead_worker_among_living_ones_is_only_noted() -> None:
    """Others have taken its work over: there is nothing to mend."""
    alive = {"id": "a", "host": "h", "pid": 1, "seen_at_ms": NOW_MS}
    dead = {"id": "b", "host": "h", "pid": 2, "seen_at_ms": NOW_MS - ALIVE_MS - 1}
    findings = list(_workers(Overview(NOW_MS, {}, {}, {}, 0, None, None, None, {}, (alive, dead), {})))
    assert [finding.level for finding in findings] == ["ok", "info"]
    assert "pid 2 is gone since 2027-01-15T" in findings[1].says


def test_webhooks_that_were_given_up_are_counted_without_blame() -> None:
    """Whether the receiver is to be mended is not known: it may have wanted no more."""
    for dead, says in ((1, "1 delivery was given up"), (2, "2 deliveries were given up")):
        (finding,) = _webhooks(Overview(NOW_MS, {}, {}, {}, 0, None, None, None, {}, (), {"dead": dead}))
        assert (finding.level, finding.says) == ("warning", says)
        assert "mend the receiver" not in finding.mend


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (TimeoutError(), "Redis does not answer: no answer in time"),
        (ConnectionRefusedError(111, "x"), "Redis does not answer: connection refused"),
        (RedisRefused("Redis refuses our credentials: set them"), "Redis refuses our credentials"),
        (ResponseError("unknown command"), "Redis refused a command: unknown command"),
    ],
)
def test_why_redis_gives_no_answer(error: Exception, says: str) -> None:
    """It is one sentence, whatever the reason."""
    if isinstance(error, OSError):
        away = RedisAway("away")
        away.__cause__ = error
        error = away
    assert _no_answer(error).says == says


@pytest.mark.parametrize(("environ", "level"), [({}, "problem"), ({"REDIS_URL": "redis://h"}, "warning")])
def test_a_data_directory_that_cannot_be_written_to(environ: dict[str, str], level: str, tmp_path: Path) -> None:
    """With the embedded Redis nothing goes without it; with another, accepted tasks have nowhere to go meanwhile."""
    (tmp_path / "file").write_text("")
    [finding] = _data_dir(Settings.from_env({"DATA_DIR": str(tmp_path / "file" / "data"), **environ}))
    assert (finding.level, "cannot be written to" in finding.says) == (level, True)


SCOPES = [
    ({}, "with the embedded Redis in /srv/data (REDIS_URL is not set)"),
    ({"REDIS_URL": "redis://u:hunter22@h:6380/3?password=hunter22"}, "with the Redis of REDIS_URL, redis://h:6380/3"),
    ({"REDIS_URL": "unix:///r.sock?password=hunter22"}, "with the Redis of REDIS_URL, unix:///r.sock"),
    ({"REDIS_URL": "rediss://:hunter22@[::1]/"}, "with the Redis of REDIS_URL, rediss://[::1]/"),
]


@pytest.mark.parametrize(("environ", "says"), SCOPES)
def test_the_doctor_says_what_it_checks(environ: dict[str, str], says: str) -> None:
    """Which shell's settings, from which directory, with which Redis; no password."""
    told = _scope(Settings.from_env({"DATA_DIR": "/srv/data", **environ})).says
    assert told == f"the settings of this shell, in {Path.cwd()}, {says}"
    assert _scope(None).says == f"the settings of this shell, in {Path.cwd()}"


def test_no_finding_tells_a_secret() -> None:
    """Whatever a fault quotes, keys and passwords are blotted out."""
    said = Finding("redis", "problem", "redis://:hunter2@host refuses sk-ony-abcdef").view()["says"]
    assert "hunter2" not in said
    assert "abcdef" not in said
