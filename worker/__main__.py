"""Run the command line: ``python -m worker COMMAND``."""

from worker.cli import run

if __name__ == "__main__":
    run()
