"""The ground a scenario is played on: sandbox, receiver, Redis, two worker processes and a web process, all its own."""

import contextlib
import http.client
import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from processes import Broken, Process
from stage import Stage, is_started

WORKERS = 2
BATCH = 1000
PAGE = 500
UNENDED = ("queued", "submitting", "processing", "waiting")
PACE = {
    "RETRY_BASE_S": "0.1",
    "RETRY_CAP_S": "1",
    "POLL_MIN_S": "0.25",
    "POLL_MAX_S": "2",
    "LOG_FORMAT": "json",
    "LOG_LEVEL": "warning",
}
Rows = list[dict[str, Any]]


@dataclass
class Halt:
    """Tells all scenarios to stop: set it, and each ends what it started."""

    event: threading.Event = field(default_factory=threading.Event)

    def wait(self, seconds: float) -> None:
        """Let time pass; raise ``Broken`` where it is over."""
        if self.event.wait(max(0.0, seconds)):
            raise Broken("stopped")


class Ground:
    """What a scenario does to the processes, and what it reads from them."""

    def __init__(self, stage: Stage, web_url: str, processes: Sequence[Process], halt: Halt) -> None:
        self._stage = stage
        self._web = web_url
        self._processes = processes
        self._halt = halt

    # --- what is done

    def control(self, **settings: Any) -> None:
        """Set how the sandbox behaves."""
        _call("POST", f"{self._stage.gateway_url}/sandbox/control", settings)

    def enqueue(self, requests: Sequence[Mapping[str, Any]]) -> None:
        """Enqueue jobs over HTTP, each with a webhook."""
        for at in range(0, len(requests), BATCH):
            part = [{**request, "webhook_url": self._stage.webhook_url} for request in requests[at : at + BATCH]]
            results = _call("POST", f"{self._web}/v1/jobs:batch", {"jobs": part})["results"]
            if refused := [row for row in results if row["status"] != 202]:
                raise Broken(f"{len(refused)} jobs were not taken, the first: {json.dumps(refused[0])[:300]}")

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self._halt.wait(seconds)
        for process in self._processes:
            process.check()

    def until(self, holds: Callable[[], bool], *, within_s: float, every_s: float = 0.2) -> bool:
        """Wait until something holds; give whether it does in time."""
        give_up_s = time.monotonic() + within_s
        while not holds():
            if time.monotonic() > give_up_s:
                return False
            self.wait(every_s)
        return True

    # --- what is read

    def views(self, **wanted: Any) -> Rows:
        """List the views of jobs."""
        found: Rows = []
        query: dict[str, Any] = {**wanted, "limit": PAGE}
        while True:
            page = _call("GET", f"{self._web}/v1/jobs?{urlencode(query)}")
            found += page["jobs"]
            if page["next_cursor"] is None:
                return found
            query["cursor"] = page["next_cursor"]

    def unended(self) -> Rows:
        """List the views of jobs that have not ended; a job on the move may be missed, or be there twice."""
        return [view for status in UNENDED for view in self.views(status=status)]

    def all_ended(self) -> bool:
        """Tell whether no job is left, looking twice since one may move from one status to another between looks."""
        return not self.unended() and not self.unended()

    def timeline(self, job_id: str) -> Rows:
        """Read what a job's record says happened to it."""
        return list(_call("GET", f"{self._web}/v1/jobs/{job_id}")["timeline"])

    def submissions(self) -> Rows:
        """List every POST the sandbox has seen, in order."""
        return list(_call("GET", f"{self._stage.gateway_url}/sandbox/submissions")["submissions"])

    def tasks(self) -> dict[str, dict[str, Any]]:
        """Read the sandbox's tasks by id."""
        rows = _call("GET", f"{self._stage.gateway_url}/sandbox/tasks")["tasks"]
        return {row["task_id"]: row for row in rows}

    def stats(self) -> dict[str, Any]:
        """Read the sandbox's counters."""
        return dict(_call("GET", f"{self._stage.gateway_url}/sandbox/stats"))

    def webhooks(self) -> int:
        """Count the different webhooks that have come."""
        return int(_call("GET", f"{self._stage.receiver_url}/counts?until=0")["distinct"])

    def metric(self, name: str) -> dict[str, float]:
        """Read a counter of the worker by its only label."""
        body = _get(f"{self._web}/metrics").decode()
        rows = re.findall(rf'^onysoft_worker_{name}{{\w+="([^"]*)"}} (\S+)$', body, re.MULTILINE)
        return {label: float(value) for label, value in rows}


@contextlib.contextmanager
def ground(halt: Halt, **environ: str) -> Iterator[Ground]:
    """Start everything for one scenario, its workers with this environment, and end it all."""
    halt.wait(0)
    with Stage() as stage, stage.redis("everysec") as redis, contextlib.ExitStack() as stack:
        settings = {**PACE, **environ}
        web = stack.enter_context(stage.worker("web", redis, **{**settings, "LOG_LEVEL": "info"}))
        workers = [stack.enter_context(stage.worker("work", redis, **settings)) for _ in range(WORKERS)]
        halt.wait(0)
        yield Ground(stage, web.said(is_started), [web, *workers], halt)


def _call(method: str, url: str, body: Any = None) -> Any:
    return json.loads(_exchange(method, url, None if body is None else json.dumps(body).encode()))


def _get(url: str) -> bytes:
    return _exchange("GET", url, None)


def _exchange(method: str, url: str, body: bytes | None) -> bytes:
    host, _, path = url.removeprefix("http://").partition("/")
    connection = http.client.HTTPConnection(host, timeout=60)
    try:
        connection.request(method, f"/{path}", body, {"content-type": "application/json"} if body else {})
        response = connection.getresponse()
        read = response.read()
    except OSError as error:
        raise Broken(f"{method} {url}: {error}") from error
    finally:
        connection.close()
    if response.status >= 300:
        raise Broken(f"{method} {url} answered {response.status}: {read[:300].decode(errors='replace')}")
    return read
