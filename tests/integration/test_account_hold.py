"""An account out of order (401, 402): all submissions held until a probe succeeds, or each job failed by itself."""

from typing import Any

import pytest
from harness import Bench, Sandbox, directed, eventually
from structlog.testing import capture_logs
from test_metrics import scraped, total
from test_web import serving

WHEEL = "onysoft:wheel:submit:image"
KEY_REFUSED = {"status": 401, "code": "invalid_api_key", "message": "no"}
REASONS = {"401": "unauthorized", "402": "insufficient_balance"}


async def probe_now(bench: Bench) -> None:
    """Have the next probe be due now, and every job that waits for it, instead of seconds later; one at a time."""
    now_ms = bench.store.now_ms()
    if await bench.raw.hlen("onysoft:leases:submit:image"):
        return
    if await bench.raw.hexists("onysoft:gate", "hold"):
        await bench.raw.hset("onysoft:gate", "probe_at_ms", now_ms)
    for member in await bench.raw.zrange(WHEEL, 0, -1):
        await bench.raw.zadd(WHEEL, {member: now_ms}, xx=True)
    await bench.raw.publish("onysoft:wake", "due")


async def probed_to_the_end(bench: Bench, job_ids: list[str]) -> None:
    """Have one probe after the other be due until all the jobs have ended."""

    async def all_ended() -> bool:
        await probe_now(bench)
        return all([(await bench.job(job_id)).ended for job_id in job_ids])

    await eventually(all_ended)


async def hold_of(bench: Bench) -> Any:
    """Show what the fleet is held for."""
    return (await bench.store.fleet.overview(bench.store.now_ms())).view()["hold"]


@pytest.mark.env(ACCOUNT_ERRORS="hold")
@pytest.mark.parametrize("status", REASONS)
async def test_a_hold_lasts_until_a_probe_succeeds(status: str, bench: Bench, sandbox: Sandbox) -> None:
    """Jobs wait, one asks at a time, what is under way completes, it is told everywhere, and it ends by itself."""
    steps = [KEY_REFUSED] if status == "401" else []  # whichever job is the first probe, it is refused
    async with bench.worker(), serving(bench.redis_url) as api:
        with capture_logs() as logs:
            await api.store.sync_clock()
            flying = await bench.submit(kind="music", input=directed(tag="flying", duration_s=0.5))
            await bench.standing(flying, "processing")
            if status == "402":
                sandbox.control(balance=0)
            ids = [await bench.submit(kind="image", input=directed(submit=steps * 2))]
            held = await bench.standing(ids[0], "waiting")
            ids += [await bench.submit(kind="image", input=directed(submit=steps)) for _ in range(2)]

            assert (await bench.ended(flying))["status"] == "completed"
            assert [row["status"] for row in sandbox.submissions()] == [202, int(status)]
            told = (await api.client.get("/v1/queues")).json()["hold"]
            samples = await scraped(api)

            async def asked_again() -> bool:
                await probe_now(bench)
                return len(sandbox.submissions()) > 2

            await eventually(asked_again)
            assert [row["status"] for row in sandbox.submissions()] == [202, int(status), int(status)]
            assert (await hold_of(bench))["since"] == told["since"]
            if status == "402":
                sandbox.control(balance=1000)
            await probed_to_the_end(bench, ids)
            assert await hold_of(bench) is None
            assert total(await scraped(api), "held") == {}
    views = [await bench.ended(job_id) for job_id in ids]
    assert (held["failure"]["code"], held["failure"]["action"]) == (REASONS[status], "hold")
    assert held["attempts"] == []
    assert held["next_action_at"]
    assert told["reason"] == REASONS[status]
    assert told["since"]
    assert told["next_probe_at"]
    assert total(samples, "held") == {REASONS[status]: 1}
    assert {view["status"] for view in views} == {"completed"}
    assert all(len(view["attempts"]) == 1 for view in views)
    told_of = [(line["event"], line.get("code")) for line in logs if line["event"].startswith("fleet.")]
    assert told_of[0] == ("fleet.held", REASONS[status])
    assert told_of[-1] == ("fleet.resumed", None)
    if status == "402":
        assert len(told_of) == 2
        assert len(sandbox.submissions()) == 1 + 2 + len(ids)


@pytest.mark.parametrize("status", REASONS)
async def test_without_hold_each_job_fails_by_itself(status: str, bench: Bench, sandbox: Sandbox) -> None:
    """By default the account's refusal is the job's end, alternates or not; the next one asks anew."""
    steps = [KEY_REFUSED] if status == "401" else []
    async with bench.worker():
        if status == "402":
            sandbox.control(balance=0)
        refused = [
            await bench.ended(await bench.submit(input=directed(tag=f"t{n}", submit=steps), fallbacks=["sora-2"]))
            for n in range(2)
        ]
        assert await hold_of(bench) is None
        sandbox.control(balance=None)
        served = await bench.ended(await bench.submit(input=directed()))
    for view in refused:
        assert (view["status"], view["failure"]["code"]) == ("failed", REASONS[status])
        assert (view["failure"]["category"], view["failure"]["action"]) == ("terminal", "fail")
        assert view["failure"]["http_status"] == int(status)
    assert served["status"] == "completed"
    assert [row["status"] for row in sandbox.submissions()] == [int(status)] * 2 + [202]
