"""Jobs that come in by the queue, by HTTP and by both at once; what is no job among them harms nobody."""

import asyncio
import json
import pickle
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from arq.connections import ArqRedis
from harness import Sandbox, eventually
from product import QUEUE, Api, Place, Receiver, directed, plain_arq

from worker.client import Conflict, WorkerClient

BACKEND = '''\
"""A backend service: the standard library and arq, and nothing of the product."""
import asyncio
import json
import sys

from arq import create_pool
from arq.connections import RedisSettings


async def main(redis_url, webhook_url):
    pool = await create_pool(
        RedisSettings.from_dsn(redis_url),
        job_serializer=lambda call: json.dumps(call).encode(),
        job_deserializer=json.loads,
        default_queue_name="onysoft:jobs",
    )
    request = {"kind": "image", "input": {"prompt": "a fox"}, "webhook_url": webhook_url, "metadata": {"order": 7}}
    job = await pool.enqueue_job("generate", request, _job_id="order-7")
    print(job.job_id)
    await pool.aclose()

asyncio.run(main(*sys.argv[1:]))
'''


def call(function: Any = "generate", args: Any = None, kwargs: Any = None) -> bytes:
    """Make a body as arq's client does, of whatever parts."""
    parts = {"t": None, "f": function, "a": [] if args is None else args, "k": {} if kwargs is None else kwargs}
    return json.dumps(parts | {"et": int(time.time() * 1000)}).encode()


def good(job_id: str) -> dict[str, Any]:
    """Make a request that is in order."""
    return {"kind": "video", "input": directed(job_id, duration_s=0.1)}


BODIES = {  # by id: a body of which no job can be made, and what the failed job is to say
    "html": (b"<html><body>502 Bad Gateway</body></html>", "JSON"),
    "truncated": (call(args=[{"kind": "video"}])[:-9], "JSON"),
    "nested": (b"[" * 100_000, "JSON"),
    "number": (b"17", "arq"),
    "null-args": (b'{"f":"generate","a":null,"k":{},"t":null,"et":1}', "arq"),
    "other-function": (call("render", [good("other-function")]), "generate"),
    "list-function": (call(["generate"], [good("list-function")]), "generate"),
    "no-argument": (call(), "argument"),
    "two-arguments": (call(args=[good("two"), 2]), "argument"),
    "keyword": (call(kwargs={"request": good("keyword")}), "argument"),
    "text-request": (call(args=["video"]), "request"),
    "null-request": (call(args=[None]), "request"),
    "surrogate": (call(args=[{"kind": "video", "input": {"prompt": "\ud800"}}]), "input"),
    "odd-times": (b'{"f":"generate","a":[{"kind":"video"}],"k":{},"t":"x","et":"y"}', "input"),
}


async def put(pool: ArqRedis, job_id: str | bytes, body: bytes) -> None:
    """Put an entry on the queue as it stands."""
    name = job_id if isinstance(job_id, bytes) else job_id.encode()
    await pool.set(b"arq:job:" + name, body)
    await pool.zadd(QUEUE, {name: int(time.time() * 1000)})


async def put_rubbish(pool: ArqRedis, pickling: ArqRedis, batch: str) -> None:
    """Put everything on the queue that is no job, good jobs in between."""
    for name, (body, _) in BODIES.items():
        await put(pool, f"{batch}-{name}", body)
        await pool.enqueue_job("generate", good(f"{batch}-with-{name}"), _job_id=f"{batch}-with-{name}")
    await pickling.enqueue_job("generate", good(f"{batch}-pickle"), _job_id=f"{batch}-pickle")
    await put(pool, f"{batch}-raw-pickle", pickle.dumps({"f": "generate"}))
    await put(pool, f"{batch} spaces/and\nmore", call(args=[{"kind": "video", "inputs": {}}]))
    await put(pool, b"\xff\xfe" + batch.encode(), call(args=[good("never")]))
    await pool.hset(f"arq:job:{batch}-hash", mapping={"f": "generate"})
    await pool.zadd(QUEUE, {f"{batch}-hash": int(time.time() * 1000)})
    await pool.zadd(QUEUE, {f"{batch}-bodiless": int(time.time() * 1000)})
    for number in range(5):
        await pool.enqueue_job("generate", good(f"{batch}-after-{number}"), _job_id=f"{batch}-after-{number}")


async def test_rubbish_on_the_queue_harms_no_job(place: Place, api: Api, receiver: Receiver) -> None:
    """Good jobs between every kind of rubbish complete, rubbish is told of, and the worker lives on."""
    pool = await plain_arq(place.embedded_url())
    pickling = await plain_arq(place.embedded_url(), as_json=False)
    try:
        await put_rubbish(pool, pickling, "before")
        worker = await place.started("work")
        wanted = [f"before-with-{name}" for name in BODIES] + [f"before-after-{number}" for number in range(5)]
        await receiver.has_all(wanted, within_s=15)
        await put_rubbish(pool, pickling, "while")
        wanted = [f"while-with-{name}" for name in BODIES] + [f"while-after-{number}" for number in range(5)]
        await receiver.has_all(wanted, within_s=15)

        async def drained() -> bool:
            return await pool.zcard(QUEUE) == 0

        await eventually(drained)
        counted = {
            name.decode(): int(value)
            for name, value in (await pool.hgetall("onysoft:counters")).items()
            if name.startswith(b"enqueues_rejected_total|arq|")
        }
        for batch in ("before", "while"):
            for name, (_, words) in BODIES.items():
                view = await api.view(f"{batch}-{name}")
                assert view, f"{batch}-{name} is no job"
                assert (view["status"], view["failure"]["code"]) == ("failed", "invalid_request")
                assert words in view["failure"]["message"], f"{name}: {view['failure']['message']}"
            assert "pickle" in (await api.view(f"{batch}-pickle"))["failure"]["message"]
        assert counted["enqueues_rejected_total|arq|not_json"] >= 2 * 5  # a restart of the loop repeats what it was at
        assert sum(counted.values()) >= 2 * (len(BODIES) + 3), counted
        assert len(worker.events("arq.job_rejected")) >= 2 * (len(BODIES) + 5)
        assert worker.process.returncode is None
        await worker.stop()
    finally:
        await pool.aclose()
        await pickling.aclose()


async def test_an_invalid_request_on_the_queue_becomes_a_failed_job_that_names_the_field(
    place: Place, sandbox: Sandbox, receiver: Receiver
) -> None:
    """What is wrong with a request stands in its failed job, and is told to its destination where that is valid."""
    hook = receiver.url
    bad = {  # by id: the request, and the field that is to be named
        "kind-unknown": ({"kind": "hologram", "input": {}, "webhook_url": hook}, "kind"),
        "kind-missing": ({"input": {}, "webhook_url": hook}, "kind"),
        "field-unknown": ({"kind": "video", "input": {}, "prompt": "x", "webhook_url": hook}, "prompt"),
        "input-missing": ({"kind": "video", "webhook_url": hook}, "input"),
        "id-long": ({"id": "x" * 129, "kind": "video", "input": {}, "webhook_url": hook}, "id"),
        "fallbacks-many": ({"kind": "video", "input": {}, "fallbacks": ["m"] * 9, "webhook_url": hook}, "fallbacks"),
        "metadata-large": (
            {"kind": "video", "input": {}, "metadata": {"a": "x" * 5000}, "webhook_url": hook},
            "metadata",
        ),
        "hook-no-url": ({"kind": "video", "input": {}, "webhook_url": "ftp://shop.example/"}, "webhook_url"),
    }
    up = await place.started("up", WEBHOOK_URL="")
    pool, api = await plain_arq(place.embedded_url()), Api(await up.address())
    try:
        for job_id, (request, _) in bad.items():
            await pool.enqueue_job("generate", request, _job_id=job_id)
        for job_id, (_, named) in bad.items():
            view = await api.standing(job_id, "failed")
            assert view["failure"]["code"] == "invalid_request"
            assert view["failure"]["message"].startswith(f"{named}:"), view["failure"]["message"]
        told = [job_id for job_id in bad if job_id != "hook-no-url"]
        await receiver.has_all(told, within_s=10, kind="job.failed")
        assert receiver.types("hook-no-url") == set()
        assert sandbox.stats()["submissions"] == 0
    finally:
        await pool.aclose()
        await api.http.aclose()


async def test_a_private_destination_is_refused_and_never_called(
    place: Place, sandbox: Sandbox, receiver: Receiver
) -> None:
    """Without WEBHOOK_ALLOW_PRIVATE a job for a private destination fails, named, and nothing is sent there."""
    up = await place.started("up", WEBHOOK_URL="", WEBHOOK_ALLOW_PRIVATE="false")
    pool, api = await plain_arq(place.embedded_url()), Api(await up.address())
    urls = [receiver.url, "http://169.254.169.254/latest", "http://[::1]/hook", "http://10.0.0.7/", "http://0x7f.1/"]
    try:
        for number, url in enumerate(urls):
            request = {"kind": "video", "input": {"prompt": "x"}, "webhook_url": url}
            await pool.enqueue_job("generate", request, _job_id=f"private-{number}")
        for number, url in enumerate(urls):
            view = await api.standing(f"private-{number}", "failed", "completed")
            assert view["status"] == "failed", url
            assert view["failure"]["code"] == "invalid_request"
            assert view["failure"]["message"].startswith("webhook_url:")
        assert receiver.received == []
        assert sandbox.stats()["submissions"] == 0
    finally:
        await pool.aclose()
        await api.http.aclose()


async def test_a_backend_with_nothing_but_arq_is_served(
    place: Place, sandbox: Sandbox, receiver: Receiver, tmp_path: Path
) -> None:
    """A script of twenty lines that knows arq and JSON enqueues to a running ``up``, and its webhook comes."""
    await place.started("up", WEBHOOK_URL="")
    script = tmp_path / "backend.py"
    script.write_text(BACKEND)
    words = [sys.executable, "-I", str(script), place.embedded_url(), receiver.url]
    done = await asyncio.to_thread(subprocess.run, words, capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "order-7"), done.stderr
    await receiver.has_all(["order-7"], within_s=15)
    data = receiver.received[0]["data"]
    assert (data["kind"], data["metadata"], data["status"]) == ("image", {"order": 7}, "completed")
    assert data["result"]["urls"]
    assert sandbox.stats()["submissions"] == 1


async def test_one_id_by_two_doors_at_once_is_one_job(
    place: Place, sandbox: Sandbox, receiver: Receiver, redis_url: str
) -> None:
    """The same request ten times at once by HTTP and by arq, web and work apart: one job, one submission."""
    web, worker = await place.start("web", REDIS_URL=redis_url), await place.start("work", REDIS_URL=redis_url)
    await worker.address()
    pool, api = await plain_arq(redis_url), Api(await web.address())
    ids = [f"same-{number}" for number in range(5)]
    try:
        for job_id in ids:
            request = {"id": job_id, "kind": "video", "input": directed(job_id, duration_s=0.2)}
            posts = [api.http.post("/v1/jobs", json=request) for _ in range(5)]
            entries = [pool.enqueue_job("generate", request) for _ in range(5)]
            answers = await asyncio.gather(*(way for pair in zip(posts, entries, strict=True) for way in pair))
            statuses = [answer.status_code for answer in answers[::2]]
            assert set(statuses) <= {200, 202}
            assert statuses.count(202) <= 1
            assert {answer.json()["id"] for answer in answers[::2]} == {job_id}
        await receiver.has_all(ids, within_s=15)

        async def drained() -> bool:
            return await pool.zcard(QUEUE) == 0

        await eventually(drained)
        assert [len(sandbox.submissions(job_id)) for job_id in ids] == [1] * len(ids)
        assert sandbox.stats()["submissions"] == len(ids)
        assert sum([1 async for _ in pool.scan_iter("onysoft:job:*")]) == len(ids)
        assert {len((await api.view(job_id))["attempts"]) for job_id in ids} == {1}
        assert worker.events("arq.job_rejected") == []
    finally:
        await pool.aclose()
        await api.http.aclose()


async def test_one_id_by_all_four_doors_at_once_is_one_job(
    place: Place, sandbox: Sandbox, receiver: Receiver, redis_url: str
) -> None:
    """The same request ten times at once through every door is one job and one submission; another is a conflict."""
    web, worker = await place.start("web", REDIS_URL=redis_url), await place.start("work", REDIS_URL=redis_url)
    await worker.address()
    pool, api = await plain_arq(redis_url), Api(await web.address())

    async def by_cli(request: dict[str, Any]) -> Any:
        file = place.folder / f"{request['input']['prompt']}.json"
        file.write_text(json.dumps(request["input"]))
        return await place.run("submit", "video", "--id", "same", "--input-file", str(file), REDIS_URL=redis_url)

    request = {"id": "same", "kind": "video", "input": directed("same", duration_s=0.2)}
    other = {**request, "input": {"prompt": "another"}}
    try:
        async with WorkerClient(redis_url) as client:
            said, *answers = await asyncio.gather(
                by_cli(request),
                *(client.submit(request) for _ in range(3)),
                *(api.http.post("/v1/jobs", json=request) for _ in range(3)),
                *(pool.enqueue_job("generate", request) for _ in range(3)),
            )
            assert (said.status, said.err) == (0, "")
            assert {job.id for job in answers[:3]} == {answer.json()["id"] for answer in answers[3:6]} == {"same"}
            await receiver.has_all(["same"], within_s=15)
            assert len(sandbox.submissions("same")) == sandbox.stats()["submissions"] == 1

            with pytest.raises(Conflict):
                await client.submit(other)
        refused = await by_cli(other)
        assert (refused.status, refused.err.count("\n")) == (1, 1)
        assert "taken" in refused.err
        assert (await api.http.post("/v1/jobs", json=other)).status_code == 409
        await pool.enqueue_job("generate", other)
        await worker.comes_to(lambda: len(worker.events("arq.job_rejected")) == 2)  # the client's and the last one
        assert {event["reason"] for event in worker.events("arq.job_rejected")} == {"conflict"}
        counted = (await api.http.get("/metrics")).text
        assert 'enqueues_rejected_total{reason="conflict",via="arq"} 2.0' in counted
        assert (await api.view("same"))["status"] == "completed"
        assert sandbox.stats()["submissions"] == 1
    finally:
        await pool.aclose()
        await api.http.aclose()
