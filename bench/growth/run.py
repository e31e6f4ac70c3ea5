"""Measures that Redis does not grow and a backlog costs nothing: `python bench/growth/run.py [--short] [--json]`.

Takes 100,000 jobs through their whole life and compares Redis's memory with that before; and puts 100,000 jobs before
a worker, and compares what a job costs with what it costs where there are none. Prints one table of figures and bounds;
exits 1 if a bound is broken or a scenario could not be played. `--write FILE` puts the table between two comments of a
Markdown file. The short run takes some seconds, with some hundred jobs, and judges no cost. Linux only; loopback only;
every process it starts it ends.
"""

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # the bench's own modules
sys.path.append(str(Path(__file__).resolve().parents[1] / "faults"))  # and the table of its sister

from backlog import backlog
from flat import flat
from ground import Halt
from processes import Broken
from table import Row, Unwritable, markdown, readable, text, write

from config.log import configure_logging

SCENARIOS: dict[str, Callable[..., list[Row]]] = {"flat": flat, "backlog": backlog}
PART = "growth"


def play(names: Sequence[str], halt: Halt, *, short: bool) -> list[Row]:
    """Play scenarios one after the other; one that breaks is a row that is over its bound."""
    began_s, rows = time.monotonic(), list[Row]()
    for name in names:
        try:
            rows += SCENARIOS[name](halt, short=short)
        except Broken as error:
            rows.append(Row(name, "could not be played", 1, 0, str(error)[:300]))
        sys.stderr.write(f"  {time.monotonic() - began_s:5.1f} s  {name}\n")
    return rows


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="some hundred jobs, no cost judged")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument("--only", action="append", choices=sorted(SCENARIOS), help="play this one; may be repeated")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the table into this file too")
    return parser.parse_args()


def main() -> int:
    options = read_options()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    configure_logging(level="error", as_json=True)
    try:
        if options.write:
            readable(options.write, PART)
        rows = play(options.only or list(SCENARIOS), Halt(), short=options.short)
        if options.write:
            words = (
                f"Measured by `make growth`{' (short)' if options.short else ''}: one worker, one machine, Redis 6.2."
            )
            write(options.write, markdown(rows, words), PART)
    except Unwritable as error:
        sys.stderr.write(f"growth: {error}\n")
        return 2
    except KeyboardInterrupt:
        return 130
    print(json.dumps({"rows": [row.form() for row in rows]}, indent=1) if options.json else text(rows))
    return 1 if any(row.verdict == "OVER" for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
