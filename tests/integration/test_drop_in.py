"""The drop-in: a client that knows the gateway only works through us unchanged, errors included."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis.asyncio
from harness import API_KEY, Bench, Sandbox, directed, eventually
from structlog.testing import capture_logs
from test_web import PATIENCE_S, Api, serving, silent_redis
from test_web import api as api  # noqa: PLC0414 - a fixture

from jobs import changes

TOKEN = "the-token-of-the-shop"
KINDS = ("video", "image", "audio", "voice", "music")
PROMPT = {"model": "sora-2", "prompt": "a lighthouse"}


def ending(**data: Any) -> dict[str, Any]:
    """Make a submission whose task the sandbox shows as processing twice, and then as the contract has it."""
    shown = {"success": True, "data": {"task_id": "{task_id}", **data}}
    end = {"body": shown, "failed": data["status"] == "failed"}
    return {**PROMPT, "sandbox": {"duration_s": 0.0, "lookups": [{"word": "processing"}] * 2, "result": [end]}}


URLS = ["https://cdn.example/1.mp4", "https://cdn.example/2.mp4"]
GOOD = ending(status="completed", result={"urls": URLS})
WORDS = "duration is not within the range of allowed options"
BAD = ending(status="failed", error={"code": "invalid_input", "message": WORDS})


class TaskFailed(Exception):  # noqa: N818 - a client's own
    """The task failed; the arguments are the code and the message."""


async def make_video(base_url: str, key: str, submission: dict[str, Any]) -> list[str]:
    """Submit and poll. Knows an address, a key and the gateway's protocol, and tolerates nothing else."""
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=base_url, headers=headers, trust_env=False, verify=False) as client:
        answer = await client.post("/v1/video/generate", json=submission)
        task_id = answer.json()["data"]["task_id"]
        assert answer.status_code == 202
        assert answer.json() == {"success": True, "data": {"task_id": task_id, "status": "processing"}}
        async with asyncio.timeout(20):
            while True:
                answer = await client.get(f"/v1/video/status/{task_id}")
                data = answer.json()["data"]
                assert (answer.status_code, answer.json()["success"], data["task_id"]) == (200, True, task_id)
                match data["status"]:
                    case "completed":
                        return list(data["result"]["urls"])
                    case "failed":
                        raise TaskFailed(data["error"]["code"], data["error"]["message"])
                    case running:
                        assert running == "processing"
                await asyncio.sleep(0.05)


@pytest.fixture
async def worker_url(bench: Bench) -> AsyncIterator[str]:
    """Run a worker against the sandbox, and a web server that asks for a token."""
    async with bench.worker(), serving(bench.redis_url, API_TOKENS=f"shop:{TOKEN}") as api:
        await api.store.sync_clock()
        yield str(api.client.base_url)


@pytest.fixture
def doors(sandbox: Sandbox, worker_url: str) -> list[tuple[str, str]]:
    """Give address and key of the gateway itself and of the worker."""
    return [(sandbox.url, API_KEY), (worker_url, TOKEN)]


def check_envelope(answer: httpx.Response, status: int, code: str) -> str:
    """Check that an answer is an error in the gateway's envelope; return its message."""
    body = answer.json()
    assert (answer.status_code, body.get("error", {}).get("code")) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/json"
    assert body == {"success": False, "error": {"code": code, "message": body["error"]["message"]}}
    assert body["error"]["message"]
    return str(body["error"]["message"])


async def test_one_client_makes_videos_at_both(doors: list[tuple[str, str]]) -> None:
    """One script gets the same URLs from the gateway and through the worker."""
    for url, key in doors:
        assert await make_video(url, key, GOOD) == URLS


async def test_one_client_hears_of_failures_at_both(doors: list[tuple[str, str]]) -> None:
    """One script hears of a failed task, with its code and the gateway's words."""
    for url, key in doors:
        with pytest.raises(TaskFailed) as failed:
            await make_video(url, key, BAD)
        assert failed.value.args[0] == "invalid_input"
        assert WORDS in failed.value.args[1]


Send = Callable[[httpx.AsyncClient], Any]
JSON = {"content-type": "application/json"}
SAME_AT_BOTH: dict[str, tuple[Send, int, str]] = {
    "a key that is none": (
        lambda c: c.post("/v1/video/generate", json=PROMPT, headers={"authorization": "Bearer wrong"}),
        401,
        "invalid_api_key",
    ),
    "a look-up without a key": (
        lambda c: c.get("/v1/video/status/none", headers={"authorization": ""}),
        401,
        "invalid_api_key",
    ),
    "no JSON": (lambda c: c.post("/v1/image/generate", content=b"{", headers=JSON), 400, "invalid_request"),
    "no object": (lambda c: c.post("/v1/image/generate", json=[PROMPT]), 400, "invalid_request"),
    "no model": (lambda c: c.post("/v1/image/generate", json={"prompt": "a"}), 400, "invalid_request"),
    "a number": (lambda c: c.post("/v1/image/generate", json={**PROMPT, "model": 3}), 400, "invalid_request"),
    "an empty model": (lambda c: c.post("/v1/image/generate", json={**PROMPT, "model": ""}), 400, "invalid_request"),
    "too much": (
        lambda c: c.post("/v1/image/generate", json={**PROMPT, "image_url": "a" * (12 << 20)}),
        413,
        "payload_too_large",
    ),
    "no such task": (lambda c: c.get("/v1/music/status/none"), 404, "task_not_found"),
    "no such address": (lambda c: c.get("/v1/music/nothing"), 404, "endpoint_not_found"),
}


@pytest.mark.parametrize("case", SAME_AT_BOTH)
async def test_errors_are_the_gateways(doors: list[tuple[str, str]], case: str) -> None:
    """What the gateway refuses the worker refuses alike: status, envelope and code."""
    ask, status, code = SAME_AT_BOTH[case]
    for url, key in doors:
        headers = {"authorization": f"Bearer {key}"}
        async with httpx.AsyncClient(base_url=url, headers=headers, trust_env=False, verify=False) as client:
            check_envelope(await ask(client), status, code)


async def test_errors_of_our_own(api: Api) -> None:
    """What only the worker refuses comes in the gateway's envelope, too."""
    post, keyed = api.client.post, {"Idempotency-Key": "order-1"}
    path = "/v1/video/generate"
    assert (await post(path, json=PROMPT, headers=keyed)).status_code == 202
    other = await post(path, json={**PROMPT, "prompt": "another"}, headers=keyed)
    assert "order-1" in check_envelope(other, 409, "conflict")
    not_plain = await post(path, content=b'{"model":"veo3","seed":NaN}', headers=JSON)
    assert "input: " in check_envelope(not_plain, 422, "invalid_request")
    spaced = await post(path, json={"model": "two words"})
    assert "model: " in check_envelope(spaced, 400, "invalid_request")
    check_envelope(await post(path, content=b"x", headers={**JSON, "content-encoding": "gzip"}), 400, "invalid_request")
    check_envelope(await post(path, json=PROMPT, headers={"host": "evil.example"}), 403, "forbidden_host")
    check_envelope(await post(path, json=PROMPT, headers={"origin": "null"}), 403, "forbidden_origin")
    wrong_method = await api.client.get(path)
    check_envelope(wrong_method, 405, "method_not_allowed")
    assert wrong_method.headers["allow"] == "POST"
    for address in ("/v1/video", "/v1/video/status/", "/v1/video/status/a%2Fb", "/v1/voice/generate/"):
        check_envelope(await api.client.get(address), 404, "endpoint_not_found")
    assert (await api.client.get("/v1/film/generate")).json()["code"] == "not_found"


@pytest.mark.parametrize("media_type", [None, "text/plain", "application/x-www-form-urlencoded", "nonsense"])
async def test_any_type_of_body_but_from_no_other_site(api: Api, media_type: str | None) -> None:
    """As at the gateway a body is JSON whatever it says it is; what a page of another site posts is refused by that."""
    sent = {"content-type": media_type} if media_type else {}
    for elsewhere in ({"origin": "https://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}):
        headers = {**sent, **elsewhere, "idempotency-key": "spent"}
        answer = await api.client.post("/v1/video/generate", content=json.dumps(PROMPT), headers=headers)
        check_envelope(answer, 403, "forbidden_origin")
    assert await api.store.get("spent") is None
    answer = await api.client.post("/v1/video/generate", content=json.dumps(PROMPT), headers=sent)
    assert answer.status_code == 202, answer.text


@pytest.mark.parametrize("key", ["no id", "order/1841", "x" * 129, "é", '"quoted id"', "{a}"])
async def test_a_key_that_is_no_id(api: Api, key: str) -> None:
    """A client's key of any form makes one task, under an id that is always the same for it and good as a key, too."""

    async def submitted(given: str, prompt: str = "a lighthouse") -> httpx.Response:
        headers = {b"idempotency-key": given.encode("latin-1")}
        return await api.client.post("/v1/video/generate", json={**PROMPT, "prompt": prompt}, headers=headers)

    first, second = await submitted(key), await submitted(key)
    assert first.status_code == second.status_code == 202
    task_id = first.json()["data"]["task_id"]
    assert re.fullmatch("idem_[0-9a-f]{32}", task_id)
    for given in (key, task_id):
        assert (await submitted(given)).json()["data"]["task_id"] == task_id
    assert (await submitted(f"{key} of another")).json()["data"]["task_id"] != task_id
    check_envelope(await submitted(key, prompt="another"), 409, "conflict")


async def test_an_empty_key_is_none(api: Api) -> None:
    """Clients that send the header without a value do not share one task."""
    ids = {
        (await api.client.post("/v1/video/generate", json=PROMPT, headers={"idempotency-key": ""})).json()["data"][
            "task_id"
        ]
        for _ in range(2)
    }
    assert len(ids) == 2


async def test_bugs_and_odd_ids(api: Api, redis_client: redis.asyncio.Redis) -> None:
    """An error of ours is a 500 in the envelope, and an id that cannot be one is no task's."""
    await redis_client.hset("onysoft:job:broken", mapping={"schema": "1", "spec": "x"})  # type: ignore[misc]
    with capture_logs():
        check_envelope(await api.client.get("/v1/video/status/broken"), 500, "record_damaged")
    for task_id in ("no%20id", "%00", "x" * 200):
        check_envelope(await api.client.get(f"/v1/video/status/{task_id}"), 404, "task_not_found")


@pytest.mark.parametrize("silent", [True, False])
async def test_redis_away(tmp_path: Path, *, silent: bool) -> None:
    """With Redis gone or mute, a client is told to repeat, under a key that makes at most one task."""
    path = tmp_path / "redis.sock"
    hang_up = await silent_redis(path) if silent else lambda: None
    async with serving(f"unix://{path}") as api:
        started_s = time.monotonic()
        submitted, seen = await asyncio.gather(
            api.client.post("/v1/video/generate", json=PROMPT), api.client.get("/v1/video/status/mine")
        )
        assert time.monotonic() - started_s < PATIENCE_S
        hang_up()
    assert "Idempotency-Key: job_" in check_envelope(submitted, 503, "unavailable")
    check_envelope(seen, 503, "unavailable")
    assert int(submitted.headers["retry-after"]) > 0


@pytest.mark.parametrize("kind", KINDS)
async def test_a_submission_becomes_a_job(api: Api, kind: str) -> None:
    """The alias is the kind, the key is the id, and all but the model is the input; any alias finds the task."""
    body = {"model": "some/model", "prompt": "a", "id": 7, "kind": "film", "webhook_url": "no url"}
    for _ in range(2):
        answer = await api.client.post(f"/v1/{kind}/generate", json=body, headers={"Idempotency-Key": "order-1"})
        assert (answer.status_code, answer.json()["data"]["task_id"]) == (202, "order-1")
    job = (await api.client.get("/v1/jobs/order-1")).json()
    assert (job["kind"], job["requested_model"], job["fallbacks"]) == (kind, "some/model", [])
    stored = json.loads(await api.store.input("order-1"))
    assert stored == {name: value for name, value in body.items() if name != "model"}
    data = {"task_id": "order-1", "status": "processing", "result": None, "error": None}
    for alias in KINDS:
        assert (await api.client.get(f"/v1/{alias}/status/order-1")).json() == {"success": True, "data": data}


async def test_a_result_of_text(bench: Bench) -> None:
    """A result of text comes as text, and of a result nothing else is shown."""
    async with bench.worker(), serving(bench.redis_url) as api:
        await api.store.sync_clock()

        async def ended() -> Any:
            data = (await api.client.get(f"/v1/audio/status/{task_id}")).json()["data"]
            return data if data["status"] != "processing" else None

        answer = await api.client.post("/v1/audio/generate", json={"model": "speech-to-text", **directed()})
        task_id = answer.json()["data"]["task_id"]
        data = await eventually(ended)
        assert data["status"] == "completed"
        assert data["result"]["urls"] == []
        assert data["result"]["text"].startswith("Transcript")
        assert data["result"].keys() == {"urls", "text"}
        assert data["error"] is None


async def test_a_canceled_job_is_a_failed_task(api: Api) -> None:
    """The gateway knows no canceling: the job's end is a failure that says so."""
    await api.client.post("/v1/voice/generate", json=PROMPT, headers={"Idempotency-Key": "gone"})
    job = await api.store.get("gone")
    assert job is not None
    await api.store.apply(changes.cancel(job, now_ms=api.store.now_ms(), rev=api.store.new_rev()))
    data = (await api.client.get("/v1/voice/status/gone")).json()["data"]
    assert (data["status"], data["result"], data["error"]["code"]) == ("failed", None, "canceled")
    assert data["error"].keys() == {"code", "message"}


@pytest.mark.parametrize("method", ["generate", "status"])
async def test_a_key_of_the_gateways_is_forgotten(
    api: Api, redis_client: redis.asyncio.Redis, method: str
) -> None:  # fmt: skip
    """Without tokens a client's key is ignored: it lands neither in Redis nor in the log."""
    secret = "sk-ony-" + "5e" * 24
    headers = {"authorization": f"Bearer {secret}"}
    with capture_logs() as logs:
        if method == "generate":
            answer = await api.client.post("/v1/video/generate", json=PROMPT, headers=headers)
        else:
            answer = await api.client.get("/v1/video/status/none", headers=headers)
    assert answer.status_code == {"generate": 202, "status": 404}[method]
    kept = [key + (await redis_client.dump(key) or b"") async for key in redis_client.scan_iter()]
    assert secret not in f"{logs} {answer.text} {answer.headers}"
    assert not any(secret.encode() in value for value in kept)
