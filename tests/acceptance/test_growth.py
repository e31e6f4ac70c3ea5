"""The short run of the growth bench: what has passed through leaves nothing, and a backlog is there whole."""

from benches import rows_of_short_run


async def test_redis_does_not_grow_and_a_backlog_is_kept() -> None:
    """Memory and keys are as before, no key of a job is left; of those that wait none is lost or would expire."""
    rows = await rows_of_short_run("growth")
    figures = {(row["scenario"], row["what"]): row["figure"] for row in rows}
    assert figures["passed through", "keys of the jobs left"] == 0
    assert figures["passed through", "keys more than before"] == 0
    assert figures["backlog", "jobs lost, or without their input"] == 0
    assert figures["backlog", "keys of theirs that would expire"] == 0
