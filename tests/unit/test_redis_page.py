"""The page about Redis tells of every key and setting there is, and of no other."""

import re
from pathlib import Path

import pytest
from key_table import PAGE, KeyRow, read_rows

from worker import embedded, keys
from worker.memory import MARK

ROOT = Path(__file__).parents[2]
ARQ = ("arq:", "{p}:jobs")  # the table in worker/keys.py leaves these to arq


def test_the_table_is_that_of_the_code() -> None:
    """Key for key, and of the same type, as ``worker/keys.py`` has it."""
    listed = re.findall(r"^\| (\{p\}[^|]*) \| ([^|]*) \| ", keys.__doc__ or "", flags=re.MULTILINE)
    in_code = {}
    for names, types in listed:
        both = names.split(", ")
        kinds = types.split(", ") if ", " in types else [types] * len(both)
        in_code |= dict(zip(both, kinds, strict=True))
    on_page = {row.name: row.type for row in read_rows() if not row.name.startswith(ARQ)}
    assert on_page == in_code


@pytest.mark.parametrize("row", read_rows(), ids=lambda row: row.name)
def test_every_key_has_an_owner_and_a_life(row: KeyRow) -> None:
    """The owner is a module of ours; the life is one of those the page explains, or a time."""
    assert (ROOT / "worker" / f"{row.owner}.py").exists()
    assert row.life.startswith(("job", "while used", "deployment", "until", "none")) or row.ttl_s


def test_the_settings_are_those_of_the_embedded_redis() -> None:
    """What the page asks for is what we run ourselves."""
    source = Path(embedded.__file__).read_text()
    options = dict(re.findall(r'^ {8}"([a-z-]+)": "([^"]*)",', source, flags=re.MULTILINE))
    asked = re.findall(r"^\| `([a-z-]+) ([^`]+)` \|", PAGE, flags=re.MULTILINE)
    told = {name: value.strip('"') for name, value in reversed(asked)}
    assert {"appendonly", "appendfsync", "maxmemory-policy", "save"} <= told.keys()
    assert {name: options[name] for name in told} == told


def test_the_mark_is_the_one_in_force() -> None:
    """The page tells the share of maxmemory above which new jobs are refused."""
    assert f"once {MARK:.0%} of it is used".replace("90%", "90 %") in PAGE
