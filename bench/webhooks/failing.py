"""Consumers that fail: one answers 500 for a minute, one hangs or nearly does, one is not there at all."""

import statistics
import time
from dataclasses import dataclass

from books import Books, quantile
from figures import ends, lateness
from scene import Corner, Corners
from table import Row

TENTH = "0,0.5,30,180,720,1800,3600,3600"
LEASE_S = 12.0
HANGS_S = 20.0  # the worker gives up after 15 s
SLOW_S = 14.0


# --- answers 500


def outage(corners: Corners) -> list[Row]:
    """Complete jobs while their consumer answers 500; count what it gets until it is back, and after."""
    jobs, fails_s = (300, 6.0) if corners.short else (5000, 60.0)
    name = f"500 for {fails_s:g} s"
    with corners.corner(WEBHOOK_SCHEDULE_S=TENTH) as here:
        url = here.url("/hook")
        here.plan("/hook", status=500)
        began_s = time.monotonic()
        here.enqueue([f"o-{number}" for number in range(jobs)], url)
        here.until(lambda: here.pending(url) >= jobs, within_s=180)
        here.wait(began_s + fails_s - time.monotonic())
        completed = here.pending(url)
        failed_s = time.monotonic() - began_s
        during = here.books().refused
        here.plan("/hook", status=200)
        back_ms = time.time() * 1000
        here.until(lambda: here.taken() >= jobs, within_s=150)
        here.wait(0.5 if corners.short else LEASE_S + 1)  # what is sent again comes within a lease
        books = here.books()
    last_s = (max((arrival.at_ms for arrival in books.arrivals if arrival.taken), default=0) - back_ms) / 1000
    scale = "hundredth" if corners.short else "tenth"
    return [
        Row(name, "completions while it failed", completed, note=f"of {jobs}, in {failed_s:.0f} s"),
        Row(name, "attempts while it failed", during, 40, f"the default schedule, a {scale} of it"),
        Row(name, "attempts that failed after its return", books.refused - during, 10),
        *ends(name, (books, jobs)),
        Row(name, "seconds from its return to the last", round(last_s, 1), corners.timed(75)),
    ]


# --- hangs


def hanging(corners: Corners) -> list[Row]:
    """Have a destination hang until the worker gives up, at every attempt."""
    return _beside(corners, "hangs for 15 s", HANGS_S)


def slow(corners: Corners) -> list[Row]:
    """Have a destination answer well and so late that the worker almost gives up: nothing ever calls it failing."""
    return _beside(corners, f"answers after {SLOW_S:g} s", SLOW_S)


def _beside(corners: Corners, name: str, answers_s: float) -> list[Row]:
    """Have many deliveries wait for a destination that answers late, and look at another of its host."""
    waiting, per_s, for_s = (100, 5.0, 15.5) if corners.short else (500, 15.0, 45.0)
    with corners.corner() as here:
        here.plan("/late", delay_s=answers_s)
        here.fill("late", waiting, [here.url("/late")])
        sent = here.trickle("other", here.url("/other"), per_s=per_s, for_s=for_s)
        here.until(lambda: here.taken("/other") >= sent, within_s=60)
        books = here.books()
        left = here.pending(here.url("/late"))
    late, other = books.to("/late"), books.to("/other")
    return [
        Row(name, "deliveries waiting for it", waiting, note=f"{left} of them still in the end"),
        Row(name, "attempts there", len(late.arrivals)),
        Row(name, "most at a time there", late.most_in_all, 10),
        Row(name, "deliveries to the other destination", sent, note=f"{per_s:g} a second"),
        *ends(name, (other, sent), (late, len(late.taken))),
        *lateness(name, other, corners.timed(1000)),
    ]


# --- is not there


@dataclass(frozen=True, slots=True)
class Fared:
    """How a destination fared: the deliveries it got, their rate from a backlog, and how late those of jobs came."""

    books: Books
    wanted: int
    per_s: float
    p99_ms: float


def dead(corners: Corners) -> list[Row]:
    """Measure a destination beside one that refuses connections and has many waiting, and without that one."""
    pending = 2_000 if corners.short else 10_000
    name = "refuses connections"
    fared: dict[bool, list[Fared]] = {False: [], True: []}
    left = 0
    for beside in (False, True) if corners.short else (False, True, True, False):
        with corners.corner() as here, here.dead() as url:
            if beside:
                here.fill("dead", pending, [url])
            fared[beside].append(_fare(here, short=corners.short))
            left = here.pending(url) if beside else left
    without, with_it = fared[False], fared[True]
    rate = _mean(with_it, "per_s") / _mean(without, "per_s")
    late = _mean(with_it, "p99_ms") / _mean(without, "p99_ms")
    return [
        Row(name, "deliveries waiting for it", pending, note=f"{left} of them still in the end"),
        Row(name, "another's deliveries a second, from a backlog", round(_mean(with_it, "per_s")), note=_each(with_it)),
        Row(name, "the same without it", round(_mean(without, "per_s")), note=_each(without)),
        Row(name, "how many times as long a delivery takes beside it", round(1 / rate, 2), corners.timed(1.3)),
        Row(name, "another's delay beside it, p99, ms", round(_mean(with_it, "p99_ms")), corners.timed(1000)),
        Row(name, "how many times the p99 without it that is", round(late, 2), corners.timed(2)),
        *ends(name, *((each.books, each.wanted) for each in without + with_it)),
    ]


def _fare(here: Corner, *, short: bool) -> Fared:
    """Trickle jobs that tell one destination, then make it a backlog through the store."""
    per_s, for_s, backlog = (5.0, 2.0, 200) if short else (20.0, 10.0, 2000)
    sent = here.trickle("jobs", here.url("/jobs"), per_s=per_s, for_s=for_s)
    here.until(lambda: here.taken() >= sent, within_s=30)
    here.fill("backlog", backlog, [here.url("/backlog")])
    here.until(lambda: here.taken() >= sent + backlog, within_s=60)
    books = here.books()
    at_ms = [arrival.at_ms for arrival in books.to("/backlog").arrivals]
    took_s = (max(at_ms, default=0) - min(at_ms, default=0)) / 1000 or 1.0
    p99_ms = quantile(books.to("/jobs").delays_ms or [0], 0.99)
    return Fared(books, sent + backlog, backlog / took_s, p99_ms)


def _mean(fared: list[Fared], name: str) -> float:
    return statistics.mean(getattr(each, name) for each in fared) or 1.0


def _each(fared: list[Fared]) -> str:
    return "each time: " + ", ".join(f"{each.per_s:.0f} a second, p99 {each.p99_ms:.0f} ms" for each in fared)
