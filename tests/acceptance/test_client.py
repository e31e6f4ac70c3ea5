"""The Python client in a backend service that has packages of its own by the names of ours."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

from harness import Sandbox, directed
from product import Place

import worker as package

BACKEND = '''\
"""A backend service with its own settings and jobs; of the product it knows the client."""
import asyncio
import json
import sys

from worker.client import Conflict, InvalidRequest, WorkerClient

import config
import jobs


async def main(redis_url, request):
    async with WorkerClient(redis_url) as client:
        job = await client.submit(request)
        assert job.created_at, "no worker has answered"
        done = await client.wait(job.id, timeout_s=20)
        assert await client.get(job.id) == done
        page = await client.list(status="completed", kind="image")
        try:
            await client.submit({**request, "model": "sora-2"})
        except Conflict as error:
            conflict = str(error)
        try:
            await client.submit({**request, "id": "bad", "prompt": "x"})
        except InvalidRequest as error:
            fields = [row["field"] for row in error.errors]
    told = {"status": done.status, "urls": done.urls, "listed": [job.id for job in page.jobs], "fields": fields}
    print(json.dumps({**told, "conflict": conflict, "own": [config.SHOP, jobs.SHOP]}))


asyncio.run(main(sys.argv[1], json.loads(sys.argv[2])))
'''
OWN = '''\
"""A package of the backend's own."""
SHOP = __name__


def __getattr__(name):
    if not name.startswith("__"):
        raise RuntimeError(f"{__name__}.{name} is asked of the backend's own package")
    raise AttributeError(name)
'''


async def test_a_backend_with_its_own_config_and_jobs(place: Place, sandbox: Sandbox, tmp_path: Path) -> None:
    """With its own project first on the path, a backend submits, waits, lists, and is told what is wrong."""
    await place.started("up", WEBHOOK_URL="")
    project = tmp_path / "shop"
    for name in ("config", "jobs"):
        (project / name).mkdir(parents=True)
        (project / name / "__init__.py").write_text(OWN)
    (project / "backend.py").write_text(BACKEND)
    request = {"id": "order-7", "kind": "image", "input": directed(tag="order-7")}
    words = [sys.executable, str(project / "backend.py"), place.embedded_url(), json.dumps(request)]
    environ = {**os.environ, "PYTHONPATH": str(Path(package.__file__ or "").parents[1])}
    done = await asyncio.to_thread(
        subprocess.run, words, capture_output=True, text=True, timeout=40, check=False, env=environ, cwd=project
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["urls"]
    assert "order-7 is taken" in told["conflict"]
    assert told | {"urls": [], "conflict": ""} == {
        "status": "completed",
        "urls": [],
        "listed": ["order-7"],
        "fields": ["prompt"],
        "conflict": "",
        "own": ["config", "jobs"],
    }
    assert len(sandbox.submissions("order-7")) == 1
