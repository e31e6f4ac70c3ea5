"""The metrics agree with the records and with the gateway's own books, after everything that can go wrong."""

from collections import Counter
from typing import Any

import pytest
from harness import Bench, Sandbox, directed, eventually
from prometheus_client.parser import text_string_to_metric_families
from test_web import Api, serving

from config.models import KINDS, load_models
from jobs.counters import BUCKETS_S
from worker.actions import cancel
from worker.web.metrics import cumulated

PREFIX = "onysoft_worker_"
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


async def scraped(api: Api) -> Samples:
    """Read the metrics as Prometheus would."""
    answer = await api.client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name.removeprefix(PREFIX), frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def total(samples: Samples, name: str, **labels: str) -> dict[Any, float]:
    """Give a metric's samples that carry these labels, and are not 0, by their other labels."""
    found = {
        tuple(value for _, value in sorted(row - labels.items())): count
        for (sample, row), count in samples.items()
        if sample == name and labels.items() <= row
    }
    return {key[0] if len(key) == 1 else key: count for key, count in found.items() if count}


async def test_metrics_agree_with_the_records_after_a_faulty_run(bench: Bench, sandbox: Sandbox) -> None:
    """Fifty jobs under the sandbox's faults: each counter is what the records and the gateway's books add up to."""
    sandbox.control(faults="default")
    async with bench.worker(), serving(bench.redis_url) as api:
        await api.store.sync_clock()
        ids = [f"many-{n}" for n in range(50)]
        for number, tag in enumerate(ids):
            await bench.submit(kind=KINDS[number % 5], id=tag, input={"prompt": "p", "sandbox": {"tag": tag}})
        views = [await bench.ended(job_id, within_s=60) for job_id in ids]
        await eventually(lambda: _delivered(bench))
        samples = await scraped(api)
        assert samples["workers", frozenset()] == 1
    models, attempts = load_models(), [attempt for view in views for attempt in view["attempts"]]
    counted = Counter((models.label(attempt["model"]), attempt["outcome"]) for attempt in attempts)
    assert total(samples, "attempts_total") == counted
    assert total(samples, "jobs_total", status="completed") == Counter(view["kind"] for view in views)
    assert total(samples, "jobs_now") == total(samples, "jobs_total")
    won = [attempt for attempt in attempts if attempt["outcome"] == "succeeded"]
    assert total(samples, "generation_seconds_count") == Counter(models.label(attempt["model"]) for attempt in won)
    stats = sandbox.stats()
    accepted = sum(1 for row in sandbox.submissions() if row["task_id"])
    assert accepted == stats["accepted"]
    requests = total(samples, "gateway_requests_total", operation="submit")
    assert sum(requests.values()) == len(sandbox.submissions())
    looks = total(samples, "gateway_requests_total", operation="look")
    assert sum(looks.values()) == samples["gateway_request_seconds_count", frozenset({("operation", "look")})]
    assert sum(looks.values()) == sum(attempt["polls"] for attempt in attempts)
    assert samples["webhooks", frozenset({("state", "delivered")})] == 50


async def _delivered(bench: Bench) -> bool:
    return await bench.raw.zcard("onysoft:deliveries:pending") == 0


async def test_a_model_of_nobodys_counts_as_other(bench: Bench) -> None:
    """Labels stay bounded: a model that is not in the models file is ``other``."""
    async with bench.worker(), serving(bench.redis_url) as api:
        await bench.ended(await bench.submit(model="my|own:model", fallbacks=[], input=directed()))
        samples = await scraped(api)
    assert total(samples, "attempts_total") == {("other", "refused"): 1}


async def test_what_has_bounded_labels_is_there_from_the_start(bench: Bench) -> None:
    """An empty fleet shows zeros, so that a first increase is seen as one."""
    async with serving(bench.redis_url) as api:
        samples = await scraped(api)
    assert samples["workers", frozenset()] == 0
    assert samples["redis_memory_ratio", frozenset()] == 0
    for name, labels in (
        ("jobs_total", {"kind": "video", "status": "failed"}),
        ("jobs_now", {"kind": "music", "status": "queued"}),
        ("queue_oldest_seconds", {"queue": "submit:voice"}),
        ("queue_oldest_seconds", {"queue": "arq"}),
        ("held", {"reason": "insufficient_balance"}),
        ("webhooks", {"state": "dead"}),
        ("webhook_attempts_total", {"outcome": "failed"}),
        ("unknown_submits_total", {"resolution": "resent"}),
        ("unknown_submits_total", {"resolution": "accepted"}),
        ("paid_unused_total", {"model": "other", "reason": "never_ended"}),
    ):
        assert samples[name, frozenset(labels.items())] == 0


async def test_money_is_the_same_behind_every_door(bench: Bench) -> None:
    """A lost answer, a late success and a failed generation that cost: the metrics and the queues' view agree."""
    failed = {"code": 200, "data": {"state": "fail", "failCode": "531", "failMsg": "no", "creditsConsumed": 7}}
    async with bench.worker(), serving(bench.redis_url) as api:
        lost = directed(submit=["accept_then_close"])
        await bench.ended(await bench.submit(model="veo3", fallbacks=[], input=lost, on_unknown_submit="fail"))
        refunded = directed(result=[{"body": failed, "failed": True}])
        one = await bench.ended(await bench.submit(fallbacks=[], max_attempts=1, input=refunded))
        job_id = await bench.submit(model="sora-2", fallbacks=[], input=directed(duration_s=0.6))
        await bench.standing(job_id, "processing")
        await cancel(bench.store, job_id)

        async def wasted() -> Samples | None:
            await bench.raw.zadd("onysoft:wheel:track", {f"1:{job_id}": bench.store.now_ms()}, xx=True)
            samples = await scraped(api)
            return samples if total(samples, "paid_unused_total", reason="late_success") else None

        samples = await eventually(wasted)
        money = (await api.client.get("/v1/queues")).json()["money"]
        [attempt] = (await api.client.get(f"/v1/jobs/{job_id}")).json()["attempts"]
    assert one["attempts"][0]["cost"] == {"amount": 7, "currency": "credits", "refunded": True}
    assert total(samples, "paid_unused_total") == {("veo3", "maybe_paid"): 1, ("sora-2", "late_success"): 1}
    assert total(samples, "unknown_submits_total") == {"failed": 1}
    currency, amount = attempt["cost"]["currency"], attempt["cost"]["amount"]
    assert total(samples, "paid_unused_cost_total") == {(currency, "late_success"): pytest.approx(amount)}
    assert money["paid_unused"]["reasons"] == {"late_success": 1, "never_ended": 0, "maybe_paid": 1}
    assert money["paid_unused"]["cost"] == {currency: pytest.approx(amount)}
    assert (money["unknown_submits"]["total"], money["unknown_submits"]["failed"]) == (1, 1)


async def test_ages_and_depths_are_those_of_the_queues(bench: Bench) -> None:
    """Without a worker the oldest job's age grows; what is due later has none."""
    async with serving(bench.redis_url) as api:
        await api.store.sync_clock()
        await bench.submit(kind="image", input={})
        await bench.pool.enqueue_job("generate", {"kind": "image", "input": {}})

        async def aged() -> bool:
            samples = await scraped(api)
            ages = [samples["queue_oldest_seconds", frozenset({("queue", q)})] for q in ("submit:image", "arq")]
            return all(0.1 < age < 20 for age in ages)

        await eventually(aged)
        await bench.raw.zadd("onysoft:wheel:submit:image", {"later": bench.store.now_ms() + 60_000})
        await bench.raw.zremrangebyrank("onysoft:wheel:submit:image", 0, 0)
        samples = await scraped(api)
        assert samples["queue_oldest_seconds", frozenset({("queue", "submit:image")})] == 0


@pytest.mark.parametrize("name", list(BUCKETS_S))
def test_buckets_are_cumulated(name: str) -> None:
    """Each bound counts what is at most as long, and +Inf counts everything."""
    last = len(BUCKETS_S[name])
    rows = cumulated(name, ("m",), {("m", "0"): 2, ("m", "1"): 3, ("m", str(last)): 4, ("n", "0"): 9})
    assert [value for _, value in rows] == [2, *[5] * (last - 1), 9]
    assert rows[-1][0] == "+Inf"
