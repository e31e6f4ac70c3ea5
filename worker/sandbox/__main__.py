"""`python -m worker.sandbox`: the sandbox gateway by itself."""

import argparse
import sys

from worker.sandbox.faults import MIXES
from worker.sandbox.server import run


def main() -> int:
    """Read the options and serve; 1 where the port is taken."""
    parser = argparse.ArgumentParser(prog="python -m worker.sandbox", description="A gateway to develop against.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9400, help="0 picks a free one")
    parser.add_argument("--faults", choices=sorted(MIXES), default="default")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--speed", type=float, default=10.0, help="how many times faster than life tasks end")
    options = parser.parse_args()
    if options.speed <= 0:
        parser.error("--speed must be over 0")
    try:
        run(port=options.port, host=options.host, faults=options.faults, seed=options.seed, speed=options.speed)
    except OSError as error:
        sys.stderr.write(f"cannot listen on {options.host}:{options.port}: {error.strerror}; choose another --port\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
