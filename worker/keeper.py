"""Owns keeping the embedded Redis alive for a process that is to run for long: one that has died is started again.

A thread of its own waits on an idle connection, which costs nothing and ends the moment the server does. Who starts it
again is decided under the lock under which everybody starts it; it listens where it did, so that all users find it.
"""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from config.log import log
from worker.embedded import EmbeddedRedis, EmbeddedRedisError

CONNECT_S = 1.0
PAUSE_S = 0.1
AGAIN_S = 2.0
STOP_S = 2.0


@contextmanager
def kept_alive(data_dir: Path) -> Iterator[None]:
    """Keep the embedded Redis of a data directory alive for as long as the caller has a share in it."""
    share = EmbeddedRedis.open(data_dir)
    keeper = _Keeper(share)
    keeper.start()
    try:
        yield
    finally:
        if keeper.stop():
            share.close()  # else it goes with the process, and whom it was starting is adopted by the next one


class _Keeper(threading.Thread):
    """Stopped by ``stop``; never outlives its process."""

    def __init__(self, share: EmbeddedRedis) -> None:
        super().__init__(name="redis-keeper", daemon=True)
        self._share = share
        self._stopped = threading.Event()
        self._connection: socket.socket | None = None

    def run(self) -> None:
        """Start the server again whenever it has died, until stopped."""
        while not self._stopped.wait(PAUSE_S):
            self._wait_for_its_end()
            if self._stopped.is_set():
                return
            try:
                if self._share.revive():
                    log.warning("redis.away", error="the embedded Redis had died; it was started again")
            except (EmbeddedRedisError, OSError) as error:
                log.warning("redis.away", error=str(error), again_in_s=AGAIN_S)
                self._stopped.wait(AGAIN_S)

    def stop(self) -> bool:
        """Have it end; False where it is still starting a server."""
        self._stopped.set()
        if connection := self._connection:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.join(STOP_S)
        return not self.is_alive()

    def _wait_for_its_end(self) -> None:
        with socket.socket(socket.AF_UNIX) as connection, suppress(OSError):
            connection.settimeout(CONNECT_S)
            connection.connect(str(self._share.listening))
            connection.settimeout(None)
            self._connection = connection  # before the look at the event: whoever sets it shuts this down
            if not self._stopped.is_set():
                connection.recv(1)
