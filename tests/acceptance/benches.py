"""Short runs of the benches, as processes: what they counted, with everything within its bounds."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
WITHIN_S = 300.0


async def rows_of_short_run(bench: str) -> list[dict[str, Any]]:
    """Run a bench shortly to its good end; give the rows of its table, none of which is over its bound."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(ROOT / "bench" / bench / "run.py"),
        "--short",
        "--json",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    try:
        async with asyncio.timeout(WITHIN_S):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    assert out, err.decode()
    found = json.loads(out)
    rows: list[dict[str, Any]] = found["rows"]
    over = [f"{row['scenario']}: {row['what']}: {row['figure']:g}" for row in rows if row["verdict"] == "OVER"]
    assert (over, found.get("stories", [])) == ([], [])
    assert process.returncode == 0, err.decode()
    return rows
