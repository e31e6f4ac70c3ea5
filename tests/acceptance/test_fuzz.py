"""The HTTP door under fuzz: whatever is sent to it, it answers as its own description says, and tells no secret."""

import asyncio
import re
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from product import Command, Place

TOKEN = "the-token-nobody-may-read"
SECRET = "whsec_" + "c2VjcmV0" * 5
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,"
    "response_schema_conformance,response_headers_conformance,unsupported_method"
)
# Waiting for a job's end is what a long poll is for; here it would only take time.
CONFIG = '[parameters]\n"query.wait_s" = 0.01\n'


@pytest.fixture
async def web(place: Place) -> Command:
    """Run a web process that asks for a token. Without a worker: nothing it is asked for leaves the machine."""
    return await place.started("web", API_TOKENS=f"shop:{TOKEN}", WEBHOOK_SECRET=SECRET)


async def fuzz(folder: Path, address: str, *more: str) -> str:
    """Run schemathesis over the API's own description; return what it said, and fail where it found anything."""
    (folder / "schemathesis.toml").write_text(CONFIG)
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("schemathesis")), "--config-file", "schemathesis.toml", "run",
        f"{address}/openapi.json", "--exclude-path-regex", "/stream$", "--checks", CHECKS,
        "--phases", "examples,coverage,fuzzing", "--seed", "1", "--max-examples", "25", *more,
        cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said = (await process.communicate())[0].decode()
    assert process.returncode == 0, said[-6000:]
    return said


async def test_no_server_error_and_no_secret(place: Place, web: Command) -> None:
    """Hundreds of requests, right and wrong ones, find no server error and no answer that is not described."""
    address = await web.address()
    said = await fuzz(place.folder, address, "--header", f"Authorization: Bearer {TOKEN}")
    generated = re.search(r"(\d+) generated", said)
    assert generated
    assert int(generated[1]) > 300
    assert web.events("request.failed") == []
    async with httpx.AsyncClient(base_url=address, headers={"authorization": f"Bearer {TOKEN}"}) as client:
        assert (await client.get("/readyz")).status_code == 200
        counters = (await client.get("/metrics")).text
    for told in (web.err, counters):
        assert TOKEN not in told
        assert SECRET not in told


async def test_a_wrong_token_learns_nothing(web: Command) -> None:
    """To who has no good token every address says the same, whether it is there or not, whatever is sent to it."""
    async with httpx.AsyncClient(base_url=await web.address()) as client:
        document = (await client.get("/openapi.json", headers={"authorization": f"Bearer {TOKEN}"})).json()
        asked = [(method, path) for path, methods in document["paths"].items() for method in methods]
        answers: dict[str, set[str]] = {}
        for credentials in (None, "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN}x", "\x80"):
            headers: Any = {} if credentials is None else {b"authorization": credentials.encode("latin-1")}
            for method, path in [*asked, ("get", "/v1/nothing"), ("put", "/v1/jobs"), ("post", "/v1/jobs/x/cancel")]:
                if path in {"/healthz", "/readyz"}:
                    continue
                answer = await client.request(method, path, headers=headers, content=b"{")
                assert answer.status_code == 401, (method, path)
                answers.setdefault(answer.headers["content-type"], set()).add(answer.text)
    assert {kind: len(texts) for kind, texts in answers.items()} == {
        "application/problem+json": 1,
        "application/json": 1,  # the drop-in speaks the gateway's own words
    }
