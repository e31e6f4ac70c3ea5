"""What one writes first, as a process: an arq job that submits, sleeps and looks until there is an end, and posts it.

It is not made worse than it need be: a look-up that fails is made again, arq runs the job again after any other error
(five times in all, the pause growing), after a SIGTERM at once and after a SIGKILL when its time is over, and the last
try posts that the job failed.
"""

import asyncio
import json
import sys
import time
import uuid
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))  # the bench's own modules

import httpx
from arq import Retry
from arq.connections import RedisSettings
from arq.worker import Worker, func
from errand import Place
from stage import QUEUE

from worker.signing import webhook_headers

MAX_TRIES = 5  # arq's default
JOB_TIMEOUT_S = 60  # arq's is 300, which takes as long to find a dead worker's jobs
DONE = {"success", "completed", "1"}
FAILED = {"fail", "failed", "create_task_failed", "generate_audio_failed", "2", "3"}


class Failed(Exception):  # noqa: N818 - named after what it says
    """The generation failed."""


async def generate(ctx: dict[str, Any], job: dict[str, Any]) -> None:
    try:
        data = await _generated(ctx["client"], ctx["place"], job)
        await _post(ctx, job, "job.completed", data)
    except (httpx.HTTPError, Failed, KeyError, ValueError) as error:
        if ctx["job_try"] < MAX_TRIES:
            raise Retry(defer=ctx["job_try"]) from error
        await _post(ctx, job, "job.failed", {"error": str(error)})


async def _generated(client: httpx.AsyncClient, place: Place, job: dict[str, Any]) -> dict[str, Any]:
    base = f"{place.gateway_url}/v1/{job['kind']}"
    sent = {"model": job.get("model") or MODELS[job["kind"]], **job["input"]}
    key = {**place.headers, "idempotency-key": job["id"]}
    answer = _read(await client.post(f"{base}/generate", json=sent, headers=key))
    task_id = str(answer.get("task_id") or answer.get("taskId") or answer["id"])
    while True:
        await asyncio.sleep(place.poll_s)
        try:
            data = _read(await client.get(f"{base}/status/{task_id}", headers=place.headers))
        except (httpx.HTTPError, Failed):
            continue  # whatever it is, the task may still be there; the job's time-out ends this
        word = str(data.get("status") or data.get("state") or data.get("successFlag")).lower()
        if word in DONE:
            return {"task_id": task_id}
        if word in FAILED:
            raise Failed(word)


def _read(response: httpx.Response) -> dict[str, Any]:
    body = response.raise_for_status().json()
    if body.get("code", 200) != 200:
        raise Failed(str(body))
    return dict(body.get("data") or body)


async def _post(ctx: dict[str, Any], job: dict[str, Any], event: str, data: dict[str, Any]) -> None:
    now_s = int(time.time())
    text = json.dumps({"type": event, "timestamp": now_s, "data": {"id": job["id"], **data}}).encode()
    signed = dict(webhook_headers([ctx["place"].secret], f"evt_{uuid.uuid4().hex}", now_s, text))
    headers = {**signed, "content-type": "application/json"}
    (await ctx["client"].post(job["webhook_url"], content=text, headers=headers)).raise_for_status()


MODELS = {
    "image": "flux-2/pro-text-to-image",
    "video": "veo3",
    "voice": "elevenlabs/text-to-speech-turbo-2-5",
    "audio": "elevenlabs/sound-effect-v2",
    "music": "suno-v4",
}


async def start(ctx: dict[str, Any]) -> None:
    ctx["client"] = httpx.AsyncClient(timeout=20, limits=httpx.Limits(max_connections=PLACE.concurrency))
    print("ready", flush=True)


async def stop(ctx: dict[str, Any]) -> None:
    await ctx["client"].aclose()


if __name__ == "__main__":
    PLACE = Place(**json.loads(sys.argv[1]))
    Worker(
        functions=[func(generate, name="generate")],
        queue_name=QUEUE,
        redis_settings=RedisSettings.from_dsn(PLACE.redis_url),
        max_jobs=PLACE.concurrency,
        job_timeout=JOB_TIMEOUT_S,
        max_tries=MAX_TRIES,
        on_startup=start,
        on_shutdown=stop,
        ctx={"place": PLACE},
    ).run()
