"""Owns the listening socket, and that running out of file descriptors neither blocks the event loop nor floods the log.

asyncio accepts as many connections as the backlog allows in one go, before it tells anybody of the first, and where
none can be accepted it says so once for each (source: ``selector_events._accept_connection``). So a turn of the event
loop gets a few only, and a connection there is no descriptor for is closed by way of one kept for the purpose.
"""

import errno
import os
import resource
import socket
from typing import Any

from worker.web.refusals import RefusalLog

SEND_BUFFER_BYTES = 256 * 1024  # of the kernel: small, so that a slow client is seen to take its answer
BACKLOG = 512
AT_A_TIME = 16  # connections accepted in a turn of the event loop
MOST_CONNECTIONS = 4096
RESERVED = 400  # file descriptors for Redis, the gateway, webhooks and files

_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class CannotListen(OSError):  # noqa: N818 - named after what it says
    """The address cannot be listened on; the message is one line that says what to set."""


class Listener(socket.socket):
    """A listening socket whose ``accept`` gives a few connections at a time."""

    def __init__(self, family: int, kind: int, protocol: int) -> None:
        super().__init__(family, kind, protocol)
        self._left = AT_A_TIME
        self._spare: int | None = None
        self._refusals = RefusalLog("no_file_descriptors")
        self._reserve()

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept a connection; raise ``BlockingIOError`` where there is none, or enough for now."""
        if self._left == 0:
            self._left = AT_A_TIME
            raise BlockingIOError
        self._left -= 1
        try:
            return super().accept()
        except BlockingIOError:
            self._left = AT_A_TIME
            raise
        except OSError as error:
            if error.errno in _EXHAUSTED and self._turn_away():
                raise BlockingIOError from error
            self._left = 0  # asyncio pauses for a second, but not before it has tried as often as the backlog is long
            raise

    def close(self) -> None:
        """Stop listening. Safe to call twice."""
        super().close()
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None

    def _turn_away(self) -> bool:
        """Close a connection there is no descriptor for; False where there is not even the one for that."""
        self._refusals.add()
        if self._spare is None:
            self._reserve()
            return self._spare is not None
        os.close(self._spare)
        self._spare = None
        try:
            super().accept()[0].close()
        except BlockingIOError:
            return True
        except OSError:
            return False
        finally:
            self._reserve()
        return True

    def _reserve(self) -> None:
        try:
            self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._spare = None


def connections_allowed() -> int:
    """Say how many connections there may be: what the process may open, less what it needs for everything else."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    return max(1, min(MOST_CONNECTIONS, max(files - RESERVED, files // 2)))


def listen(host: str, port: int) -> Listener:
    """Listen on the first of the host's addresses that this machine has, IPv4 before IPv6."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        raise CannotListen(f"BIND_HOST {host} is no address of this machine: set BIND_HOST") from error
    for family, kind, protocol, _, address in sorted(found, key=lambda row: row[0] is not socket.AF_INET):
        try:
            return _listening_on(Listener(family, kind, protocol), address)
        except OSError as error:
            match error.errno:
                case errno.EADDRINUSE:
                    raise CannotListen(f"PORT {port} is in use on {host}: set PORT") from error
                case errno.EACCES | errno.EPERM:
                    raise CannotListen(f"PORT {port} on {host} is not allowed for this user: set PORT") from error
    raise CannotListen(f"BIND_HOST {host} is no address of this machine: set BIND_HOST")


def _listening_on(made: Listener, address: tuple[Any, ...]) -> Listener:
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        made.bind(address)
        made.listen(BACKLOG)
        made.setblocking(False)  # noqa: FBT003 - the standard library has no name for it
    except OSError:
        made.close()
        raise
    return made
