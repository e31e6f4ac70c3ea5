"""What browser tests may ask for: the product with a token, the sandbox, a webhook receiver, and a tab."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from chromium import browsing, find_chromium
from product import Api, Place, Receiver
from stage import TOKEN, Stage


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """Run the product with a worker, against the sandbox without faults, and open a browser."""
    find_chromium()
    box, app = Receiver(), web.Application()
    app.router.add_post("/hook", box.take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    hook = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    place = Place(tmp_path, {"API_TOKENS": f"ops:{TOKEN}", "WEBHOOK_URL": hook, "MAX_ATTEMPTS": "1"})
    try:
        sandbox = await place.start("sandbox", "--port", "0", "--faults", "none", "--speed", "100")
        place.environ["ONYSOFT_BASE_URL"] = await sandbox.address()
        up = await place.start("up")
        address = await up.address()
        api = Api(address)
        api.http.headers["authorization"] = f"Bearer {TOKEN}"
        async with api.http, browsing(tmp_path) as page:
            yield Stage(address, api, page, place.embedded_url())
    finally:
        await place.close()
        await runner.cleanup()


@pytest.fixture
async def unwilling() -> AsyncIterator[str]:
    """Run a receiver that wants no more of anything, and says so at length."""

    async def refuse(_request: web.Request) -> web.Response:
        return web.Response(status=410, text="<b>no</b>\u202e " * 400)

    app = web.Application()
    app.router.add_post("/hook", refuse)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    await runner.cleanup()
