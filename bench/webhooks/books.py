"""What came to a host, read: how often each webhook was taken, how late it came, how many were there at a time."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request; ``status`` is what it was answered, 0 where its sender hung up before."""

    path: str
    id: str
    job: str
    event_ms: int
    at_ms: int
    status: int

    @property
    def taken(self) -> bool:
        """Whether it was answered well."""
        return 200 <= self.status < 300


@dataclass(frozen=True, slots=True)
class Books:
    """All requests of a host in order, and the most at a time: to each path, and in all."""

    arrivals: Sequence[Arrival]
    most: Mapping[str, int]
    most_in_all: int
    forged: int

    def to(self, path: str) -> "Books":
        """Give what came to one destination."""
        its = [arrival for arrival in self.arrivals if arrival.path == path]
        most = self.most.get(path, 0)
        return Books(its, {path: most}, most, self.forged)

    @property
    def taken(self) -> Counter[str]:
        """Count how often each webhook was taken, by its id."""
        return Counter(arrival.id for arrival in self.arrivals if arrival.taken)

    @property
    def doubled(self) -> int:
        """Count the webhooks that were taken more than once, and the jobs that were told of under two ids."""
        ids = {(arrival.job, arrival.id) for arrival in self.arrivals}
        return sum(times > 1 for times in self.taken.values()) + len(ids) - len({job for job, _ in ids})

    @property
    def refused(self) -> int:
        """Count the attempts that were not taken."""
        return sum(not arrival.taken for arrival in self.arrivals)

    @property
    def delays_ms(self) -> list[int]:
        """Tell how long after its event each webhook came that was taken."""
        return [arrival.at_ms - arrival.event_ms for arrival in self.arrivals if arrival.taken]


def read_books(found: Mapping[str, Any]) -> Books:
    """Read them as the consumer tells them."""
    arrivals = [
        Arrival(row["path"], row["id"], row["job"], _ms(row["event_at"]), row["at_ms"], row["status"])
        for row in found["rows"]
    ]
    return Books(arrivals, found["most"], found["most_in_all"], found["forged"])


def quantile(values: Sequence[float], share: float) -> float:
    """Give the least value that at least this share of them does not pass."""
    ordered = sorted(values)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]


def _ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)
