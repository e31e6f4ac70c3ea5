"""A host of many destinations: how many requests are under way at a time, and how its places go round."""

from figures import ends, lateness
from scene import Corners
from table import Row

DESTINATIONS = 20
ANSWERS_S = 0.1
MOST_AT_ONCE, MOST_AT_A_HOST = 10, 40
BUSY = MOST_AT_A_HOST // MOST_AT_ONCE


def crowded(corners: Corners) -> list[Row]:
    """Have a host's one destination busy, then twenty; its consumer counts how many requests are there at a time."""
    alone, each = (60, 12) if corners.short else (300, 100)
    name = f"{DESTINATIONS} destinations"
    with corners.corner() as here:
        here.plan("", delay_s=ANSWERS_S)
        here.fill("alone", alone, [here.url("/alone")])
        here.until(lambda: here.taken() >= alone, within_s=60)
        most_alone = here.books().most.get("/alone", 0)
        here.fill("many", each * DESTINATIONS, [here.url(f"/{number}") for number in range(DESTINATIONS)])
        wanted = alone + each * DESTINATIONS
        here.until(lambda: here.taken() >= wanted, within_s=120)
        books = here.books()
    many = [arrival for arrival in books.arrivals if arrival.path != "/alone"]
    began_ms = min((arrival.at_ms for arrival in many), default=0)
    last_first_ms = max({arrival.path: arrival.at_ms for arrival in reversed(many)}.values(), default=0)
    last_ms = max((arrival.at_ms for arrival in many), default=0)
    return [
        Row(name, "deliveries", wanted, note=f"each answered after {ANSWERS_S:g} s"),
        Row(name, "most at a time at one, alone", most_alone, MOST_AT_ONCE),
        Row(name, "most at a time at one of them", max(books.most.values(), default=0), MOST_AT_ONCE),
        Row(name, "most at a time at their host", books.most_in_all, MOST_AT_A_HOST),
        Row(name, "seconds until all were delivered", _s(last_ms - began_ms)),
        Row(name, "seconds until each had its first", _s(last_first_ms - began_ms), corners.timed(2)),
        *ends(name, (books, wanted)),
    ]


def busy(corners: Corners) -> list[Row]:
    """Have so many destinations with backlogs that they fill their host, and look at one more of it."""
    answers_s, backlog, per_s, for_s = (0.5, 50, 5.0, 2.0) if corners.short else (0.25, 1000, 10.0, 20.0)
    name = f"{BUSY} busy destinations"
    with corners.corner() as here:
        here.plan("", delay_s=answers_s)
        here.plan("/other")
        here.fill("busy", BUSY * backlog, [here.url(f"/busy/{number}") for number in range(BUSY)])
        sent = here.trickle("other", here.url("/other"), per_s=per_s, for_s=for_s)
        left = sum(here.pending(here.url(f"/busy/{number}")) for number in range(BUSY))
        here.until(lambda: here.taken() >= sent + BUSY * backlog, within_s=120)
        books = here.books()
    return [
        Row(name, "deliveries waiting for them", BUSY * backlog, note=f"each answered after {answers_s:g} s"),
        Row(name, "deliveries to the other destination", sent, note=f"{left} left of the others' after its last job"),
        Row(name, "most at a time at their host", books.most_in_all, MOST_AT_A_HOST),
        *ends(name, (books, sent + BUSY * backlog)),
        *lateness(name, books.to("/other"), corners.timed(1000)),
    ]


def _s(time_ms: float) -> float:
    return round(time_ms / 1000, 1)
