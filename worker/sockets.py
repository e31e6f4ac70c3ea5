"""Owns the places where an embedded Redis listens: short private directories of their own, made and taken away.

Source: unix(7) for the length of a path; arq 0.28 ``RedisSettings.from_dsn``, which does not unquote it.
"""

import os
import socket
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from worker.data_dir import LOOK_EVERY_S, SOCKET_DIR_PREFIX, SOCKET_NAME

# The kernel cuts off at 107 bytes (104 on macOS) without a word.
_PATH_MAX_BYTES = 99
_ANSWER_TIMEOUT_S = 1.0


def make_socket_path() -> Path:
    """Choose a new place, in a directory made for it."""
    parent = tempfile.gettempdir()
    longest = os.fsencode(parent) + f"/{SOCKET_DIR_PREFIX}12345678/{SOCKET_NAME}".encode()
    # arq takes a URL's path as it stands, so it must read the same quoted and unquoted.
    if len(longest) > _PATH_MAX_BYTES or quote(os.fsencode(parent)) != parent:
        parent = "/tmp"  # noqa: S108 - mkdtemp makes a private directory in it
    return Path(tempfile.mkdtemp(prefix=SOCKET_DIR_PREFIX, dir=parent)) / SOCKET_NAME


def remake_socket_path(listening: Path) -> bool:
    """Make a discarded place anew; False where somebody else has made it since, or listens there."""
    with suppress(OSError):
        listening.parent.mkdir(mode=0o700)
        return True
    return False


def discard_socket(listening: Path) -> None:
    """Remove a dead server's socket and its directory.

    Leave them if somebody answers: a copied DATA_DIR comes with the original's note. One that was killed may take
    connections for a moment after its locks are free, as the kernel closes its files one by one: that one hangs up.
    """
    deadline_s = time.monotonic() + _ANSWER_TIMEOUT_S
    while time.monotonic() < deadline_s:
        with socket.socket(socket.AF_UNIX) as probe, suppress(OSError):
            probe.settimeout(_ANSWER_TIMEOUT_S)
            try:
                probe.connect(str(listening))
                probe.sendall(b"PING\r\n")
                if probe.recv(1):
                    return
            except (ConnectionRefusedError, FileNotFoundError):
                listening.unlink(missing_ok=True)
                listening.parent.rmdir()
                return
            except TimeoutError:
                return
        time.sleep(LOOK_EVERY_S)
