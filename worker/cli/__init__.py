"""The command line: ``entry`` begins and ends every command, and each group of commands has a file.

A command reads arguments, calls what does the work, prints, and chooses the exit status. Modules are imported by the
command that needs them, so that ``--help`` is quick. The order of the imports is the order in ``--help``.
"""

# isort: off
from worker.cli.entry import app, run
from worker.cli import processes, orders, looks, controls, webhooks, secret, explaining  # noqa: F401 - their commands
# isort: on

__all__ = ["app", "run"]
