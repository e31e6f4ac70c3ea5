"""The ASGI application: reads requests, routes them, and writes answers, or drops the connection instead.

The server hands each request its connection's transport in `scope["state"]["transport"]` (see server.py): a dropped
connection is closed there, with nothing written, and the request is over once the server has seen that.
"""

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, unquote

from worker.sandbox import catalog, control
from worker.sandbox.account import Settings
from worker.sandbox.answers import Answer, dump, enveloped, refused
from worker.sandbox.gateway import Gateway, Headers, now_ms

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

LARGEST_BYTES = 10 * 1024 * 1024
DRAINED_BYTES = 64 * 1024 * 1024
SLOW_BODY_S = 2.0
_LINGER_NOT = struct.pack("ii", 1, 0)


class ClientGone(Exception):  # noqa: N818 - it is no error
    """The client left before its request was whole."""


class SandboxApp:
    """The gateway and its control API under one roof.

    `on_refuse(seconds, transport)` makes the server stop listening, and keeps the one connection that asked for it.
    """

    def __init__(self, settings: Settings, on_refuse: Callable[[float, Any], None] | None = None) -> None:
        self.started_with = settings
        self.gateway = Gateway(replace(settings, quotas={}))
        self.on_refuse = on_refuse
        self.listings = dump(catalog.listing())

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        # Cancelled is what a request in progress is when the server leaves, its connection already closed.
        with contextlib.suppress(ClientGone, asyncio.CancelledError):
            body = await _read(receive) if scope["method"] == "POST" else b""
            await _perform(self._answer(scope, body), scope, receive, send)

    def _answer(self, scope: Message, body: bytes | None) -> Answer:
        path = scope["path"]
        if path.startswith("/v1/"):
            return self._vendor(scope["method"], scope["raw_path"].decode("latin-1"), dict(scope["headers"]), body)
        if path.startswith("/sandbox/"):
            return self._control(scope, body or b"")
        return refused("endpoint_not_found")

    def _vendor(self, method: str, path: str, headers: Headers, body: bytes | None) -> Answer:
        match method, path.split("/", 4)[2:]:
            case "POST", [alias, "generate"] if alias in catalog.ALIASES:
                return self.gateway.submit(alias, headers, body)
            case "GET", [alias, "status", task_id] if alias in catalog.ALIASES:
                return self.gateway.look_up(unquote(task_id), headers)
            case "GET", ["models"]:
                return self.gateway.door(headers) or Answer(200, self.listings)
        return self.gateway.door(headers) or refused("endpoint_not_found")

    def _control(self, scope: Message, body: bytes) -> Answer:
        query = dict(parse_qsl(scope["query_string"].decode("latin-1")))
        shown: object
        match scope["method"], scope["path"]:
            case "GET", "/sandbox/stats":
                shown = control.stats(self.gateway)
            case "GET", "/sandbox/tasks":
                shown = control.tasks(self.gateway, query)
            case "GET", "/sandbox/submissions":
                shown = control.submissions(self.gateway, query)
            case "GET", "/sandbox/control":
                shown = control.show(self.gateway)
            case "POST", "/sandbox/control":
                return self._change(scope, body)
            case "POST", "/sandbox/reset":
                self._reset(scope)
                shown = control.show(self.gateway)
            case _:
                return refused("endpoint_not_found")
        return Answer(200, dump(shown))

    def _change(self, scope: Message, body: bytes) -> Answer:
        before = self.gateway.settings.outage
        try:
            settings = control.change(self.gateway, json.loads(body))
        except ValueError as error:
            return enveloped(400, "invalid_control", str(error))
        self._open_or_shut(before, scope)
        return Answer(200, dump(settings))

    def _reset(self, scope: Message) -> None:
        before = self.gateway.settings.outage
        self.gateway.reset(replace(self.started_with, quotas={}))
        self._open_or_shut(before, scope)

    def _open_or_shut(self, before: str | None, scope: Message) -> None:
        now = self.gateway.settings
        if self.on_refuse is not None and "refuse" in {before, now.outage}:
            self.on_refuse(now.outage_s if now.outage == "refuse" else 0.0, _transport(scope))


async def _read(receive: Receive) -> bytes | None:
    """Read a body; None for one too large, the rest of which is dropped up to a bound. Raises ClientGone."""
    message = await receive()
    if not message.get("more_body") and message["type"] == "http.request":
        whole: bytes = message["body"]
        return whole if len(whole) <= LARGEST_BYTES else None
    parts, size = [], 0
    while message["type"] == "http.request":
        part = message.get("body", b"")
        size += len(part)
        if size <= LARGEST_BYTES:
            parts.append(part)
        else:
            parts.clear()
        if not message.get("more_body") or size > DRAINED_BYTES:
            return b"".join(parts) if size <= LARGEST_BYTES else None
        message = await receive()
    raise ClientGone


async def _perform(answer: Answer, scope: Message, receive: Receive, send: Send) -> None:
    if answer.delay_s:
        await asyncio.sleep(answer.delay_s)
    await _write(answer, scope, receive, send)
    if answer.entry is not None and answer.answered is not None:
        answer.entry.sent_at_ms = now_ms()


async def _write(answer: Answer, scope: Message, receive: Receive, send: Send) -> None:
    if answer.entry is not None:
        answer.entry.client_left = _transport(scope).is_closing()
    if answer.then in {"close", "reset", "hang"}:
        if answer.then != "hang":
            _drop(_transport(scope), reset=answer.then == "reset")
        await _departure(receive)
        return
    headers = [(b"content-type", answer.content_type.encode()), (b"content-length", b"%d" % len(answer.body))]
    if answer.retry_after_s is not None:
        headers.append((b"retry-after", f"{answer.retry_after_s:g}".encode()))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    if answer.then == "send":
        await send({"type": "http.response.body", "body": answer.body})
        return
    half = len(answer.body) // 2
    await send({"type": "http.response.body", "body": answer.body[:half], "more_body": True})
    if answer.then == "half":
        _drop(_transport(scope), reset=False)
        await _departure(receive)
        return
    await asyncio.sleep(SLOW_BODY_S)
    if answer.entry is not None:
        answer.entry.client_left = _transport(scope).is_closing()
    await send({"type": "http.response.body", "body": answer.body[half:]})


def _transport(scope: Message) -> asyncio.Transport:
    transport: asyncio.Transport = scope["state"]["transport"]
    return transport


def _drop(transport: asyncio.Transport, *, reset: bool) -> None:
    """Close a connection: what was written still goes out, unless it is reset. Nothing where the client has left."""
    if transport.is_closing():
        return
    if reset:
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
        transport.abort()
    else:
        transport.close()


async def _departure(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
