"""What the chaos bench does to whom is drawn from its seed, and always includes all there is to do."""

from itertools import pairwise

import pytest
from schedule import LONG, SHORT, WORKERS, Size, draw

SEEDS = range(40)


@pytest.mark.parametrize("size", [LONG, SHORT], ids=["long", "short"])
def test_a_seed_gives_one_schedule(size: Size) -> None:
    """The same seed draws the same, others draw others, and all of it lies within the storm in its order."""
    drawn = [tuple(draw(seed, size)) for seed in SEEDS]
    assert drawn == [tuple(draw(seed, size)) for seed in SEEDS]
    assert len(set(drawn)) == len(SEEDS)
    for faults in drawn:
        times = [fault.at_s for fault in faults]
        assert times == sorted(times)
        assert times[0] >= 0
        assert times[-1] <= size.storm_s


@pytest.mark.parametrize("size", [LONG, SHORT], ids=["long", "short"])
def test_each_deed_is_done(size: Size) -> None:
    """Workers meet each signal, Redis is killed as often as it should be, and each line is cut once."""
    stop = [("redis", "SIGSTOP")] if size.redis_stop is not None else []
    kills = [("redis", "SIGKILL")] * len(size.redis_kills)
    for seed in SEEDS:
        faults = draw(seed, size)
        assert {fault.deed for fault in faults if fault.whom in WORKERS} == {"SIGKILL", "SIGTERM", "SIGSTOP"}
        others = sorted((fault.whom, fault.deed) for fault in faults if fault.whom not in WORKERS)
        assert others == [("gateway", "cut"), ("receiver", "cut"), *kills, *stop, ("web", "SIGKILL")]


def test_whoever_is_gone_is_left_alone() -> None:
    """Nothing is done to a worker before it is back, and some stand still for longer than a lease."""
    for seed in SEEDS:
        faults = [fault for fault in draw(seed, LONG) if fault.whom in WORKERS]
        for name in WORKERS:
            for earlier, later in pairwise(fault for fault in faults if fault.whom == name):
                assert later.at_s > earlier.at_s + earlier.for_s
        assert any(fault.for_s > 12 for fault in faults if fault.deed == "SIGSTOP")
