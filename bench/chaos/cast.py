"""Who dies and comes back: processes that are started anew, each in its own way, and a keeper that sees to it.

The keeper has one list of what is to be done when, and goes through it; between two deeds it looks after whoever ended
by himself. Nothing is hidden: what was done is noted with its time, and so is every end nobody asked for.
"""

import contextlib
import heapq
import itertools
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ground import Halt
from processes import Process
from redis import Redis
from redis.exceptions import RedisError
from schedule import Fault
from stage import Stage, is_started, redis_words

LOOK_EVERY_S = 0.05
REVIVES_S = 1.0  # how soon whoever ended by himself is started again, as a supervisor would
HUNG_S = 10.0  # so long after its grace a worker that was told to end is given up


class Member:
    """A process that is started anew whenever it is needed; ``started`` finds in a log line that it is ready."""

    def __init__(
        self,
        stage: Stage,
        name: str,
        words: Sequence[str],
        environ: Mapping[str, str],
        started: Callable[[str], str | None] = is_started,
    ) -> None:
        self.name = name
        self.processes: list[Process] = []
        self.told_to_end_s: float | None = None
        self.back_after_s = 0.0
        self._said: tuple[Process, str] | None = None
        self._stage = stage
        self._words = list(words)
        self._environ = dict(environ)
        self._started = started
        self._stack = contextlib.ExitStack()

    @property
    def process(self) -> Process:
        """The one that runs, or the last that did."""
        return self.processes[-1]

    @property
    def runs(self) -> bool:
        """Whether it is there, standing still included."""
        return self.process.ended() is None

    def start(self) -> None:
        """Start it anew."""
        self._stack.close()
        self.told_to_end_s = None
        self.processes.append(self._stack.enter_context(self._stage.running(self._words, **self._environ)))

    def said(self) -> str:
        """Wait until it is ready; give what it said."""
        return self.heard() or self.process.said(self._started)

    def is_ready(self) -> bool:
        """Tell whether it has said that it is ready."""
        return self.heard() is not None

    def heard(self) -> str | None:
        """Give what the one that runs has said, if it has. Others may ask while it is being replaced."""
        process = self.process
        if self._said is None or self._said[0] is not process:
            lines = process.log.read_text(errors="replace").splitlines()
            said = next((said for line in lines if (said := self._started(line)) is not None), None)
            if said is None:
                return None
            self._said = process, said
        return self._said[1]

    def kill(self) -> None:
        """End it at once."""
        self.process.send(signal.SIGKILL)
        self.process.ended(5.0)

    def close(self) -> None:
        """End it for good."""
        if self.processes:
            self.process.send(signal.SIGCONT)
        self._stack.close()


class Durable(Member):
    """A Redis with an append-only file, each command on the disk before it is answered."""

    def __init__(self, stage: Stage, folder: Path) -> None:
        folder.mkdir()
        self.url_of_db = f"unix://{folder / 's'}?db=0"
        super().__init__(stage, "redis", redis_words(folder, "always"), {"LC_ALL": "C"})
        self._client = Redis(unix_socket_path=str(folder / "s"), socket_timeout=1.0)

    def answers(self) -> bool:
        """Tell whether it does."""
        try:
            return bool(self._client.ping())
        except RedisError:
            return False

    def said(self) -> str:
        """Wait until it answers."""
        self.process.until(self.answers, 20)
        return self.url_of_db


@dataclass
class Happened:
    """What was done and what came of it. Times are seconds from the storm's beginning."""

    told: list[str] = field(default_factory=list)
    deeds: dict[str, int] = field(default_factory=dict)
    ended_badly: list[str] = field(default_factory=list)  # on SIGTERM: not with 0, or not in time
    ended_unasked: list[str] = field(default_factory=list)
    kept_out: int = 0  # starts that ended because Redis was not there
    grace_s: float = 0.0  # the longest a SIGTERMed worker took


class Keeper:
    """Does what the schedule says to the members, and starts again what has ended."""

    def __init__(self, members: Sequence[Member], line: Callable[[str], None], halt: Halt, *, grace_s: float) -> None:
        self._members = {member.name: member for member in members}
        self._line = line
        self._halt = halt
        self._grace_s = grace_s
        self._todo: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._gone: set[str] = set()  # ended on purpose, and not to be looked after
        self._redis_away: list[tuple[float, float]] = []
        self._began_s = time.monotonic()
        self.happened = Happened()

    def plan(self, faults: Sequence[Fault]) -> None:
        """Take a schedule to be gone through from now on."""
        self._began_s = time.monotonic()
        for fault in faults:
            self._at(fault.at_s, lambda fault=fault: self._do(fault))

    def play(self, until: Callable[[], bool]) -> None:
        """Go through it all, and on until something holds besides."""
        while self._todo or self._gone or not until():
            while self._todo and self._todo[0][0] <= self._now_s:
                heapq.heappop(self._todo)[2]()
            self.look_after()
            self._halt.wait(LOOK_EVERY_S)

    def look_after(self) -> None:
        """Start again who has ended, and note how."""
        for member in self._members.values():
            if member.told_to_end_s is not None:
                self._ending(member)
            elif member.name not in self._gone and (status := member.process.ended()) is not None:
                self._ended_unasked(member, status)

    # --- what is done

    @property
    def _now_s(self) -> float:
        return time.monotonic() - self._began_s

    def _at(self, at_s: float, do: Callable[[], None]) -> None:
        heapq.heappush(self._todo, (at_s, next(self._order), do))

    def _after(self, for_s: float, do: Callable[[], None]) -> None:
        self._at(self._now_s + for_s, do)

    def _tell(self, words: str) -> None:
        self.happened.told.append(f"{self._now_s:6.1f} s  {words}")

    def _do(self, fault: Fault) -> None:
        if fault.deed == "cut":
            self._cut(fault)
            return
        member = self._members[fault.whom]
        if member.name in self._gone or not member.runs or (fault.deed == "SIGTERM" and not member.is_ready()):
            self._after(0.5, lambda: self._do(fault))  # it is only just coming back
            return
        self._tell(f"{fault.whom}  {fault.deed}, {fault.for_s:.1f} s")
        self._count(f"{fault.deed} of {'a worker' if fault.whom.startswith('worker') else fault.whom}")
        self._gone.add(member.name)
        if fault.whom == "redis":
            self._redis_away.append((self._now_s - 1, self._now_s + fault.for_s + 10))
        if fault.deed == "SIGTERM":
            member.told_to_end_s = time.monotonic()
            member.process.send(signal.SIGTERM)
            member.back_after_s = fault.for_s
        elif fault.deed == "SIGKILL":
            member.kill()
            self._after(fault.for_s, lambda: self._back(member))
        else:
            member.process.send(signal.SIGSTOP)
            self._after(fault.for_s, lambda: self._go_on(member))

    def _count(self, deed: str) -> None:
        self.happened.deeds[deed] = self.happened.deeds.get(deed, 0) + 1

    def _cut(self, fault: Fault) -> None:
        """Refuse connections at first, then swallow them."""
        self._tell(f"{fault.whom}  cut, {fault.for_s:.1f} s")
        self._count(f"cut of the {fault.whom}")
        self._line(f"refuse {fault.whom}")
        self._after(fault.for_s / 2, lambda: self._line(f"swallow {fault.whom}"))
        self._after(fault.for_s, lambda: self._line(f"mend {fault.whom}"))

    def _back(self, member: Member) -> None:
        member.start()
        self._gone.discard(member.name)
        self._tell(f"{member.name}  started")

    def _go_on(self, member: Member) -> None:
        member.process.send(signal.SIGCONT)
        self._gone.discard(member.name)
        self._tell(f"{member.name}  goes on")

    # --- what comes of it

    def _ending(self, member: Member) -> None:
        assert member.told_to_end_s is not None
        took_s = time.monotonic() - member.told_to_end_s
        status = member.process.ended()
        if status is None and took_s < self._grace_s + HUNG_S:
            return
        if status is None:
            member.kill()
        self.happened.grace_s = max(self.happened.grace_s, took_s)
        if status != 0 or took_s > self._grace_s + 3:
            self.happened.ended_badly.append(f"{self._now_s:.1f} s: {member.name}, status {status}, {took_s:.1f} s")
        member.told_to_end_s = None
        self._after(member.back_after_s, lambda: self._back(member))

    def _ended_unasked(self, member: Member, status: int) -> None:
        away = any(since <= self._now_s <= until for since, until in self._redis_away)
        if away and not member.is_ready():
            self.happened.kept_out += 1
        else:
            tail = member.process.log.read_text(errors="replace")[-300:]
            self.happened.ended_unasked.append(f"{self._now_s:.1f} s: {member.name}, status {status}: {tail}")
        self._gone.add(member.name)
        self._after(REVIVES_S, lambda: self._back(member))
