"""The short run of the webhooks bench: nothing lost, nothing doubled, never too much at a time."""

from benches import rows_of_short_run

SCENARIOS = (
    "500 for 6 s",
    "hangs for 15 s",
    "answers after 14 s",
    "refuses connections",
    "20 destinations",
    "4 busy destinations",
)


async def test_bad_consumers_cost_nobody_a_delivery() -> None:
    """Beside consumers that fail, hang and refuse, each webhook is taken once, and few are under way at a time."""
    rows = await rows_of_short_run("webhooks")
    figures = {(row["scenario"], row["what"]): row["figure"] for row in rows}
    assert {row["scenario"] for row in rows} == set(SCENARIOS)
    for scenario in SCENARIOS:
        assert figures[scenario, "never delivered"] == 0
        assert figures[scenario, "taken twice, or under two ids"] == 0
    assert figures["500 for 6 s", "completions while it failed"] == 300
    assert figures["hangs for 15 s", "most at a time there"] <= 10
    assert figures["20 destinations", "most at a time at one of them"] <= 10
    assert figures["20 destinations", "most at a time at their host"] <= 40
