"""Memory after jobs have passed through and expired: as before, whatever their number."""

import asyncio

from ground import Halt
from memory import held_bytes, keys_there
from passage import passage
from stage import PREFIX, Stage
from table import Row

MB = 1e6
RETENTION_S = 1.0
WARM_UP, LONG, SHORT_WARM_UP, SHORT = 3000, 100_000, 300, 600
MORE_PART, MORE_MB = 1.05, 2.0
NAME = "passed through"


def flat(halt: Halt, *, short: bool) -> list[Row]:
    """Warm up, note the memory, take jobs through, compare."""
    warm_up, count = (SHORT_WARM_UP, SHORT) if short else (WARM_UP, LONG)
    halt.wait(0)
    with Stage() as stage, stage.redis("everysec") as redis:

        async def play() -> tuple[float, set[str], float, set[str], float]:
            async with passage(redis.url, retention_s=RETENTION_S) as jobs:
                await jobs.run("warm", warm_up)
                before, keys = held_bytes(redis.client, PREFIX) / MB, keys_there(redis.client, PREFIX)
                busy_s = redis.process.cpu_s()
                await jobs.run("job", count)
                busy_s = redis.process.cpu_s() - busy_s
                after = held_bytes(redis.client, PREFIX) / MB
                return before, keys, after, keys_there(redis.client, PREFIX), busy_s

        before, keys_before, after, keys_after, redis_s = asyncio.run(play())
        ids = sum(b":job-" in key for key in redis.client.scan_iter(count=1000))
    bound = max(before * MORE_PART, before + MORE_MB)
    return [
        Row(NAME, "jobs ended, told of and pruned", count, None, "without the HTTP requests"),
        Row(NAME, "MB in Redis before", round(before, 2), None, f"after {warm_up} jobs; without buffers"),
        Row(
            NAME, "MB in Redis after", round(after, 2), round(bound, 2), "without the last minute's log of submissions"
        ),
        Row(NAME, "keys more than before", len(keys_after - keys_before), 0, "of those that do not expire"),
        Row(NAME, "keys of the jobs left", ids, 0),
        Row(NAME, "Redis's CPU, ms a job", round(redis_s * 1000 / count, 3)),
    ]
