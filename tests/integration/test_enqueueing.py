"""Taking jobs over HTTP: batches, the count of rejections, what the description says, the page for readers."""

import asyncio
import json
import re
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis.asyncio
from harness import eventually
from test_web import JOB, PATIENCE_S, Api, check_problem, faulty_fields, serving, silent_redis
from test_web import api as api  # noqa: PLC0414 - a fixture
from test_web import locked as locked  # noqa: PLC0414 - a fixture

from jobs.request import MAX_REQUEST_BYTES
from worker.web import fleet_schema
from worker.web import schema as schemas
from worker.web.examples import EXAMPLES

BATCH = "/v1/jobs:batch"
TOKEN = {"authorization": "Bearer second-token"}


async def send(api: Api, *jobs: Any) -> list[dict[str, Any]]:
    """Send a batch; return its results."""
    body = json.dumps({"jobs": jobs})
    answer = await api.client.post(BATCH, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 200, answer.text
    results: list[dict[str, Any]] = answer.json()["results"]
    assert len(results) == len(jobs)
    return results


async def rejections(api: Api, total: int) -> dict[str, int]:
    """Wait until as many rejections are counted; return them by reason."""
    found: dict[str, int] = {}

    async def counted() -> bool:
        counters = await api.store.counters()
        found.update({k[2]: n for k, n in counters.items() if k[:2] == ("enqueues_rejected_total", "http")})
        return sum(found.values()) >= total

    await eventually(counted, within_s=5)
    return found


async def job_keys(client: redis.asyncio.Redis) -> list[bytes]:
    """List the keys that belong to jobs."""
    return [key async for key in client.scan_iter() if key.startswith((b"onysoft:job:", b"onysoft:input:"))]


async def test_batch_of_a_thousand(api: Api) -> None:
    """The largest batch is taken whole and in order, and each of its jobs is there."""
    results = await send(api, *({**JOB, "id": f"order-{n}"} for n in range(1000)))
    assert [result["status"] for result in results] == [202] * 1000
    assert [result["job"]["id"] for result in results] == [f"order-{n}" for n in range(1000)]
    for n in (0, 500, 999):
        assert (await api.client.get(f"/v1/jobs/order-{n}")).json()["status"] == "queued"
    again = await send(api, *({**JOB, "id": f"order-{n}"} for n in range(1000)))
    assert [result["status"] for result in again] == [200] * 1000
    assert [result["job"] for result in again] == [result["job"] for result in results]


async def test_batch_of_good_and_bad(api: Api, redis_client: redis.asyncio.Redis) -> None:
    """Each request of a batch fares as if it were alone, and those refused leave nothing but a count."""
    await api.client.post("/v1/jobs", json={**JOB, "id": "there"})
    results = await send(
        api,
        {**JOB, "id": "new"},
        {**JOB, "id": "there"},
        {**JOB, "id": "there", "model": "sora-2"},
        {"id": "bad", "kind": "film", "input": {"text": "\ud800"}, "sk-ony-0123456789abcdef": 1},
        "no object",
        None,
        {**JOB, "id": "no id"},
        JOB,
    )
    assert [result["status"] for result in results] == [202, 200, 409, 422, 422, 422, 422, 202]
    assert all(result.keys() == {"status", "job" if result["status"] < 300 else "problem"} for result in results)
    assert results[0]["job"] == (await send(api, {**JOB, "id": "new"}))[0]["job"]
    assert results[7]["job"]["id"].startswith("job_")
    problems = [result["problem"] for result in results if "problem" in result]
    assert [problem["code"] for problem in problems] == ["conflict"] + ["invalid_request"] * 4
    assert [[error["field"] for error in problem.get("errors", ())] for problem in problems[2:]] == [
        ["request"], ["request"], ["id"],
    ]  # fmt: skip
    assert "0123456789abcdef" not in str(problems)
    assert await rejections(api, 5) == {"conflict": 1, "invalid_request": 4}
    assert not [key for key in await job_keys(redis_client) if key.endswith((b":bad", b":no id"))]


async def test_same_id_twice_in_a_batch(api: Api) -> None:
    """Of two requests under one id the first makes the job, and the other finds it or clashes with it."""
    twice = [{**JOB, "id": "a"}, {**JOB, "id": "a"}, {**JOB, "id": "b"}, {**JOB, "id": "b", "model": "sora-2"}]
    assert [result["status"] for result in await send(api, *twice)] == [202, 200, 202, 409]


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ([], ["request"]),
        ({}, ["jobs"]),
        ({"jobs": []}, ["jobs"]),
        ({"jobs": JOB}, ["jobs"]),
        ({"jobs": [JOB] * 1001}, ["jobs"]),
        ({"jobs": [JOB], "atomic": True}, ["atomic"]),
        ({"atomic": True}, ["atomic", "jobs"]),
    ],
    ids=["list", "empty", "none", "one", "too many", "unknown field", "both"],
)
async def test_batch_that_is_none(
    api: Api, redis_client: redis.asyncio.Redis, body: Any, fields: list[str]
) -> None:  # fmt: skip
    """A batch that is wrong itself is refused whole, by the field's name, and nothing of it is taken."""
    assert sorted(faulty_fields(await api.client.post(BATCH, json=body))) == fields
    assert await rejections(api, 1) == {"invalid_request": 1}
    assert not await job_keys(redis_client)


async def test_batch_under_one_key(api: Api) -> None:
    """One Idempotency-Key cannot stand for many jobs, and is not silently ignored."""
    answer = await api.client.post(BATCH, json={"jobs": [JOB]}, headers={"Idempotency-Key": "a"})
    assert faulty_fields(answer) == ["Idempotency-Key"]


async def test_batch_has_one_limit_of_bytes(api: Api) -> None:
    """A batch may be as large as a single request, and no larger."""
    half = {"kind": "audio", "input": {"text": "a" * (MAX_REQUEST_BYTES // 2)}}
    assert [result["status"] for result in await send(api, half, half)] == [202, 202]
    answer = await api.client.post(BATCH, json={"jobs": [half, half, half]})
    check_problem(answer, 413, "payload_too_large")
    check_problem(await api.client.get(BATCH), 405, "method_not_allowed")


@pytest.mark.parametrize("silent", [True, False])
async def test_batch_while_redis_is_away(tmp_path: Path, *, silent: bool) -> None:
    """With Redis gone or mute, each request is told to come again under its id, and a bad one what is wrong with it."""
    path = tmp_path / "redis.sock"
    hang_up = await silent_redis(path) if silent else lambda: None
    async with serving(f"unix://{path}") as api:
        started_s = time.monotonic()
        answer = await api.client.post(BATCH, json={"jobs": [{**JOB, "id": "mine"}, JOB, {}]})
        assert time.monotonic() - started_s < PATIENCE_S
        hang_up()
    results = answer.json()["results"]
    assert [result["status"] for result in results] == [503, 503, 422]
    assert int(answer.headers["retry-after"]) > 0
    assert [result["problem"]["code"] for result in results] == ["unavailable", "unavailable", "invalid_request"]
    assert results[0]["problem"]["id"] == "mine"
    assert results[1]["problem"]["id"].startswith("job_")


async def test_batch_with_a_broken_record(api: Api, redis_client: redis.asyncio.Redis) -> None:
    """A bug that one request meets is that request's answer, and the others' jobs are made."""
    await api.client.post("/v1/jobs", json={**JOB, "id": "broken"})
    await redis_client.hset("onysoft:job:broken", "spec", "x")  # type: ignore[misc]
    results = await send(api, {**JOB, "id": "broken"}, {**JOB, "id": "whole"})
    assert [result["status"] for result in results] == [500, 202]
    assert results[0]["problem"]["code"] == "record_damaged"


async def test_rejections_are_counted_by_reason(api: Api, redis_client: redis.asyncio.Redis) -> None:
    """Each way to be refused raises its own counter, through whichever door, and makes no job."""
    post, sent = api.client.post, {"content-type": "application/json"}
    for path in ("/v1/jobs", BATCH, "/v1/video/generate"):
        await post(path, content=b"{", headers=sent)
        await post(path, content=b"{}")
        await post(path, content=b"x" * (12 << 20), headers=sent)
    await post("/v1/jobs", json={"kind": "film"})
    await post("/v1/video/generate", json={"prompt": "no model"})
    assert await rejections(api, 11) == {
        "invalid_json": 3, "unsupported_media_type": 2, "payload_too_large": 3, "invalid_request": 1,
        "invalid_format": 2,
    }  # fmt: skip
    assert not await job_keys(redis_client)
    assert (await post("/v1/jobs", json={**JOB, "id": "a"})).status_code == 202
    assert (await post("/v1/jobs", json=JOB, headers={"Idempotency-Key": "a"})).status_code == 200
    assert (await post("/v1/jobs", json={**JOB, "model": "x"}, headers={"Idempotency-Key": "a"})).status_code == 409
    assert (await rejections(api, 12))["conflict"] == 1
    assert len(await job_keys(redis_client)) == 2


async def test_counting_delays_nobody(tmp_path: Path) -> None:
    """While Redis is mute, a request that is wrong is told so at once."""
    path = tmp_path / "redis.sock"
    hang_up = await silent_redis(path)
    async with serving(f"unix://{path}") as api:
        started_s = time.monotonic()
        answers = await asyncio.gather(*(api.client.post("/v1/jobs", json={}) for _ in range(20)))
        assert time.monotonic() - started_s < 1
        assert [faulty_fields(answer) for answer in answers] == [["kind", "input"]] * 20
        hang_up()


async def test_description_is_whole(api: Api) -> None:
    """Each operation has a summary, a description, an example for each of its answers, all its errors and headers."""
    document = (await api.client.get("/openapi.json")).json()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            where = f"{method} {path}"
            assert operation["summary"], where
            assert operation["description"], where
            assert {"403", "500"} <= operation["responses"].keys(), where
            assert ("401" in operation["responses"]) == (operation.get("security") != []), where
            for status, answer in operation["responses"].items():
                assert "X-Request-Id" in answer["headers"], where
                assert ("Retry-After" in answer["headers"]) == (status == "503"), where
                for media_type, content in answer.get("content", {}).items():
                    assert content.get("examples") or "json" not in media_type, f"{where} {status}"
    assert document["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    taken = document["paths"]["/v1/jobs"]["post"]["responses"]["202"]
    assert taken["headers"].keys() == {"Location", "X-Request-Id"}
    examples = taken["content"]["application/json"]["examples"]
    assert {name: example["value"] for name, example in examples.items()} == EXAMPLES["JobView"]


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_are_as_described(name: str) -> None:
    """An example has the members its schema has, and no others."""
    model = (vars(schemas) | vars(fleet_schema))[name]
    for example in EXAMPLES[name].values():
        assert model.model_validate(example).model_dump(exclude_unset=True) == example


async def test_examples_of_requests_are_taken(api: Api) -> None:
    """What the description shows as a request is a request."""
    document = (await api.client.get("/openapi.json")).json()
    for path in ("/v1/jobs", BATCH, *(path for path in document["paths"] if path.endswith("/generate"))):
        content = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        for example in content["examples"].values():
            answer = await api.client.post(path, json=example["value"])
            assert answer.status_code in {200, 202}, answer.text
            assert "problem" not in answer.text


async def test_page_loads_nothing_from_elsewhere(api: Api) -> None:
    """The page and all it names come from here, no script is in the page, and its policy forbids anything else."""
    page = await api.client.get("/docs")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self';" in policy
    assert not re.search(r"https?:|\*", policy)
    assert not re.search(r"<script(?![^>]*\bsrc=)|\bon[a-z]+=|//", page.text)
    base = httpx.URL(str(page.url))
    for address in re.findall(r'(?:src|href)="([^"]+)"', page.text):
        answer = await api.client.get(base.join(address))
        assert answer.status_code == 200, address
        assert answer.headers["content-type"].partition(";")[0] in {
            "text/javascript", "text/css", "image/png", "application/json",
        }  # fmt: skip
        assert len(answer.content) > 100


async def test_page_asks_for_a_token(locked: Api) -> None:
    """With tokens, page and description are for holders; the files that are the same everywhere are not secret."""
    for path in ("/docs", "/openapi.json", "/docs/", "/docs/none.js"):
        check_problem(await locked.client.get(path), 401, "unauthorized")
    assert (await locked.client.get("/docs/initializer.js")).status_code == 200
    assert (await locked.client.get("/docs", headers=TOKEN)).status_code == 200
    document = (await locked.client.get("/openapi.json", headers=TOKEN)).json()
    assert document["security"] == [{"token": []}]


async def test_a_request_is_one_round_trip(api: Api, redis_client: redis.asyncio.Redis) -> None:
    """Taking a job, new or known, costs Redis one read of one connection, and so does a batch."""

    async def reads() -> int:
        return int((await redis_client.info("stats"))["total_reads_processed"])

    await api.client.post("/v1/jobs", json={**JOB, "id": "first"})  # connects, and loads the script
    before = await reads()
    for n in range(20):
        assert (await api.client.post("/v1/jobs", json={**JOB, "id": f"order-{n // 2}"})).status_code in {200, 202}
    await send(api, *({**JOB, "id": f"batch-{n}"} for n in range(4)))  # few enough for one read
    assert await reads() - before == 20 + 1 + 1  # and this question itself
