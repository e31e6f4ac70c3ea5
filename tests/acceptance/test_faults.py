"""The short run of the faults bench, as a process: everything it counts is within its bounds."""

import asyncio
import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
WITHIN_S = 300.0
HOSTILE = ("hostile, fail", "hostile, retry")


async def test_what_happens_to_jobs_is_within_its_bounds() -> None:
    """Hostile faults end every job as they call for, and no limit is run into more often than it must be."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(ROOT / "bench" / "faults" / "run.py"),
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
    over = [f"{row['scenario']}: {row['what']}: {row['figure']:g}" for row in found["rows"] if row["verdict"] == "OVER"]
    assert (over, found["stories"]) == ([], [])
    assert process.returncode == 0
    figures = {(row["scenario"], row["what"]): row["figure"] for row in found["rows"]}
    for scenario in HOSTILE:
        assert figures[scenario, "jobs"] == 180
        assert figures[scenario, "jobs that have not ended"] == 0
        assert figures[scenario, "jobs that ended otherwise than their faults call for"] == 0
    assert figures["hostile, fail", "accepted submissions after one accepted unknown to the worker"] == 0
    assert {row["scenario"] for row in found["rows"]} == {*HOSTILE, "20 a minute", "daily limit", "empty balance"}
