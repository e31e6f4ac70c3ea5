"""The sandbox gateway as its users meet it: a process reached by URL."""

import ast
import asyncio
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

KEY = "sk-ony-" + "0123456789abcdef" * 3
MODEL = "google/imagen4"


@contextmanager
def sandbox(*options: str) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """Run the sandbox on a free port; gives its URL and process."""
    command = [sys.executable, "-m", "worker.sandbox", "--port", "0", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        found = re.search(r"http://[\d.]+:\d+", line)
        assert found, line
        try:
            yield found[0], process
        finally:
            process.kill()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Run one undisturbed sandbox for the module."""
    with sandbox("--faults", "none", "--speed", "1000") as (address, _):
        yield address


@pytest.fixture
async def client(url: str) -> AsyncIterator[httpx.AsyncClient]:
    """Open a client with a good key on a sandbox with empty books."""
    headers = {"Authorization": f"Bearer {KEY}", "User-Agent": "tests"}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=10, verify=False) as opened:
        await opened.post("/sandbox/reset")
        yield opened


async def submit(client: httpx.AsyncClient, model: str = MODEL, alias: str = "image", **extra: Any) -> httpx.Response:
    """Submit a job; `key` becomes its Idempotency-Key, what else is given goes into its body."""
    key = extra.pop("key", None)
    headers = {"Idempotency-Key": key} if key else {}
    body = {"model": model, "prompt": "a lighthouse", **extra}
    return await client.post(f"/v1/{alias}/generate", json=body, headers=headers)


async def accepted(client: httpx.AsyncClient, **extra: Any) -> str:
    """Submit a job that is accepted; gives its task id."""
    answer = await submit(client, **extra)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["data"]["task_id"])


async def look(client: httpx.AsyncClient, task_id: str, alias: str = "image") -> httpx.Response:
    """Look a task up."""
    return await client.get(f"/v1/{alias}/status/{task_id}")


async def ended(client: httpx.AsyncClient, task_id: str) -> dict[str, Any]:
    """Wait until the books say that a task ended; gives what a look-up then answers."""

    async def is_over() -> bool:
        return bool((await tasks(client))[task_id]["state"] != "running")

    await until(is_over)
    body: dict[str, Any] = (await look(client, task_id)).json()
    return body


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Ask again and again until the condition holds, for ten seconds at most."""
    for _ in range(1000):
        if await holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("never came true")


async def tasks(client: httpx.AsyncClient) -> dict[str, dict[str, Any]]:
    """Read the books' tasks by id."""
    return {row["task_id"]: row for row in (await client.get("/sandbox/tasks")).json()["tasks"]}


async def stats(client: httpx.AsyncClient) -> dict[str, Any]:
    """Read all counters."""
    counters: dict[str, Any] = (await client.get("/sandbox/stats")).json()
    return counters


async def control(client: httpx.AsyncClient, **settings: Any) -> None:
    """Change settings."""
    answer = await client.post("/sandbox/control", json=settings)
    assert answer.status_code == 200, answer.text


def error(answer: httpx.Response) -> tuple[int, str]:
    """Give status and code of an enveloped refusal."""
    body = answer.json()
    assert body["success"] is False
    assert body["error"]["message"]
    return answer.status_code, body["error"].get("code", "")


@pytest.mark.parametrize("alias", ["video", "image", "audio", "voice", "music"])
async def test_every_alias_accepts_and_looks_up(client: httpx.AsyncClient, alias: str) -> None:
    """A task submitted through one alias is found through any other."""
    answer = await submit(client, alias=alias)
    assert answer.status_code == 202
    body = answer.json()
    assert body["success"] is True
    assert body["data"]["status"] == "processing"
    found = await look(client, body["data"]["task_id"], "music")
    assert found.json()["data"]["task_id"] == body["data"]["task_id"]


async def test_plain_task_runs_through_its_states(client: httpx.AsyncClient) -> None:
    """A plain task waits, queues, generates and succeeds with a URL of its own."""
    task_id = await accepted(client, sandbox={"duration_s": 0.5})
    seen: list[str] = []
    async with asyncio.timeout(5):
        while not seen or seen[-1] != "success":
            data = (await look(client, task_id)).json()["data"]
            if data["status"] not in seen:
                seen.append(data["status"])
    assert seen == ["waiting", "queuing", "generating", "success"]
    assert data["result"]["urls"] == [f"https://cdn.sandbox.invalid/{task_id}/0.png"]
    assert data["cost"] == {"amount": 0.04, "currency": "USD"}


async def test_suno_shows_its_first_track_while_still_running(client: httpx.AsyncClient) -> None:
    """FIRST_SUCCESS carries one URL and is no end; SUCCESS carries both."""
    task_id = await accepted(client, model="suno-v4", alias="music", sandbox={"duration_s": 0.5})
    seen: dict[str, str] = {}
    async with asyncio.timeout(5):
        while "SUCCESS" not in seen:
            answer = await look(client, task_id)
            seen[answer.json()["data"]["status"]] = answer.text
    assert list(seen) == ["PENDING", "TEXT_SUCCESS", "FIRST_SUCCESS", "SUCCESS"]
    assert seen["FIRST_SUCCESS"].count(".mp3") == 1
    assert seen["SUCCESS"].count(".mp3") == 2


@pytest.mark.parametrize("outcome", ["success", "never", {"fail": {"code": 501, "message": "no"}}])
async def test_a_directive_has_the_first_track_out_at_once(client: httpx.AsyncClient, outcome: Any) -> None:
    """However the task will end, and whenever."""
    way = {"duration_s": 60, "first_track_s": 0, "result": [outcome]}
    task_id = await accepted(client, model="suno-v4", alias="music", sandbox=way)
    data = (await look(client, task_id)).json()["data"]
    assert data["status"] == "FIRST_SUCCESS"
    assert [track["audio_url"] for track in data["result"]["tracks"]] == [
        f"https://cdn.sandbox.invalid/{task_id}/0.mp3"
    ]


@pytest.mark.parametrize(("alias", "model"), [("image", MODEL), ("music", "suno-v4"), ("audio", "speech-to-text")])
async def test_a_directive_puts_an_expiry_beside_the_result(client: httpx.AsyncClient, alias: str, model: str) -> None:
    """It is there once there is a result, word for word."""
    way = {"duration_s": 0, "expiry": {"expires_in": 3600}}
    answer = await look(client, await accepted(client, model=model, alias=alias, sandbox=way))
    assert answer.json()["data"]["expires_in"] == 3600
    task_id = await accepted(client, model=model, alias=alias, sandbox={**way, "result": ["never"]})
    assert "expires_in" not in (await look(client, task_id)).json()["data"]


async def test_models_answer_in_their_own_shapes(client: httpx.AsyncClient) -> None:
    """Veo flags success, KieAI nests a JSON string and echoes the input, audio is bare, a transcript has no URL."""
    now: dict[str, Any] = {"duration_s": 0}
    veo = (await look(client, await accepted(client, model="veo3", sandbox=now))).json()["data"]
    assert veo["successFlag"] == 1
    assert veo["resultUrls"][0].endswith("/0.mp4")
    failing = {"duration_s": 0, "result": [{"fail": {"code": 501, "message": "no"}}]}
    assert (await look(client, await accepted(client, model="veo3", sandbox=failing))).json()["data"][
        "successFlag"
    ] == 3
    edit = await accepted(client, model="seedream/4.5-edit", image_url="https://shop.example/in.png", sandbox=now)
    kie = (await look(client, edit)).json()
    assert kie["code"] == 200
    assert kie["data"]["state"] == "success"
    assert json.loads(kie["data"]["resultJson"])["resultUrls"] == [f"https://cdn.sandbox.invalid/{edit}/0.png"]
    assert kie["data"]["param"]["input"]["image_url"] == "https://shop.example/in.png"
    assert kie["data"]["creditsConsumed"] > 0
    bare = (await look(client, await accepted(client, model="elevenlabs/sound-effect-v2", sandbox=now))).json()
    assert bare["status"] == "completed"
    assert bare["output"]
    heard = await look(client, await accepted(client, model="speech-to-text", sandbox=now))
    assert heard.json()["data"]["result"]["text"]
    assert "http" not in heard.text


async def test_models_are_listed(client: httpx.AsyncClient) -> None:
    """The catalogue is listed, and every listed task model is accepted or refused as unsupported."""
    ids = [row["id"] for row in (await client.get("/v1/models")).json()["data"]]
    assert {"veo3", "sora-2", "suno-v4", "speech-to-text", "google/nano-banana-pro-2k"} <= set(ids)
    answers = {name: (await submit(client, model=name)).status_code for name in ids}
    assert {name for name, status in answers.items() if status != 202} == {"google/gemini-3-pro-image"}


@pytest.mark.parametrize(
    "authorization", ["", "Bearer", f"Bearer {KEY}0", f"Bearer {KEY[:-1]}", "Bearer sk-ony-" + "g" * 48, KEY]
)
async def test_a_key_of_another_form_is_401(client: httpx.AsyncClient, authorization: str) -> None:
    """Only `sk-ony-` and 48 hex digits pass, on submissions, look-ups and the model list."""
    headers = {"Authorization": authorization}
    for answer in (
        await client.post("/v1/image/generate", json={"model": MODEL}, headers=headers),
        await client.get("/v1/image/status/x", headers=headers),
        await client.get("/v1/models", headers=headers),
    ):
        assert error(answer) == (401, "invalid_api_key")


async def test_no_user_agent_is_the_cdns_refusal(client: httpx.AsyncClient) -> None:
    """Without a User-Agent the answer is a bare 403 that is no JSON."""
    del client.headers["User-Agent"]
    answer = await submit(client)
    assert (answer.status_code, answer.text) == (403, "error code: 1010")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'"x"', b"\xff", b'{"prompt": "x"}', b'{"model": 7}'])
async def test_a_malformed_body_is_400(client: httpx.AsyncClient, content: bytes) -> None:
    """What is no JSON object with a model is refused."""
    answer = await client.post("/v1/image/generate", content=content)
    assert error(answer)[0] == 400


async def test_unknown_models_endpoints_and_tasks_are_404(client: httpx.AsyncClient) -> None:
    """A model unknown or inactive, a path that is no endpoint and a task that never was are all 404."""
    assert error(await submit(client, model="veo99")) == (404, "model_not_found")
    assert error(await submit(client, model="runway-gen2")) == (404, "model_not_found")
    assert error(await submit(client, alias="hologram"))[0] == 404
    assert error(await client.get("/v1/image/generate"))[0] == 404
    assert error(await look(client, "nothing"))[0] == 404


async def test_unsupported_and_blocked_models(client: httpx.AsyncClient) -> None:
    """A model KieAI lacks is 422, a blocked one 403."""
    await control(client, blocked_models=["veo3"], unsupported_models=["kling"], extra_models=["brand-new"])
    assert error(await submit(client, model="google/gemini-3-pro-image"))[0] == 422
    assert error(await submit(client, model="kling"))[0] == 422
    assert error(await submit(client, model="veo3")) == (403, "model_blocked")
    assert (await submit(client, model="brand-new")).status_code == 202


async def test_a_body_over_ten_megabytes_is_413(client: httpx.AsyncClient) -> None:
    """The limit is exact, and a body far over it is drained so that the answer is seen."""
    frame = len(json.dumps({"model": MODEL, "pad": ""}))
    for size, status in ((10 * 1024 * 1024, 202), (10 * 1024 * 1024 + 1, 413), (40 * 1024 * 1024, 413)):
        body = json.dumps({"model": MODEL, "pad": "x" * (size - frame)}).encode()
        assert len(body) == size
        answer = await client.post("/v1/image/generate", content=body)
        assert answer.status_code == status
    assert error(answer) == (413, "payload_too_large")


async def test_balance_runs_out_and_comes_back(client: httpx.AsyncClient) -> None:
    """At zero 402 until money is added; a failed generation gives its price back."""
    await control(client, balance=0.04)
    failing = {"duration_s": 0, "result": [{"fail": {"code": "500", "message": "no"}}]}
    task_id = await accepted(client, sandbox=failing)
    await ended(client, task_id)
    running = await accepted(client, sandbox={"result": ["never"]})
    assert error(await submit(client)) == (402, "insufficient_balance")
    await control(client, balance=1)
    assert (await submit(client)).status_code == 202
    assert (await tasks(client))[running]["refunded"] is False


async def test_requests_a_minute_are_limited(client: httpx.AsyncClient) -> None:
    """The excess of a minute is refused with Retry-After and nothing of it is accepted."""
    await control(client, requests_per_minute=2)
    answers = [await submit(client) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [202, 202, 429]
    assert error(answers[2]) == (429, "rate_limit_exceeded")
    assert 1 <= int(answers[2].headers["retry-after"]) <= 60
    assert (await stats(client))["accepted"] == 2


@pytest.mark.parametrize(
    "code",
    [
        "daily_token_limit_exceeded",
        "daily_request_limit_exceeded",
        "monthly_token_limit_exceeded",
        "free_model_rate_limit",
    ],
)
async def test_quotas_are_per_model_and_reset(client: httpx.AsyncClient, code: str) -> None:
    """A used-up quota refuses its model only, says when to come back if told to, and is gone after its reset."""
    quota = {"code": code, "limit": 1, "retry_after_s": 7, "resets_in_s": 0.4}
    await control(client, quotas={MODEL: quota})
    assert (await submit(client)).status_code == 202
    refused = await submit(client)
    assert error(refused) == (429, code)
    assert refused.headers["retry-after"] == "7"
    assert (await submit(client, model="google/imagen4-fast")).status_code == 202

    async def is_lifted() -> bool:
        return (await submit(client)).status_code == 202

    await until(is_lifted)


async def test_submit_steps_are_taken_in_order(client: httpx.AsyncClient) -> None:
    """Each submission of a tag takes the next step; after the last one it is accepted plainly."""
    steps = [
        {"status": 500, "code": "boom", "message": "bad", "retry_after_s": 0.5},
        {"status": 502, "html": True},
        {"inside_200": {"code": 401, "msg": "no access"}},
        {"raw": "<busy>", "status": 503, "content_type": "text/plain"},
        "accept_camel",
        "accept_bare",
        "accept_garbage",
        "big",
        {"raw": '{"data": {"id": "{task_id}"}}', "status": 200, "accepted": True},
    ]
    job = {"tag": "job-7", "submit": steps, "duration_s": 0}
    answers = [await submit(client, sandbox=job) for _ in range(len(steps) + 1)]
    assert error(answers[0]) == (500, "boom")
    assert answers[0].headers["retry-after"] == "0.5"
    assert answers[1].status_code == 502
    assert "<html>" in answers[1].text
    assert (answers[2].status_code, answers[2].json()) == (200, {"code": 401, "msg": "no access"})
    assert (answers[3].status_code, answers[3].text) == (503, "<busy>")
    camel, bare, garbage, big, raw, plain = answers[4:]
    assert (await look(client, camel.json()["data"]["taskId"])).status_code == 200
    assert isinstance(bare.json()["id"], int)
    assert (await look(client, str(bare.json()["id"]))).status_code == 200
    with pytest.raises(json.JSONDecodeError):
        garbage.json()
    assert len(big.content) > 3_000_000
    assert (await look(client, raw.json()["data"]["id"])).status_code == 200
    assert plain.json()["data"]["task_id"]
    assert (await stats(client))["accepted"] == 6


async def test_steps_and_results_may_go_by_model(client: httpx.AsyncClient) -> None:
    """An object of lists gives each model its own steps, and `*` the rest."""
    refusal = {"status": 500, "code": "x", "message": "y"}
    job = {
        "tag": "job",
        "submit": {"veo3": [refusal], "*": []},
        "result": {"veo3": [{"fail": {"code": "1501", "message": "no"}}], "*": ["success"]},
        "lookups": {"sora-2": ["missing_404"]},
        "duration_s": 0,
    }
    assert (await submit(client, model="veo3", sandbox=job)).status_code == 500
    veo = await accepted(client, model="veo3", sandbox=job)
    sora = await accepted(client, model="sora-2", sandbox=job)
    assert (await look(client, veo)).json()["data"]["successFlag"] == 2
    assert (await look(client, sora)).status_code == 404
    assert (await look(client, sora)).json()["data"]["status"] == "success"


@pytest.mark.parametrize(
    ("step", "taken"),
    [
        ("close_before", 0),
        ("reset_before", 0),
        ("accept_then_close", 1),
        ("accept_then_reset", 1),
        ("accept_half_body", 1),
    ],
)
async def test_a_dropped_connection_carries_no_answer(client: httpx.AsyncClient, step: str, taken: int) -> None:
    """The client sees the connection end, and the books know whether there is a task."""
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        await submit(client, sandbox={"submit": [step]})
    counters = await stats(client)
    assert (counters["accepted"], counters["dropped"]) == (taken, 1 - taken)
    assert (await submit(client)).status_code == 202


async def test_a_closed_connection_sends_not_one_byte(client: httpx.AsyncClient, url: str) -> None:
    """On the wire an accepted and closed submission is an end of file and nothing before it."""
    body = json.dumps({"model": MODEL, "sandbox": {"submit": ["accept_then_close"]}}).encode()
    address = httpx.URL(url)
    reader, writer = await asyncio.open_connection(address.host, address.port)
    head = f"POST /v1/image/generate HTTP/1.1\r\nHost: x\r\nUser-Agent: t\r\nAuthorization: Bearer {KEY}\r\n"
    writer.write(head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    async with asyncio.timeout(5):
        assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()
    assert (await stats(client))["accepted_unanswered"] == 1


async def test_a_hanging_submission_is_accepted_all_the_same(client: httpx.AsyncClient) -> None:
    """No answer comes, and the task exists."""
    with pytest.raises(httpx.ReadTimeout):
        await client.post(
            "/v1/image/generate", json={"model": MODEL, "sandbox": {"submit": ["accept_then_hang"]}}, timeout=0.2
        )
    assert (await stats(client))["accepted_unanswered"] == 1


async def test_lookup_steps_come_before_the_normal_answer(client: httpx.AsyncClient) -> None:
    """Each look-up takes the next step, whatever the task's own state."""
    steps: list[Any] = [
        "missing_404",
        "record_null",
        {"status": 429, "code": "rate_limit_exceeded", "message": "slow", "retry_after_s": 1},
        "html",
        "empty",
        "truncated",
        "big",
        {"word": "some_new_status"},
        {"body": {"state": "weird", "id": "{task_id}"}},
    ]
    task_id = await accepted(client, sandbox={"duration_s": 0, "lookups": steps})
    answers = [await look(client, task_id) for _ in range(len(steps) + 1)]
    statuses = [404, 200, 429, 502, 200, 200, 200, 200, 200, 200]
    assert [answer.status_code for answer in answers] == statuses
    assert answers[1].json() == {"code": 422, "msg": "recordInfo is null"}
    assert answers[4].content == b""
    with pytest.raises(json.JSONDecodeError):
        answers[5].json()
    assert len(answers[6].content) > 3_000_000
    assert answers[6].json()["data"]["status"] == "generating"
    assert answers[7].json()["data"]["status"] == "some_new_status"
    assert answers[8].json() == {"state": "weird", "id": task_id}
    assert answers[9].json()["data"]["status"] == "success"


async def test_dropped_and_hanging_lookups(client: httpx.AsyncClient) -> None:
    """Look-ups can be closed, reset, cut in half and left hanging."""
    task_id = await accepted(client, sandbox={"lookups": ["close", "reset", "half_body", "hang"], "duration_s": 0})
    for _ in range(3):
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            await look(client, task_id)
    with pytest.raises(httpx.ReadTimeout):
        await client.get(f"/v1/image/status/{task_id}", timeout=0.2)
    assert (await look(client, task_id)).json()["data"]["status"] == "success"


async def test_outcomes_follow_each_other(client: httpx.AsyncClient) -> None:
    """One outcome a task, in order, the last one for all that follow."""
    outcomes = [{"fail": {"code": "501", "message": "bad luck"}}, "done_without_url", {"body": {"state": "odd"}}]
    job = {"tag": "j", "duration_s": 0, "result": outcomes}
    bodies = [(await look(client, await accepted(client, sandbox=job))).json() for _ in range(4)]
    assert bodies[0]["data"]["error"] == {"code": "501", "message": "bad luck"}
    assert bodies[1]["data"]["status"] == "success"
    assert bodies[1]["data"]["result"]["urls"] == []
    assert bodies[2] == bodies[3] == {"state": "odd"}


async def test_a_false_timeout_flips_to_success(client: httpx.AsyncClient) -> None:
    """A task says 524 first and has succeeded a moment later, and was billed once."""
    task_id = await accepted(client, sandbox={"duration_s": 0, "result": [{"false_524": 0.4}]})
    first = (await look(client, task_id)).json()["data"]
    assert first["error"] == {"code": "524", "message": "generate task timeout"}

    async def has_succeeded() -> bool:
        return bool((await look(client, task_id)).json()["data"]["status"] == "success")

    await until(has_succeeded)
    counters = await stats(client)
    assert (counters["billed_tasks"], counters["refunded_tasks"], counters["succeeded"]) == (1, 0, 1)


@pytest.mark.parametrize(
    ("directive", "place"),
    [
        ("x", "sandbox"),
        ({"sumbit": []}, "sumbit"),
        ({"submit": "accept"}, "sandbox.submit"),
        ({"submit": ["accept", "acept"]}, "sandbox.submit[1]"),
        ({"submit": [{"status": "500"}]}, "sandbox.submit[0].status"),
        ({"lookups": {"veo3": ["gone"]}}, "sandbox.lookups.veo3[0]"),
        ({"result": ["perhaps"]}, "sandbox.result[0]"),
        ({"duration_s": -1}, "sandbox.duration_s"),
        ({"tag": 7}, "sandbox.tag"),
    ],
)
async def test_a_wrong_directive_is_named(client: httpx.AsyncClient, directive: Any, place: str) -> None:
    """A directive that does not fit is 400 and says where."""
    answer = await submit(client, sandbox=directive)
    assert error(answer)[0] == 400
    assert place in answer.json()["error"]["message"]


async def test_the_books_show_duplicates(client: httpx.AsyncClient) -> None:
    """Two tasks of one key, or of one job, are counted; a refunded one is not paid twice."""
    never = {"result": ["never"]}
    await accepted(client, key="order-1:1", sandbox=never)
    await accepted(client, key="order-1:1", sandbox=never)
    await accepted(client, key="order-2:1", sandbox=never)
    failed = await accepted(client, key="order-3:1", sandbox={"duration_s": 0, "result": [{"fail": {"code": "500"}}]})
    await accepted(client, key="order-3:2")
    assert (await submit(client, key="order-4:1", model="nope")).status_code == 404
    counters = await stats(client)
    assert counters["submissions"] == 6
    assert counters["accepted"] == counters["billed_tasks"] == 5
    assert counters["refused_by_status"] == {"404": 1}
    assert counters["duplicate_keys"] == 1
    assert counters["duplicate_tags"] == 2
    assert counters["double_billed"] == 1
    assert counters["refunded_tasks"] == 1
    assert counters["billed"] == {"amount": 0.2, "currency": "USD"}
    assert counters["per_model"][MODEL]["accepted"] == 5
    rows = (await client.get("/sandbox/submissions")).json()["submissions"]
    assert [row["tag"] for row in rows] == ["order-1", "order-1", "order-2", "order-3", "order-3", "order-4"]
    assert [row["status"] for row in rows] == [202, 202, 202, 202, 202, 404]
    assert (await tasks(client))[failed]["refunded"] is True
    assert KEY not in json.dumps(rows)


async def test_wrong_control_changes_nothing(client: httpx.AsyncClient) -> None:
    """A control request with one bad value is 400 and applies none of its values."""
    wrongs: tuple[Any, ...] = (
        {"speed": 5, "faults": "mild"},
        {"speed": 5, "colour": 1},
        {"balance": "much", "speed": 5},
        {"speed": 0},
        {"outage": "x"},
        {"quotas": {MODEL: {"code": "rate_limit_exceeded"}}},
        [],
    )
    for wrong in wrongs:
        assert (await client.post("/sandbox/control", json=wrong)).status_code == 400
    assert (await client.get("/sandbox/control")).json()["speed"] == 1000


async def test_outages_begin_and_end(client: httpx.AsyncClient) -> None:
    """During an outage submissions and look-ups answer 503 or hang; the control API stays reachable."""
    task_id = await accepted(client, sandbox={"duration_s": 0})
    await control(client, outage="503")
    assert (await submit(client)).status_code == 503
    assert (await look(client, task_id)).status_code == 503
    await control(client, outage="hang")
    with pytest.raises(httpx.ReadTimeout):
        await client.get(f"/v1/image/status/{task_id}", timeout=0.2)
    await control(client, outage=None)
    assert (await look(client, task_id)).status_code == 200


async def test_a_refusing_outage_closes_the_port_for_a_while(client: httpx.AsyncClient, url: str) -> None:
    """Nothing listens for the time asked for, other connections are dropped, then all is as before."""
    task_id = await accepted(client, sandbox={"duration_s": 0})
    await control(client, outage="refuse", outage_s=0.5)
    address = httpx.URL(url)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address.host, address.port or 80), timeout=1)

    async def listens() -> bool:
        with suppress(ConnectionRefusedError):
            socket.create_connection((address.host, address.port or 80), timeout=1).close()
            return True
        return False

    await until(listens)
    assert (await look(client, task_id)).status_code == 200
    assert (await client.get("/sandbox/control")).json()["outage"] is None


async def test_a_refusing_outage_can_be_ended_early(client: httpx.AsyncClient, url: str) -> None:
    """The connection that asked for the outage stays open, and ends it."""
    await control(client, outage="refuse", outage_s=60)
    await control(client, outage=None)
    address = httpx.URL(url)

    async def listens() -> bool:
        with suppress(ConnectionRefusedError):
            socket.create_connection((address.host, address.port or 80), timeout=1).close()
            return True
        return False

    await until(listens)


async def test_keys_are_deduplicated_only_if_told_to(client: httpx.AsyncClient) -> None:
    """A gateway told to honour Idempotency-Key answers a resend with the first task and bills once."""
    await control(client, deduplicate=True)
    assert await accepted(client, key="a:1") == await accepted(client, key="a:1")
    assert (await stats(client))["billed_tasks"] == 1


async def talk(url: str, *pieces: bytes) -> bytes:
    """Send bytes piece by piece, each in a packet of its own, and read until the server closes."""
    address = httpx.URL(url)
    reader, writer = await asyncio.open_connection(address.host, address.port)
    for piece in pieces:
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0.005)
    async with asyncio.timeout(5):
        answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


HEAD = f"Host: x\r\nUser-Agent: t\r\nAuthorization: Bearer {KEY}\r\n".encode()
POST = b"POST /v1/image/generate HTTP/1.1\r\n" + HEAD
BODY = b'{"model": "google/imagen4"}'
PLAIN = POST + b"Content-Length: 27\r\n\r\n" + BODY
LAST = POST + b"Content-Length: 27\r\nConnection: close\r\n\r\n" + BODY


@pytest.mark.parametrize(
    ("pieces", "answers"),
    [
        ([PLAIN + PLAIN + LAST], 3),
        ([PLAIN[:9], PLAIN[9:-20], PLAIN[-20:] + LAST[:5], LAST[5:]], 2),
        ([POST + b"Transfer-Encoding: chunked\r\n\r\n1b\r\n" + BODY + b"\r\n0\r\n\r\n" + LAST], 2),
        ([PLAIN, POST + b"Expect: 100-continue\r\nContent-Length: 27\r\n\r\n", BODY + LAST], 3),
        ([PLAIN.replace(b"HTTP/1.1", b"HTTP/1.0")], 1),
    ],
)
async def test_requests_arrive_in_any_form(url: str, pieces: list[bytes], answers: int) -> None:
    """Pipelined, cut into pieces, chunked, announced and old-fashioned requests are each answered, in order."""
    answer = await talk(url, *pieces)
    assert answer.count(b" 202 Accepted") == answers
    assert answer.count(b'"task_id"') == answers


async def test_garbage_is_refused(url: str) -> None:
    """What is no HTTP is answered 400 and the connection closed."""
    assert b" 400 " in await talk(url, b"hello there\r\n\r\n")


def test_it_shares_no_code_with_the_project() -> None:
    """The sandbox imports the standard library, uvicorn and itself, nothing else."""
    folder = Path(__file__).parents[2] / "worker" / "sandbox"
    imported = {
        name
        for path in folder.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        for name in (
            [node.module or "."]
            if isinstance(node, ast.ImportFrom)
            else [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else []
        )
    }
    foreign = {name for name in imported if name.split(".")[0] not in sys.stdlib_module_names}
    assert all(name.startswith(("worker.sandbox", "uvicorn.")) for name in foreign), foreign


async def met(url: str, mix: str, seed: int, order: list[int]) -> dict[str, list[str]]:
    """Submit the same forty jobs twice each, in the given order; gives what each met."""
    headers = {"Authorization": f"Bearer {KEY}", "User-Agent": "tests"}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=2) as client:
        await client.post("/sandbox/reset")
        await control(client, faults=mix, seed=seed, speed=1_000_000)
        for number in order:
            for attempt in (1, 2):
                try:
                    await submit(client, key=f"job-{number}:{attempt}")
                except httpx.TransportError:
                    continue
        rows = (await client.get("/sandbox/submissions")).json()["submissions"]
        outcomes = await tasks(client)
    found: dict[str, list[str]] = {}
    for row in rows:
        outcome = outcomes[row["task_id"]]["outcome"] if row["task_id"] else "-"
        found.setdefault(row["tag"], []).append(f"{row['status']} {row['step']} {outcome}")
    return found


async def test_the_same_seed_meets_the_same_faults(url: str) -> None:
    """Faults depend on seed and job, not on the order in which jobs come; another seed gives others."""
    jobs = list(range(60))
    forward = await met(url, "default", 5, jobs)
    assert await met(url, "default", 5, jobs[::-1]) == forward
    assert await met(url, "default", 6, jobs) != forward
    assert {step for steps in forward.values() for step in steps} - {"202 accept success"}


async def test_the_default_mix_is_survivable(client: httpx.AsyncClient) -> None:
    """By the third submission of a job at the latest the task is accepted and succeeds."""
    await control(client, faults="default", speed=1_000_000, seed=3)
    for number in range(150):
        answers = [await submit(client, key=f"job-{number}:{attempt}") for attempt in range(3)]
        assert {answer.status_code for answer in answers} <= {202, 429, 500, 503}
        assert answers[2].status_code == 202
        row = (await client.get("/sandbox/tasks", params={"tag": f"job-{number}", "limit": 1})).json()["tasks"][0]
        assert row["outcome"] == "success"
    assert (await stats(client))["accepted"] > 400


async def test_the_hostile_mix_has_every_fault_and_breaks_nothing() -> None:
    """Four hundred jobs meet lost answers, odd shapes and false ends; the sandbox itself reports no error."""
    with sandbox("--faults", "hostile", "--speed", "100000") as (address, process):
        headers = {"Authorization": f"Bearer {KEY}", "User-Agent": "tests"}
        at_once = asyncio.Semaphore(20)
        async with httpx.AsyncClient(base_url=address, headers=headers, timeout=10, verify=False) as client:

            async def carry_through(number: int) -> None:
                async with at_once:
                    await drive(number)

            async def drive(number: int) -> None:
                with suppress(httpx.TransportError, ValueError, KeyError, TypeError):
                    task_id = await accepted_somehow(client, f"job-{number}:1")
                    for _ in range(3):
                        with suppress(httpx.TransportError):
                            await client.get(f"/v1/image/status/{task_id}", timeout=0.5)

            await asyncio.gather(*[carry_through(number) for number in range(400)])
            steps = {row["step"] for row in (await client.get("/sandbox/submissions")).json()["submissions"]}
            outcomes = {row["outcome"] for row in (await tasks(client)).values()}
            counters = await stats(client)
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert {"accept_then_close", "close_before", "accept_camel", "accept_bare", "accept_garbage", "html"} <= steps
    assert {"false_fail", "fail", "done_without_url"} <= outcomes
    assert counters["accepted_unanswered"] > 0
    assert counters["dropped"] > 0


async def accepted_somehow(client: httpx.AsyncClient, key: str) -> str:
    """Submit a job and read the task id from whatever shape comes."""
    answer = await client.post(
        "/v1/image/generate", json={"model": MODEL}, headers={"Idempotency-Key": key}, timeout=0.5
    )
    body = answer.json()
    data = body.get("data", body)
    return str(data.get("task_id") or data.get("taskId") or data["id"])


@pytest.mark.parametrize("pad_bytes", [0, 200_000])
async def test_sigterm_ends_it_at_once(pad_bytes: int) -> None:
    """With idle, hanging and slow requests open, short or long, SIGTERM exits 0 within a second and without a word."""
    with sandbox("--faults", "hostile") as (address, process):
        async with httpx.AsyncClient(base_url=address, headers={"Authorization": f"Bearer {KEY}"}) as client:
            steps: list[Any] = ["hang_before", "accept_then_hang", {"do": "accept", "delay_s": 60}]
            open_requests = [
                asyncio.create_task(submit(client, pad="x" * pad_bytes, sandbox={"submit": [step]})) for step in steps
            ]

            async def are_all_in() -> bool:
                return bool((await stats(client))["submissions"] == len(steps))

            await until(are_all_in)
            before = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert process.wait(5) == 0
            assert time.monotonic() - before < 1
            answers = await asyncio.gather(*open_requests, return_exceptions=True)
        assert all(isinstance(answer, httpx.TransportError) for answer in answers)
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_a_taken_port_is_one_line_on_stderr() -> None:
    """A port in use is said in one line, with exit status 1."""
    with sandbox() as (address, _):
        port = str(httpx.URL(address).port)
        command = [sys.executable, "-m", "worker.sandbox", "--port", port]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert port in done.stderr
