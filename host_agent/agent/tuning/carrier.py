"""Which carrier sums, by the time of a step. Pure: no thread, no clock, no torch.

Of two carriers the first one carries unless the other is faster beyond doubt. Once the field has
settled and this rank waits for collectives, the ranks try the one that does not carry for some
steps; the times of both are agreed on, each as the largest of all ranks, and so all ranks decide
alike. They compare again after some windows, twice as many each time that nothing new comes of it,
or when a step takes much longer or shorter than it did.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import NamedTuple

from wiresum.host_agent.agent.tuning.policy import EXPOSED
from wiresum.host_agent.agent.tuning.worded import Worded

WARM = 2
"""Steps that do not count after a change: one has the change in it, one may wait for its rest."""

SHORTEST_TRY = 3
"""Steps after which a try may end early: those of a carrier that takes twice as long."""

GAIN = 0.05
"""A carrier is faster if it saves more than this share of a step, and more than the doubt."""

FIRST_REST, LONGEST_REST = 16, 256
"""Windows from one comparison to the next."""

MUCH = 1.5
"""Steps that all take so many times longer or shorter than they did: a reason to compare anew."""

NOT_READY = 1 << 31
_MOST = NOT_READY - 1


class Why(Worded):
    """Why the ranks have chosen a carrier."""

    TRY = 0, "its steps are timed"
    FASTER = 1, "its steps are shorter"
    NOT_FASTER = 2, "the other one's steps are no shorter"
    FIELD = 3, "the field has changed while the other one was timed"


class Time(NamedTuple):
    """Of a step, as all ranks have agreed on it; microseconds."""

    mean: int
    doubt: int
    """The standard error of the mean."""


class Decision(NamedTuple):
    """What carries from now on."""

    carrier: str
    why: Why
    times: Sequence[tuple[str, Time]] = ()
    """Of the carriers that were compared; of the one so far, before a try."""


@dataclass
class _Meter:
    """The steps of one rank since it has had this carrier and field."""

    most: int
    label: tuple[str, int] = ("", 0)
    steps: int = 0

    def __post_init__(self) -> None:
        self._took: deque[tuple[float, float]] = deque(maxlen=self.most)

    def clear(self) -> None:
        self.steps = -WARM
        self._took.clear()

    def step(self, took_s: float, exposed_s: float, label: tuple[str, int]) -> None:
        if label != self.label:
            self.label = label
            self.clear()
        self.steps += 1
        if self.steps > 0:
            self._took.append((took_s, exposed_s))

    @property
    def exposed_share(self) -> float:
        took = sum(each for each, _ in self._took)
        return sum(each for _, each in self._took) / took if took > 0 else 0.0

    @property
    def span(self) -> tuple[float, float]:
        """The shortest and the longest step, in microseconds."""
        took = [1e6 * each for each, _ in self._took]
        return min(took), max(took)

    @property
    def time(self) -> Time:
        """Of at least one step."""
        took = [1e6 * each for each, _ in self._took]
        doubt = stdev(took) / math.sqrt(len(took)) if len(took) > 1 else fmean(took)
        return Time(min(math.ceil(fmean(took)), _MOST), min(math.ceil(doubt), _MOST))


class CarrierPolicy:
    """The opinion of one rank, and what all ranks have agreed on."""

    def __init__(self, candidates: Sequence[str], steps: int) -> None:
        """Two ``candidates``, the preferred one first; or none, and nothing is chosen.

        ``steps``: of a window.
        """
        self.candidates = candidates
        self.home = candidates[0] if candidates else ""
        """What carries when nothing is tried."""
        self.tried: str | None = None
        """What carries for a while, to be timed."""
        self._steps = steps
        self._field = 32
        self._meter = _Meter(steps)
        self._before: Time | None = None  # of the steps before the try
        self._known: dict[int, Time] = {}  # of the carrier that was chosen, by the field
        self._rest = FIRST_REST
        self._since = 0  # steps since the last comparison

    @property
    def wanted(self) -> str:
        """What is to carry now."""
        return self.tried or self.home

    # -- this rank's opinion ------------------------------------------------------------------

    def step(self, took_s: float, exposed_s: float, carrier: str, field: int) -> None:
        """A step of this rank has ended, which ``carrier`` has carried."""
        self._since += 1
        self._meter.step(took_s, exposed_s, (carrier, field))

    def words(self) -> Sequence[int]:
        """The time of a step, or :data:`NOT_READY`, and its doubt: the largest of all count."""
        meter = self._meter
        if not self.candidates or meter.label != (self.wanted, self._field) or meter.steps < 1:
            return NOT_READY, 0
        ready = self._has_timed() if self.tried else self._is_due()
        return meter.time if ready else (NOT_READY, 0)

    def _has_timed(self) -> bool:
        assert self._before is not None
        slow = self._meter.steps >= SHORTEST_TRY and self._meter.time.mean > 2 * self._before.mean
        return self._meter.steps >= self._steps or slow

    def _is_due(self) -> bool:
        # A field that may become narrower does so after each window.
        if self._meter.steps < 2 * self._steps or self._meter.exposed_share < EXPOSED:
            return False
        known = self._known.get(self._field)
        if known is None or self._since >= self._rest * self._steps:
            return True
        shortest, longest = self._meter.span
        return shortest > known.mean * MUCH or longest < known.mean / MUCH

    # -- what all ranks have agreed on --------------------------------------------------------

    def field_changed(self, field: int) -> Decision | None:
        """The times so far say nothing any more."""
        self._field = field
        self._meter.clear()
        if self.tried is None:
            return None
        self.tried = None
        return Decision(self.home, Why.FIELD)

    def agreed(self, words: Sequence[int]) -> Decision | None:
        """Take what all ranks have said; what is chosen, if anything."""
        time = Time(*words)
        if not self.candidates or time.mean >= NOT_READY:
            return None
        self._meter.clear()
        if self.tried is None:
            self._before = time
            self.tried = self.candidates[self.home == self.candidates[0]]
            return Decision(self.tried, Why.TRY, ((self.home, time),))
        assert self._before is not None
        times = {self.home: self._before, self.tried: time}
        first, other = self.candidates
        chosen = other if _is_faster(times[other], times[first]) else first
        why = Why.NOT_FASTER if chosen == self.home else Why.FASTER
        same = chosen == self.home and self._field in self._known
        self._rest = min(2 * self._rest, LONGEST_REST) if same else FIRST_REST
        self._since = 0
        self._known[self._field] = times[chosen]
        self.home, self.tried = chosen, None
        return Decision(chosen, why, tuple(times.items()))


def _is_faster(one: Time, other: Time) -> bool:
    """Whether ``one`` saves enough. In whole numbers, so that all ranks find the same."""
    saved = other.mean - one.mean
    doubt = one.doubt**2 + other.doubt**2
    return saved > 0 and saved > GAIN * other.mean and saved**2 > 4 * doubt
