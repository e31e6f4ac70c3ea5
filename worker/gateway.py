"""Owns the conversation with the Onysoft gateway: the only client of it.

A call never raises for what the gateway or the network does: it returns what happened. Whether a submission was
accepted is the one question that must not be blurred, so a submission returns ``Accepted``, ``Refused`` (certainly not
accepted) or ``Unknown`` (it may have been, and be paid).
"""

import math
import re
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx

from jobs.counters import Counter, count, observe
from jobs.failures import classify
from jobs.verdict import NOT_SENT as UNSENT
from jobs.verdict import Acceptance, Failure, Signal, Stage, Transport
from worker.answers import (
    Done,
    LookRefused,
    Running,
    TaskAccepted,
    TaskFailed,
    is_readable,
    read_look,
    read_submission,
)
from worker.transport import NOT_SENT, Withheld, read_capped, retry_after_s
from worker.transport import Transport as HttpTransport

ANSWER_LIMIT_BYTES = 4 * 1024 * 1024
SUBMIT_KEEPALIVE_S = 1.0  # a submission never goes out on a connection that idled longer
LOOK_KEEPALIVE_S = 30.0
CONNECT_TIMEOUT_S = 5.0
LOOK_TIMEOUT_S = 15.0
USER_AGENT = "onysoft-worker/0.1"  # seen: without one the CDN answers a bare 403

Accepted = TaskAccepted
Look = Running | Done | TaskFailed | LookRefused


@dataclass(frozen=True, slots=True)
class Refused:
    """The submission was certainly not accepted."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class Unknown:
    """The submission may have been accepted, and be paid."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class NotSent:
    """Nothing was sent: it was not to be sent any more once there was a connection."""


class Gateway:
    """A client of the gateway for one process. Safe to use from any number of coroutines."""

    def __init__(self, *, base_url: str, api_key: str, submit_timeout_s: float, connections: int) -> None:
        self._base_url = base_url
        self._headers = [
            ("authorization", f"Bearer {api_key}"),
            ("user-agent", USER_AGENT),
            ("accept", "application/json"),
        ]
        self._submit_timeout_s = submit_timeout_s
        self._submissions = HttpTransport(limit=connections, keepalive_s=SUBMIT_KEEPALIVE_S)
        self._looks = HttpTransport(limit=connections, keepalive_s=LOOK_KEEPALIVE_S)
        self._answered_at_s = -math.inf  # when the gateway last answered something

    async def aclose(self) -> None:
        """Close all connections."""
        await self._submissions.aclose()
        await self._looks.aclose()

    async def submit(
        self, kind: str, body: bytes, *, idempotency_key: str, may_send: Callable[[], bool], tally: list[Counter]
    ) -> Accepted | Refused | Unknown | NotSent:
        """Submit one generation. It costs money when accepted; nothing is retried here. ``tally`` gets its counters.

        ``may_send`` is asked once there is a connection, just before the first byte.
        """
        request = httpx.Request(
            "POST",
            f"{self._base_url}/v1/{kind}/generate",
            headers=[*self._headers, ("content-type", "application/json"), ("idempotency-key", idempotency_key)],
            content=body,
            extensions={"timeout": _timeouts(self._submit_timeout_s), "may_send": may_send},
        )
        try:
            exchange = await _counted("submit", tally, self._submissions, request)
        except Withheld:
            return NotSent()
        self._is_answer(exchange)
        match exchange:
            case (status, headers, answer, broken):
                read = read_submission(status, answer, retry_after_s=retry_after_s(headers))
                if isinstance(read, TaskAccepted):
                    return read
                signal = read if broken is None or 400 <= status < 500 else self._unheard(Stage.SUBMIT, broken)
            case transport:
                signal = self._unheard(Stage.SUBMIT, transport)
        failure = classify(signal)
        return Unknown(failure) if failure.acceptance is Acceptance.UNKNOWN else Refused(failure)

    async def answers(self, *, within_s: float, tally: list[Counter]) -> bool:
        """Tell whether the gateway has answered anything within so many seconds; where not, ask it for its models.

        Its proxy's pages are no answer of its own. Costs nothing.
        """
        if time.monotonic() - self._answered_at_s < within_s:
            return True
        request = httpx.Request(
            "GET",
            f"{self._base_url}/v1/models",
            headers=self._headers,
            extensions={"timeout": _timeouts(LOOK_TIMEOUT_S)},
        )
        return self._is_answer(await _counted("models", tally, self._looks, request))

    def _is_answer(self, exchange: "Exchange | Transport") -> bool:
        """Note an exchange in which the gateway itself has answered."""
        match exchange:
            case (status, _, answer, None) if status < 500 or is_readable(answer):
                self._answered_at_s = time.monotonic()
                return True
        return False

    def _unheard(self, stage: Stage, transport: Transport) -> Signal:
        if transport in UNSENT:
            words = f"the gateway at {self._base_url} could not be reached ({transport})"
            return Signal(stage, message=words, transport=transport, enveloped=False)
        return Signal(stage, transport=transport, enveloped=False)

    async def look(self, kind: str, task_id: str, *, text_output: bool, tally: list[Counter]) -> Look:
        """Look a task up. Safe to repeat. ``tally`` gets its counters."""
        request = httpx.Request(
            "GET",
            f"{self._base_url}/v1/{kind}/status/{quote(task_id, safe='', errors='surrogatepass')}",
            headers=self._headers,
            extensions={"timeout": _timeouts(LOOK_TIMEOUT_S)},
        )
        exchange = await _counted("look", tally, self._looks, request)
        self._is_answer(exchange)
        match exchange:
            case (status, headers, answer, None):
                return read_look(status, answer, text_output=text_output, retry_after_s=retry_after_s(headers))
            case (_, _, _, Transport() as broken):
                return LookRefused(self._unheard(Stage.POLL, broken))
            case transport:
                return LookRefused(self._unheard(Stage.POLL, transport))


_KEY = re.compile(rb"sk-ony-[0-9A-Za-z]+")  # doc: 48 hex digits

Exchange = tuple[int, httpx.Headers, bytes, Transport | None]


async def _counted(
    operation: str, tally: list[Counter], transport: HttpTransport, request: httpx.Request
) -> Exchange | Transport:
    """Send a request and count it: by its status, or by what broke it, and by how long it took."""
    started_s = time.monotonic()
    exchange = await _exchange(transport, request)
    match exchange:
        case (status, _, _, None):
            outcome = str(status)
        case (_, _, _, Transport() as broken):
            outcome = str(broken)
        case broken:
            outcome = str(broken)
    tally += (
        count("gateway_requests_total", operation, outcome),
        *observe("gateway_request_seconds", operation, ms=round((time.monotonic() - started_s) * 1000)),
    )
    return exchange


async def _exchange(transport: HttpTransport, request: httpx.Request) -> Exchange | Transport:
    """Send a request; return what came (with what broke off its body), or why nothing came."""
    try:
        response = await transport.handle_async_request(request)
    except Withheld:
        raise
    except httpx.HTTPError as error:
        return _outcome(error)
    try:
        body, _ = await read_capped(response, ANSWER_LIMIT_BYTES)
    except httpx.HTTPError as error:
        return response.status_code, response.headers, b"", _outcome(error)
    # An answer that quotes our key must not carry it into records and webhooks.
    return response.status_code, response.headers, _KEY.sub(b"sk-ony-[redacted]", body), None


def _outcome(error: httpx.HTTPError) -> Transport:
    """Name what happened below HTTP."""
    if isinstance(error, NOT_SENT):
        return _not_sent(error)
    match error:
        case httpx.ReadTimeout() | httpx.WriteTimeout():
            return Transport.READ_TIMEOUT
        case httpx.RemoteProtocolError():
            return Transport.DISCONNECTED
        case httpx.ReadError() | httpx.WriteError():
            return Transport.RESET
        case httpx.DecodingError():
            return Transport.GARBAGE
        case _:
            return Transport.OTHER


def _not_sent(error: httpx.HTTPError) -> Transport:
    if isinstance(error, httpx.ConnectTimeout):
        return Transport.CONNECT_TIMEOUT
    if isinstance(error, httpx.PoolTimeout):
        return Transport.POOL_TIMEOUT
    cause = error.__cause__
    if isinstance(cause, ssl.SSLError) or "SSL" in type(cause).__name__ or "Certificate" in type(cause).__name__:
        return Transport.TLS
    return Transport.DNS if "DNS" in type(cause).__name__ else Transport.REFUSED


def _timeouts(total_s: float) -> dict[str, Any]:
    connect_s = min(CONNECT_TIMEOUT_S, total_s / 2)
    return {"connect": connect_s, "pool": connect_s, "read": total_s, "write": total_s, "total": total_s}
