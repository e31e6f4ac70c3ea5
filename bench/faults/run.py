"""Does bad things to two workers and counts what comes of it: `python bench/faults/run.py [--short] [--json]`.

Prints one table of figures and bounds, and the story of each job that went wrong; exits 1 if a bound is broken or a
scenario could not be played. `--write FILE` puts the table between two comments of a Markdown file. The long run takes
some six minutes, the short one half of one. Loopback only; every process it starts it ends.
"""

import argparse
import json
import signal
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # the bench's own modules

import hostile
import limits
from ground import Halt
from processes import Broken
from scenarios import Found, Scenario, Told
from table import Row, Unwritable, markdown, readable, text, write

SCENARIOS: dict[str, Scenario] = {
    "hostile-fail": hostile.with_fail,
    "hostile-retry": hostile.with_retry,
    "minute": limits.minute,
    "quota": limits.quota,
    "balance": limits.balance,
}
AT_ONCE = {True: 5, False: 2}  # in the short run and in the long one


def play(names: Sequence[str], told: Told) -> Found:
    """Play scenarios side by side, each on its own ground; one that breaks is a row that is over its bound."""
    began_s = time.monotonic()

    def one(name: str) -> Found:
        try:
            found = SCENARIOS[name](told)
        except Broken as error:
            found = Found([Row(name, "could not be played", 1, 0, str(error)[:300])])
        sys.stderr.write(f"  {time.monotonic() - began_s:5.1f} s  {name}\n")
        return found

    with ThreadPoolExecutor(AT_ONCE[told.short]) as pool:
        try:
            parts = list(pool.map(one, names))
        except BaseException:
            told.halt.event.set()
            raise
    return Found([row for part in parts for row in part.rows], [story for part in parts for story in part.stories])


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="fewer jobs, shorter limits")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument("--seed", type=int, default=1, help="which faults meet which job (default 1)")
    parser.add_argument("--only", action="append", choices=sorted(SCENARIOS), help="play this one; may be repeated")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the table into this file too")
    return parser.parse_args()


def main() -> int:
    options = read_options()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if options.write:
            readable(options.write)
        found = play(options.only or list(SCENARIOS), Told(options.seed, options.short, Halt()))
        if options.write:
            words = f"Measured by `make faults` (seed {options.seed}{', short' if options.short else ''})."
            write(options.write, markdown(found.rows, words))
    except Unwritable as error:
        sys.stderr.write(f"faults: {error}\n")
        return 2
    except KeyboardInterrupt:
        return 130
    if options.json:
        print(json.dumps({"rows": [row.form() for row in found.rows], "stories": found.stories}, indent=1))
    else:
        print(text(found.rows))
        for story in found.stories:
            print(f"\n{story}")
    return 1 if any(row.verdict == "OVER" for row in found.rows) else 0


if __name__ == "__main__":
    sys.exit(main())
