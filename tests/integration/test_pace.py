"""What the fleet learns from refusals, in simulated time: the real script on a real Redis, all sorts of gateways."""

import heapq
import random
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

import pytest
import redis

SCRIPT = Path(__file__).parents[2].joinpath("worker", "lua", "pace.lua").read_text("utf-8")
DRIVER = """
local now_ms = tonumber(ARGV[2])
local lane = pace_read(1, now_ms)
local answer = {}
if ARGV[1] == 'take' then
  local room, at_ms = pace_room(lane, now_ms)
  answer = room > 0 and {pace_take(lane, now_ms, 1, now_ms + 25000), 0} or {0, at_ms}
else
  pace_heard(lane, now_ms, tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6]))
end
pace_write(lane)
return answer
"""
START_MS = 1_700_000_023_000  # not at a whole minute


class Lane:
    """The script under test."""

    def __init__(self, client: redis.Redis) -> None:
        self._run = client.register_script(SCRIPT + DRIVER)
        self.client = client

    def take(self, now_ms: int) -> list[int]:
        """Ask to send: ``[number, 0]``, or ``[0, when to ask again]``."""
        return [int(part) for part in self._run(["pace", "sent", "awaited"], ["take", now_ms])]

    def heard(self, now_ms: int, number: int, what: str, pause_ms: int, window_ms: int) -> None:
        """Tell what became of a request."""
        self._run(["pace", "sent", "awaited"], ["heard", now_ms, number, what, pause_ms, window_ms])


@dataclass
class Limit:
    """So many requests in a window: ``sliding``, from the first request on, or by the clock."""

    most: int
    window_ms: int = 60_000
    how: str = "first"
    retry_after: Callable[[int], int] | None = None  # ms to the window's end -> what is said (ms)
    taken: deque[int] = field(default_factory=deque)
    ends_ms: int = 0

    def refuses(self, now_ms: int) -> int | None:
        """Take a request; or say after how long (ms) to ask again, 0 where that is not said."""
        if self.how == "sliding":
            while self.taken and self.taken[0] <= now_ms - self.window_ms:
                self.taken.popleft()
        elif now_ms >= self.ends_ms:
            self.taken.clear()
            start_ms = now_ms - now_ms % self.window_ms if self.how == "clock" else now_ms
            self.ends_ms = start_ms + self.window_ms
        if len(self.taken) < self.most:
            self.taken.append(now_ms)
            return None
        ends_ms = self.taken[0] + self.window_ms if self.how == "sliding" else self.ends_ms
        return self.retry_after(ends_ms - now_ms) if self.retry_after else 0


@dataclass
class AtRandom:
    """Refuses a share of requests, whatever their number."""

    share: float
    rng: random.Random = field(default_factory=lambda: random.Random(7))

    def refuses(self, _now_ms: int) -> int | None:
        """Refuse by lot, with a second to wait."""
        return 1000 if self.rng.random() < self.share else None


Refuser = Limit | AtRandom


@dataclass
class Run:
    """What came of it: when requests passed and were refused, in ms from the start."""

    passed: list[int] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)

    def refused_a_minute(self, *, after_ms: int = 60_000) -> int:
        """Count the refusals of the worst minute after a time."""
        later = [at for at in self.refused if at >= after_ms]
        return max((sum(at <= other < at + 60_000 for other in later) for at in later), default=0)


def simulate(
    lane: Lane,
    gateway: Refuser,
    *,
    jobs: int,
    slots: int = 100,
    window_ms: int = 60_000,
    trickle_ms: int = 0,
    starts_ms: int = START_MS,
) -> Run:
    """Have so many jobs sent through the lane, each again until it passes; answers take 50 to 350 ms."""
    run, rng, order = Run(), random.Random(1), count()
    arrivals: Iterator[int] = (starts_ms + number * trickle_ms for number in range(jobs))
    waiting = deque(arrivals)
    events: list[tuple[int, int, str, int, int | None]] = []
    heapq.heappush(events, (starts_ms, next(order), "look", 0, None))
    in_flight, looks_at_ms = 0, starts_ms
    while events:
        now_ms, _, what, number, said = heapq.heappop(events)
        if what == "arrive":  # at the gateway, which decides by the time it arrives
            said = gateway.refuses(now_ms)
            heapq.heappush(events, (now_ms + rng.randint(20, 200), next(order), "answer", number, said))
            continue
        if what == "answer":
            in_flight -= 1
            lane.heard(now_ms, number, "passed" if said is None else "refused", said or 0, window_ms)
            (run.passed if said is None else run.refused).append(now_ms - START_MS)
            if said is not None:
                waiting.appendleft(now_ms)
        again_ms = 0
        while waiting and in_flight < slots and not again_ms:
            number, again_ms = (0, waiting[0]) if waiting[0] > now_ms else lane.take(now_ms)
            if number:
                waiting.popleft()
                in_flight += 1
                heapq.heappush(events, (now_ms + rng.randint(20, 150), next(order), "arrive", number, None))
        if again_ms and not now_ms < looks_at_ms <= again_ms:  # one look ahead is enough
            looks_at_ms = again_ms
            heapq.heappush(events, (again_ms, next(order), "look", 0, None))
    return run


def honest(left_ms: int) -> int:
    """Say when the window ends, in whole seconds."""
    return -(-left_ms // 1000) * 1000


@pytest.fixture
def lane(redis_url: str) -> Iterator[Lane]:
    """Give a lane of its own."""
    client = redis.Redis.from_url(redis_url)
    client.flushdb()
    yield Lane(client)
    client.close()


LIMITS = {
    "a window from the first request, told honestly": Limit(60, retry_after=honest),
    "by the clock, told honestly": Limit(60, how="clock", retry_after=honest),
    "sliding, told honestly": Limit(60, how="sliding", retry_after=honest),
    "not told": Limit(60),
    "by the clock, not told": Limit(60, how="clock"),
    "sliding, not told": Limit(60, how="sliding"),
    "told too short": Limit(60, retry_after=lambda _: 1000),
    "few": Limit(3, retry_after=honest),
}


# A burst of jobs, and one that comes as fast as the limit allows.
@pytest.mark.parametrize("trickle_ms", [0, 600])
@pytest.mark.parametrize("name", LIMITS)
def test_a_limit_a_minute_is_learned(lane: Lane, name: str, trickle_ms: int) -> None:
    """At most five requests a minute are refused after the first, and nine tenths of the limit are used."""
    limit = replace(LIMITS[name], taken=deque())
    jobs = 10 * limit.most
    run = simulate(lane, limit, jobs=jobs, trickle_ms=trickle_ms)
    # Where windows go by the clock, those that were seen in part have taught too much: it takes a few to mend that.
    known_ms = 390_000 if limit.how == "clock" and trickle_ms else 60_000
    assert len(run.passed) == jobs
    assert run.refused_a_minute(after_ms=known_ms) <= 5
    assert max(run.passed) <= 600_000 / 0.9


@pytest.mark.parametrize("how", ["first", "clock", "sliding"])
@pytest.mark.parametrize("retry_after", [None, honest])
def test_a_limit_in_ten_seconds_is_learned(lane: Lane, how: str, retry_after: Callable[[int], int] | None) -> None:
    """The provider's own limit, 20 in 10 s, is kept to as well."""
    run = simulate(lane, Limit(20, 10_000, how, retry_after), jobs=600, window_ms=10_000)
    assert len(run.passed) == 600
    assert run.refused_a_minute() <= 5
    assert max(run.passed) <= 300_000 / 0.9


def test_refusals_by_lot_are_no_limit(lane: Lane) -> None:
    """Refusals amid requests that pass pause the fleet, and teach nothing."""
    run = simulate(lane, AtRandom(0.05), jobs=1000)
    assert len(run.passed) == 1000
    assert max(run.passed) <= 60_000
    assert int(lane.client.hget("pace", "limit") or 0) == 0


def test_a_limit_that_is_lifted_is_forgotten(lane: Lane) -> None:
    """What was learned is not believed for ever: the gateway takes more, and soon nothing is limited any more."""
    simulate(lane, Limit(20, retry_after=honest), jobs=40)
    assert int(lane.client.hget("pace", "limit") or 0) == 20
    run = simulate(lane, AtRandom(0), jobs=2000, starts_ms=START_MS + 120_000)
    assert max(run.passed) <= 180_000
    assert int(lane.client.hget("pace", "limit") or 0) == 0


def test_without_refusals_nothing_waits(lane: Lane) -> None:
    """A gateway that refuses nothing is sent everything at once."""
    assert max(simulate(lane, AtRandom(0), jobs=1000).passed) <= 5_000


def test_a_clock_set_back_stops_nothing(lane: Lane) -> None:
    """What was planned by the old time does not hold requests up for as long as the clock went back."""
    for now_ms in (START_MS + 86_400_000, START_MS):
        number, _ = lane.take(now_ms)
        assert number > 0
        lane.heard(now_ms, number, "refused", 60_000, 60_000)
    number, again_ms = lane.take(START_MS + 60_001)
    assert (number > 0, again_ms) == (True, 0)


def test_rubbish_counts_as_nothing(lane: Lane) -> None:
    """Whatever lies in the lane's fields, requests go out."""
    fields = ("sent", "granted", "limit", "shut", "pause_until_ms", "probe_until_ms", "grow_at_ms", "window_ms")
    for rubbish in (b"x", b"-1", b"1e400", b"nan", b"\xff", b"99999999999999999999"):
        lane.client.hset("pace", mapping=dict.fromkeys(fields, rubbish))
        number, _ = lane.take(START_MS)
        assert number > 0
        lane.heard(START_MS + 1, number, "passed", 0, 60_000)
