"""A worker that dies after its consumer has answered and before it has written that down."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from harness import SECRET, eventually
from product import Api, Place, directed, tell
from standardwebhooks import Webhook

LEASE_S = 12


@dataclass
class Deadly:
    """A consumer that verifies and takes every webhook; the worker of ``victim`` never learns that it did."""

    url: str = ""
    victim: int = 0
    taken: list[tuple[str, Any]] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.Response:
        """Take a webhook, with the worker stopped before the answer leaves and killed once it has left."""
        body = await request.read()
        event = Webhook(SECRET).verify(body, {name.lower(): value for name, value in request.headers.items()})
        self.taken.append((request.headers["webhook-id"], event))
        answer = web.Response()
        if victim := self.victim:
            self.victim = 0
            os.kill(victim, signal.SIGSTOP)
            await stands_still(victim)
            await answer.prepare(request)
            await answer.write_eof()
            os.kill(victim, signal.SIGKILL)
        return answer


async def stands_still(pid: int) -> None:
    """Wait until a process that was stopped has done the last thing it was at."""
    state = Path(f"/proc/{pid}/stat")

    async def is_stopped() -> bool:
        return (await asyncio.to_thread(state.read_text)).rpartition(")")[2].split()[0] == "T"

    await eventually(is_stopped)


@pytest.fixture
async def deadly() -> AsyncIterator[Deadly]:
    """Run the consumer on a free port."""
    consumer = Deadly()
    app = web.Application()
    app.router.add_post("/hook", consumer.take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    consumer.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    yield consumer
    await runner.cleanup()


async def test_an_answer_that_was_not_recorded_repeats_the_delivery(place: Place, api: Api, deadly: Deadly) -> None:
    """Killed between the consumer's 200 and the record, a worker leaves a delivery that comes again under its id."""
    first = await place.started("work")
    deadly.victim = first.pid
    await api.submit("told-twice", input=directed("told-twice", duration_s=0.1), webhook_url=deadly.url)
    assert await first.ended(within_s=20) == -signal.SIGKILL
    killed_s = time.monotonic()
    assert [delivery["state"] for delivery in await deliveries(api)] == ["pending"]
    assert len(deadly.taken) == 1
    second = await place.started("work")

    async def delivered() -> bool:
        return [delivery["state"] for delivery in await deliveries(api)] == ["delivered"]

    await eventually(delivered, within_s=LEASE_S + 20)
    tell(f"delivered again {time.monotonic() - killed_s:.1f} s after its worker was killed")
    await second.stop()
    (once, event), (again, same_event) = deadly.taken
    assert once == again
    assert event == same_event
    assert (event["type"], event["data"]["id"]) == ("job.completed", "told-twice")
    (delivery,) = await deliveries(api)
    assert delivery["event_id"] == once
    assert [attempt["status"] for attempt in delivery["attempts"]] == [200]  # nobody lived to write the other down


async def deliveries(api: Api) -> list[dict[str, Any]]:
    """List the job's deliveries as the API shows them."""
    return list((await api.http.get("/v1/jobs/told-twice/deliveries")).json()["deliveries"])
