"""One job as both peers do it: submit, look until it is done, post the signed webhook. Any httpx client does."""

import asyncio
import json
import time
import uuid
from dataclasses import dataclass
from typing import Any

import httpx

from worker.signing import webhook_headers


@dataclass(frozen=True, slots=True)
class Place:
    """Where a peer sends its requests and what it says, as handed to its process in JSON."""

    gateway_url: str
    webhook_url: str
    api_key: str
    secret: str
    kind: str
    model: str
    poll_s: float  # 0: look at once
    concurrency: int
    redis_url: str = ""

    @property
    def headers(self) -> dict[str, str]:
        """Give the headers of every request to the gateway."""
        return {"authorization": f"Bearer {self.api_key}", "user-agent": "bench", "accept": "application/json"}


async def run(client: httpx.AsyncClient, place: Place, job_id: str, body: dict[str, Any]) -> None:
    """Do the whole job."""
    base = f"{place.gateway_url}/v1/{place.kind}"
    sent = {"model": place.model, **body}
    key = {**place.headers, "idempotency-key": job_id}
    task_id = (
        (await client.post(f"{base}/generate", json=sent, headers=key)).raise_for_status().json()["data"]["task_id"]
    )
    while True:
        if place.poll_s:
            await asyncio.sleep(place.poll_s)
        seen = await client.get(f"{base}/status/{task_id}", headers=place.headers)
        data = seen.raise_for_status().json()["data"]
        if data["status"] == "success":
            break
    text = json.dumps({"type": "job.completed", "timestamp": int(time.time()), "data": {"id": job_id, **data}}).encode()
    signed = dict(webhook_headers([place.secret], f"evt_{uuid.uuid4().hex}", int(time.time()), text))
    answer = await client.post(place.webhook_url, content=text, headers={**signed, "content-type": "application/json"})
    answer.raise_for_status()
