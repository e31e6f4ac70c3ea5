"""What acceptance tests may ask for: a place to run the product's commands in, the sandbox, a webhook receiver."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from aiohttp import web
from harness import Sandbox
from product import Api, Command, Place, Receiver
from warm import Warm


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """Run a webhook receiver on a free port."""
    box = Receiver()
    app = web.Application()
    app.router.add_post("/hook", box.take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    box.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    yield box
    await runner.cleanup()


@pytest.fixture(scope="session")
def warm() -> Iterator[Warm]:
    """Run a process that has imported the product, from which commands are forked."""
    warm = Warm()
    yield warm
    warm.close()


@pytest.fixture
async def place(tmp_path: Path, receiver: Receiver, warm: Warm) -> AsyncIterator[Place]:
    """Give a folder to run commands in; whatever they leave running is ended."""
    place = Place(tmp_path, {"WEBHOOK_URL": receiver.url}, warm)
    yield place
    await place.close()


@pytest.fixture
async def sandbox(place: Place) -> Sandbox:
    """Run the sandbox command without faults, and have every other command use it."""
    command = await place.start("sandbox", "--port", "0", "--faults", "none", "--speed", "100")
    place.environ["ONYSOFT_BASE_URL"] = await command.address()
    return Sandbox(place.environ["ONYSOFT_BASE_URL"])


@pytest.fixture
async def web_process(place: Place, sandbox: Sandbox) -> Command:  # noqa: ARG001 - its address must be known first
    """Run the web command."""
    return await place.started("web")


@pytest.fixture
async def api(web_process: Command) -> AsyncIterator[Api]:
    """Talk to the web command."""
    api = Api(await web_process.address())
    yield api
    await api.http.aclose()
