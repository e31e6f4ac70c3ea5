"""The commands about webhooks: what was delivered or refused, what waits, and what is sent again."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from harness import Sandbox, eventually
from printed import read, refusal
from product import Api, Place, Receiver, directed
from redis import Redis


@pytest.fixture
async def api(place: Place, sandbox: Sandbox) -> AsyncIterator[Api]:  # noqa: ARG001 - its address must be known first
    """Run ``up`` and talk to it."""
    api = Api(await (await place.started("up")).address())
    yield api
    await api.http.aclose()


async def test_webhooks_are_listed_shown_and_sent_again(place: Place, api: Api, receiver: Receiver) -> None:
    """A replay, of one or of all since a time, keeps the ``webhook-id``; a job's story names its deliveries."""
    for job_id in ("one", "two"):
        await api.submit(job_id, input=directed(job_id))
    await receiver.has_all(["one", "two"], within_s=20)

    async def delivered() -> Any:
        return len(read(await place.run("webhooks", "list", "--state", "delivered", "--json"))["deliveries"]) == 2

    await eventually(delivered)
    of_job, story, text = await asyncio.gather(
        place.run("webhooks", "list", "--job", "one", "--json"),
        place.run("show", "one", "--json"),
        place.run("show", "one"),
    )
    delivery = read(of_job)["deliveries"][0]
    assert read(story)["deliveries"] == [delivery]
    assert read(story)["timeline"][0]["event"] == "job.created"
    assert "job.completed  delivered" in text.out
    shown = await place.run("webhooks", "show", delivery["id"])
    assert all(word in shown.out for word in (delivery["event_id"], "200"))
    again = read(await place.run("webhooks", "replay", delivery["id"], "--json"))
    assert (again["id"], again["event_id"]) == (delivery["id"], delivery["event_id"])

    async def received(times: dict[str, int]) -> bool:
        return Counter(event["data"]["id"] for event in receiver.received) == times

    await eventually(lambda: received({"one": 2, "two": 1}))
    await eventually(delivered)
    assert refusal(await place.run("webhooks", "replay", "--since", "1h"), 2, "2 webhooks", "--yes") == ""
    assert (await place.run("webhooks", "replay", "--since", "1h", "--yes")).out == "2 replayed\n"
    assert (await place.run("webhooks", "replay", "--dead")).out == "0 replayed\n"

    await eventually(lambda: received({"one": 3, "two": 2}))
    assert len({event["webhook-id"] for event in receiver.received}) == 2
    assert refusal(await place.run("webhooks", "show", "dlv_0"), 1, "dlv_0") == ""


async def test_a_destination_that_fails_is_named_with_what_waits_for_it(place: Place, api: Api) -> None:
    """By ``queues``, ``doctor`` and each of its deliveries, without what its URL carries behind the path."""
    for number in range(12):
        await api.submit(f"dead-{number}", input=directed("dead"), webhook_url="http://127.0.0.1:1/dead?token=s3cret")

    async def failing() -> Any:
        return read(await place.run("queues", "--json"))["failing_destinations"]

    [destination] = await eventually(failing)
    assert (destination["destination"], destination["failures"] >= 10) == ("http://127.0.0.1:1/dead", True)
    queues, doctor, listed = await asyncio.gather(
        place.run("queues"), place.run("doctor"), place.run("webhooks", "list", "--job", "dead-11", "--json")
    )
    for told in (queues, doctor):
        assert "http://127.0.0.1:1/dead" in told.out
        assert "s3cret" not in told.out
    shown = await place.run("webhooks", "show", read(listed)["deliveries"][0]["id"])
    assert "times in a row" in shown.out

    async def waits() -> bool:
        told = await asyncio.gather(
            place.run("webhooks", "list", "--state", "pending"), *(place.run("show", f"dead-{n}") for n in (10, 11))
        )
        return "  waits  " in told[0].out and any("  waits  " in story.out for story in told[1:])

    await eventually(waits)


LONG = "no\u202e" * 1000
ANSWERS = {"moved": (302, ""), "gone": (410, ""), "long": (500, LONG)}


@pytest.fixture
async def unwilling() -> AsyncIterator[str]:
    """Run a receiver that takes nothing: it answers by the path."""

    async def refuse(request: web.Request) -> web.Response:
        status, words = ANSWERS[request.match_info["name"]]
        return web.Response(status=status, text=words)

    app = web.Application()
    app.router.add_post("/{name}", refuse)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def test_a_refused_webhook_says_what_to_do(place: Place, api: Api, unwilling: str) -> None:
    """By its answer, found by its ``webhook-id``; ``--dead`` sends all again but what the receiver wants no more."""
    for name in ANSWERS:
        await api.submit(name, input=directed(name), webhook_url=f"{unwilling}/{name}")

    async def dead() -> Any:
        found = read(await place.run("webhooks", "list", "--state", "dead", "--json"))["deliveries"]
        return found if len(found) == len(ANSWERS) else None

    events = {row["job_id"]: row["event_id"] for row in await eventually(dead)}
    moved, gone, long, a_job, nothing = await asyncio.gather(
        *(place.run("webhooks", "show", events[name]) for name in ANSWERS),
        *(place.run("webhooks", "show", name) for name in ("moved", "evt_0")),
    )
    assert "302: redirects are not followed: give the final URL" in moved.out
    assert "410: the receiver wants no more of this job; `webhooks replay` sends it all the same" in gone.out
    assert "… --json has all of it" in long.out
    assert "\u202e" not in long.out
    assert max(map(len, long.out.splitlines())) < 400
    assert refusal(a_job, 1, "webhooks list --job moved") == ""
    assert refusal(nothing, 1, "evt_0") == ""

    again = await place.run("webhooks", "replay", "--dead", "--yes")
    assert (again.status, again.out) == (0, "2 replayed\n")
    assert again.err == "1 left out: the receiver wants no more of the job (410); ID or --job ID sends them\n"
    await eventually(dead)
    one = read(await place.run("webhooks", "replay", events["gone"], "--json"))

    async def tried_twice() -> bool:
        told = read(await place.run("webhooks", "show", one["id"], "--json"))
        return (told["state"], [attempt["status"] for attempt in told["attempts"]]) == ("dead", [410, 410])

    assert one["event_id"] == events["gone"]
    await eventually(tried_twice)


async def test_a_webhook_whose_event_is_gone_is_refused_with_words(place: Place, api: Api, receiver: Receiver) -> None:
    """In bulk it is counted, and said why; by itself it is one line."""
    await api.submit("one", input=directed("one"))
    await receiver.has_all(["one"], within_s=20)
    with Redis(unix_socket_path=(place.data_dir / "socket.path").read_text()) as redis:
        redis.xtrim("onysoft:events", maxlen=0)
    [delivery] = read(await place.run("webhooks", "list", "--json"))["deliveries"]
    bulk, alone = await asyncio.gather(
        place.run("webhooks", "replay", "--since", "1h", "--yes", "--json"),
        place.run("webhooks", "replay", delivery["id"]),
    )
    told = read(bulk, 1)
    assert (told["matched"], told["replayed"], told["refused"]) == (1, 0, 1)
    assert "its event is no longer kept" in told["reasons"][0]["why"]
    assert refusal(alone, 1, "its event is no longer kept") == ""
