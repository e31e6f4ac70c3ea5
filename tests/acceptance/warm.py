"""Runs commands of the product as forks of one process that has imported it, which else takes most of their time.

Each is a process like any other: a session, an environment, a folder and an output of its own, and the whole of
``python -m worker``. Only what it would have read from disk is there already.
"""

import asyncio
import gc
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path

MODULES = ("worker.cli", "worker.main", "worker.client", "worker.web.app", "worker.web.server", "worker.sandbox")
LARGEST_BYTES = 1 << 20


class Fork:
    """A command that runs, as ``asyncio.subprocess.Process`` shows one."""

    def __init__(self, pid: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._reader, self._writer = reader, writer

    async def wait(self) -> int:
        """Wait for its end; return its status."""
        if self.returncode is None:
            self.returncode = int(await self._reader.readline())
            self._writer.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal."""
        if self.returncode is not None:
            raise ProcessLookupError
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it."""
        self.send_signal(signal.SIGKILL)


class Warm:
    """The process that has imported the product, seen from the tests."""

    def __init__(self) -> None:
        self._door, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                cwd=Path(__file__).parents[2],
            )

    async def start(self, words: Sequence[str], environ: Mapping[str, str], folder: Path, *streams: Path) -> Fork:
        """Start a command in a folder; its standard output and error are added to two files."""
        ours, theirs = socket.socketpair()
        with theirs:
            said = json.dumps([words, dict(environ), str(folder), list(map(str, streams))]).encode()
            socket.send_fds(self._door, [said], [theirs.fileno()])
        reader, writer = await asyncio.open_connection(sock=ours)
        return Fork(int(await reader.readline()), reader, writer)

    def close(self) -> None:
        """End it."""
        self._door.close()
        self._process.wait()


def serve(door: socket.socket) -> tuple[list[str], dict[str, str], str, list[str]] | None:
    """Fork for every command that is asked for; return what is asked in the fork, and None when there is no more."""
    while True:
        asked, descriptors, _, _ = socket.recv_fds(door, LARGEST_BYTES, 1)
        if not asked:
            return None
        if os.fork() == 0:
            door.close()
            if mind(descriptors[0]):
                return tuple(json.loads(asked))  # type: ignore[return-value]
        os.close(descriptors[0])


def mind(told: int) -> bool:
    """Fork once more, and tell the tests the pid and the status of that process; return in it alone."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid == 0:
        os.setsid()
        os.close(told)
        return True
    os.write(told, b"%d\n" % pid)
    os.write(told, b"%d\n" % os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    os._exit(0)


def main() -> None:
    """Import the product, and become the command that is asked for in each fork."""
    for name in MODULES:
        import_module(name)
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # who minds a command is minded by nobody
    with socket.socket(fileno=int(sys.argv[1])) as door:
        asked = serve(door)
    if asked is None:
        return
    words, environ, folder, streams = asked
    for descriptor, path in enumerate(streams, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
    os.chdir(folder)
    sys.path[0] = folder  # as -m has it
    os.environ.clear()
    os.environ.update(environ)
    time.tzset()
    sys.argv[1:] = words
    runpy.run_module("worker", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
