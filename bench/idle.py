"""What an ``up`` process costs while nothing happens: CPU of the process and of its Redis, in per cent of one core.

How: both CPU clocks before and after ten seconds in which the bench does nothing. Against: nothing; target under 1 %.
"""

import time
from dataclasses import dataclass

from processes import Process
from stage import RedisServer

SPAN_S = 10.0


@dataclass(frozen=True, slots=True)
class Idle:
    """CPU while idle, in per cent of a core."""

    up_percent: float
    redis_percent: float


def measure(up: Process, redis: RedisServer) -> Idle:
    """Watch for a while."""
    began_s, up_s, redis_s = time.monotonic(), up.cpu_s(), redis.process.cpu_s()
    time.sleep(SPAN_S)  # what is measured is the passing of time
    span_s = time.monotonic() - began_s
    return Idle((up.cpu_s() - up_s) / span_s * 100, (redis.process.cpu_s() - redis_s) / span_s * 100)
