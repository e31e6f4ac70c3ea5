"""Owns the embedded Redis's directory: its locks, the note of where the server listens, and whether data lies there.

Who may decide what under which lock is told in ``worker.embedded``. Source: flock(2) for conversion and inheritance.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

LOOK_EVERY_S = 0.005
SOCKET_NAME = "redis.sock"
SOCKET_DIR_PREFIX = "onysoft-"


class Lock:
    """One open description of a lock file; flock belongs to the description, so each is a holder of its own."""

    def __init__(self, path: Path) -> None:
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def take(self, operation: int) -> bool:
        """Try once; a conversion that fails loses the lock held before."""
        try:
            fcntl.flock(self.fd, operation | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def wait(self, operation: int, timeout_s: float) -> bool:
        """Try until it is granted or the time is up."""
        deadline_s = time.monotonic() + timeout_s
        while not self.take(operation):
            if time.monotonic() >= deadline_s:
                return False
            time.sleep(LOOK_EVERY_S)
        return True

    def release(self) -> None:
        """Let go and stay open; never on a description that was handed to a child, which would lose it too."""
        fcntl.flock(self.fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """Let go unless a child inherited the description; safe to call twice."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


@dataclass(frozen=True, slots=True)
class Home:
    """A data directory as its files show it, with one user's descriptors of the locks."""

    root: Path
    start: Lock
    users: Lock
    server: Lock  # only ever tested here; the server has a description of its own

    @classmethod
    def enter(cls, root: Path) -> "Home":
        """Open the locks of a directory that exists, making them where they are missing."""
        return cls(root, Lock(root / "start.lock"), Lock(root / "users.lock"), Lock(root / "server.lock"))

    def leave(self) -> None:
        """Let go of everything; safe to call twice."""
        for lock in (self.users, self.server, self.start):
            lock.close()

    @contextmanager
    def deciding(self, timeout_s: float) -> Iterator[bool]:
        """Hold ``start.lock``; yield whether it was granted in time."""
        granted = self.start.wait(fcntl.LOCK_EX, timeout_s)
        try:
            yield granted
        finally:
            if granted:
                self.start.release()

    def is_deserted(self) -> bool:
        """Tell whether no server lives here; ask only while deciding."""
        if not self.server.take(fcntl.LOCK_EX):
            return False
        self.server.release()
        return True

    def is_in_place(self) -> bool:
        """Tell whether the path still leads to the directory that was opened, not to nothing or to a new one."""
        with suppress(OSError):
            return os.path.samestat(os.fstat(self.users.fd), (self.root / "users.lock").stat())
        return False

    def note(self, listening: Path) -> None:
        """Write down where the server listens, in one step."""
        draft = self.root / "socket.path.new"
        draft.write_bytes(os.fsencode(listening))
        draft.replace(self.root / "socket.path")

    def forget(self) -> None:
        """Take the note away."""
        (self.root / "socket.path").unlink(missing_ok=True)


def noted_socket(root: Path) -> Path | None:
    """Read the note; None where there is none or it holds anything but a path that we would make."""
    try:
        noted = Path(os.fsdecode((root / "socket.path").read_bytes()))
    except FileNotFoundError:
        return None
    is_ours = noted.name == SOCKET_NAME and noted.parent.name.startswith(SOCKET_DIR_PREFIX)
    return noted if is_ours and noted.is_absolute() and "\0" not in str(noted) else None


def has_data(root: Path) -> bool:
    """Tell whether anything was ever written, in the layout of redis 6.2 or that of 7 and later."""
    parts = root / "appendonlydir"
    bases = [
        path for path in parts.glob("*.base.rdb") if not path.name.endswith(".1.base.rdb")
    ]  # the first one is empty
    return any(size_bytes(path) > 0 for path in (root / "appendonly.aof", *parts.glob("*.aof"), *bases))


def size_bytes(path: Path) -> int:
    """Give a file's size, 0 where it does not exist."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
