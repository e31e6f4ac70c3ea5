"""Limits of the account and of models: who waits, until when, and what is not asked meanwhile."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from harness import Bench, Sandbox, directed, eventually

from config.models import load_models
from jobs.decide import SHORTEST_COOLDOWN_MS
from worker.main import open_store

DAILY, MONTHLY, FREE = "daily_request_limit_exceeded", "monthly_token_limit_exceeded", "free_model_rate_limit"
PAUSE_S = 1.5
A_YEAR_S = 31_000_000
ISTANBUL = ZoneInfo("Europe/Istanbul")


async def two_workers(bench: Bench) -> bool:
    """Tell whether both workers have said that they are there."""
    return len((await bench.store.fleet.overview(bench.store.now_ms())).workers) == 2


async def test_a_minute_limit_pauses_the_whole_fleet(bench: Bench, sandbox: Sandbox) -> None:
    """One job is refused: no worker sends anything before Retry-After, no attempt counts, and the limit is shown."""
    limited = {"status": 429, "code": "rate_limit_exceeded", "message": "slow", "retry_after_s": PAUSE_S}
    async with (
        open_store(bench.redis_url, bench.settings, load_models()) as others,
        bench.worker(),
        replace(bench, store=others).worker(),
    ):
        passed = [await bench.submit(kind="image", input=directed(tag=f"passed-{n}")) for n in range(2)]
        for job_id in passed:
            await bench.ended(job_id)
        await eventually(lambda: two_workers(bench))
        refused = await bench.submit(input=directed(tag="refused", submit=[limited]), max_attempts=1, fallbacks=[])
        waiting = await bench.standing(refused, "waiting")
        told = (await bench.store.fleet.overview(bench.store.now_ms())).view()
        more = [await bench.submit(kind=kind, input=directed(tag=kind)) for kind in ("music", "voice", "audio")]
        done = [await bench.ended(job_id) for job_id in (refused, *more)]
    assert (waiting["failure"]["code"], waiting["failure"]["action"]) == ("rate_limited", "retry")
    assert waiting["attempts"] == []
    assert told["rate_limited_until"]
    assert told["learned_limit"] == {"requests": len(passed), "per_s": 60}
    assert {view["status"] for view in done} == {"completed"}
    assert all(len(view["attempts"]) == 1 for view in done)
    rows = sandbox.submissions()
    assert len(rows) == len(passed) + 1 + len(done)
    [refusal] = [row for row in rows if row["status"] == 429]
    later = [row["at_ms"] - refusal["at_ms"] for row in rows[rows.index(refusal) + 1 :]]
    assert min(later) >= PAUSE_S * 1000


@pytest.mark.env(REQUESTS_PER_MINUTE="6000")
async def test_a_budget_is_taken_at_its_word(bench: Bench, sandbox: Sandbox) -> None:
    """Where the operator has said how many requests may go out, a 429 quiets the fleet and teaches no other number."""
    limited = {"status": 429, "code": "rate_limit_exceeded", "message": "slow", "retry_after_s": 0.3}
    async with bench.worker():
        for number in range(3):
            await bench.ended(await bench.submit(kind="image", input=directed(tag=f"passed-{number}")))
        await bench.ended(await bench.submit(input=directed(tag="refused", submit=[limited, limited]), fallbacks=[]))
        told = (await bench.store.fleet.overview(bench.store.now_ms())).view()
        more = [await bench.submit(kind="audio", input=directed(tag=f"more-{number}")) for number in range(20)]
        done = [await bench.ended(job_id) for job_id in more]
    assert told["learned_limit"] is None
    assert {view["status"] for view in done} == {"completed"}
    assert len(sandbox.submissions("refused")) == 3


async def test_a_daily_limit_is_known_to_the_whole_fleet(bench: Bench, sandbox: Sandbox) -> None:
    """A worker that was never refused spares the model, too: its job fails over without asking, at no attempt."""
    sandbox.control(quotas={"veo3": {"code": DAILY, "limit": 0}})
    async with open_store(bench.redis_url, bench.settings, load_models()) as others:
        async with bench.worker():
            first = await bench.ended(await bench.submit(input=directed(), fallbacks=["sora-2"]))
        async with replace(bench, store=others).worker():
            job_id = await bench.submit(input=directed(tag="t"), fallbacks=["sora-2"], max_attempts=1)
            second = await bench.ended(job_id)
    for view in (first, second):
        assert (view["status"], view["model"], view["degraded"]) == ("completed", "sora-2", True)
        assert [attempt["model"] for attempt in view["attempts"]] == ["sora-2"]
    assert [row["model"] for row in sandbox.submissions("t")] == ["sora-2"]
    assert [row["status"] for row in sandbox.submissions() if row["model"] == "veo3"] == [429]


async def test_parked_jobs_send_one_probe_after_the_reset(bench: Bench, sandbox: Sandbox) -> None:
    """While the first of them finds out whether the limit was reset, the others ask nothing; then all complete."""
    sandbox.control(quotas={"veo3": {"code": DAILY, "limit": 0, "retry_after_s": 3}})
    slow = {"do": "accept", "delay_s": 0.3}
    async with bench.worker():
        ids = [await bench.submit(input=directed(submit=[slow]), fallbacks=[])]
        await bench.standing(ids[0], "waiting")
        sandbox.control(quotas={})
        ids += [await bench.submit(input=directed(submit=[slow]), fallbacks=[]) for _ in range(2)]
        parked = [await bench.standing(job_id, "waiting") for job_id in ids]
        cooldowns = (await bench.store.fleet.overview(bench.store.now_ms())).view()["cooldowns"]
        done = [await bench.ended(job_id) for job_id in ids]
    for view in parked:
        assert (view["failure"]["code"], view["failure"]["action"]) == ("model_quota_exceeded", "park")
        assert view["attempts"] == []
    [cooldown] = cooldowns
    assert cooldown["model"] == "veo3"
    assert parked[0]["next_action_at"] == cooldown["until"]
    assert {view["status"] for view in done} == {"completed"}
    refused, probe, *rest = sandbox.submissions()
    assert (refused["status"], probe["status"], len(rest)) == (429, 202, 2)
    assert probe["at_ms"] >= refused["at_ms"] + SHORTEST_COOLDOWN_MS
    assert min(row["at_ms"] for row in rest) >= probe["sent_at_ms"]


async def test_a_known_limit_past_the_deadline_fails_without_asking(bench: Bench, sandbox: Sandbox) -> None:
    """A job that could only wait for a model until after its deadline fails at once, by the code of the limit."""
    sandbox.control(quotas={"veo3": {"code": DAILY, "limit": 0, "retry_after_s": 600}})
    async with bench.worker():
        await bench.standing(await bench.submit(input=directed(), fallbacks=[]), "waiting")
        view = await bench.ended(await bench.submit(input=directed(tag="t"), fallbacks=[], deadline_s=60))
    assert (view["status"], view["failure"]["code"]) == ("failed", "model_quota_exceeded")
    assert view["failure"]["action"] == "fail"
    assert "deadline" in view["failure"]["message"]
    assert view["attempts"] == []
    assert sandbox.submissions("t") == []


def next_midnight(now: datetime) -> datetime:
    """Give the next midnight of Istanbul."""
    return datetime.combine(now.astimezone(ISTANBUL).date() + timedelta(days=1), datetime.min.time(), ISTANBUL)


def next_month(now: datetime) -> datetime:
    """Give the next first of the month, midnight of Istanbul."""
    here = now.astimezone(ISTANBUL)
    return datetime(here.year + here.month // 12, here.month % 12 + 1, 1, tzinfo=ISTANBUL)


RESETS: dict[str, Any] = {
    DAILY: next_midnight,
    "daily_token_limit_exceeded": next_midnight,
    MONTHLY: next_month,
    FREE: lambda now: now + timedelta(hours=24),
}


@pytest.mark.parametrize(("code", "reset"), RESETS.items(), ids=RESETS)
async def test_a_limit_resets_by_its_own_calendar(code: str, reset: Any, bench: Bench, sandbox: Sandbox) -> None:
    """Where the gateway does not say when, the job and the fleet's cooldown wait for the time the limit is known by."""
    sandbox.control(quotas={"veo3": {"code": code, "limit": 0}})
    before = datetime.now(UTC)
    async with bench.worker():
        view = await bench.standing(await bench.submit(input=directed(), fallbacks=[], deadline_s=A_YEAR_S), "waiting")
        overview = await bench.store.fleet.overview(bench.store.now_ms())
    at = datetime.fromisoformat(view["next_action_at"])
    slack = timedelta(milliseconds=5)  # two clocks of one machine, each rounded
    assert reset(before) - slack <= at <= reset(datetime.now(UTC)) + slack
    assert abs(overview.cooldowns["veo3"] / 1000 - at.timestamp()) < 1
    assert view["failure"]["gateway_code"] == code


@pytest.mark.env(QUOTA_RESET="07:30 UTC")
async def test_the_daily_reset_is_a_setting(bench: Bench, sandbox: Sandbox) -> None:
    """Its hour and zone are the operator's."""
    sandbox.control(quotas={"veo3": {"code": DAILY, "limit": 0}})
    async with bench.worker():
        view = await bench.standing(await bench.submit(input=directed(), fallbacks=[]), "waiting")
    at = datetime.fromisoformat(view["next_action_at"])
    assert (at.hour, at.minute, at.second) == (7, 30, 0)
    assert timedelta() < at - datetime.now(UTC) <= timedelta(days=1)


async def test_a_job_waits_for_the_model_that_resets_first(bench: Bench, sandbox: Sandbox) -> None:
    """All models of its chain are known to be at a limit: it parks on the first to be back, and completes there."""
    resets_s = {"veo3": 600, "sora-2": 60, "kling": 300}
    quotas = {name: {"code": DAILY, "limit": 0, "retry_after_s": after_s} for name, after_s in resets_s.items()}
    sandbox.control(quotas=quotas)
    async with bench.worker():
        for model in resets_s:
            await bench.standing(await bench.submit(model=model, fallbacks=[], input=directed()), "waiting")
        job_id = await bench.submit(input=directed(tag="t"), fallbacks=["sora-2", "kling"])
        waiting = await bench.standing(job_id, "waiting")
        overview = await bench.store.fleet.overview(bench.store.now_ms())
        sandbox.control(quotas={name: quotas[name] for name in ("veo3", "kling")})
        now_ms = bench.store.now_ms()
        await bench.raw.hset("onysoft:cooldowns", "sora-2", now_ms)  # the time has come
        await bench.raw.zadd("onysoft:wheel:submit:video", {job_id: now_ms}, xx=True)
        view = await bench.ended(job_id)
    assert overview.cooldowns.keys() == quotas.keys()
    assert (waiting["model"], waiting["failure"]["action"]) == ("sora-2", "park")
    until = datetime.fromisoformat(waiting["next_action_at"]).timestamp()
    assert abs(until - overview.cooldowns["sora-2"] / 1000) < 1
    assert [(row["model"], row["status"]) for row in sandbox.submissions("t")] == [("sora-2", 202)]
    assert (view["status"], view["model"], view["degraded"]) == ("completed", "sora-2", True)
    assert len(view["attempts"]) == 1
