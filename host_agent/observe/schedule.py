"""Which steps of a training are recorded, and which are timed only: pure."""

from dataclasses import dataclass, field
from enum import Enum, auto

SETTLE = 3
"""Steps at the start that are neither timed nor recorded: memory, caches and connections."""


class Phase(Enum):
    """What is done with a step."""

    IDLE = auto()
    """Nothing: it is at the start, or disturbed by the profiler's start or stop."""
    BEFORE = auto()
    """It is timed, without the profiler."""
    STARTING = auto()
    """The profiler's first step: not part of the figures."""
    RECORDED = auto()
    AFTER = auto()
    """It is timed, without the profiler, after the recorded ones."""
    OVER = auto()


@dataclass
class Schedule:
    """The phases of a training's steps, in order, and the time that steps took by phase.

    ``wanted``: steps to record. ``times``: seconds of each step, for the phases that are timed.
    """

    wanted: int
    times: dict[Phase, list[float]] = field(default_factory=dict)
    seen: int = 0
    """Steps that have ended."""

    @property
    def around(self) -> int:
        """Steps that are timed before the recorded ones, and as many after them."""
        return max(3, self.wanted // 2)

    @property
    def needed(self) -> int:
        """Steps of the script for all of it."""
        return len(self._order())

    @property
    def phase(self) -> Phase:
        """Of the step that goes on now."""
        order = self._order()
        return order[self.seen] if self.seen < len(order) else Phase.OVER

    def _order(self) -> list[Phase]:
        return (
            [Phase.IDLE] * SETTLE
            + [Phase.BEFORE] * self.around
            + [Phase.STARTING]
            + [Phase.RECORDED] * self.wanted
            + [Phase.IDLE]
            + [Phase.AFTER] * self.around
        )

    def step_ended(self, seconds: float) -> tuple[Phase, Phase]:
        """Note that a step has ended after so long; its phase, and that of the next one."""
        ended = self.phase
        self.times.setdefault(ended, []).append(seconds)
        self.seen += 1
        return ended, self.phase

    def took(self, phase: Phase) -> list[float]:
        """Seconds of the steps of a phase, so far."""
        return self.times.get(phase, [])
