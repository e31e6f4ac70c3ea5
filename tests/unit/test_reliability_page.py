"""docs/reliability.md says what the code does."""

import re
from pathlib import Path

from table import marks

from config.settings import Settings
from worker.claims import LEASE_MS
from worker.spool import FOLDER

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reliability.md").read_text()


def test_a_lease_is_as_long_as_the_page_says() -> None:
    """Whoever dies is taken over when it has run out."""
    lease = f"{LEASE_MS / 1000:g} s"
    assert f"under a lease of {lease}" in PAGE
    told = re.findall(r"\| (?:its absence and up to )?([0-9.]+ s) \|$", PAGE, re.MULTILINE)
    assert told == [lease] * 3


def test_settings_and_places_are_called_as_the_page_calls_them() -> None:
    """Defaults of settings, the folder of accepted tasks, and how the embedded Redis syncs."""
    assert Settings.from_env({}).unknown_submit == "retry"
    assert f"DATA_DIR/{FOLDER}" in PAGE
    source = (ROOT / "worker" / "embedded.py").read_text()
    assert '"appendfsync": "always"' in source


def test_the_measured_table_has_its_place() -> None:
    """Once, and after all words."""
    begin, end = marks("chaos")
    assert PAGE.count(begin) == PAGE.count(end) == 1
    assert PAGE.rstrip().endswith(end)
