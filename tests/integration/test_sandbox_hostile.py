"""The sandbox's hostile mix: what it holds, that its draws repeat, and that what it takes away comes back by itself."""

import asyncio
import sys
from collections.abc import AsyncIterator
from itertools import count
from typing import Any

import httpx
import pytest
from harness import API_KEY, Sandbox, eventually

from worker.sandbox.catalog import MODELS
from worker.sandbox.fate import Fate
from worker.sandbox.faults import MIXES, draw

MODEL, OTHER = "google/imagen4", "flux-2/pro-text-to-image"
SPEED = 20.0


def drawn(tag: str, ordinal: int = 0, model: str = MODEL, seed: int = 1) -> Fate:
    """Draw as the gateway does."""
    return draw(MIXES["hostile"], f"{seed}|{tag}|{model}|{ordinal}", MODELS[model], ordinal, SPEED)


def tag_that_shuts(what: str) -> str:
    """Find a job whose first submission shuts a model or the account."""
    return next(f"job-{number}" for number in count() if drawn(f"job-{number}").step.shuts == what)


@pytest.fixture
async def client(sandbox: Sandbox) -> AsyncIterator[httpx.AsyncClient]:
    """Open a client with a good key on a hostile sandbox with empty books."""
    sandbox.control(faults="hostile", seed=1, speed=SPEED)
    headers = {"Authorization": f"Bearer {API_KEY}", "User-Agent": "tests"}
    async with httpx.AsyncClient(base_url=sandbox.url, headers=headers, timeout=10, verify=False) as opened:
        yield opened


async def submit(client: httpx.AsyncClient, tag: str, model: str = MODEL, **directive: Any) -> httpx.Response:
    """Submit a job under a tag."""
    body = {"model": model, "prompt": "a lighthouse", "sandbox": {"tag": tag, **directive}}
    return await client.post("/v1/image/generate", json=body)


def code_of(answer: httpx.Response) -> str:
    """Read a refusal's code, empty for an acceptance."""
    return str(answer.json().get("error", {}).get("code", ""))


def test_it_holds_everything_that_was_seen() -> None:
    """Lost answers, proxies' pages, odd shapes, errors that are none, false ends and limits that last are all drawn."""
    fates = [drawn(f"job-{number}") for number in range(6000)]
    steps = {fate.step.name for fate in fates}
    assert steps >= {
        "accept_then_close", "accept_then_reset", "accept_then_hang", "accept_garbage", "accept_half_body",
        "accept_slow_body", "accept_camel", "accept_bare", "big", "error_with_task", "close_before", "reset_before",
        "html", "inside_200", "refuse",
    }  # fmt: skip
    assert {(fate.step.status, str(fate.step.code), fate.step.shuts) for fate in fates} >= {
        (429, "daily_request_limit_exceeded", "model"), (402, "insufficient_balance", "account"),
        (402, "insufficient_balance", ""), (429, "rate_limit_exceeded", ""), (500, "internal_error", ""),
    }  # fmt: skip
    looks = {step.name for fate in fates for step in fate.lookups}
    assert looks >= {
        "missing_404", "record_null", "word", "html", "empty", "truncated", "close", "reset", "hang", "half_body",
        "slow_body", "big", "refuse",
    }  # fmt: skip
    outcomes = {(fate.outcome.kind, fate.outcome.code) for fate in fates}
    assert outcomes >= {
        ("fail", "500"), ("fail", "501"), ("fail", "1501"), ("false_fail", "524"), ("false_fail", "500"),
        ("done_without_url", ""), ("vanish", ""),
    }  # fmt: skip
    assert any(fate.step.delay_s for fate in fates)


def test_draws_depend_on_the_work_alone() -> None:
    """The same seed, job, model and ordinal give the same fate; another of any of them another one somewhere."""
    jobs = [f"job-{number}" for number in range(200)]
    fates = [drawn(job) for job in jobs]
    assert [drawn(job) for job in reversed(jobs)] == fates[::-1]
    for other in ({"seed": 2}, {"model": OTHER}, {"ordinal": 1}):
        assert [drawn(job, **other) for job in jobs] != fates  # type: ignore[arg-type]
    assert all(drawn(job, ordinal=3).step.name == "accept" for job in jobs)


async def test_a_quota_is_used_up_for_all_and_comes_back(client: httpx.AsyncClient) -> None:
    """The job that draws it is refused, and so is every other of its model until the quota is back; no other model."""
    first = await submit(client, tag_that_shuts("model"))
    again = await submit(client, "another")
    assert (first.status_code, code_of(first)) == (again.status_code, code_of(again)) == (
        429, "daily_request_limit_exceeded",
    )  # fmt: skip
    assert int(first.headers["retry-after"]) == 2
    assert int(again.headers["retry-after"]) <= 2
    calm = next(f"calm-{number}" for number in count() if drawn(f"calm-{number}", model=OTHER).step.name == "accept")
    assert (await submit(client, calm, OTHER)).status_code == 202

    async def is_back() -> bool:
        return code_of(await submit(client, "directed-not")) != "daily_request_limit_exceeded"

    await eventually(is_back, within_s=5)


async def test_the_balance_dips_for_all_models(client: httpx.AsyncClient) -> None:
    """While it lasts every model is refused with 402, without an hour at which to come again; then it is over."""
    answers = [await submit(client, tag_that_shuts("account")), await submit(client, "another", OTHER)]
    assert [(answer.status_code, code_of(answer)) for answer in answers] == [(402, "insufficient_balance")] * 2
    assert not any("retry-after" in answer.headers for answer in answers)
    calm = next(f"calm-{number}" for number in count() if drawn(f"calm-{number}").step.name == "accept")

    async def is_back() -> bool:
        return (await submit(client, calm)).status_code == 202

    await eventually(is_back, within_s=5)


async def test_what_is_shut_takes_no_draw_and_spares_directed_jobs(client: httpx.AsyncClient, sandbox: Sandbox) -> None:
    """A refusal by what another job has shut leaves the next draw as it was; a job with a directive is let through."""
    calm = next(f"calm-{number}" for number in count() if drawn(f"calm-{number}").step.name == "accept_camel")
    await submit(client, tag_that_shuts("model"))
    assert (await submit(client, calm)).status_code == 429
    assert (await submit(client, "led", submit=["accept"])).status_code == 202

    async def is_back() -> bool:
        return (await submit(client, calm)).status_code == 200

    await eventually(is_back, within_s=5)
    rows = sandbox.submissions(calm)
    assert {row["step"] for row in rows[:-1]} == {"refuse"}
    assert rows[-1]["step"] == "accept_camel"


async def test_other_faults_open_what_was_shut(client: httpx.AsyncClient, sandbox: Sandbox) -> None:
    """A change of the mix begins with nothing shut."""
    await submit(client, tag_that_shuts("model"))
    sandbox.control(faults="none")
    assert (await submit(client, "another")).status_code == 202


@pytest.mark.parametrize(
    ("step", "status", "code"),
    [
        ("error_with_task", 500, "internal_error"),
        ({"status": 422, "code": "model_not_supported", "message": "no", "accepted": True}, 422, "model_not_supported"),
    ],
)
async def test_an_error_may_carry_the_id_of_an_accepted_task(
    client: httpx.AsyncClient, sandbox: Sandbox, step: Any, status: int, code: str
) -> None:
    """The envelope is that of an error, the task exists and is billed."""
    answer = await submit(client, "despite", submit=[step], duration_s=0)
    assert (answer.status_code, answer.json()["success"], code_of(answer)) == (status, False, code)
    task_id = answer.json()["data"]["task_id"]
    look = await client.get(f"/v1/image/status/{task_id}")
    assert look.json()["data"]["status"] == "success"
    assert sandbox.submissions("despite")[0]["task_id"] == task_id
    assert sandbox.stats()["billed_tasks"] == 1


async def test_the_books_tell_whether_an_answer_was_waited_for(client: httpx.AsyncClient, sandbox: Sandbox) -> None:
    """A submission's row says when its answer went out, and whether the client was still there."""
    await submit(client, "patient", submit=[{"do": "accept", "delay_s": 0.05}])
    with pytest.raises(httpx.ReadTimeout):
        await client.post(
            "/v1/image/generate",
            json={"model": MODEL, "sandbox": {"tag": "hasty", "submit": [{"do": "accept", "delay_s": 0.3}]}},
            timeout=0.1,
        )

    async def is_sent() -> bool:
        return sandbox.submissions("hasty")[0]["sent_at_ms"] is not None

    await eventually(is_sent)
    patient, hasty = sandbox.submissions("patient")[0], sandbox.submissions("hasty")[0]
    assert patient["sent_at_ms"] - patient["at_ms"] >= 50
    assert (patient["client_left"], hasty["client_left"]) == (False, True)


async def test_the_books_tell_what_look_ups_have_told(client: httpx.AsyncClient) -> None:
    """A task that is said to have failed and then succeeds was told both, in that order."""
    answer = await submit(client, "flips", duration_s=0, result=[{"false_524": 0.3}])
    task_id = answer.json()["data"]["task_id"]

    async def succeeds() -> bool:
        return bool((await client.get(f"/v1/image/status/{task_id}")).json()["data"]["status"] == "success")

    await eventually(succeeds)
    row = (await client.get("/sandbox/tasks", params={"tag": "flips"})).json()["tasks"][0]
    assert row["told_fail_at_ms"] < row["final_at_ms"] <= row["told_success_at_ms"]
    assert (row["outcome"], row["code"]) == ("false_fail", "524")


@pytest.mark.parametrize("step", ["reset_before", "accept_then_close", "accept_half_body"])
async def test_a_client_that_left_is_no_error(step: str) -> None:
    """A connection that is to be dropped after a while may be gone by then: the sandbox has nothing to say of it."""
    words = ("-m", "worker.sandbox", "--port", "0", "--faults", "none")
    process = await asyncio.create_subprocess_exec(sys.executable, *words, stderr=asyncio.subprocess.PIPE)
    assert process.stderr is not None
    try:
        url = (await process.stderr.readline()).decode().split()[3]
        headers = {"Authorization": f"Bearer {API_KEY}", "User-Agent": "tests"}
        body = {"model": MODEL, "sandbox": {"tag": "left", "submit": [{"do": step, "delay_s": 0.3}]}}
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=10, verify=False) as client:
            with pytest.raises(httpx.TimeoutException):
                await client.post("/v1/image/generate", json=body, timeout=0.1)
            patient = await submit(client, "patient", submit=[{"do": "accept", "delay_s": 0.5}])
        assert patient.status_code == 202
        process.terminate()
        async with asyncio.timeout(5):
            assert (await process.stderr.read(), await process.wait()) == (b"", 0)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
