"""Defects a hostile review has found, each as it was met: end to end, with a real worker, Redis and sandbox."""

import asyncio
import json
from collections import Counter
from typing import Any

import pytest
from harness import API_KEY, Bench, Receiver, Sandbox, directed, eventually

from jobs.job import to_form
from jobs.states import Status
from jobs.verdict import Patience
from worker import track
from worker.record import view

LONE = "\ud83d"
STOP_WITHIN_S = 5.0
MANY_LOOKS = 200


def nested(levels: int) -> Any:
    """Nest an object that deep."""
    value: Any = {}
    for _ in range(levels):
        value = {"a": value}
    return value


def sent(sandbox: Sandbox) -> Counter[str]:
    """Count the submissions of each tag."""
    return Counter(row["tag"] for row in sandbox.submissions())


async def of(receiver: Receiver, job_id: str) -> dict[str, Any]:
    """Wait for a job's only webhook."""

    async def check() -> list[dict[str, Any]]:
        return receiver.of(job_id)

    [event] = await eventually(check)
    return dict(event)


POISON: dict[str, tuple[dict[str, Any], str]] = {
    "webhook_url": ({"webhook_url": f"http://127.0.0.1/{LONE}"}, "webhook_url"),
    "model": ({"model": LONE}, "model"),
    "fallbacks": ({"fallbacks": [LONE]}, "fallbacks"),
    "input": ({"input": {"prompt": LONE}}, "input"),
    "input-key": ({"input": {LONE: 1}}, "input"),
    "id": ({"id": LONE}, "id"),
    "kind": ({"kind": LONE}, "kind"),
    "metadata": ({"metadata": {"note": LONE}}, "metadata"),
    "field": ({LONE: 1}, "ud83d"),
    "deep-metadata": ({"metadata": nested(640)}, "metadata"),
    "deep-input": ({"input": nested(640)}, "input"),
}


async def test_poison_on_the_queue_fails_by_name_and_harms_nobody(bench: Bench, receiver: Receiver) -> None:
    """Lone surrogates and deep nesting between good jobs: each becomes a failed job that names the field at fault."""
    good = {"kind": "image", "input": directed()}
    async with bench.worker():
        for name, (poison, _) in POISON.items():
            await bench.pool.enqueue_job("generate", good, _job_id=f"good-{name}")
            await bench.pool.enqueue_job("generate", {**good, **poison}, _job_id=f"poison-{name}")
        await bench.pool.enqueue_job("generate", {**good, "id": LONE}, _job_id="no valid id")
        for name, (_, field) in POISON.items():
            assert (await bench.ended(f"good-{name}"))["status"] == "completed"
            shown = await bench.ended(f"poison-{name}")
            assert (shown["status"], shown["failure"]["code"]) == ("failed", "invalid_request")
            assert field in shown["failure"]["message"]
            assert (await of(receiver, f"poison-{name}"))["type"] == "job.failed"

        async def counted() -> bool:
            counters = await bench.store.counters()
            return counters.get(("enqueues_rejected_total", "arq", "invalid_request")) == len(POISON) + 1

        await eventually(counted)
        assert (await bench.ended(await bench.submit(input=directed())))["status"] == "completed"


async def test_an_argument_that_cannot_be_encoded_fails_its_own_caller_only(bench: Bench) -> None:
    """Commands that leave in the same pipeline do not share the fault of one of them."""
    job_id = await bench.submit(input=directed())
    found, poison, missing, counted, _ = await asyncio.gather(
        bench.store.get(job_id),
        bench.store.get(LONE),
        bench.store.get("missing"),
        bench.store.count("enqueues_rejected_total", "arq", LONE),
        bench.store.count("enqueues_rejected_total", "arq", "fine"),
        return_exceptions=True,
    )
    assert found == await bench.job(job_id)
    assert missing is None
    assert isinstance(poison, UnicodeEncodeError)
    assert isinstance(counted, UnicodeEncodeError)
    assert await bench.store.counters() == {("enqueues_rejected_total", "arq", "fine"): 1}


SAID_IN_A_LOOK_UP = {
    "success": False,
    "error": {"code": "video_generation_failed", "message": "Video generation failed"},
}


async def test_a_look_up_that_keeps_telling_of_a_failed_generation_is_believed(
    bench: Bench, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A 200 whose envelope says that the generation failed, said again and again, ends the attempt as just that."""
    monkeypatch.setattr(track, "DOUBTFUL_PATIENCE", Patience(2, 0.3))
    looks = [{"body": SAID_IN_A_LOOK_UP}] * MANY_LOOKS
    async with bench.worker():
        job_id = await bench.submit(input=directed(tag="t", lookups=looks), max_attempts=1, fallbacks=[])
        shown = await bench.ended(job_id)
    assert shown["failure"]["code"] == "generation_failed"
    [attempt] = shown["attempts"]
    assert attempt["outcome"] == "failed"
    assert attempt["polls"] >= 2
    assert len(sandbox.submissions("t")) == 1


async def test_a_look_up_that_tells_once_of_a_failed_generation_is_doubted(bench: Bench, sandbox: Sandbox) -> None:
    """One such answer and then a result: the paid result is used."""
    async with bench.worker():
        job_id = await bench.submit(
            input=directed(tag="t", lookups=[{"body": SAID_IN_A_LOOK_UP}]), max_attempts=1, fallbacks=[]
        )
        shown = await bench.ended(job_id)
    assert shown["status"] == "completed"
    assert len(sandbox.submissions("t")) == 1


@pytest.mark.parametrize("look", [{"status": 401, "code": "invalid_api_key"}, {"status": 500}], ids=str)
async def test_a_look_up_that_is_always_refused_ends_at_the_deadline(
    look: dict[str, Any], bench: Bench, sandbox: Sandbox
) -> None:
    """The job fails with deadline_exceeded, its task is still watched and nothing is sent again."""
    async with bench.worker():
        job_id = await bench.submit(input=directed(tag="t", lookups=[look] * MANY_LOOKS), deadline_s=0.6)
        shown = await bench.ended(job_id)
        watched = await bench.raw.zscore("onysoft:wheel:track", f"1:{job_id}")
    assert shown["failure"]["code"] == "deadline_exceeded"
    assert shown["attempts"][0]["outcome"] == "abandoned"
    assert watched is not None
    assert len(sandbox.submissions("t")) == 1


def done(extra: str) -> dict[str, Any]:
    """Make a look-up step: done with one URL, and further members as they stand on the wire."""
    head = '{"success": true, "data": {"task_id": "{task_id}", "status": "success", '
    return {"raw": f'{head}"result": {{"urls": ["https://cdn.test/1.mp4"]}}, {extra}}}}}'}


ODD = {
    "surrogate": '"prompt": "\\ud83d"',
    "surrogate_in_upper_case": '"prompt": "\\uD83D"',
    "surrogate_in_a_key": '"\\udc00": 1',
    "nan": '"score": NaN',
    "infinity": '"score": [Infinity, -Infinity]',
    "number_past_all_bounds": '"score": 1e999',
}


@pytest.mark.parametrize("extra", ODD.values(), ids=ODD)
async def test_a_result_with_odd_values_completes_and_is_delivered_as_valid_json(
    extra: str, bench: Bench, sandbox: Sandbox, receiver: Receiver
) -> None:
    """Lone surrogates and numbers JSON does not have neither stop the job nor travel on into view and webhook."""
    async with bench.worker():
        job_id = await bench.submit(input=directed(tag="t", lookups=[done(extra)]), max_attempts=1, fallbacks=[])
        shown = await bench.ended(job_id)
        event = await of(receiver, job_id)
    assert shown["status"] == "completed"
    assert shown["result"]["urls"] == ["https://cdn.test/1.mp4"]
    assert shown["result"]["raw"]["data"]["status"] == "success"
    json.dumps(shown, ensure_ascii=False, allow_nan=False).encode()
    json.dumps(event, ensure_ascii=False, allow_nan=False).encode()
    assert event["data"]["result"] == shown["result"]
    assert len(sandbox.submissions("t")) == 1


@pytest.mark.parametrize("levels", [100, 640])
async def test_a_deeply_nested_result_completes_without_its_raw_answer(
    levels: int, bench: Bench, receiver: Receiver
) -> None:
    """What could not be encoded again is left out; the URLs are not."""
    extra = f'"extra": {json.dumps(nested(levels))}'
    async with bench.worker():
        job_id = await bench.submit(input=directed(lookups=[done(extra)]), max_attempts=1, fallbacks=[])
        shown = await bench.ended(job_id)
        event = await of(receiver, job_id)
    assert shown["status"] == "completed"
    assert shown["result"]["urls"] == ["https://cdn.test/1.mp4"]
    assert shown["result"]["raw"] is None
    assert event["data"]["result"] == shown["result"]


QUOTED = f"Incorrect API key provided: {API_KEY}."
QUOTING: dict[str, dict[str, Any]] = {
    "refused_submission": {"submit": [{"status": 401, "code": "invalid_api_key", "message": QUOTED}]},
    "page_of_a_proxy": {"submit": [{"raw": QUOTED, "status": 400, "content_type": "text/plain"}]},
    "failed_generation": {"result": [{"fail": {"code": "500", "message": QUOTED}}]},
    "result": {"lookups": [done(f'"note": "key {API_KEY}", "more": 1')]},
    "result_with_bearer": {"lookups": [done(f'"authorization": "Bearer {API_KEY}", "more": 1')]},
}


@pytest.mark.parametrize("quoting", QUOTING.values(), ids=QUOTING)
async def test_a_key_the_gateway_quotes_goes_nowhere(quoting: dict[str, Any], bench: Bench, receiver: Receiver) -> None:
    """The key is blotted out of view, timeline, webhook and everything else in Redis."""
    async with bench.worker():
        job_id = await bench.submit(input=directed(**quoting), max_attempts=1, fallbacks=[])
        shown = await bench.ended(job_id)
        event = await of(receiver, job_id)
    timeline = await bench.store.timeline(job_id)
    written = [json.dumps(part) for part in (shown, timeline, event)]
    assert API_KEY not in "".join(written)
    assert "[redacted]" in written[0]
    assert "[redacted]" in written[2]
    record = await bench.raw.hgetall(f"onysoft:job:{job_id}")
    assert API_KEY.encode() not in b"".join(record.values())


@pytest.mark.parametrize("quoted", [API_KEY, f"Bearer {API_KEY}"], ids=["key", "bearer"])
async def test_an_acceptance_that_quotes_the_key_is_still_read(quoted: str, bench: Bench, sandbox: Sandbox) -> None:
    """Blotting the key out leaves the JSON around it whole: the task id is found and nothing is sent again."""
    raw = f'{{"success": true, "data": {{"headers": {{"authorization": "{quoted}"}}, "task_id": "{{task_id}}"}}}}'
    async with bench.worker():
        step = {"raw": raw, "status": 202, "accepted": True}
        shown = await bench.ended(await bench.submit(input=directed(tag="t", submit=[step]), fallbacks=[]))
    assert shown["status"] == "completed"
    assert len(sandbox.submissions("t")) == 1
    assert len(shown["attempts"]) == 1


@pytest.mark.env(CONCURRENCY="8")
async def test_a_stop_amid_slow_submissions_sends_nothing_twice(bench: Bench, sandbox: Sandbox) -> None:
    """What is under way is waited for, what is due is left to the next worker: one submission each."""
    tags = [f"t{number}" for number in range(12)]
    async with bench.worker():
        for tag in tags:
            slow = {"do": "accept", "delay_s": 0.8}
            await bench.submit(id=tag, kind="image", input=directed(tag=tag, submit=[slow]))

        async def busy() -> bool:
            return 3 <= sandbox.stats()["accepted"] < len(tags)

        await eventually(busy)
    assert set(sent(sandbox)) < set(tags)
    statuses = {(await bench.job(tag)).status for tag in tags}
    assert Status.SUBMITTING not in statuses
    async with bench.worker():
        views = [await bench.ended(tag) for tag in tags]
    assert {shown["status"] for shown in views} == {"completed"}
    assert sent(sandbox) == dict.fromkeys(tags, 1)
    assert sandbox.stats()["accepted"] == len(tags)


async def test_twenty_stops_right_after_the_start_end_soon_and_lose_nothing(bench: Bench, sandbox: Sandbox) -> None:
    """Workers that are stopped while they start, with jobs flowing in, end in time; each job is done once."""
    ids: list[str] = []
    dry = asyncio.Event()

    async def flow() -> None:
        while not dry.is_set():
            ids.append(f"flow-{len(ids)}")
            request = {"kind": "image", "input": directed(tag=ids[-1])}
            await bench.pool.enqueue_job("generate", request, _job_id=ids[-1])
            await asyncio.sleep(0.005)

    async def start_and_stop(linger_s: float) -> None:
        async with bench.worker():
            await asyncio.sleep(linger_s)

    flowing = asyncio.create_task(flow())
    for turn in range(20):
        await asyncio.wait_for(start_and_stop(turn * 0.002), STOP_WITHIN_S)
    dry.set()  # not canceled: the last call may be under way
    await flowing
    async with bench.worker():
        for job_id in ids:
            assert (await bench.ended(job_id))["status"] == "completed"
    assert len(ids) >= 20
    assert sent(sandbox) == dict.fromkeys(ids, 1)
    assert sandbox.stats()["double_billed"] == 0


async def test_a_long_retry_after_holds_the_others_for_a_minute_at_most(bench: Bench) -> None:
    """A per-minute limit with a Retry-After of a day (the sandbox's longest) is that job's own wait."""
    limited = {"status": 429, "code": "rate_limit_exceeded", "message": "slow", "retry_after_s": 86_400}
    async with bench.worker():
        job_id = await bench.submit(input=directed(submit=[limited]), fallbacks=[])
        await bench.standing(job_id, "waiting")
        now_ms = bench.store.now_ms()
        pause_until_ms = int(await bench.raw.hget("onysoft:pace:submit", "pause_until_ms"))
        assert now_ms < pause_until_ms <= now_ms + 60_100  # by this clock or that
        job = await bench.job(job_id)
        assert job.next_action_at_ms is not None
        assert job.next_action_at_ms >= now_ms + 86_000_000
        await bench.raw.hset("onysoft:pace:submit", "pause_until_ms", now_ms)  # the minute is over
        other = await bench.ended(await bench.submit(input=directed()))
    assert other["status"] == "completed"
    assert view(to_form(await bench.job(job_id)))["status"] == "waiting"
