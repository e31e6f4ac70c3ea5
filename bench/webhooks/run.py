"""Measures what a bad consumer of webhooks does to the others: `python bench/webhooks/run.py [--short] [--json]`.

Two workers, real jobs or deliveries made through the store, and a consumer that answers 500, hangs, is not there, or
counts how many requests it has at a time. Prints one table of figures and bounds; exits 1 if a bound is broken or a
scenario could not be played. `--write FILE` puts the table between two comments of a Markdown file. The long run plays
one after the other in some seven minutes; the short one plays all at once in half of one, and judges no time. Loopback
only; every process it starts it ends. Linux only: it takes all of 127.0.0.0/8 for hosts.
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

import crowded
import failing
from ground import Halt
from processes import Broken
from scene import Corners
from table import Row, Unwritable, markdown, readable, text, write

SCENARIOS: dict[str, Callable[[Corners], list[Row]]] = {
    "outage": failing.outage,
    "hanging": failing.hanging,
    "slow": failing.slow,
    "dead": failing.dead,
    "crowded": crowded.crowded,
    "busy": crowded.busy,
}
PART = "webhooks"


def play(names: Sequence[str], halt: Halt, *, short: bool) -> list[Row]:
    """Play scenarios, all at once in the short run; one that breaks is a row that is over its bound."""
    began_s = time.monotonic()
    with Corners(halt, short=short) as corners, ThreadPoolExecutor(len(names) if short else 1) as pool:

        def one(name: str) -> list[Row]:
            try:
                rows = SCENARIOS[name](corners)
            except Broken as error:
                rows = [Row(name, "could not be played", 1, 0, str(error)[:300])]
            sys.stderr.write(f"  {time.monotonic() - began_s:5.1f} s  {name}\n")
            return rows

        try:
            parts = list(pool.map(one, names))
        except BaseException:
            halt.event.set()
            raise
    return [row for part in parts for row in part]


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="fewer deliveries, all scenarios at once")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument("--only", action="append", choices=sorted(SCENARIOS), help="play this one; may be repeated")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the table into this file too")
    return parser.parse_args()


def main() -> int:
    options = read_options()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if options.write:
            readable(options.write, PART)
        rows = play(options.only or list(SCENARIOS), Halt(), short=options.short)
        if options.write:
            words = f"Measured by `make webhooks`{' (short)' if options.short else ''}: two workers, one machine."
            write(options.write, markdown(rows, words), PART)
    except Unwritable as error:
        sys.stderr.write(f"webhooks: {error}\n")
        return 2
    except Broken as error:
        sys.stderr.write(f"webhooks: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    print(json.dumps({"rows": [row.form() for row in rows]}, indent=1) if options.json else text(rows))
    return 1 if any(row.verdict == "OVER" for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
