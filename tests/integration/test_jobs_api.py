"""The routes that look at jobs and act on them: lists, long polls, streams, cancel, retry, deliveries, events."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from harness import Bench, Receiver, Sandbox, directed, eventually
from test_web import Api, check_problem, serving
from test_web import api as api  # noqa: PLC0414 - a fixture

from jobs import attempts, changes
from worker.upkeep import Prune

REFUSED = {"status": 422, "code": "unsupported", "message": "model not supported"}


@pytest.fixture
async def web(bench: Bench) -> AsyncIterator[Api]:
    """Serve the API on the bench's Redis, and listen for changes as the web process does."""
    async with serving(bench.redis_url, WEBHOOK_ALLOW_PRIVATE="true") as api:
        await api.store.sync_clock()
        listening = asyncio.create_task(api.store.news.run())
        yield api
        api.store.news.close()
        listening.cancel()


async def listed(web: Api, **filters: Any) -> list[str]:
    """Name the jobs a list gives, over all its pages of two."""
    ids: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        answer = await web.client.get("/v1/jobs", params={"limit": 2, **filters, **cursor})
        assert answer.status_code == 200, answer.text
        ids += [job["id"] for job in answer.json()["jobs"]]
        if (following := answer.json()["next_cursor"]) is None:
            return ids
        cursor = {"cursor": following}


async def test_lists_filter_and_page(bench: Bench, web: Api) -> None:
    """A list is newest first, each filter and all together leave what they say, and pages neither repeat nor skip."""
    for number, (kind, model) in enumerate([("video", "veo3"), ("image", "m:1"), ("video", "sora-2")] * 3):
        await bench.submit(id=f"j{number}", kind=kind, model=model, input={})
    canceled = changes.cancel(await bench.job("j4"), now_ms=bench.store.now_ms(), rev="r")
    await bench.store.apply(canceled)
    everything = [f"j{number}" for number in reversed(range(9))]
    assert await listed(web) == everything
    assert await listed(web, kind="video") == ["j8", "j6", "j5", "j3", "j2", "j0"]
    assert await listed(web, model="m:1") == ["j7", "j4", "j1"]
    assert await listed(web, status="canceled") == ["j4"]
    assert await listed(web, status="queued", kind="image", model="m:1") == ["j7", "j1"]
    assert await listed(web, status="failed") == []
    assert await listed(web, model="veo3", kind="image") == []


async def test_a_page_keeps_its_place_while_jobs_come_and_move(bench: Bench, web: Api) -> None:
    """What comes, moves or goes between two pages makes the second neither repeat nor skip what stays."""
    for number in range(6):
        await bench.submit(id=f"j{number}", input={})
    page = (await web.client.get("/v1/jobs", params={"limit": 3})).json()
    await bench.submit(id="newer", input={})
    await web.client.post("/v1/jobs/j4/cancel")
    following = (await web.client.get("/v1/jobs", params={"limit": 3, "cursor": page["next_cursor"]})).json()
    assert [job["id"] for job in (*page["jobs"], *following["jobs"])] == ["j5", "j4", "j3", "j2", "j1", "j0"]
    assert following["next_cursor"] is None


async def test_a_job_moves_between_the_models_of_its_chain(bench: Bench, web: Api) -> None:
    """A job that failed over is listed by the model that answered, and by no other."""
    async with bench.worker():
        fails = {"result": {"veo3": [{"fail": {"code": "501", "message": "generation failed"}}], "*": ["success"]}}
        job_id = await bench.submit(model="veo3", fallbacks=["sora-2"], input=directed(tag="t", **fails))
        assert (await bench.ended(job_id))["degraded"]
    assert await listed(web, model="sora-2") == [job_id]
    assert await listed(web, model="veo3") == []
    left = await bench.raw.keys("onysoft:index:*")
    assert sorted(key.decode().removeprefix("onysoft:index:") for key in left) == [
        "completed:video",
        "completed:video:sora-2",
    ]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("limit=x", "limit"),
        ("cursor=-1", "cursor"),
        ("cursor=1e3", "cursor"),
        ("cursor=%00", "cursor"),
        ("cursor=99999999999999999999", "cursor"),
        ("status=done", "status"),
        ("kind=film", "kind"),
        ("model=a%20b", "model"),
        ("model=", "model"),
        ("state=failed", "state"),
    ],
)
async def test_a_wrong_parameter_is_named(api: Api, query: str, field: str) -> None:
    """A parameter that is wrong, or that there is none of, is refused by name."""
    problem = check_problem(await api.client.get(f"/v1/jobs?{query}"), 422, "invalid_request")
    assert [error["field"] for error in problem["errors"]] == [field]


async def test_a_long_poll_answers_at_the_end(bench: Bench, web: Api) -> None:
    """It answers as soon as the job has ended, without waiting for its time, and at its time where it has not."""
    waiting = await bench.submit(id="later", kind="music", input={})
    started_s = time.monotonic()
    answer = await web.client.get(f"/v1/jobs/{waiting}", params={"wait_s": 0.3})
    assert answer.json()["status"] == "queued"
    assert time.monotonic() - started_s >= 0.3
    asking = asyncio.create_task(web.client.get(f"/v1/jobs/{waiting}", params={"wait_s": 60}))
    await eventually(lambda: subscribed(bench, waiting))
    await web.client.post(f"/v1/jobs/{waiting}/cancel")
    assert (await asking).json()["status"] == "canceled"
    problem = check_problem(await web.client.get(f"/v1/jobs/{waiting}?wait_s=61"), 422, "invalid_request")
    assert problem["errors"][0]["field"] == "wait_s"


async def test_a_job_that_does_not_move_says_why(bench: Bench, web: Api) -> None:
    """A pause and a missing worker are told with the job itself."""
    await bench.store.fleet.pause("music", bench.store.now_ms())
    job_id = await bench.submit(kind="music", input={})
    words = (await web.client.get(f"/v1/jobs/{job_id}")).json()["hindrances"]
    assert len(words) == 2
    assert "no worker" in words[0]
    assert "music is paused since" in words[1]
    await web.client.post(f"/v1/jobs/{job_id}/cancel")
    assert (await web.client.get(f"/v1/jobs/{job_id}")).json()["hindrances"] == []


async def test_a_job_is_shown_whatever_is_the_matter_with_the_fleets_keys(bench: Bench, web: Api) -> None:
    """What cannot be read about the fleet is left out."""
    job_id = await bench.submit(input={})
    await bench.raw.set("onysoft:deliveries:dead", "rubbish")
    await bench.raw.set("onysoft:cooldowns", "rubbish")
    shown = (await web.client.get(f"/v1/jobs/{job_id}")).json()
    assert (shown["status"], shown["hindrances"]) == ("queued", [])


async def subscribed(bench: Bench, job_id: str) -> bool:
    """Tell whether somebody waits for the job's changes."""
    return bool(dict(await bench.raw.pubsub_numsub(f"onysoft:changed:{job_id}")).popitem()[1])


async def events(response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    """Read server-sent events."""
    name = ""
    async for line in response.aiter_lines():
        field, _, value = line.partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            assert name == "job"
            yield json.loads(value)


async def test_a_stream_tells_every_status_and_ends(bench: Bench, web: Api) -> None:
    """It begins with the job as it stands, tells its changes, and ends with the job."""
    job_id = await bench.submit(input=directed(duration_s=0.3))
    seen = []
    async with web.client.stream("GET", f"/v1/jobs/{job_id}/stream") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        stream = events(response)
        seen.append((await anext(stream))["status"])
        async with bench.worker():
            seen += [event["status"] async for event in stream]
    assert seen[0] == "queued"
    assert seen[-1] == "completed"
    assert "processing" in seen
    await eventually(lambda: _nobody_waits(bench, job_id))
    check_problem(await web.client.get("/v1/jobs/none/stream"), 404, "not_found")


async def _nobody_waits(bench: Bench, job_id: str) -> bool:
    return not await subscribed(bench, job_id)


async def test_whoever_waits_hears_when_the_server_stops(bench: Bench, web: Api) -> None:
    """A stop ends streams and long polls at once, with the job as it stands."""
    job_id = await bench.submit(input={})
    asking = asyncio.create_task(web.client.get(f"/v1/jobs/{job_id}", params={"wait_s": 60}))
    async with web.client.stream("GET", f"/v1/jobs/{job_id}/stream") as response:
        stream = events(response)
        await anext(stream)
        await eventually(lambda: subscribed(bench, job_id))
        web.store.news.close()
        assert [event async for event in stream] == []
    assert (await asking).json()["status"] == "queued"


async def test_cancel_before_submission_never_submits(bench: Bench, web: Api, sandbox: Sandbox) -> None:
    """A job canceled in the queue is never sent; canceling it again changes nothing; the webhook tells once."""
    job_id = await bench.submit(input=directed(tag="t"))
    canceled = (await web.client.post(f"/v1/jobs/{job_id}/cancel")).json()
    assert (canceled["status"], canceled["failure"]["code"]) == ("canceled", "canceled")
    assert (await web.client.post(f"/v1/jobs/{job_id}/cancel")).json() == canceled
    async with bench.worker():
        await bench.ended(await bench.submit(input=directed()))
        assert sandbox.submissions("t") == []
        again = (await web.client.post(f"/v1/jobs/{job_id}/retry")).json()
        assert again["status"] == "queued"
        assert (await bench.ended(job_id))["status"] == "completed"
    assert len(sandbox.submissions("t")) == 1


async def test_a_task_canceled_under_way_is_kept(bench: Bench, web: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the submission the job is canceled, its task no longer the current one, and a late result kept."""
    monkeypatch.setattr(attempts, "LATE_GAP_MS", 100)
    async with bench.worker():
        wanted = ["job.canceled", "job.late_result"]
        job_id = await bench.submit(input=directed(duration_s=0.4), webhook_events=wanted)
        await bench.standing(job_id, "processing")
        canceled = (await web.client.post(f"/v1/jobs/{job_id}/cancel")).json()
        assert [attempt["outcome"] for attempt in canceled["attempts"]] == ["abandoned"]
        view = await eventually(lambda: _late(web, job_id))
    assert view["status"] == "canceled"
    assert view["attempts"][0]["late_result"]["urls"]
    check_problem(await web.client.post("/v1/jobs/none/cancel"), 404, "not_found")


async def _late(web: Api, job_id: str) -> dict[str, Any] | None:
    view: dict[str, Any] = (await web.client.get(f"/v1/jobs/{job_id}")).json()
    return view if view["attempts"][0].get("late_result") else None


async def test_retry_opens_what_failed_and_nothing_else(bench: Bench, web: Api, sandbox: Sandbox) -> None:
    """A failed job gets a new round; one that is live, completed, never valid or not there is refused with a reason."""
    async with bench.worker():
        job_id = await bench.submit(input=directed(tag="t", submit=[REFUSED]))
        assert (await bench.ended(job_id))["status"] == "failed"
        reopened = (await web.client.post(f"/v1/jobs/{job_id}/retry")).json()
        assert (reopened["status"], reopened["failure"], reopened["completed_at"]) == ("queued", None, None)
        assert (await bench.ended(job_id))["status"] == "completed"
        check_problem(await web.client.post(f"/v1/jobs/{job_id}/retry"), 409, "wrong_status")
        check_problem(await web.client.post(f"/v1/jobs/{job_id}/cancel"), 409, "wrong_status")
        await bench.door.refuse({"kind": "film"}, "kind: is none", fallback_id="wrong")
        problem = check_problem(await web.client.post("/v1/jobs/wrong/retry"), 409, "wrong_status")
        assert "never valid" in problem["detail"]
    check_problem(await web.client.post("/v1/jobs/none/retry"), 404, "not_found")
    assert len(sandbox.submissions("t")) == 2


async def test_deliveries_are_shown_and_replayed(bench: Bench, web: Api, receiver: Receiver) -> None:
    """A dead delivery shows its attempts; replayed it gets its whole schedule again, under the same id."""
    receiver.statuses = [500, 500, 500, 500, 200]
    async with bench.worker():
        job_id = await bench.submit(input=directed())
        dead = await eventually(lambda: _delivery(web, job_id, "dead"))
        assert [attempt["status"] for attempt in dead["attempts"]] == [500, 500, 500]
        assert dead["next_attempt_at"] is None
        replayed = await web.client.post(f"/v1/deliveries/{dead['id']}/replay")
        assert (replayed.status_code, replayed.json()["event_id"]) == (200, dead["event_id"])
        done = await eventually(lambda: _delivery(web, job_id, "delivered"))
    assert [attempt["status"] for attempt in done["attempts"]] == [500, 500, 500, 500, 200]
    assert {event["webhook-id"] for event in receiver.received} == {dead["event_id"]}
    assert await bench.raw.hget(f"onysoft:job:{job_id}", "pending") == b"0"
    check_problem(await web.client.get("/v1/jobs/none/deliveries"), 404, "not_found")
    for unknown in ("none", "dlv_" + "0" * 32, "dlv_%00"):
        check_problem(await web.client.post(f"/v1/deliveries/{unknown}/replay"), 404, "not_found")


async def _delivery(web: Api, job_id: str, state: str) -> dict[str, Any] | None:
    deliveries = (await web.client.get(f"/v1/jobs/{job_id}/deliveries")).json()["deliveries"]
    return next((delivery for delivery in deliveries if delivery["state"] == state), None)


async def test_a_destination_that_is_gone_can_be_replayed(bench: Bench, web: Api, receiver: Receiver) -> None:
    """A replay asks a destination again that had answered 410."""
    receiver.statuses = [410]
    async with bench.worker():
        job_id = await bench.submit(input=directed())
        dead = await eventually(lambda: _delivery(web, job_id, "dead"))
        await web.client.post(f"/v1/deliveries/{dead['id']}/replay")
        await eventually(lambda: _delivery(web, job_id, "delivered"))


async def test_the_feed_tells_every_event_in_order(bench: Bench, web: Api, receiver: Receiver) -> None:
    """Who goes from cursor to cursor gets each event once, with the id its webhook had; a pruned cursor is refused."""
    async with bench.worker():
        ids = [await bench.submit(input=directed(), webhook_events=["job.processing", "job.completed"]) for _ in "abc"]
        for job_id in ids:
            await bench.ended(job_id)
        await eventually(lambda: _received(receiver, 6))
    seen: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    first = ""
    while page := (await web.client.get("/v1/events", params={"limit": 4, **cursor})).json():
        seen += page["events"]
        cursor = {"cursor": page["next_cursor"]}
        first = first or page["next_cursor"]
        if not page["events"]:
            break
    assert [event["sequence"] for event in seen] == sorted({event["sequence"] for event in seen})
    assert {event["id"] for event in seen} == {event["webhook-id"] for event in receiver.received}
    assert sorted((event["type"], event["data"]["id"]) for event in seen) == sorted(
        (kind, job_id) for job_id in ids for kind in ("job.processing", "job.completed")
    )
    await Prune(bench.store, retention_s=0).run_once(bench.store.now_ms() + 1000)
    check_problem(await web.client.get("/v1/events", params={"cursor": first}), 410, "cursor_expired")
    assert (await web.client.get("/v1/events", params=cursor)).json() == {"events": [], "next_cursor": cursor["cursor"]}
    assert (await web.client.get("/v1/events")).json()["events"] == []
    for wrong in ("x", "1", "1-", "-1-1", "1-1-1", "9" * 30 + "-1"):
        check_problem(await web.client.get("/v1/events", params={"cursor": wrong}), 422, "invalid_request")


async def _received(receiver: Receiver, count: int) -> bool:
    return len({event["webhook-id"] for event in receiver.received}) == count
