"""The short run of the chaos bench: whatever is killed, cut or stopped, the books agree in the end."""

from benches import rows_of_short_run

NAUGHT = (
    "refused for good",
    "enqueued and lost",
    "not ended",
    "accepted tasks unaccounted for",
    "accepted after one that was not known to have ended",
    "tasks under a key that had one",
    "jobs nobody was told the end of",
    "ends told otherwise than they were, or twice",
    "webhooks with a wrong signature",
    "SIGTERMs not answered by exit 0 in time",
    "processes that ended unasked",
    "crashes and tracebacks in logs",
)
DONE = (
    "SIGKILL of a worker",
    "SIGTERM of a worker",
    "SIGSTOP of a worker",
    "SIGKILL of redis",
    "SIGKILL of web",
    "cut of the gateway",
    "cut of the receiver",
)


async def test_nothing_is_lost_in_a_storm() -> None:
    """Workers, Redis and the web process die, gateway and receiver are cut off: 500 jobs end, and are told of once."""
    rows = await rows_of_short_run("chaos")
    figures = {row["what"]: row["figure"] for row in rows if row["scenario"] == "the worker"}
    assert figures["jobs enqueued"] == 500
    assert [figures[what] for what in NAUGHT] == [0] * len(NAUGHT)
    assert all(figures[what] >= 1 for what in DONE)
    held = {row["what"]: row["figure"] for row in rows if row["scenario"] == "takeover after SIGKILL"}
    assert held["claims held"] == 30
