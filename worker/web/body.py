"""Owns how a request's body is read: its type, its size while it comes in, and that it is JSON.

A body that is too large is read to its end and dropped, within bounds: a client that is still sending when its answer
comes would see a broken connection instead of the answer.
"""

import asyncio
import json
from contextlib import suppress
from typing import Any

from starlette.requests import ClientDisconnect, Request

from jobs.request import MAX_REQUEST_BYTES
from worker.web.problems import Kind, Refusal

MAX_BODY_BYTES = MAX_REQUEST_BYTES + 64 * 1024  # the limit is on what is asked; spaces between it are forgiven
MAX_BATCH = 1000  # requests in one body
MAX_DROPPED_BYTES = 64 * 1024 * 1024
MAX_DROPPING_S = 5.0
MAX_SILENCE_S = 10.0  # between two pieces of a body
MAX_READING_S = 300.0  # for all of them


async def read_body(request: Request, *, of_any_type: bool = False) -> bytes:
    """Read a body of JSON; raise ``Refusal`` for one of another type, too many bytes, or bytes that do not come.

    ``of_any_type``: whatever type it says it is of, a form's included, so that only the guard keeps other sites out.
    """
    headers = request.headers
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json" and not of_any_type:
        raise Refusal(Kind.UNSUPPORTED_MEDIA_TYPE, "send the body as Content-Type: application/json")
    if headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise Refusal(Kind.UNSUPPORTED_MEDIA_TYPE, "send the body without a Content-Encoding")
    declared = headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > MAX_BODY_BYTES:
        # A client that waits for leave to send takes the answer as a no, and sends nothing.
        waits = headers.get("expect", "").lower() == "100-continue"
        raise _too_large(ended=not waits and await _drop_rest(request))
    chunks: list[bytes] = []
    size_bytes = 0
    more = True
    until_s = asyncio.get_running_loop().time() + MAX_READING_S
    while more:
        chunk, more = await _receive_in_time(request, until_s)
        size_bytes += len(chunk)
        if size_bytes > MAX_BODY_BYTES:
            chunks.clear()
            raise _too_large(ended=not more or await _drop_rest(request))
        chunks.append(chunk)
    return b"".join(chunks)


def decode_json(body: bytes) -> Any:
    """Decode JSON; raise ``Refusal`` that says where it stops being JSON."""
    try:
        return json.loads(body)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise Refusal(Kind.INVALID_JSON, f"send one JSON object; the error is at {where}") from error
    except (ValueError, RecursionError) as error:  # no UTF-8, a number of thousands of digits, nested too deeply
        raise Refusal(Kind.INVALID_JSON, "send one JSON object as UTF-8, without deep nesting") from error


async def _receive(request: Request) -> tuple[bytes, bool]:
    """Read a piece of the body, and whether there is more."""
    message = await request.receive()
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    return message.get("body", b""), message.get("more_body", False)


async def _receive_in_time(request: Request, until_s: float) -> tuple[bytes, bool]:
    """Read a piece; raise ``Refusal`` where none comes for a while, or by a time of the event loop."""
    try:
        async with asyncio.timeout_at(min(asyncio.get_running_loop().time() + MAX_SILENCE_S, until_s)):
            return await _receive(request)
    except TimeoutError as error:
        raise too_slow() from error


def too_slow() -> Refusal:
    """Refuse a request whose body does not come."""
    return Refusal(Kind.REQUEST_TIMEOUT, "send the body without pauses", headers={"connection": "close"})


async def _drop_rest(request: Request) -> bool:
    """Read on and forget it; tell whether the end was reached."""
    dropped_bytes = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(MAX_DROPPING_S):
            while dropped_bytes <= MAX_DROPPED_BYTES:
                chunk, more = await _receive(request)
                dropped_bytes += len(chunk)
                if not more:
                    return True
    return False


def _too_large(*, ended: bool) -> Refusal:
    detail = f"send at most {MAX_REQUEST_BYTES // 1024**2} MB; larger media belong behind a URL"
    return Refusal(Kind.PAYLOAD_TOO_LARGE, detail, headers=None if ended else {"connection": "close"})
