"""Waiting for changes while the subscription's connection breaks: nobody is told of it, nothing is missed or left."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import pytest
from harness import Bench, eventually
from structlog.testing import capture_logs

from worker import actions, news
from worker.ending import end
from worker.link import Link, Subscription
from worker.web.app import create_app

KILL_EVERY_S = 0.3
KILLED_FOR_S = 3.0
ALWAYS = b"onysoft:changed:"


@pytest.fixture
async def listening(bench: Bench) -> AsyncIterator[asyncio.Task[None]]:
    """Listen for changes as a web process does."""
    running = asyncio.create_task(bench.store.news.run())
    await eventually(lambda: heard(bench, [ALWAYS]))
    yield running
    await end([running])


async def heard(bench: Bench, channels: list[bytes]) -> bool:
    """Tell whether these are the channels that are listened to."""
    return sorted(await bench.raw.pubsub_channels("onysoft:changed:*")) == sorted(channels)


async def kill(bench: Bench) -> None:
    """Break every subscription's connection."""
    await bench.raw.execute_command("CLIENT", "KILL", "TYPE", "pubsub")


async def killing(bench: Bench) -> None:
    """Break them again and again for some seconds."""
    until_s = time.monotonic() + KILLED_FOR_S
    while time.monotonic() < until_s:
        await asyncio.sleep(KILL_EVERY_S)
        await kill(bench)


async def while_killing(bench: Bench, *what: Callable[[], Awaitable[object]]) -> None:
    """Do things over and over while connections break; raise what any of them raises."""
    killer = asyncio.create_task(killing(bench))

    async def over_and_over(once: Callable[[], Awaitable[object]]) -> None:
        while not killer.done():
            await once()

    async with asyncio.TaskGroup() as group:
        for once in what:
            group.create_task(over_and_over(once))
    await killer


@pytest.mark.usefixtures("listening")
async def test_long_polls_survive_lost_subscriptions(bench: Bench) -> None:
    """A hundred at once all answer 200 while connections break, and leave no subscription behind."""
    for number in range(50):
        await bench.submit(id=f"s{number}")
    app = create_app(store=bench.store, door=bench.door, settings=bench.settings)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    codes: Counter[int] = Counter()
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000", timeout=60) as client:

        async def poll(number: int) -> None:
            answer = await client.get(f"/v1/jobs/s{number % 50}", params={"wait_s": 0.02 + number % 7 / 5})
            codes[answer.status_code] += 1

        await while_killing(bench, *(lambda number=number: poll(number) for number in range(100)))  # type: ignore[misc]
    assert set(codes) == {200}
    await eventually(lambda: heard(bench, [ALWAYS]))


@pytest.mark.usefixtures("listening")
async def test_lost_subscriptions_are_nobody_elses(bench: Bench) -> None:
    """Commands beside them neither fail nor get another's answer, and the waiting is never disturbed."""
    wrong: list[object] = []

    async def wait() -> None:
        async with bench.store.news.of(f"w{time.monotonic_ns() % 200}") as called:
            await bench.store.news.wait(called, within_s=0.01)

    async def echo() -> None:
        word = f"{time.monotonic_ns()}".encode()
        if (answer := await bench.store._link.command("ECHO", word)) != word:
            wrong.append(answer)
        await bench.store._link.atomic([("ECHO", word)])

    await while_killing(bench, *[wait] * 60, *[echo] * 4)
    assert not wrong
    await eventually(lambda: heard(bench, [ALWAYS]))
    assert not bench.store.news._waiting


@pytest.mark.usefixtures("listening")
async def test_a_change_wakes_at_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits is woken by the change, and not by looking again: before and after a lost connection."""
    monkeypatch.setattr(news, "LOOK_AGAIN_S", 3600)
    for number in range(20):
        job_id = await bench.submit(id=f"n{number}")
        if number % 5 == 4:
            await kill(bench)
        async with asyncio.timeout(20), bench.store.news.of(job_id) as called:
            canceling = asyncio.create_task(actions.cancel(bench.store, job_id))
            while not (await bench.job(job_id)).ended:
                await bench.store.news.wait(called, within_s=3600)
            await canceling


async def test_who_waits_before_the_subscription_stands_is_called(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change that nobody could hear of is looked for as soon as the channel is heard."""
    monkeypatch.setattr(news, "LOOK_AGAIN_S", 3600)
    async with bench.store.news.of("early") as early:
        running = asyncio.create_task(bench.store.news.run())
        async with asyncio.timeout(20):
            await bench.store.news.wait(early, within_s=3600)
            async with bench.store.news.of("late") as late:
                await bench.store.news.wait(late, within_s=3600)
        await end([running])


async def test_a_subscription_takes_effect_at_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting anew interrupts a read that would last for seconds: a hundred in turn are called in far less."""
    monkeypatch.setattr(news, "LOOK_AGAIN_S", 3600)
    running = asyncio.create_task(bench.store.news.run())
    async with asyncio.timeout(20):
        for number in range(100):
            async with bench.store.news.of(f"q{number}") as called:
                await bench.store.news.wait(called, within_s=3600)
    await end([running])


async def test_whatever_breaks_is_logged_once_and_survived(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes on is told once, however long it lasts; an error of ours with its traceback."""
    monkeypatch.setattr(news, "PAUSE_MAX_S", 0.05)
    broken: list[Exception] = [OSError("away")] * 5 + [RuntimeError("ours")] * 3
    tune = Subscription.tune

    async def breaking(subscription: Subscription, channels: frozenset[str]) -> None:
        if broken:
            raise broken.pop(0)
        await tune(subscription, channels)

    monkeypatch.setattr(Subscription, "tune", breaking)
    with capture_logs() as logs:
        running = asyncio.create_task(bench.store.news.run())
        await eventually(lambda: heard(bench, [ALWAYS]))
        async with bench.store.news.of("x") as called:
            await bench.store.news.wait(called, within_s=5)
        broken[:] = [RuntimeError("ours")]
        async with bench.store.news.of("y"):
            await eventually(lambda: heard(bench, [ALWAYS, b"onysoft:changed:y"]))
        await end([running])
    assert [line["event"] for line in logs] == ["redis.away", "duty.crashed", "duty.crashed"]


async def test_a_subscription_that_says_nothing_is_given_up(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that answers no sign of life any more counts as away; one that does is waited for."""
    monkeypatch.setattr("worker.link.SILENCE_S", 0.05)
    running = asyncio.create_task(bench.store.news.run())
    await eventually(lambda: heard(bench, [ALWAYS]))
    with capture_logs() as logs:
        await asyncio.sleep(0.5)
        assert logs == []

        async def say_nothing(_subscription: object) -> None:
            """Send no ping, as if it were lost on the way."""

        monkeypatch.setattr("redis.asyncio.client.PubSub.ping", say_nothing)

        async def told() -> bool:
            return [line["event"] for line in logs][:1] == ["redis.away"]

        await eventually(told)
    await end([running])


async def test_an_interrupted_read_loses_no_message(bench: Bench) -> None:
    """However often reading is interrupted, every message is given, in its order."""
    link, got = Link(bench.redis_url), 0
    async with link.subscription() as subscription:
        await subscription.tune({"c"})
        assert await subscription.next() == "c"

        async def publish() -> None:
            for _ in range(2000):
                await bench.raw.publish("c", b"x" * 300)

        publishing = asyncio.create_task(publish())
        async with asyncio.timeout(60):
            while got < 2000:
                asyncio.get_running_loop().call_soon(subscription.interrupt)
                got += await subscription.next() is not None
        await publishing
    await link.aclose()
