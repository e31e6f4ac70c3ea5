"""The first track of music is told before its task ends: once for each attempt, and only to who asked."""

from typing import Any

import pytest
from harness import Bench, Receiver, Sandbox, directed, eventually

from jobs.job import Job, to_form
from worker.actions import cancel
from worker.record import view

TRACK_WHEEL = "onysoft:wheel:track"
FIRST_URL, SECOND_URL = "https://cdn.test/0.mp3", "https://cdn.test/1.mp3"
EVENTS = ["job.partial", "job.completed", "job.failed", "job.canceled"]
NO = {"fail": {"code": 501, "message": "no"}}
rarely = pytest.mark.env(POLL_MIN_S="30", POLL_MAX_S="30")  # looked at when the test says


def running(*urls: str) -> dict[str, Any]:
    """Have a look-up told that the task goes on, with these tracks."""
    return {"body": {"data": {"status": "FIRST_SUCCESS", "result": {"tracks": [{"audio_url": url} for url in urls]}}}}


async def music(bench: Bench, *, webhook_events: list[str] | None = None, **directive: Any) -> str:
    """Submit a music job whose task has ended but for what look-ups are told."""
    order = {"kind": "music", "model": "suno-v4", "fallbacks": [], "webhook_events": webhook_events or EVENTS}
    return await bench.submit(**order, input=directed(**{"duration_s": 0, **directive}))


async def looked(bench: Bench, job_id: str, number: int = 1) -> Job:
    """Have the task of an attempt looked at once, and wait until the record knows."""

    async def accepted() -> Job | None:
        job = await bench.job(job_id)
        return job if (attempt := job.attempt(number)) is not None and attempt.task_id else None

    before: Job = await eventually(accepted)
    await bench.raw.zadd(TRACK_WHEEL, {f"{number}:{job_id}": bench.store.now_ms()}, xx=True)
    bench.store.on_due["track"](0)

    async def seen() -> Job | None:
        job = await bench.job(job_id)
        return job if (job.rev, job.looks) != (before.rev, before.looks) else None

    after: Job = await eventually(seen)
    return after


async def told(receiver: Receiver, job_id: str, kind: str) -> dict[str, Any]:
    """Wait for an event about a job."""

    async def check() -> dict[str, Any] | None:
        return next((event for event in receiver.of(job_id) if event["type"] == kind), None)

    found: dict[str, Any] = await eventually(check)
    return found


async def feed(bench: Bench) -> list[str]:
    """Name the types of all events, in order."""
    return [event.view()["type"] for event in await bench.store.outbox.feed(None, limit=100)]


@rarely
async def test_the_first_track_is_told_before_the_end(bench: Bench, receiver: Receiver) -> None:
    """One verified delivery with the URL, once in the feed, and then the end with all of them."""
    async with bench.worker():
        job_id = await music(bench, lookups=[running(FIRST_URL)])
        await looked(bench, job_id)
        early = (await told(receiver, job_id, "job.partial"))["data"]
        shown = view(to_form(await bench.job(job_id)))
        timeline = [entry["event"] for entry in await bench.store.timeline(job_id)]
        due_ms = await bench.raw.zscore(TRACK_WHEEL, f"1:{job_id}")
        await looked(bench, job_id)
        await told(receiver, job_id, "job.completed")
        ended = view(to_form(await bench.job(job_id)))
    assert early == shown
    assert (early["status"], early["partial"]["urls"], early["result"]) == ("processing", [FIRST_URL], None)
    assert early["partial"] == early["attempts"][0]["partial_result"]
    assert early["partial"]["at"] == early["updated_at"]
    assert early["attempts"][0]["polls"] == 1
    assert timeline[-1] == "task.partial"
    assert due_ms is not None
    assert due_ms > bench.store.now_ms()
    assert (ended["status"], ended["partial"], len(ended["result"]["urls"])) == ("completed", None, 2)
    assert ended["attempts"][0]["partial_result"] == early["partial"]
    assert ended["attempts"][0]["polls"] == 2
    assert [event["type"] for event in receiver.of(job_id)] == ["job.partial", "job.completed"]
    assert await feed(bench) == ["job.partial", "job.completed"]


@rarely
async def test_a_second_track_is_not_told_again(bench: Bench) -> None:
    """What was told stands; what follows comes with the end."""
    async with bench.worker():
        job_id = await music(bench, lookups=[running(FIRST_URL), running(FIRST_URL, SECOND_URL), running()])
        rev = (await looked(bench, job_id)).rev
        for _ in range(2):
            job = await looked(bench, job_id)
        await looked(bench, job_id)
        ended = await bench.ended(job_id)
    assert job.rev == rev
    assert job.looks[1].polls == 3
    assert ended["attempts"][0]["partial_result"]["urls"] == [FIRST_URL]
    assert await feed(bench) == ["job.partial", "job.completed"]


@rarely
async def test_what_look_ups_have_met_is_kept(bench: Bench) -> None:
    """A look-up refused before the first track still shows at the attempt, and counts."""
    async with bench.worker():
        job_id = await music(bench, lookups=[{"status": 500, "message": "no"}, running(FIRST_URL)], result=["never"])
        await looked(bench, job_id)
        await looked(bench, job_id)
        shown = view(to_form(await bench.job(job_id)))
    assert shown["partial"]["urls"] == [FIRST_URL]
    assert shown["attempts"][0]["polls"] == 2
    assert shown["attempts"][0]["last_refusal"]["http_status"] == 500


@rarely
async def test_who_did_not_ask_is_not_told(bench: Bench, receiver: Receiver) -> None:
    """The track is in the view all the same; neither the receiver nor the feed gets an event."""
    async with bench.worker():
        job_id = await music(bench, webhook_events=["job.completed"], lookups=[running(FIRST_URL)])
        await looked(bench, job_id)
        shown = view(to_form(await bench.job(job_id)))
        await looked(bench, job_id)
        await told(receiver, job_id, "job.completed")
    assert shown["partial"]["urls"] == [FIRST_URL]
    assert [event["type"] for event in receiver.of(job_id)] == ["job.completed"]
    assert await feed(bench) == ["job.completed"]


@rarely
async def test_each_attempt_tells_its_own(bench: Bench) -> None:
    """A first track whose task then fails is no result; the next attempt's is told anew."""
    failing = [running(FIRST_URL), "normal", running(SECOND_URL)]
    async with bench.worker():
        job_id = await music(bench, lookups=failing, result=[NO, "success"])
        await looked(bench, job_id)
        between = view(to_form(await looked(bench, job_id)))
        await looked(bench, job_id, 2)
        shown = view(to_form(await bench.job(job_id)))
        await looked(bench, job_id, 2)
        ended = await bench.ended(job_id)
    assert between["partial"] is None
    assert between["attempts"][0]["partial_result"]["urls"] == [FIRST_URL]
    assert shown["partial"]["urls"] == [SECOND_URL]
    assert [attempt["partial_result"]["urls"] for attempt in ended["attempts"]] == [[FIRST_URL], [SECOND_URL]]
    assert await feed(bench) == ["job.partial", "job.partial", "job.completed"]


@rarely
async def test_a_first_track_and_then_a_failure(bench: Bench, receiver: Receiver) -> None:
    """The job fails as it would have; what was shown stays at its attempt, and is no result."""
    async with bench.worker():
        # The last look-up of the job is the truth: its only task has failed.
        order = {"kind": "music", "model": "suno-v4", "fallbacks": [], "max_attempts": 1, "webhook_events": EVENTS}
        job_id = await bench.submit(**order, input=directed(duration_s=0, lookups=[running(FIRST_URL)], result=[NO]))
        await looked(bench, job_id)
        await told(receiver, job_id, "job.partial")
        await looked(bench, job_id)
        failed = (await told(receiver, job_id, "job.failed"))["data"]
    assert (failed["result"], failed["partial"]) == (None, None)
    assert failed["attempts"][0]["partial_result"]["urls"] == [FIRST_URL]
    assert [event["type"] for event in receiver.of(job_id)] == ["job.partial", "job.failed"]


@rarely
async def test_a_task_given_up_tells_nothing_early(bench: Bench) -> None:
    """Who canceled waits for nothing: its task is watched for its end only."""
    async with bench.worker():
        job_id = await music(bench, lookups=[running(FIRST_URL)])
        await bench.standing(job_id, "processing")
        await cancel(bench.store, job_id)
        job = await looked(bench, job_id)
    assert job.looks[1].polls == 1
    assert "partial_result" not in view(to_form(job))["attempts"][0]
    assert await feed(bench) == ["job.canceled"]


@rarely
async def test_a_job_canceled_during_the_look_tells_nothing_early(bench: Bench, sandbox: Sandbox) -> None:
    """What the look-up saw is of a record that has moved on: it is counted, and nothing else."""
    async with bench.worker():
        job_id = await music(bench, lookups=[{**running(FIRST_URL), "delay_s": 2.0}])
        await bench.standing(job_id, "processing")
        await bench.raw.zadd(TRACK_WHEEL, {f"1:{job_id}": bench.store.now_ms()}, xx=True)
        bench.store.on_due["track"](0)

        async def asked() -> bool:
            return bool(sandbox.stats()["lookups"])

        await eventually(asked)
        await cancel(bench.store, job_id)

        async def answered() -> bool:
            return ("gateway_requests_total", "look", "200") in await bench.store.counters()

        await eventually(answered)
        shown = view(to_form(await bench.job(job_id)))
    assert "partial_result" not in shown["attempts"][0]
    assert await feed(bench) == ["job.canceled"]


@rarely
async def test_only_music_is_told_early(bench: Bench) -> None:
    """What another kind's task shows while it runs may be anything."""
    async with bench.worker():
        order = {"kind": "audio", "model": "elevenlabs/sound-effect-v2", "webhook_events": EVENTS}
        job_id = await bench.submit(**order, input=directed(duration_s=0, lookups=[running(FIRST_URL)]))
        job = await looked(bench, job_id)
        await looked(bench, job_id)
    assert job.looks[1].polls == 1
    assert job.attempts[0].partial is None
    assert await feed(bench) == ["job.completed"]


async def test_the_gateways_own_first_success_is_told(bench: Bench, receiver: Receiver) -> None:
    """The sandbox's FIRST_SUCCESS, which no directive words, in the usual rhythm."""
    async with bench.worker():
        job_id = await music(bench, duration_s=60, first_track_s=0)
        event = await told(receiver, job_id, "job.partial")
    task_id = event["data"]["task_id"]
    assert event["data"]["partial"]["urls"] == [f"https://cdn.sandbox.invalid/{task_id}/0.mp3"]
