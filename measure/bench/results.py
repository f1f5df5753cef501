"""Medians, ratios and shares of the link's limit, from the samples of an all-reduce benchmark."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wiresum.measure.bench.cases import Case, Side
from wiresum.measure.model import limits


@dataclass(frozen=True)
class Spread:
    """Median, lowest and highest of some numbers."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Of at least one number."""
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True)
class Line:
    """One side in one case. Seconds, bytes and CPU seconds are those of one all-reduce.

    ``ratio``: gloo's time by this side's, None for gloo itself and where it was not measured; its
    spread is over the rounds, its median that of the medians. If gloo was measured in several ways,
    the fastest counts. ``limit_s``: the least time that the link allows; None without a rate.
    """

    case: Case
    side: Side
    seconds: Spread
    ratio: Spread | None
    limit_s: float | None
    sent: float
    received: float
    cpu_worker: float
    cpu_switch: float
    cpu_machine: float
    retransmissions: float

    @property
    def share(self) -> float | None:
        """How much of the link's limit was reached."""
        return None if self.limit_s is None else self.limit_s / self.seconds.median


def case_of(entry: Mapping[str, Any]) -> Case:
    """The case of an entry of the JSON."""
    return Case(entry["rate_mbit"], entry["loss"], entry["workers"], entry["size"])


def lines_of(entry: Mapping[str, Any], mtu: int) -> list[Line]:
    """All sides of one case, wiresum's widest field first, gloo last."""
    case = case_of(entry)
    samples: Mapping[str, Sequence[Mapping[str, Any]]] = entry["samples"]
    sides = sorted(map(Side.of, samples), key=Side.order)
    gloo = [[each["seconds"] for each in samples[side.key]] for side in sides if side.field is None]
    fastest = min(gloo, key=statistics.median, default=[])
    return [_line(case, side, samples[side.key], fastest, mtu) for side in sides]


def _line(
    case: Case, side: Side, samples: Sequence[Mapping[str, Any]], gloo: Sequence[float], mtu: int
) -> Line:
    def median(value: Callable[[Mapping[str, Any]], float]) -> float:
        return statistics.median(value(each) for each in samples)

    rate = case.rate_mbit
    times = Spread.of([each["seconds"] for each in samples])
    ratio = None
    if gloo and side.field is not None:
        rounds = [g / each["seconds"] for g, each in zip(gloo, samples, strict=False)]
        ratio = Spread(statistics.median(gloo) / times.median, min(rounds), max(rounds))
    return Line(
        case=case,
        side=side,
        seconds=times,
        ratio=ratio,
        limit_s=limits.seconds(case.least_bytes(side, mtu), rate) if rate is not None else None,
        sent=median(lambda each: max(each["sent"])),
        received=median(lambda each: max(each["received"])),
        cpu_worker=median(lambda each: statistics.fmean(each["cpu"]["workers"])),
        cpu_switch=median(lambda each: each["cpu"]["switch"]),
        cpu_machine=median(lambda each: each["cpu"]["machine"]),
        retransmissions=median(lambda each: each["retransmissions"]),
    )
