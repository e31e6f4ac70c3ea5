"""Where it is measured: sandbox, Redis, web process, two workers, and one consumer that is many hosts.

A measurement gets a ``Corner``, which is a host of its own. In the long run each corner has processes of its own, and
nothing else runs; in the short run all corners share one scene.
"""

import asyncio
import contextlib
import itertools
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from books import Books, read_books
from ground import PACE, Halt
from processes import Broken, Process, python
from stage import API_KEY, PREFIX, SECRET, Http, RedisServer, Stage, is_started

from config.models import load_models
from config.settings import Settings
from jobs.destinations import Destination
from worker.enqueue import Door
from worker.keys import Keys
from worker.main import open_store

HERE = Path(__file__).resolve().parent
WORKERS = 2
BATCH = 500
TASK_S = 0.2
MODEL = "flux-2/pro-text-to-image"
LOOK_EVERY_S = 0.1
SHARED_SCHEDULE = {"WEBHOOK_SCHEDULE_S": "0,0.05,3,18,72,180,360,360"}  # the default one, a hundredth of it


class Scene:
    """The processes, and how to talk to them; safe to use from several threads."""

    def __init__(
        self, web: Process, consumer: Process, redis: RedisServer, processes: Sequence[Process], halt: Halt
    ) -> None:
        self.redis = redis
        self.halt = halt
        self._processes = processes
        self._web_url = web.said(is_started)
        self.port = int(consumer.said(_port))
        self._talking = threading.local()

    def web(self, path: str, body: Any) -> Any:
        """Send the web process a request."""
        return self._call("web", self._web_url, "POST", path, body)

    def consumer(self, path: str, body: Any = None) -> Any:
        """Ask the consumer, or tell it something."""
        return self._call("consumer", f"http://127.0.0.1:{self.port}", "POST" if body else "GET", path, body)

    def _call(self, name: str, url: str, method: str, path: str, body: Any) -> Any:
        http: Http | None = getattr(self._talking, name, None)
        if http is None:
            http = Http(url)
            setattr(self._talking, name, http)
        try:
            status, answer = http.call(method, path, None if body is None else json.dumps(body).encode())
        except OSError as error:
            raise Broken(f"{method} {path}: {error}") from error
        if status >= 300:
            raise Broken(f"{method} {path} answered {status}: {answer}")
        return answer

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.halt.wait(seconds)
        for process in self._processes:
            process.check()


class Corner:
    """A host of the scene, and what a measurement does and sees there."""

    def __init__(self, scene: Scene, host: str) -> None:
        self._scene = scene
        self.host = host
        self.wait = scene.wait

    def url(self, path: str) -> str:
        """Name a destination of the host."""
        return f"http://{self.host}:{self._scene.port}{path}"

    # --- what is done

    def plan(self, path: str, *, status: int = 200, delay_s: float = 0.0) -> None:
        """Say how a destination answers from now on; '' is all of the host's that have no plan of their own."""
        self._scene.consumer("/-/plan", {"host": self.host, "path": path, "status": status, "delay_s": delay_s})

    def enqueue(self, names: Sequence[str], url: str) -> None:
        """Enqueue jobs over HTTP whose tasks take a moment."""
        for at in range(0, len(names), BATCH):
            jobs = [_request(f"{self.host}-{name}", url) for name in names[at : at + BATCH]]
            results = self._scene.web("/v1/jobs:batch", {"jobs": jobs})["results"]
            if refused := [row for row in results if row["status"] != 202]:
                raise Broken(f"{len(refused)} jobs were not taken, the first: {refused[0]}")

    def trickle(self, name: str, url: str, *, per_s: float, for_s: float) -> int:
        """Enqueue one job after the other, evenly over a time; give how many."""
        began_s, count = time.monotonic(), round(per_s * for_s)
        for number in range(count):
            self.wait(began_s + number / per_s - time.monotonic())
            self.enqueue([f"{name}-{number}"], url)
        return count

    def fill(self, name: str, count: int, urls: Sequence[str]) -> None:
        """Make deliveries through the store, of jobs that are refused at once, to each of some URLs in turn."""
        asyncio.run(self._fill(f"{self.host}-{name}", count, itertools.cycle(urls)))

    async def _fill(self, name: str, count: int, urls: Iterator[str]) -> None:
        settings = Settings.from_env({"ONYSOFT_API_KEY": API_KEY, "WEBHOOK_ALLOW_PRIVATE": "true"})
        models = load_models()
        async with open_store(self._scene.redis.url, settings, models) as store:
            door = Door(store, settings, models, announce=True)
            for at in range(0, count, BATCH):
                self.wait(0)
                await asyncio.gather(
                    *(
                        door.refuse({"webhook_url": next(urls)}, "made to be told of", fallback_id=f"{name}-{number}")
                        for number in range(at, min(at + BATCH, count))
                    )
                )

    @contextlib.contextmanager
    def dead(self) -> Iterator[str]:
        """Give the URL of a destination that refuses every connection."""
        with socket.socket() as held:
            held.bind((self.host, 0))  # and never listens
            yield f"http://{self.host}:{held.getsockname()[1]}/hook"

    def until(self, holds: Callable[[], bool], *, within_s: float) -> bool:
        """Wait until something holds; give whether it does in time."""
        give_up_s = time.monotonic() + within_s
        while not holds():
            if time.monotonic() > give_up_s:
                return False
            self.wait(LOOK_EVERY_S)
        return True

    # --- what is read

    def taken(self, path: str = "") -> int:
        """Count the webhooks the host has taken, each once; or those of one path."""
        of_path = f"&path={path}" if path else ""
        return int(self._scene.consumer(f"/-/count?host={self.host}{of_path}")["taken"])

    def books(self) -> Books:
        """Read all that came to the host."""
        return read_books(self._scene.consumer(f"/-/books?host={self.host}"))

    def pending(self, url: str) -> int:
        """Count the deliveries that wait for a destination or are being sent to it."""
        keys, destination = Keys(PREFIX), Destination.of(url).id
        return sum(self._scene.redis.client.zcard(key(destination)) for key in (keys.waiting, keys.sending))


class Corners:
    """Gives out corners: of a scene of its own for each, or, in the short run, of one for all."""

    def __init__(self, halt: Halt, *, short: bool) -> None:
        self.short = short
        self._halt = halt
        self._numbers = itertools.count(2)
        self._stack = contextlib.ExitStack()
        self._shared = self._stack.enter_context(scene(halt, **SHARED_SCHEDULE)) if short else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def timed(self, bound: float) -> float | None:
        """Give the bound of a time, or none in the short run: what is played at once tells little of times."""
        return None if self.short else bound

    @contextlib.contextmanager
    def corner(self, **environ: str) -> Iterator[Corner]:
        """Give a corner; the environment is that of its workers, and heeded where the scene is its own."""
        host = f"127.0.0.{next(self._numbers)}"
        if self._shared is not None:
            yield Corner(self._shared, host)
            return
        with scene(self._halt, **environ) as own:
            yield Corner(own, host)


@contextlib.contextmanager
def scene(halt: Halt, **environ: str) -> Iterator[Scene]:
    """Start all processes, the workers with this environment, and end them."""
    with Stage() as stage, stage.redis("everysec") as redis, contextlib.ExitStack() as stack:
        consumer = stack.enter_context(stage.running(python(str(HERE / "consumer.py"), SECRET)))
        web = stack.enter_context(stage.worker("web", redis, **{**PACE, "LOG_LEVEL": "info"}))
        workers = [
            stack.enter_context(stage.worker("work", redis, **{**PACE, "LOG_LEVEL": "info", **environ}))
            for _ in range(WORKERS)
        ]
        for worker in workers:
            worker.said(is_started)
        halt.wait(0)
        yield Scene(web, consumer, redis, [web, consumer, *workers], halt)


def _request(job_id: str, url: str) -> dict[str, Any]:
    directive = {"tag": job_id, "duration_s": TASK_S}
    return {
        "id": job_id, "kind": "image", "model": MODEL, "fallbacks": [], "webhook_url": url,
        "input": {"prompt": "a lighthouse", "sandbox": directive},
    }  # fmt: skip


def _port(line: str) -> str | None:
    match = re.search(r"on port (\d+)", line)
    return match[1] if match else None
