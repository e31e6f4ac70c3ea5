"""Owns the demo's webhook receiver: what a consumer of the webhooks would write, and nothing of the worker's.

It checks signatures by itself, from the Standard Webhooks specification (HMAC-SHA256 over ``id.timestamp.body``, in
base64, ``v1,`` in front, several separated by spaces), so that a mistake in the worker's own signing shows here.
"""

import asyncio
import base64
import binascii
import contextlib
import hashlib
import hmac
import json
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import uvicorn

TOLERANCE_S = 300
START_TIMEOUT_S = 5.0

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Hook:
    """One webhook that was taken, by its ``webhook-id``."""

    id: str
    job_id: str
    type: str


@dataclass(slots=True)
class Inbox:
    """Everything the receiver has seen. ``repeats`` counts further deliveries of an id, ``bad`` says what was wrong."""

    taken: dict[str, Hook] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)  # webhook-id -> job, answered 500 on purpose, once each
    deliveries: int = 0
    repeats: int = 0
    bad: list[str] = field(default_factory=list)

    def of(self, job_id: str) -> list[Hook]:
        """Name the webhooks taken for a job; more than one of a type would be a mistake."""
        return [hook for hook in self.taken.values() if hook.job_id == job_id]


class Receiver:
    """A webhook endpoint on a free loopback port, served in this process."""

    def __init__(self, secret: str, refuse_first_of: frozenset[str]) -> None:
        self.inbox = Inbox()
        self._key = base64.b64decode(secret.removeprefix("whsec_"))
        self._refuse_first_of = refuse_first_of
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._server = _Server(
            uvicorn.Config(self._app, lifespan="off", log_config=None, access_log=False, ws="none", interface="asgi3")
        )
        self._serving: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Say where webhooks go."""
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}/hooks/media"

    async def start(self) -> None:
        """Start to listen."""
        self._serving = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        async with asyncio.timeout(START_TIMEOUT_S):
            while not self._server.started:  # noqa: ASYNC110 - uvicorn offers a flag and no event
                await asyncio.sleep(0.01)

    async def stop(self) -> None:
        """Stop listening, with connections dropped."""
        self._server.should_exit = self._server.force_exit = True
        if self._serving is not None:
            await asyncio.wait([self._serving], timeout=2.0)
        self._socket.close()

    async def _app(self, scope: Message, receive: Receive, send: Send) -> None:
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        status = self._take({name.decode(): value.decode() for name, value in scope["headers"]}, body)
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    def _take(self, headers: dict[str, str], body: bytes) -> int:
        """Verify one delivery, count it, and give the status to answer with."""
        inbox, message_id = self.inbox, headers.get("webhook-id", "")
        inbox.deliveries += 1
        fault = _fault(self._key, message_id, headers, body)
        if fault:
            inbox.bad.append(f"webhook {message_id or 'without id'}: {fault}")
            return 401
        event = json.loads(body)
        hook = Hook(message_id, event["data"]["id"], event["type"])
        if message_id in inbox.taken:  # at least once means sometimes twice: taken before, so nothing to do
            inbox.repeats += 1
            return 200
        if hook.job_id in self._refuse_first_of and message_id not in inbox.refused:
            inbox.refused[message_id] = hook.job_id
            return 500
        inbox.repeats += message_id in inbox.refused
        inbox.taken[message_id] = hook
        return 200


def _fault(key: bytes, message_id: str, headers: dict[str, str], body: bytes) -> str | None:
    """Say what is wrong with a delivery, or None where it is genuine."""
    timestamp = headers.get("webhook-timestamp", "")
    if not message_id or not timestamp.isdigit():
        return "no webhook-id or no webhook-timestamp"
    if abs(time.time() - int(timestamp)) > TOLERANCE_S:
        return "its timestamp is off by more than five minutes"
    expected = hmac.new(key, f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    for signature in headers.get("webhook-signature", "").split():
        version, _, value = signature.partition(",")
        with contextlib.suppress(binascii.Error, ValueError):
            if version == "v1" and hmac.compare_digest(base64.b64decode(value, validate=True), expected):
                return None
    return "no signature of it is ours"


class _Server(uvicorn.Server):
    """Uvicorn without its signal handlers: the demo has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield
