"""Puts jobs on an arq queue in one go, exactly as ``arq.ArqRedis.enqueue_job`` writes them one by one."""

import json
import time
from collections.abc import Callable, Iterable
from typing import Any

from arq.constants import job_key_prefix
from arq.jobs import serialize_job
from redis import Redis

DAY_MS = 86_400_000


def to_json(value: Any) -> bytes:
    """Serialize as the contract asks of plain arq."""
    return json.dumps(value).encode()


def enqueue_all(
    client: "Redis[bytes]",
    queue: str,
    function: str,
    jobs: Iterable[tuple[str, tuple[Any, ...]]],
    serializer: Callable[[dict[str, Any]], bytes] | None = None,
) -> None:
    """Enqueue jobs (id, arguments), all due now."""
    now_ms = time.time_ns() // 1_000_000
    with client.pipeline(transaction=True) as pipe:
        for job_id, args in jobs:
            body = serialize_job(function, args, {}, None, now_ms, serializer=serializer)
            pipe.psetex(job_key_prefix + job_id, DAY_MS, body)
            pipe.zadd(queue, {job_id: now_ms})
        pipe.execute()
