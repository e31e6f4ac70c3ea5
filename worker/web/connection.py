"""Owns a connection: how many there may be at a time, and how long one may take over what it owes us.

Its protocol is always h11's, with the errors that no app gets to see, a request that is not HTTP or never comes whole,
answered like every other error. A connection costs a file descriptor, and whoever has none left has no Redis, no
gateway and no webhooks either. So there is a limit, and a time for each phase in which the client is the one to act;
beyond the limit, a newcomer takes the place of the connection that has gone longest without a request (as nginx does
it), and is asked to come again only where every connection has a request under way.
"""

import asyncio
import contextlib
from enum import Enum
from typing import Any

import h11
import uvicorn
from starlette.responses import Response
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from worker.ids import new_id
from worker.web.problems import RETRY_AFTER_S, Kind, problem
from worker.web.refusals import RefusalLog

KEEP_ALIVE_S = 75.0  # longer than clients keep theirs, so that they never send into a closing connection
STALLED_S = 30.0  # a client that takes nothing of its answer for so long is gone
LAST_WORDS_S = 1.0  # for whoever is turned away to read why
MOST_LEAVING = 64  # who are being told so at a time


class Phase(Enum):
    """What a connection is at. In all but ``REQUEST`` it is the client's turn."""

    HEAD = "head"  # nothing came yet, or the start of a request's head
    REQUEST = "request"  # one is under way; whoever reads its body has a time for that
    REST = "rest"  # it is answered, and its body still comes in and is dropped
    IDLE = "idle"  # between requests


LIMITS_S: dict[Phase, float] = {Phase.HEAD: 10.0, Phase.REST: 60.0, Phase.IDLE: KEEP_ALIVE_S}


class Room:
    """The places there are. ``waiting`` are the connections without a request under way, the longest first."""

    def __init__(self, places: int) -> None:
        self.places = places
        self.waiting: dict[Connection, None] = {}
        self.leaving: set[Connection] = set()
        self._refusals = RefusalLog("too_many_connections", places=places)

    def admits(self, connections: int) -> bool:
        """Tell whether there is a place for the newest of so many connections; makes one where that is possible."""
        if connections - len(self.leaving) <= self.places:
            return True
        self._refusals.add()
        oldest = next((each for each in self.waiting if not each.transport.get_write_buffer_size()), None)
        if oldest is not None:
            oldest.give_up_place()
        return oldest is not None


class Config(uvicorn.Config):
    """A server's configuration, with the room its connections share."""

    def __init__(self, app: ASGIApp, room: Room, **options: Any) -> None:
        super().__init__(app, http=Connection, **options)
        self.room = room


class Connection(H11Protocol):
    """HTTP/1.1 as h11 reads it, within limits."""

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        assert isinstance(config, Config)
        super().__init__(config, server_state, app_state, _loop)
        self._room = config.room
        self._phase: Phase | None = None
        self._limit: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None
        self._left_bytes = 0  # of what was written, when the client's progress was last looked at

    # --- what asyncio and uvicorn tell

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a place, or say that there is none."""
        super().connection_made(transport)
        if self._room.admits(len(self.connections)):
            self._follow()
        else:
            self._turn_away()

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave nothing behind."""
        self._room.waiting.pop(self, None)
        self._room.leaving.discard(self)
        for timer in (self._limit, self._stall):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on; what comes from who is turned away is dropped."""
        if self not in self._room.leaving:
            super().data_received(data)
            self._follow()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self._follow()

    def pause_writing(self) -> None:
        """Wait for the client to take what was written, but not for ever."""
        super().pause_writing()
        if self._stall is None:
            self._left_bytes = self.transport.get_write_buffer_size()
            self._stall = self.loop.call_later(STALLED_S, self._stalled)

    def resume_writing(self) -> None:
        """Write on."""
        super().resume_writing()
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's own words are plain text
        """Answer what is not HTTP, unless an answer is under way, and hang up."""
        self._say(problem(Kind.MALFORMED_REQUEST, "send HTTP/1.1, with headers of at most 16 KB"))
        self.transport.close()

    def give_up_place(self) -> None:
        """Break off, at once: another has the place now."""
        self.connections.discard(self)
        self._room.waiting.pop(self, None)
        self.transport.abort()

    # --- what follows from it

    def _stalled(self) -> None:
        """Hang up on who has taken nothing for so long; whoever takes it slowly has more time."""
        if self._is_taking():
            self._stall = self.loop.call_later(STALLED_S, self._stalled)
        else:
            self.transport.abort()

    def _is_taking(self) -> bool:
        """Tell whether less is left of what was written than when this was asked before."""
        before, self._left_bytes = self._left_bytes, self.transport.get_write_buffer_size()
        return 0 < self._left_bytes < before

    def _follow(self) -> None:
        """Note where the connection is by now; a phase that is new has its time from here on."""
        phase = self._now()
        if phase is self._phase:
            return
        self._phase = phase
        self._room.waiting.pop(self, None)
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None
        if phase is not Phase.REQUEST:
            self._room.waiting[self] = None
            self._limit = self.loop.call_later(LIMITS_S[phase], self._run_out)

    def _now(self) -> Phase:
        if self.cycle is not None and not self.cycle.response_complete:
            return Phase.REQUEST
        if self.conn.their_state is h11.SEND_BODY:
            return Phase.REST
        return Phase.HEAD if self.cycle is None or self.conn.trailing_data[0] else Phase.IDLE

    def _run_out(self) -> None:
        """Hang up on who takes too long; who has begun a request is told."""
        if self._phase is Phase.HEAD and self.conn.trailing_data[0] and not self.transport.is_closing():
            words = f"send the whole head of a request within {LIMITS_S[Phase.HEAD]:g} s"
            self._say(problem(Kind.REQUEST_TIMEOUT, words))
        if not self.transport.get_write_buffer_size():
            self.transport.close()
        elif self._phase is Phase.IDLE and self._stall is not None:
            self._limit = self.loop.call_later(STALLED_S, self._run_out)  # an answer is being taken, if slowly
        else:
            self.transport.abort()  # the client takes nothing: closing would wait for it

    def _turn_away(self) -> None:
        """Answer before there is a question, and leave a moment to read it: a close at once could overtake it."""
        if len(self._room.leaving) >= MOST_LEAVING:
            self.transport.abort()
            return
        self._room.leaving.add(self)
        headers = {"retry-after": str(RETRY_AFTER_S)}
        self._say(problem(Kind.UNAVAILABLE, "too many requests are under way: repeat the request", headers=headers))
        with contextlib.suppress(OSError):
            self.transport.write_eof()
        self._limit = self.loop.call_later(LAST_WORDS_S, self.transport.abort)

    def _say(self, answer: Response) -> None:
        """Write an answer that no app has made, unless another is under way."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        headers = [*answer.raw_headers, (b"x-request-id", new_id("req_").encode()), (b"connection", b"close")]
        response = h11.Response(status_code=answer.status_code, headers=headers)
        for event in (response, h11.Data(bytes(answer.body)), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
