"""The first peer, as a process: nothing but the requests, by httpx over httpx-aiohttp, so many jobs at a time.

It keeps no record, retries nothing and forgets all when it dies. Reads ``FIRST COUNT DURATION_S ANSWER_S`` a line from
standard input, does those jobs and says ``done FIRST``.
"""

import asyncio
import json
import sys
from collections.abc import Iterator

import httpx
from errand import Place, run
from httpx_aiohttp import HttpxAiohttpClient
from stage import request_body


async def main(place: Place) -> None:
    limits = httpx.Limits(max_connections=100, max_keepalive_connections=100)
    async with HttpxAiohttpClient(limits=limits, timeout=60) as client:
        print("ready", flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            first, count, *seconds = line.split()
            ids = iter(range(int(first), int(first) + int(count)))

            async def work(ids: Iterator[int] = ids, times: tuple[float, ...] = tuple(map(float, seconds))) -> None:
                for number in ids:
                    await run(client, place, f"bare-{number}", request_body(f"bare-{number}", *times))

            await asyncio.gather(*(work() for _ in range(place.concurrency)))
            print(f"done {first}", flush=True)


if __name__ == "__main__":
    asyncio.run(main(Place(**json.loads(sys.argv[1]))))
