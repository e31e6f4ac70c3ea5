"""Owns the looking up of names, apart from all else that waits in threads.

The system's look-up cannot be cancelled, and that of a dead consumer's name takes as long as its servers are silent. In
the event loop's few threads a handful of those would stop every other look-up of the process and its exit. So here
each has a thread that nobody waits for at the exit, a name has one at a time whoever asks for it, and names known to
take long share half of the threads, so that the other half is there for those who answer.
"""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Sequence

from aiohttp.abc import AbstractResolver, ResolveResult

THREADS = 64
LONG_S = 1.0
REMEMBERED = 1000
_NUMERIC = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
_WRITTEN = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV

Found = Sequence[tuple[socket.AddressFamily, int, str]]
"""Of each address its family, its protocol and the address itself."""


class Lookups(AbstractResolver):
    """Looks names up as the system does, at most ``threads`` at a time."""

    def __init__(self, threads: int = THREADS) -> None:
        self._free = asyncio.Semaphore(threads)
        self._free_for_long = asyncio.Semaphore(threads // 2)
        self._long: dict[str, None] = {}  # names whose last look-up took long, the latest last
        self._under_way: dict[tuple[str, int], asyncio.Task[Found]] = {}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Give the addresses of a name; raise ``OSError`` where it has none or no thread can be had."""
        key = host, int(family)
        task = self._under_way.get(key)
        if task is None:
            task = self._under_way[key] = asyncio.create_task(self._look_up(host, family))
            task.add_done_callback(lambda done: self._end(key, done))
        return [
            ResolveResult(hostname=host, host=address, port=port, family=of, proto=proto, flags=_NUMERIC)
            for of, proto, address in await asyncio.shield(task)
        ]

    async def close(self) -> None:
        """Wait for no look-up any more; those under way end by themselves, unheard."""
        for task in list(self._under_way.values()):
            task.cancel()

    def _end(self, key: tuple[str, int], task: "asyncio.Task[Found]") -> None:
        del self._under_way[key]
        if not task.cancelled():
            task.exception()  # whoever asked may be gone, and nobody else is to be told

    async def _look_up(self, host: str, family: socket.AddressFamily) -> Found:
        loop = asyncio.get_running_loop()
        async with self._free_for_long if host in self._long else contextlib.nullcontext(), self._free:
            answer: asyncio.Future[Found] = loop.create_future()
            begun_s = loop.time()
            try:
                threading.Thread(target=_ask, args=(host, family, loop, answer), name="look-up", daemon=True).start()
            except RuntimeError as error:
                raise OSError(str(error)) from error
            try:
                return await answer
            finally:
                self._note(host, loop.time() - begun_s)

    def _note(self, host: str, took_s: float) -> None:
        self._long.pop(host, None)
        if took_s > LONG_S:
            self._long[host] = None
            if len(self._long) > REMEMBERED:
                del self._long[next(iter(self._long))]


def _ask(
    host: str, family: socket.AddressFamily, loop: asyncio.AbstractEventLoop, answer: "asyncio.Future[Found]"
) -> None:
    """Ask the system, and hand its answer to the event loop if that still runs."""
    found: Found = ()
    wrong: Exception | None = None
    try:
        infos = socket.getaddrinfo(host, None, family=family, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
        found = [(of, proto, _written(address)) for of, _, proto, _, address in infos]
    except Exception as error:  # noqa: BLE001 - raised by whoever asked
        wrong = error
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(_hand_over, answer, found, wrong)


def _written(address: tuple[object, ...]) -> str:
    """Write an address, of a link-local one its scope, too."""
    scoped = len(address) == 4 and address[3]
    return socket.getnameinfo(address, _WRITTEN)[0] if scoped else str(address[0])  # type: ignore[arg-type]


def _hand_over(answer: "asyncio.Future[Found]", found: Found, wrong: Exception | None) -> None:
    if answer.done():
        return
    if wrong is not None:
        answer.set_exception(wrong)
    else:
        answer.set_result(found)
