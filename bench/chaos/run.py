"""Plays a storm of kills and cuts and compares the books: `python bench/chaos/run.py [--short] [--json] [--seed N]`.

Three workers, ten thousand jobs; workers, Redis and the web process are killed, ended and stopped, the gateway and the
receiver are cut off. Prints one table of figures and bounds; exits 1 if a bound is broken or something could not be
played. `--write FILE` puts the table between two comments of a Markdown file. Beside it the same storm for a naive arq
worker, and how soon a dead worker's work is taken over. The long run takes some ten minutes, the short one half of one.
Loopback only; every process it starts it ends.
"""

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # the bench's own modules
sys.path.append(str(Path(__file__).resolve().parents[1] / "faults"))  # and the table of its sister

import storm
import takeover
from ground import Halt
from page import markdown
from processes import Broken
from storm import Found, Told
from table import Row, Unwritable, readable, text, write

SCENARIOS: dict[str, Callable[[Told], Found]] = {
    "ours": storm.ours,
    "naive": storm.naive,
    "takeover": takeover.takeover,
}
PART = "chaos"
IN_SHORT = ("ours", "takeover")
NAMED = {"ours": "the worker", "naive": "naive arq"}


def planned(names: Sequence[str], seeds: Sequence[int], *, short: bool) -> list[tuple[str, Told]]:
    """Say what is played: the storm once for each seed, everything else for the first of them."""
    halt = Halt()
    return [(name, Told(seed, short, halt)) for name in names for seed in (seeds if name == "ours" else seeds[:1])]


def play(plan: Sequence[tuple[str, Told]]) -> list[Found]:
    """Play scenarios, all at once in the short run; one that breaks is a row that is over its bound."""
    began_s = time.monotonic()

    def one(part: tuple[str, Told]) -> Found:
        name, told = part
        try:
            found = SCENARIOS[name](told)
        except Broken as error:
            found = Found([Row(name, "could not be played", 1, 0, str(error)[:600])])
        sys.stderr.write(f"  {time.monotonic() - began_s:5.1f} s  {name}, seed {told.seed}\n")
        return found

    with ThreadPoolExecutor(len(plan) if plan[0][1].short else 1) as pool:
        try:
            return list(pool.map(one, plan))
        except BaseException:
            plan[0][1].halt.event.set()
            raise


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="500 jobs, no time is judged, nothing naive")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument(
        "--seed", type=int, action="append", help="which jobs, which faults, and when (default 1); may be repeated"
    )
    parser.add_argument("--only", action="append", choices=sorted(SCENARIOS), help="play this one; may be repeated")
    parser.add_argument("--told", action="store_true", help="say what was done when, too")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the table into this file too")
    return parser.parse_args()


def main() -> int:
    options = read_options()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if options.write:
            readable(options.write, PART)
        names = options.only or (IN_SHORT if options.short else list(SCENARIOS))
        plan = planned(names, options.seed or [1], short=options.short)
        parts = play(plan)
        rows = [row for part in parts for row in part.rows]
        if options.write:
            heads = [f"{NAMED.get(name, name)}, seed {told.seed}" for name, told in plan]
            columns = list(zip(heads, (part.rows for part in parts), strict=True))
            write(
                options.write,
                markdown(columns, f"Measured by `make chaos`{' (short)' if options.short else ''}."),
                PART,
            )
    except Unwritable as error:
        sys.stderr.write(f"chaos: {error}\n")
        return 2
    except KeyboardInterrupt:
        return 130
    stories = [story for part in parts for story in part.stories]
    happened = [line for part in parts for line in part.happened]
    if options.json:
        print(json.dumps({"rows": [row.form() for row in rows], "stories": stories, "happened": happened}, indent=1))
    else:
        print("\n".join([*(happened if options.told else ()), text(rows)]))
        for story in stories:
            print(f"\n{story}")
    return 1 if any(row.verdict == "OVER" for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
