"""How a worker carries Redis's clock on between two readings of it."""

import pytest

from worker import claims
from worker.claims import Clock


class Machine:
    """This machine's own clock, in seconds."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        """Tell the time."""
        return self.now_s


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Have leases measured by a clock the test sets."""
    machine = Machine()
    monkeypatch.setattr(claims, "clock_s", machine)
    return machine


def read(clock: Clock, machine: Machine, redis_ms: int, *, on_the_way_s: float, read_after_s: float) -> None:
    """Ask Redis, which answers with its time at ``redis_ms``, and read the answer some time later."""
    asked_s = machine.now_s
    machine.now_s += on_the_way_s + read_after_s
    clock.set(redis_ms, asked_s=asked_s)


def test_an_answer_that_is_read_late_does_not_set_the_clock_back(machine: Machine) -> None:
    """A process that stood still for three seconds over the answer knows the time as well as before."""
    clock = Clock()
    read(clock, machine, 5_000_000, on_the_way_s=0.0, read_after_s=0.0)
    read(clock, machine, 5_000_500, on_the_way_s=0.5, read_after_s=3.0)
    assert clock.now_ms() == 5_003_500


@pytest.mark.parametrize("step_ms", [-3_600_000, 3_600_000])
def test_a_clock_that_was_set_is_followed(machine: Machine, step_ms: int) -> None:
    """Whichever way Redis's clock was set, the next answer tells it."""
    clock = Clock()
    read(clock, machine, 5_000_000, on_the_way_s=0.0, read_after_s=0.0)
    read(clock, machine, 5_000_000 + step_ms + 10, on_the_way_s=0.01, read_after_s=0.0)
    assert abs(clock.now_ms() - (5_000_010 + step_ms)) <= 10
