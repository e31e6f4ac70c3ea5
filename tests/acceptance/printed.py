"""How acceptance tests read what a command has printed, and how it refused."""

import json
from typing import Any

from product import Said


def read(said: Said, status: int = 0) -> Any:
    """Read the JSON a command printed, having ended so."""
    assert said.status == status, said.err
    assert "Traceback" not in said.err
    return json.loads(said.out)


def refusal(said: Said, status: int, *words: str) -> str:
    """See that a command failed with one line that has these words; return the fault, if any."""
    lines = said.err.splitlines()
    good = said.status == status and said.out == "" and len(lines) == 1 and lines[0].startswith("onysoft-worker: ")
    missing = [word for word in words if word not in said.err]
    return (
        "" if good and not missing else f"status {said.status}, {missing} missing, out {said.out!r}, err {said.err!r}"
    )
