"""The short run of the faults bench: everything it counts is within its bounds."""

from benches import rows_of_short_run

HOSTILE = ("hostile, fail", "hostile, retry")


async def test_what_happens_to_jobs_is_within_its_bounds() -> None:
    """Hostile faults end every job as they call for, and no limit is run into more often than it must be."""
    rows = await rows_of_short_run("faults")
    figures = {(row["scenario"], row["what"]): row["figure"] for row in rows}
    for scenario in HOSTILE:
        assert figures[scenario, "jobs"] == 180
        assert figures[scenario, "jobs that have not ended"] == 0
        assert figures[scenario, "jobs that ended otherwise than their faults call for"] == 0
    assert figures["hostile, fail", "accepted submissions after one accepted unknown to the worker"] == 0
    assert {row["scenario"] for row in rows} == {*HOSTILE, "20 a minute", "daily limit", "empty balance"}
