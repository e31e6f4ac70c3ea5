"""A shell that has another webhook secret than the workers is told so, wherever it would believe its own."""

import asyncio
import json
from typing import Any

import pytest
from harness import Sandbox, eventually
from product import Place

from worker.signing import make_secret
from worker.signing_secrets import DIFFERS

A, B = make_secret(), make_secret()
MADE = "one is in Redis"

# what the worker has, what the shell has, whether the deployment's own has been made: how the doctor finds it
SHELLS = [
    pytest.param("", A, "", "warning", id="set here alone"),
    pytest.param("", A, MADE, "warning", id="set here alone, and Redis has one"),
    pytest.param(A, "", "", "warning", id="set there alone"),
    pytest.param(A, "", MADE, "warning", id="set there alone, and Redis has one"),
    pytest.param(A, B, "", "warning", id="two that differ"),
    pytest.param(A, f"{B} {A}", "", "ok", id="rotating by hand"),
    pytest.param(A, A, "", "ok", id="the same"),
    pytest.param("", "", "", "ok", id="set nowhere"),
    pytest.param("", "", MADE, "ok", id="set nowhere, and Redis has one"),
]


@pytest.mark.parametrize(("there", "here", "made", "level"), SHELLS)
async def test_another_secret_than_the_workers_is_told(
    place: Place,
    sandbox: Sandbox,  # noqa: ARG001 - its address must be known first
    there: str,
    here: str,
    made: str,
    level: str,
) -> None:
    """The command warns beside what it prints, and the doctor does; where they agree neither says a word of it."""
    web = await place.started("web", WEBHOOK_SECRET=there)  # keeps Redis running
    if made:
        await place.run("webhooks", "secret", WEBHOOK_SECRET="")
    await place.started("work", WEBHOOK_SECRET=there)

    async def alive() -> list[dict[str, Any]]:
        return list(json.loads((await place.run("queues", "--json")).out)["workers"])

    (worker,) = await eventually(alive)
    assert "signs_with" not in worker
    doctor = await place.run("doctor", "--json", WEBHOOK_SECRET=here)
    shown, as_json = await asyncio.gather(
        place.run("webhooks", "secret", WEBHOOK_SECRET=here),
        place.run("webhooks", "secret", "--json", WEBHOOK_SECRET=here),
    )
    (found,) = [row for row in json.loads(doctor.out)["findings"] if row["name"] == "webhook secret"]
    assert (found["level"], found["says"] == DIFFERS) == (level, level == "warning")
    assert (shown.status, len(shown.out.split())) == (0, 1)
    assert json.loads(as_json.out)["secrets"][0] == shown.out.strip()
    warning = f"onysoft-worker: {DIFFERS}\n" if level == "warning" else ""
    assert (shown.err.removeprefix(f"{A}\n"), as_json.err) == (warning, warning)
    await web.stop()


async def test_a_secret_that_is_set_is_printed_without_a_redis(place: Place) -> None:
    """Where there is none, or none that answers, nobody can be compared with: nothing is said, nothing is begun."""
    none, away = await asyncio.gather(
        place.run("webhooks", "secret"), place.run("webhooks", "secret", REDIS_URL="unix:///nonexistent/redis.sock")
    )
    for said in (none, away):
        assert (said.status, said.out, said.err) == (0, f"{place.environ['WEBHOOK_SECRET']}\n", "")
    assert not place.data_dir.exists()
