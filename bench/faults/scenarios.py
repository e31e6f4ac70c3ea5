"""What every scenario is told, and what it gives back."""

from collections.abc import Callable
from dataclasses import dataclass, field

from ground import Halt
from table import Row


@dataclass(frozen=True, slots=True)
class Told:
    """How a run is to be: its seed, whether short, and what stops it."""

    seed: int
    short: bool
    halt: Halt


@dataclass(frozen=True, slots=True)
class Found:
    """A scenario's rows, and the stories of what went wrong."""

    rows: list[Row]
    stories: list[str] = field(default_factory=list)


Scenario = Callable[[Told], Found]
