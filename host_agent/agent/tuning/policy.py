"""One rank's opinion on the field, from what it measures. Pure: no thread, no clock, no torch.

It starts exact, at 32 bits, and looks at windows of steps:

- **narrower**, one step at a time, if this rank waits for collectives for a noticeable share of the
  step, the next field's error is within the limit, and the last change is a whole window ago. The
  rank that waits least is the one that the others wait for; since the widest wish of all ranks
  counts, it is the one that decides.
- **wider** if the loss of a window lies above the lowest one since the last widening by more than
  the tolerance and twice its own standard error, or the error above its limit. A loss that is no
  number leads to 32 bits at once.
- After a field was given up, it rests for some windows; twice as many each time.

Without a reported loss it goes no narrower than 16 bits.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from wiresum.host_agent.agent.tuning.wish import Wish
from wiresum.host_agent.agent.tuning.worded import Worded

FIELDS = (32, 16, 8)
"""From wide to narrow."""

EXPOSED = 0.05
"""Below this share of a step there is nothing worth saving."""

UNSEEN = 16
"""The narrowest field without a reported loss."""

FIRST_REST = 4
"""Windows for which a field rests that was given up for the first time."""


class Reason(Worded):
    """Why a rank asks for a field; the number travels with the field."""

    START = 0, "a run starts exact"
    EXPOSED = 1, "communication is exposed, error and loss allow it"
    ERROR = 2, "the error is above its limit"
    LOSS = 3, "the loss has risen"


@dataclass(frozen=True)
class Window:
    """What one rank has measured in some steps."""

    exposed_share: float
    losses: Sequence[float] = ()


@dataclass
class Policy:
    """The opinion of one rank, as it changes."""

    wish: Wish
    field: int = 32
    """That all ranks have agreed on."""
    asks: int = 32
    """For what this rank asks."""
    reason: Reason = Reason.START
    errors: Mapping[int, float] = dataclasses.field(default_factory=dict)
    """Of each field, relative to the norm of the tensor measured last; empty: not known."""
    last: Window | None = None
    """The last window."""
    _since: int = 0  # windows since the field was agreed on
    _lowest: float | None = None  # mean loss of a window
    _rests: dict[int, int] = dataclasses.field(
        default_factory=dict
    )  # windows that a field rests for still
    _given_up: dict[int, int] = dataclasses.field(default_factory=dict)  # how often

    def agreed(self, bits: int, reason: Reason) -> None:
        """All ranks use fields of ``bits`` from now on."""
        if bits > self.field:
            for each in FIELDS:
                if self.field <= each < bits:
                    times = self._given_up[each] = self._given_up.get(each, 0) + 1
                    self._rests[each] = FIRST_REST * 2 ** (times - 1)
            self._lowest = None
        self.field = bits
        if self.asks <= bits:  # else this rank has asked since for a wider one
            self.asks, self.reason = bits, reason
        self._since = 0

    def loss(self, value: float) -> None:
        """The script reports a loss: one that is no number leads to exact sums at once."""
        if not math.isfinite(value):
            self._ask(FIELDS[0], Reason.LOSS)

    def window(self, window: Window) -> None:
        """A window has ended."""
        self.last = window
        self._since += 1
        self._rests = {bits: left - 1 for bits, left in self._rests.items() if left > 1}
        if not all(map(math.isfinite, window.losses)):
            self._ask(FIELDS[0], Reason.LOSS)
        elif self._risen(window.losses):
            self._ask(self._wider(), Reason.LOSS)
        elif self.errors.get(self.field, 0.0) > self.wish.error and self.field < FIELDS[0]:
            self._ask(self._wider(), Reason.ERROR)
        elif self._may_narrow(window):
            self._ask(self._narrower(), Reason.EXPOSED)
        else:
            self._ask(self.field, self.reason)

    def _ask(self, bits: int, reason: Reason) -> None:
        self.asks, self.reason = bits, reason

    def _risen(self, losses: Sequence[float]) -> bool:
        """Whether a narrow field has made the loss rise; keeps the lowest one."""
        if not losses:
            return False
        mean, lowest = fmean(losses), self._lowest
        self._lowest = mean if lowest is None else min(mean, lowest)
        if lowest is None or self.field == FIELDS[0]:
            return False
        doubt = 2 * stdev(losses) / math.sqrt(len(losses)) if len(losses) > 1 else 0.0
        return mean - doubt > lowest + self.wish.within * abs(lowest)

    def _may_narrow(self, window: Window) -> bool:
        bits = self._narrower()
        return (
            bits < self.field
            and bits not in self._rests
            and self._since >= 1
            and window.exposed_share >= EXPOSED
            and (bool(window.losses) or bits >= UNSEEN)
            and self.errors.get(bits, math.inf) <= self.wish.error
        )

    def _narrower(self) -> int:
        return FIELDS[min(FIELDS.index(self.field) + 1, len(FIELDS) - 1)]

    def _wider(self) -> int:
        return FIELDS[max(FIELDS.index(self.field) - 1, 0)]
