"""H of local steps, while a job trains, from what all ranks have measured. Pure.

It starts at the least, mostly 1, and looks at windows of whole rounds:

- **larger**, twice as large, if all ranks wait for collectives for a noticeable share of the time,
  all report their loss, the drift is below half of its limit, the field has settled, and this H has
  not been given up lately.
- **smaller**, half as large, if the loss of a rank lies above its lowest one since H was last made
  smaller by more than the tolerance and twice its own standard error, or the drift is above its
  limit. A loss or drift that is no number leads to the least at once.
- After an H was given up, it rests for some windows; twice as many each time.

All ranks have the same figures, so they choose alike.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from wiresum.host_agent.agent.tuning.policy import EXPOSED, FIRST_REST
from wiresum.host_agent.agent.tuning.worded import Worded


class Why(Worded):
    """Why the ranks have chosen an H."""

    EXPOSED = 0, "communication is exposed, drift and loss allow it"
    DRIFT = 1, "the drift is above its limit"
    LOSS = 2, "the loss has risen"


class Figures(NamedTuple):
    """What one rank has measured in a window."""

    exposed_share: float
    settled: float
    """1 if the field has not changed in the window."""
    reported: float
    """How many losses the script has reported."""
    loss: float
    """Their mean; 0 of none."""
    doubt: float
    """The mean's standard error."""


@dataclass
class IntervalPolicy:
    """The same on all ranks."""

    h: int
    most: int
    least: int
    drift: float
    """Largest drift of the ranks."""
    within: float

    def __post_init__(self) -> None:
        self._lowest: list[float | None] = []  # loss of each rank
        self._rests: dict[int, int] = {}  # windows, by H
        self._given_up: dict[int, int] = {}

    def window(self, ranks: Sequence[Figures], drift: float) -> Why | None:
        """A window has ended, with so large a drift; why H is another one now, if it is."""
        self._rests = {h: left - 1 for h, left in self._rests.items() if left > 1}
        losses = [each.loss for each in ranks if each.reported]
        if not all(map(math.isfinite, (drift, *losses))):
            return self._down(self.least, Why.LOSS if math.isfinite(drift) else Why.DRIFT)
        if self._has_risen(ranks):
            return self._down(max(self.h // 2, self.least), Why.LOSS)
        if drift > self.drift:
            return self._down(max(self.h // 2, self.least), Why.DRIFT)
        larger = min(2 * self.h, self.most)
        if larger > self.h and larger not in self._rests and self._may_grow(ranks, drift):
            self.h = larger
            return Why.EXPOSED
        return None

    def _may_grow(self, ranks: Sequence[Figures], drift: float) -> bool:
        return drift < self.drift / 2 and all(
            each.exposed_share >= EXPOSED and each.settled and each.reported for each in ranks
        )

    def _down(self, h: int, why: Why) -> Why | None:
        if h >= self.h:
            return None
        times = self._given_up[self.h] = self._given_up.get(self.h, 0) + 1
        self._rests[self.h] = FIRST_REST * 2 ** (times - 1)
        self.h = h
        self._lowest = []
        return why

    def _has_risen(self, ranks: Sequence[Figures]) -> bool:
        """Whether larger steps have made the loss of a rank rise; keeps the lowest ones."""
        before = self._lowest or [None] * len(ranks)
        self._lowest = [
            low if not each.reported else each.loss if low is None else min(low, each.loss)
            for low, each in zip(before, ranks, strict=True)
        ]
        return self.h > self.least and any(
            low is not None
            and each.reported
            and each.loss - 2 * each.doubt > low + self.within * abs(low)
            for low, each in zip(before, ranks, strict=True)
        )
