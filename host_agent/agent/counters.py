"""How many collectives went over the switch, how many fell back, and why.

One object per process: what a training script asks for with ``wiresum.host_agent.stats()``.
It knows nothing of torch.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from wiresum.host_agent.agent.tally import LONGEST_WHY, Totals

log = logging.getLogger("wiresum")

TELL_S = 0.05
"""How soon ``tell``'s function is told again, of carried collectives; seconds."""


@dataclass
class Counters:
    """Collectives by path; safe to use from several threads."""

    switch: Counter[str] = field(default_factory=Counter)
    switch_bytes: int = 0
    ranks: Counter[str] = field(default_factory=Counter)
    ranks_bytes: int = 0
    ranks_why: str = ""
    """The first reason why the ranks summed."""
    fallback: Counter[tuple[str, str]] = field(default_factory=Counter)
    fallback_bytes: int = 0
    fallback_why: str = ""
    """The first reason for the fallback; that of an all-reduce, if there is any."""
    tuned: str = ""
    """The fields that the ranks have chosen so far."""
    failed: Counter[str] = field(default_factory=Counter)
    engine: dict[str, int | float] = field(default_factory=dict)
    ended: int = 0
    in_flight_s: float = 0.0
    exposed_s: float = 0.0
    _tell: Callable[[Totals], None] | None = None
    _told: float = 0.0
    _untold: bool = False
    _rank: int = 0
    _size: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def count_carried(
        self, collective: str, tensors: int, size: int, *, ranks: bool, why: str = ""
    ) -> None:
        """One collective of ``tensors`` tensors and ``size`` bytes was handed to the carrier.

        That is the switch, or the ``ranks``; then ``why`` says why, at least for the first.
        """
        with self._lock:
            if ranks:
                self.ranks[collective] += 1
                self.ranks_bytes += size
                self.ranks_why = self.ranks_why or why[:LONGEST_WHY]
            else:
                self.switch[collective] += 1
                self.switch["tensors"] += tensors
                self.switch_bytes += size
            if time.monotonic() - self._told < TELL_S:
                self._untold = True
            else:
                self._tell_totals()

    def count_fallback(self, collective: str, reason: str, size: int, *, level: int) -> None:
        """One of ``size`` bytes fell back; the first of each (collective, reason) is logged."""
        with self._lock:
            first = (collective, reason) not in self.fallback
            self.fallback[collective, reason] += 1
            self.fallback_bytes += size
            sums = collective.startswith("all_reduce")
            if not self.fallback_why or (sums and not self.fallback_why.startswith("all_reduce")):
                self.fallback_why = f"{collective}: {reason}"[:LONGEST_WHY]
            self._tell_totals()
        if first:
            log.log(level, "wiresum: %s goes over the fallback: %s", collective, reason)

    def count_failed(self, kind: str) -> None:
        """One collective over the switch ended in an error of this kind."""
        with self._lock:
            self.failed[kind] += 1

    def count_ended(self, seconds: float) -> None:
        """One collective over the switch has ended, so long after it was handed over."""
        with self._lock:
            self.ended += 1
            self.in_flight_s += seconds

    def count_exposed(self, seconds: float) -> None:
        """A thread of the training stood still for so long."""
        with self._lock:
            self.exposed_s += seconds

    def count_engine(self, stats: Mapping[str, int | float]) -> None:
        """Keep the counters of an engine that has been closed."""
        with self._lock:
            for name, value in stats.items():
                self.engine[name] = self.engine.get(name, 0) + value

    def tell(self, write: Callable[[Totals], None], *, rank: int, size: int) -> None:
        """Give ``write`` the totals of ``rank`` now, and whenever a collective is counted.

        After carried ones that follow soon upon others it waits until :meth:`flush` is called.

        ``size``: how many ranks the largest group of this process has.
        """
        with self._lock:
            self._tell, self._rank, self._size = write, rank, size
            self._tell_totals()

    def flush(self) -> None:
        """Tell what has not been told yet."""
        with self._lock:
            if self._untold:
                self._tell_totals()

    def _tell_totals(self) -> None:
        self._told, self._untold = time.monotonic(), False
        if self._tell is None:
            return
        switch = self.switch.total() - self.switch["tensors"]
        self._tell(
            Totals(
                *(self._rank, self._size, switch, self.switch_bytes),
                *(self.ranks.total(), self.ranks_bytes, self.ranks_why),
                *(self.fallback.total(), self.fallback_bytes, self.fallback_why),
                self.tuned,
            )
        )

    def snapshot(self) -> dict[str, Any]:
        """The counts as plain dictionaries.

        ``switch``: collectives over the switch by name; ``switch_tensors``, ``switch_bytes``: the
        tensors in them and their size; ``ranks``, ``ranks_bytes``: those that the ranks summed
        themselves, by the time they were issued; ``fallback``: ``{collective: {reason: count}}``,
        ``fallback_bytes``: the size of what they gave or got; ``failed``:
        ``{kind of error: count}``; ``engine``: counters of engines closed so far. ``ended``:
        collectives over the switch that have ended, ``in_flight_s``: the seconds from their start
        to their end, summed; ``exposed_s``: seconds that training stood still for them.
        """
        with self._lock:
            by_name = dict(self.switch)
            tensors = by_name.pop("tensors", 0)
            fallback: dict[str, dict[str, int]] = {}
            for (collective, reason), count in self.fallback.items():
                fallback.setdefault(collective, {})[reason] = count
            return {
                "switch": by_name,
                "switch_tensors": tensors,
                "switch_bytes": self.switch_bytes,
                "ranks": dict(self.ranks),
                "ranks_bytes": self.ranks_bytes,
                "fallback": fallback,
                "fallback_bytes": self.fallback_bytes,
                "failed": dict(self.failed),
                "engine": dict(self.engine),
                "ended": self.ended,
                "in_flight_s": self.in_flight_s,
                "exposed_s": self.exposed_s,
            }


COUNTERS = Counters()
