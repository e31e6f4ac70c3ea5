"""The embedded Redis is killed under those who use it: it comes back where it was, with all that it had answered."""

import asyncio
import json
import os
import signal

from harness import Sandbox, eventually
from product import Api, Place, directed
from redis import Redis


def server_pid(place: Place) -> int:
    """Ask the embedded server for its process id."""
    with Redis.from_url(place.embedded_url()) as client:
        return int(client.info("server")["process_id"])


async def test_up_outlives_its_redis(place: Place, sandbox: Sandbox) -> None:
    """Jobs under way when the server is killed complete, each paid once, without a restart of ``up``."""
    up = await place.started("up")
    api = Api(await up.address())
    ids = [f"before-{number}" for number in range(20)]
    await asyncio.gather(*(api.submit(job_id, input=directed(job_id, duration_s=2.0)) for job_id in ids))
    socket_path = place.embedded_url()
    for _ in range(2):  # what was started again is minded as well
        killed = server_pid(place)
        os.kill(killed, signal.SIGKILL)
        await up.comes_to(lambda: up.events("redis.away"))

        async def back(killed: int = killed) -> bool:
            said = await place.run("queues", "--json")
            return said.status == 0 and server_pid(place) != killed

        await eventually(back)
    assert place.embedded_url() == socket_path
    await api.submit("after", input=directed("after"))
    for job_id in [*ids, "after"]:
        await api.standing(job_id, "completed", within_s=40)
    assert sorted(row["tag"] for row in sandbox.submissions() if row["task_id"]) == sorted([*ids, "after"])
    assert json.loads((await place.run("queues", "--json")).out)["jobs"]["video"]["completed"] == len(ids) + 1
    await api.http.aclose()
    await up.stop()
    assert not (place.data_dir / "socket.path").exists()


async def test_whoever_comes_first_starts_it_where_it_was(place: Place, sandbox: Sandbox) -> None:  # noqa: ARG001
    """Two processes of long life and a command all use the one server that takes the killed one's place."""
    work, web = await asyncio.gather(place.started("work"), place.started("web"))
    api, path = Api(await web.address()), place.embedded_url()
    os.kill(server_pid(place), signal.SIGKILL)
    said = await place.run("submit", "video", "--id", "meanwhile", "--input", "prompt=x")
    assert said.status == 0, said.err
    await api.standing("meanwhile", "completed", within_s=40)
    assert place.embedded_url() == path
    await api.http.aclose()
    await asyncio.gather(work.stop(), web.stop())
    assert not (place.data_dir / "socket.path").exists()
