"""What Redis holds, in bytes: without the buffers of clients and of the append-only file, which come and go."""

import time

from processes import Broken
from redis import Redis

STEADY_BYTES = 20_000
WITHIN_S = 20.0
BUFFERS = ("clients.normal", "clients.slaves", "aof.buffer", "replication.backlog")
LAST_MINUTE = "{p}:sent:submit"


def held_bytes(client: "Redis[bytes]", prefix: str) -> int:
    """Read it once it is steady, freed pages given back; less the log of the last minute's submissions."""
    client.execute_command("MEMORY", "PURGE")
    last, give_up_s = _read(client, prefix), time.monotonic() + WITHIN_S
    while True:
        time.sleep(0.5)  # hash tables that have become too large shrink in the background
        now = _read(client, prefix)
        if abs(now - last) < STEADY_BYTES:
            return now
        if time.monotonic() > give_up_s:
            raise Broken(f"Redis's memory does not settle: {last}, then {now} bytes")
        last = now


def _read(client: "Redis[bytes]", prefix: str) -> int:
    told = client.memory_stats()
    log = client.memory_usage(LAST_MINUTE.format(p=prefix), samples=0) or 0
    return int(told["total.allocated"]) - sum(int(told.get(name, 0)) for name in BUFFERS) - int(log)


def keys_there(client: "Redis[bytes]", prefix: str) -> set[str]:
    """Name the keys there are, but for what expires by itself and the log of the last minute."""
    log = LAST_MINUTE.format(p=prefix)
    return {key.decode() for key in client.scan_iter(count=1000) if key.decode() != log and client.ttl(key) == -1}
