"""What drives the browser: a headless Chromium of its own, spoken to over the DevTools protocol."""

import asyncio
import base64
import itertools
import json
import shutil
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
# Without a sandbox of its own, so that it runs as root in a container; it sees pages of this machine only.
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
    "--force-color-profile=srgb", "--lang=en-US", "--remote-debugging-port=0",
)  # fmt: skip
PATIENCE_S = 15.0


def find_chromium() -> str:
    """Name the browser's program; without one the test fails with the package to install."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.fail("no Chromium on PATH: apt install chromium (or Google Chrome)", pytrace=False)
    return found


class Page:
    """A tab: what it is told to do, and everything it has said, asked for and failed at."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.complaints: list[str] = []
        self.requests: list[dict[str, Any]] = []

    async def listen(self) -> None:
        """Take what the browser says until it hangs up."""
        async for message in self._socket:
            said = json.loads(message.data)
            if "id" in said:
                self._waiting.pop(said["id"]).set_result(said)
            else:
                self._take(said["method"], said["params"])

    def _take(self, method: str, told: dict[str, Any]) -> None:
        match method:
            case "Network.requestWillBeSent":
                self.requests.append(told["request"])
            case "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(told["exceptionDetails"])[:500])
            case "Runtime.consoleAPICalled" if told["type"] in {"error", "warning", "assert"}:
                self.complaints.append(json.dumps(told["args"])[:500])
            case "Log.entryAdded" if told["entry"]["level"] in {"error", "warning"}:
                self.complaints.append(f"{told['entry']['text']} {told['entry'].get('url', '')}")

    async def tell(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and wait for its result."""
        number = next(self._numbers)
        waiting = self._waiting[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        async with asyncio.timeout(PATIENCE_S):
            said = await waiting
        assert "error" not in said, f"{method}: {said['error']}"
        return dict(said["result"])

    async def run(self, script: str) -> Any:
        """Evaluate a script in the page."""
        told = await self.tell("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    async def until(self, script: str, *, within_s: float = PATIENCE_S) -> Any:
        """Wait until a script gives something true."""
        deadline_s = time.monotonic() + within_s
        while True:
            found = None
            with suppress(AssertionError):  # the page is between two documents
                found = await self.run(script)
            if found:
                return found
            if time.monotonic() > deadline_s:
                text = await self.run("document.body.innerText.slice(0, 2000)")
                pytest.fail(f"did not come true: {script}\n{text}")
            await asyncio.sleep(0.05)

    async def go(self, url: str) -> None:
        """Open an address."""
        await self.tell("Page.navigate", url=url)
        await self.until("document.readyState === 'complete'")

    async def click(self, selector: str) -> None:
        """Click with the mouse where an element is, once it is there and nothing covers it."""
        target = json.dumps(selector)
        place = await self.until(f"""(() => {{
          const found = document.querySelector({target});
          if (!found || found.disabled) return null;
          found.scrollIntoView({{block: "center"}});
          const box = found.getBoundingClientRect();
          const x = box.x + box.width / 2, y = box.y + box.height / 2;
          const top = document.elementFromPoint(x, y);
          return top && (found.contains(top) || top.contains(found)) ? {{x, y}} : null;
        }})()""")
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            await self.tell("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **place)

    async def type(self, selector: str, text: str) -> None:
        """Type into a field, in place of what is in it, and press Enter."""
        await self.run(
            f"(field => {{ field.focus(); field.select(); }})(document.querySelector({json.dumps(selector)}))"
        )
        await self.tell("Input.insertText", text=text)
        await self.press("Enter", "\r")

    async def press(self, key: str, text: str = "") -> None:
        """Press a key."""
        code = {"Enter": 13, "Escape": 27, "Tab": 9}[key]
        for kind in ("keyDown", "keyUp"):
            said = {"text": text} if text and kind == "keyDown" else {}
            await self.tell("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **said)

    async def look(self, *, width: int, height: int, scheme: str) -> bytes:
        """Take a size and a colour scheme; return a picture."""
        await self.tell(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )
        await self.tell("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        await asyncio.sleep(0.3)  # until the transitions of colours are over
        return base64.b64decode((await self.tell("Page.captureScreenshot", format="png"))["data"])


@asynccontextmanager
async def browsing(folder: Path) -> AsyncIterator[Page]:
    """Run a browser with one tab, which it hands out."""
    program = find_chromium()
    profile = folder / "profile"
    words = [*FLAGS, f"--user-data-dir={profile}", "about:blank"]
    with (folder / "chromium.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(program, *words, stderr=log, start_new_session=True)
    try:
        port = await _awaited(lambda: _port(profile / "DevToolsActivePort"))
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                tabs = await answer.json()
            url = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
            async with session.ws_connect(url, max_msg_size=0) as socket:
                page = Page(socket)
                listening = asyncio.create_task(page.listen())
                for domain in ("Page", "Runtime", "Network", "Log"):
                    await page.tell(f"{domain}.enable")
                yield page
            await listening
    finally:
        process.terminate()
        await process.wait()


def _port(note: Path) -> str | None:
    lines = note.read_text().splitlines() if note.exists() else []
    return lines[0] if lines else None


async def _awaited(find: Callable[[], str | None]) -> str:
    deadline_s = time.monotonic() + PATIENCE_S
    while (found := find()) is None:
        assert time.monotonic() < deadline_s, "Chromium did not start"
        await asyncio.sleep(0.05)
    return found
