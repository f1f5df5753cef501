"""Medians, bandwidths, ratios and shares of the link's limit, from the samples."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wiresum.measure.bench.cases import Side
from wiresum.measure.bench.collectives.kinds import BARRIER
from wiresum.measure.bench.collectives.options import Case
from wiresum.measure.bench.results import Spread
from wiresum.measure.model import limits

Samples = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Line:
    """One side in one case. Seconds and bytes are those of one collective.

    ``ratio``: gloo's time by this side's, None for gloo itself and where it was not measured; its
    spread is over the rounds, its median that of the medians. If gloo was measured in several ways,
    the fastest counts. ``limit_s``: the least time that the link allows this side, ``ring_s`` an
    ideal algorithm of float32 without a switch; None without a rate. ``sent``, ``received``: of the
    rank with the most.
    """

    case: Case
    side: Side
    seconds: Spread
    ratio: Spread | None
    limit_s: float | None
    ring_s: float | None
    sent: float
    received: float
    retransmissions: float
    wrong: int
    p99: Spread | None
    """Of single ones; only where latency was measured."""
    p99_ratio: Spread | None

    @property
    def algbw(self) -> float:
        """GB/s: the size by the time."""
        return self.case.bytes / self.seconds.median / 1e9

    @property
    def busbw(self) -> float:
        """GB/s: see ``kinds.py``."""
        return self.algbw * self.case.what.bus(self.case.workers)

    @property
    def share(self) -> float | None:
        """How much of the link's limit was reached."""
        return self.limit_s / self.seconds.median if self.limit_s else None

    @property
    def against_ring(self) -> float | None:
        """The least time of an ideal algorithm without a switch by this side's time."""
        return self.ring_s / self.seconds.median if self.ring_s else None


def case_of(entry: Mapping[str, Any]) -> Case:
    """The case of an entry of the JSON."""
    return Case(entry["collective"], entry["rate_mbit"], entry["workers"], entry["size"])


def lines_of(entry: Mapping[str, Any], mtu: int) -> list[Line]:
    """All sides of one case, wiresum's widest field first, gloo last."""
    case = case_of(entry)
    samples: Mapping[str, Samples] = entry["samples"]
    sides = sorted(map(Side.of, samples), key=Side.order)
    gloo = [samples[side.key] for side in sides if side.field is None]
    fastest = min(gloo, key=_median_s, default=())
    return [_line(case, side, samples[side.key], fastest, mtu) for side in sides]


def _median_s(samples: Samples) -> float:
    return float(statistics.median(each["seconds"] for each in samples))


def _line(case: Case, side: Side, samples: Samples, gloo: Samples, mtu: int) -> Line:
    def median(value: Callable[[Mapping[str, Any]], float]) -> float:
        return statistics.median(value(each) for each in samples)

    rate = case.rate_mbit
    limit_s = ring_s = None
    if rate is not None and case.kind != BARRIER:
        limit_s = limits.seconds(case.least_bytes(side, mtu), rate)
        ring_s = limits.seconds(case.ring_bytes(mtu), rate)
    times = [each["seconds"] for each in samples]
    theirs = [each["seconds"] for each in gloo] if side.field is not None else []
    p99s = [each["p99"] for each in samples if "p99" in each]
    their_p99s = [each["p99"] for each in gloo if "p99" in each]
    return Line(
        case=case,
        side=side,
        seconds=Spread.of(times),
        ratio=_ratio(theirs, times),
        limit_s=limit_s,
        ring_s=ring_s,
        sent=median(lambda each: max(each["sent"])),
        received=median(lambda each: max(each["received"])),
        retransmissions=median(lambda each: each["retransmissions"]),
        wrong=sum(each["wrong"] for each in samples),
        p99=Spread.of(p99s) if p99s else None,
        p99_ratio=_ratio(their_p99s if side.field is not None else [], p99s),
    )


def _ratio(theirs: Sequence[float], own: Sequence[float]) -> Spread | None:
    if not theirs or not own:
        return None
    rounds = [their / mine for their, mine in zip(theirs, own, strict=False)]
    return Spread(statistics.median(theirs) / statistics.median(own), min(rounds), max(rounds))


def percentile(values: Sequence[float], percent: float) -> float:
    """The least of them that so many percent do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]
