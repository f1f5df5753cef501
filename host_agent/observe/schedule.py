"""Which steps of a training are recorded, and which are timed only: pure."""

from dataclasses import dataclass, field
from enum import Enum, auto
from statistics import median

SETTLE = 3
"""Steps at the start that are neither timed nor recorded: memory, caches and connections."""

OPERATORS = 3
"""Steps, of those that are recorded, that show what operators cost; fewer are recorded: all."""

MOST_ADDED = 0.02
"""Of a step: if recording operators adds more, the figures are of steps without them."""

_LEAST_S = 1e-9


class Phase(Enum):
    """What is done with a step."""

    IDLE = auto()
    """Nothing: it is at the start, or disturbed by the profiler's start or stop."""
    BEFORE = auto()
    """It is timed, without the profiler."""
    STARTING = auto()
    """The profiler's first step: not part of the figures."""
    OPERATORS = auto()
    """It is recorded with its operators, and shows what that adds."""
    RECORDED = auto()
    """It is recorded: with its operators as well or, *apart* from those, without any."""
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
    apart: bool = False
    """Whether the steps of the figures have no operators; to be set after those that have."""

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
        first = min(OPERATORS, self.wanted)
        again = [Phase.IDLE, Phase.STARTING] if self.apart else []
        return (
            [Phase.IDLE] * SETTLE
            + [Phase.BEFORE] * self.around
            + [Phase.STARTING]
            + [Phase.OPERATORS] * first
            + again
            + [Phase.RECORDED] * (self.wanted if self.apart else self.wanted - first)
            + [Phase.IDLE]
            + [Phase.AFTER] * self.around
        )

    @property
    def recorded(self) -> list[Took]:
        """Of the steps that the figures are of."""
        without = self.took(Phase.RECORDED)
        return without if self.apart and without else self.took(Phase.OPERATORS) + without

    @property
    def added(self) -> Took:
        """What recording operators adds to a step; zeros before any has been recorded."""
        with_them, plain = self.took(Phase.OPERATORS), self.took(Phase.BEFORE)
        if not (with_them and plain):
            return Took(0.0, 0.0)
        return Took(
            median(each.wall for each in with_them) - median(each.wall for each in plain),
            median(each.cpu for each in with_them) - median(each.cpu for each in plain),
        )

    @property
    def operators_cost_much(self) -> bool:
        """Whether recording them adds more CPU time than :data:`MOST_ADDED` of a step."""
        plain = self.took(Phase.BEFORE)
        step = median(each.wall for each in plain) if plain else 0.0
        return self.added.cpu > MOST_ADDED * max(step, _LEAST_S)

    def step_ended(self, took: Took) -> tuple[Phase, Phase]:
        """Note that a step has ended after so long; its phase, and that of the next one."""
        ended = self.phase
        self.times.setdefault(ended, []).append(took)
        self.seen += 1
        return ended, self.phase

    def took(self, phase: Phase) -> list[Took]:
        """How long the steps of a phase took, so far."""
        return self.times.get(phase, [])
