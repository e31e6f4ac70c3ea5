"""The second peer, as a process: what one writes first. An arq job that submits, sleeps, looks and posts, plain httpx.

It holds a slot while the provider works, forgets a paid task when it dies and retries nothing.
"""

import json
import sys
from typing import Any

import httpx
from arq.connections import RedisSettings
from arq.worker import Worker, func
from errand import Place, run


async def generate(ctx: dict[str, Any], body: dict[str, Any]) -> None:
    await run(ctx["client"], ctx["place"], ctx["job_id"], body)


async def start(ctx: dict[str, Any]) -> None:
    ctx["client"] = httpx.AsyncClient(timeout=60)
    print("ready", flush=True)


async def stop(ctx: dict[str, Any]) -> None:
    await ctx["client"].aclose()


if __name__ == "__main__":
    PLACE = Place(**json.loads(sys.argv[1]))
    Worker(
        functions=[func(generate, name="generate")],
        redis_settings=RedisSettings.from_dsn(PLACE.redis_url),
        max_jobs=PLACE.concurrency,
        on_startup=start,
        on_shutdown=stop,
        ctx={"place": PLACE},
    ).run()
