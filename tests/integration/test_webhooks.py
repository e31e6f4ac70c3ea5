"""How webhooks are delivered: ids, signatures, the schedule, what answers mean, the log, and what is given up."""

import asyncio
import dataclasses
import gzip
import json
import os
import socket
import sys
import threading
import time
import tracemalloc
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from harness import API_KEY, PATIENCE_S, SECRET, Bench, Receiver, Sandbox, directed, eventually
from structlog.testing import capture_logs
from unruly import OK, Consumer, answer, consuming

from jobs.changes import cancel
from worker.outbox import Delivery

SCHEDULE = "0,0.3,0.6,1.5"


async def completed(bench: Bench, consumer: Consumer, **request: object) -> str:
    """Have a job completed whose webhooks go to a consumer."""
    job_id = await bench.submit(webhook_url=consumer.url, **{"input": directed(), **request})
    await bench.ended(job_id)
    return job_id


async def settled(bench: Bench, job_id: str) -> list[Delivery]:
    """Wait until no delivery of a job is pending; list them."""

    async def check() -> list[Delivery]:
        found = await bench.store.outbox.of_job(job_id)
        return found if found and all(delivery.state != "pending" for delivery in found) else []

    return list(await eventually(check))


@pytest.mark.env(WEBHOOK_SCHEDULE_S=SCHEDULE)
async def test_a_retry_is_the_same_message_with_a_time_of_its_own(bench: Bench) -> None:
    """Each attempt has the event's id and body, its own timestamp and signature, and comes when the schedule says."""
    async with consuming(answer(500), answer(503), OK) as consumer, bench.worker():
        job_id = await completed(bench, consumer)
        [delivery] = await settled(bench, job_id)
    first, second, third = consumer.of(job_id)
    assert first.id == second.id == third.id == delivery.event_id
    assert first.body == second.body == third.body
    assert second.at_s - first.at_s >= 0.3 * 0.9
    assert third.at_s - second.at_s >= 0.6 * 0.9
    stamps = [int(taken.headers["webhook-timestamp"]) for taken in (first, second, third)]
    assert stamps == sorted(stamps)
    assert stamps[0] <= datetime.now(UTC).timestamp()
    assert first.headers["content-type"] == "application/json"


async def test_events_carry_the_sequence_of_the_feed(bench: Bench) -> None:
    """A job's events are numbered in the order in which they happened, in the webhook as in the feed."""
    events = ["job.processing", "job.completed"]
    async with consuming() as consumer, bench.worker():
        job_id = await completed(bench, consumer, webhook_events=events)
        await settled(bench, job_id)
    told = {taken.event["type"]: (taken.id, taken.event["sequence"]) for taken in consumer.of(job_id)}
    feed = {event.type: (event.id, event.sequence) for event in await bench.store.outbox.feed(None, limit=50)}
    assert told == feed
    assert told["job.processing"][1] < told["job.completed"][1]


@pytest.mark.env(WEBHOOK_SCHEDULE_S="0,0.1")
async def test_every_attempt_is_in_the_log(bench: Bench) -> None:
    """Time, duration, status, the answer's first 4 KiB and the next time; at the end it is dead, and told."""
    flood = answer(500, b"\xffno" + b"x" * 10_000)
    with capture_logs() as logs:
        async with consuming(flood, answer(400, b"not like this")) as consumer, bench.worker():
            job_id = await completed(bench, consumer)
            [delivery] = await settled(bench, job_id)
    first, second = delivery.view()["attempts"]
    assert (first["status"], len(first["answer"]), first["answer"][:3]) == (500, 4096, "\ufffdno")
    assert first["at"] < first["next_at"] < second["at"]
    assert first["duration_ms"] >= 0
    assert (second["status"], second["answer"], second["next_at"]) == (400, "not like this", None)
    assert delivery.state == "dead"
    assert [log["state"] for log in logs if log["event"] == "delivery.ended"] == ["dead"]
    assert (await bench.store.counters())[("webhook_dead_letters_total",)] == 1
    [note] = [entry for entry in await bench.store.timeline(job_id) if entry["event"] == "webhook.dead"]
    assert (note["delivery"], note["type"]) == (delivery.id, "job.completed")


@pytest.mark.env(WEBHOOK_SCHEDULE_S="0,0.1")
@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_a_failure_and_not_followed(bench: Bench, status: int) -> None:
    """Nothing is sent to where it points."""
    async with consuming() as elsewhere, bench.worker():
        redirect = answer(status, Location=elsewhere.url)
        async with consuming(redirect) as consumer:
            job_id = await completed(bench, consumer)
            [delivery] = await settled(bench, job_id)
    assert [attempt["status"] for attempt in delivery.attempts] == [status, 200]
    assert elsewhere.taken == []


async def test_gone_ends_the_deliveries_of_the_job_to_that_url(bench: Bench) -> None:
    """A 410 is the last of this job there; another job's go on."""
    events = ["job.processing", "job.completed"]
    async with consuming(answer(410)) as consumer, bench.worker():
        job_id = await completed(bench, consumer, webhook_events=events, input=directed(duration_s=0.8))
        await settled(bench, job_id)
        other = await completed(bench, consumer)
        await settled(bench, other)
    assert [taken.event["type"] for taken in consumer.of(job_id)] == ["job.processing"]
    assert [taken.event["type"] for taken in consumer.of(other)] == ["job.completed"]
    assert [d.state for d in await bench.store.outbox.of_job(job_id)] == ["dead"]


@pytest.mark.env(WEBHOOK_SCHEDULE_S="0,0.05,1.5")
@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("form", ["seconds", "date"])
async def test_a_pause_asked_for_is_kept(bench: Bench, status: int, form: str) -> None:
    """Retry-After is honoured, as seconds or as a date, where it is longer than the schedule's delay."""
    at = format_datetime(datetime.now(UTC) + timedelta(hours=2), usegmt=True)
    asked = answer(status, Retry_After="1" if form == "seconds" else at)
    async with consuming(asked) as consumer, bench.worker():
        job_id = await completed(bench, consumer)
        await settled(bench, job_id)
    first, second = consumer.of(job_id)
    waited_s = second.at_s - first.at_s
    assert waited_s >= (0.95 if form == "seconds" else 1.45)  # two hours are more than the schedule's longest delay


@pytest.mark.env(WEBHOOK_SCHEDULE_S="0,0.05", WEBHOOK_TIMEOUT_S="0.5")
async def test_silence_and_hanging_up_are_failures_that_say_what_happened(bench: Bench) -> None:
    """A consumer that says nothing in time, and one whose answer is no HTTP."""
    async with consuming(None, b"rubbish\r\n\r\n") as consumer, bench.worker():
        job_id = await completed(bench, consumer)
        [delivery] = await settled(bench, job_id)
    silent, rubbish = delivery.attempts
    assert silent["status"] is rubbish["status"] is None
    assert "ReadTimeout" in silent["answer"]
    assert silent["duration_ms"] >= 500
    assert "RemoteProtocolError" in rubbish["answer"]


@pytest.mark.env(WEBHOOK_SCHEDULE_S="0")
async def test_a_replay_has_the_same_id_and_a_schedule_of_its_own(bench: Bench) -> None:
    """A dead delivery is sent again, and its log goes on."""
    async with consuming(answer(500), OK, OK) as consumer, bench.worker():
        job_id = await completed(bench, consumer)
        [dead] = await settled(bench, job_id)
        assert await bench.store.dispatch.replay(dead)
        [delivered] = await settled(bench, job_id)
        assert await bench.store.dispatch.replay(delivered)

        async def again() -> bool:
            return len(consumer.of(job_id)) == 3

        await eventually(again)
        [twice] = await settled(bench, job_id)
    assert (dead.state, delivered.state, twice.state) == ("dead", "delivered", "delivered")
    assert len({taken.id for taken in consumer.of(job_id)}) == 1
    assert [attempt["status"] for attempt in twice.attempts] == [500, 200, 200]
    assert (await bench.job(job_id)).ended


@pytest.mark.env(WEBHOOK_SCHEDULE_S="0,0.2,0.4,0.8,0.8,0.8,0.8,0.8,0.8,0.8,0.8,0.8,0.8")
async def test_an_outage_costs_few_attempts_and_nothing_is_lost(bench: Bench) -> None:
    """While the consumer fails, it is tried now and then; when it is back, all come once each."""
    async with consuming() as consumer, bench.worker():
        well = asyncio.Event()
        consumer.always = lambda _: OK if well.is_set() else answer(500)
        jobs = [await bench.submit(webhook_url=consumer.url, input=directed()) for _ in range(40)]
        for job_id in jobs:
            await bench.ended(job_id)

        async def is_failing() -> bool:
            return bool((await bench.store.dispatch.standing()).failing)

        await eventually(is_failing)
        while_ill = len(consumer.taken)
        well.set()
        deliveries = [delivery for job_id in jobs for delivery in await settled(bench, job_id)]
    assert while_ill < 40
    assert [delivery.state for delivery in deliveries] == ["delivered"] * 40
    taken_well = [delivery.attempts[-1]["status"] for delivery in deliveries]
    assert taken_well == [200] * 40
    assert (await bench.store.dispatch.standing()).failing == ()


@pytest.mark.env(WEBHOOK_TIMEOUT_S="60")
async def test_a_destination_that_hangs_keeps_nobody_waiting(bench: Bench) -> None:
    """Another one on the same host has its webhooks while the first holds all it may have at a time."""
    async with consuming() as consumer, bench.worker():
        slow, quick = consumer.url, consumer.url.replace("/hook", "/quick")
        await settled(
            bench, await completed(bench, dataclasses.replace(consumer, url=quick))
        )  # the host is known to answer
        consumer.always = lambda taken: None if taken.path == "/hook" else OK
        waiting = [await bench.submit(webhook_url=slow, input=directed()) for _ in range(25)]
        for job_id in waiting:
            await bench.ended(job_id)

        async def is_full() -> bool:
            return consumer.at_a_time == 10

        await eventually(is_full)
        jobs = [await bench.submit(webhook_url=quick, input=directed()) for _ in range(25)]
        for job_id in jobs:
            assert [delivery.state for delivery in await settled(bench, job_id)] == ["delivered"]
        assert len([taken for taken in consumer.taken if taken.path == "/hook"]) == 10
        consumer.ended.set()


async def test_what_comes_after_the_result_has_expired_says_so(bench: Bench, sandbox: Sandbox) -> None:
    """Its body carries ``result_expired``, signed with the rest; one that comes in time does not."""
    async with consuming() as consumer, bench.worker():
        job_id = await completed(bench, consumer)
        [delivery] = await settled(bench, job_id)
        body = json.loads(await bench.store.outbox.event_body(delivery.entry) or b"{}")
        body["data"]["result"]["expires_at"] = "2026-01-01T00:00:00.000Z"
        entry = await bench.raw.xadd("onysoft:events", {"id": delivery.event_id, "body": json.dumps(body)})
        changed = {"entry": entry, "created_at_ms": bench.store.now_ms() - 86_400_000}
        await bench.raw.hset(f"onysoft:delivery:{delivery.id}", mapping=changed)  # type: ignore[misc]
        assert await bench.store.dispatch.replay(delivery)

        async def again() -> bool:
            return len(consumer.of(job_id)) == 2

        await eventually(again)
    first, late = consumer.of(job_id)
    assert "result_expired" not in first.event
    assert late.event == {**body, "result_expired": True}
    assert sandbox.submissions()


async def ended_at_once(bench: Bench, url: str) -> str:
    """Have a job end without a worker, by a cancellation, so that its webhook is due."""
    job = await bench.job(await bench.submit(webhook_url=url))
    await bench.store.apply(cancel(job, now_ms=bench.store.now_ms(), rev=bench.store.new_rev()))
    return job.id


@pytest.mark.env(CONCURRENCY="280", WEBHOOK_SCHEDULE_S="0", WEBHOOK_TIMEOUT_S="60")
async def test_many_hosts_that_hang_leave_a_connection_for_the_others(bench: Bench, receiver: Receiver) -> None:
    """A worker holds as many connections as deliveries: 240 that hang cost a healthy consumer no attempt."""
    opened: list[asyncio.StreamWriter] = []

    async def hang(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opened.append(writer)

    server = await asyncio.start_server(hang, "0.0.0.0", 0, backlog=1000)  # each address is a host
    port = server.sockets[0].getsockname()[1]
    urls = [f"http://127.0.0.{2 + host}:{port}/{path}" for host in range(30) for path in range(4) for _ in range(2)]
    await asyncio.gather(*(ended_at_once(bench, url) for url in urls))
    async with bench.worker():

        async def is_full() -> bool:
            return len(opened) == len(urls)

        await eventually(is_full)
        job_id = await ended_at_once(bench, receiver.url)
        [delivery] = await settled(bench, job_id)
    for writer in opened:
        writer.close()
    server.close()
    assert (delivery.state, len(delivery.attempts)) == ("delivered", 1)


@pytest.mark.env(WEBHOOK_SCHEDULE_S="0")
async def test_an_answer_is_never_unpacked(bench: Bench) -> None:
    """A consumer is asked to encode nothing, and what it encodes all the same is kept as it came."""
    bomb = gzip.compress(gzip.compress(b"\0" * 50_000_000, 9), 9)
    async with consuming(answer(200, bomb, Content_Encoding="gzip, gzip")) as consumer, bench.worker():
        tracemalloc.start()
        try:
            [delivery] = await settled(bench, await ended_at_once(bench, consumer.url))
            assert tracemalloc.get_traced_memory()[1] < 20_000_000
        finally:
            tracemalloc.stop()
    assert delivery.state == "delivered"
    assert len(delivery.attempts[0]["answer"]) == len(bomb.decode("utf-8", "replace"))
    assert consumer.taken[0].headers["accept-encoding"] == "identity"


BROKEN = {
    "cut": b"content-length: 99\r\n\r\nok",
    "a bad chunk": b"transfer-encoding: chunked\r\n\r\n2\r\nok\r\nzz\r\n",
    "a bad first chunk": b"transfer-encoding: chunked\r\n\r\nzz\r\n",
    "silence": b"content-length: 99\r\n\r\nok",
    "no gzip": b"content-encoding: gzip\r\ncontent-length: 2\r\n\r\nok",
}


@pytest.mark.env(WEBHOOK_SCHEDULE_S="0,0.05,1.5", WEBHOOK_TIMEOUT_S="1.5")
@pytest.mark.parametrize("broken", BROKEN)
@pytest.mark.parametrize("head", [b"200 OK", b"410 Gone", b"503 Busy\r\nRetry-After: 1"], ids=["200", "410", "503"])
async def test_the_head_of_an_answer_counts_whatever_becomes_of_its_body(
    bench: Bench, broken: str, head: bytes
) -> None:
    """A 2xx has taken the webhook, a 410 wants no more and a Retry-After is kept, where the body breaks off."""
    at_s: list[float] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        at_s.append(time.monotonic())
        writer.write(b"HTTP/1.1 " + head + b"\r\n" + BROKEN[broken] if len(at_s) == 1 else OK)
        if broken == "silence":
            await reader.read()  # the webhook's body
            await reader.read()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server, bench.worker():
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
        [delivery] = await settled(bench, await ended_at_once(bench, url))
    status = int(head[:3])
    first = delivery.attempts[0]
    assert first["status"] == status
    assert ("the answer's body broke off" in first["answer"]) == (broken != "no gzip")
    assert delivery.state == ("dead" if status == 410 else "delivered")
    assert len(delivery.attempts) == (2 if status == 503 else 1)
    if status == 503:
        assert at_s[1] - at_s[0] >= 0.95


@pytest.mark.env(WEBHOOK_SCHEDULE_S="0")
async def test_names_that_hang_stop_neither_submissions_nor_the_others(
    bench: Bench, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the look-ups of 40 consumers' names hang, the gateway's name is found, and a healthy consumer's."""
    asked, over, system = set(), threading.Event(), socket.getaddrinfo

    def look_up(host: Any, *args: Any, **options: Any) -> Any:
        if str(host).endswith("hang.test"):
            asked.add(host)
            over.wait()
            raise socket.gaierror(socket.EAI_AGAIN, "no answer")
        return system(host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    gateway_url = bench.settings.onysoft_base_url.replace("127.0.0.1", "localhost")
    bench.settings = dataclasses.replace(bench.settings, onysoft_base_url=gateway_url)
    for number in range(40):
        await ended_at_once(bench, f"http://h{number}.hang.test/hook")
    try:
        async with bench.worker():

            async def all_hang() -> bool:
                return len(asked) == 40

            await eventually(all_hang)
            url = receiver.url.replace("127.0.0.1", "localhost")
            job_id = await bench.submit(webhook_url=url, input=directed())
            job = await bench.ended(job_id)
            [delivery] = await settled(bench, job_id)
    finally:
        over.set()
    assert (job["status"], len(job["attempts"])) == ("completed", 1)
    assert (delivery.state, len(delivery.attempts)) == ("delivered", 1)


async def test_a_worker_ends_while_look_ups_hang(bench: Bench) -> None:
    """SIGTERM ends the process although the look-ups of consumers' names never will."""
    script = """
import os, runpy, socket, sys, threading

system = socket.getaddrinfo

def look_up(host, *args, **options):
    if str(host).endswith("hang.test"):
        os.write(1, b".")
        threading.Event().wait()
    return system(host, *args, **options)

socket.getaddrinfo = look_up
sys.argv = ["worker", "work"]
runpy.run_module("worker", run_name="__main__")
"""
    for number in range(10):
        await ended_at_once(bench, f"http://h{number}.hang.test/hook")
    own = {"REDIS_URL": bench.redis_url, "ONYSOFT_API_KEY": API_KEY, "WEBHOOK_SECRET": SECRET}
    own["ONYSOFT_BASE_URL"] = bench.settings.onysoft_base_url
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE, env={**os.environ, **own}
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE_S):
            await process.stdout.readexactly(10)
            process.terminate()
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
