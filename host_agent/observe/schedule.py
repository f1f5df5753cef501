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


@dataclass(frozen=True)
class Took:
    """Seconds of one step, and seconds of CPU time of the thread that trains."""

    wall: float
    cpu: float


@dataclass
class Schedule:
    """The phases of a training's steps, in order, and the time that steps took by phase.

    ``wanted``: steps to record.
    """

    wanted: int
    times: dict[Phase, list[Took]] = field(default_factory=dict)
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

    def step_ended(self, took: Took) -> tuple[Phase, Phase]:
        """Note that a step has ended after so long; its phase, and that of the next one."""
        ended = self.phase
        self.times.setdefault(ended, []).append(took)
        self.seen += 1
        return ended, self.phase

    def took(self, phase: Phase) -> list[Took]:
        """How long the steps of a phase took, so far."""
        return self.times.get(phase, [])
