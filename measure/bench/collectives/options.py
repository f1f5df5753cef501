"""The cases of the benchmark of collectives, and what it was asked for."""

import math
from dataclasses import dataclass

from wiresum.measure import lines
from wiresum.measure.bench.cases import RANKS, TRAIN, Side, rate_text, size_text
from wiresum.measure.bench.collectives.kinds import BARRIER, ELEMENT_BYTES, KINDS, Kind
from wiresum.p4 import FIELDS, program
from wiresum.testbed.errors import RackUsageError
from wiresum.testbed.options import check_name

_SAMPLE_TRAINS = 128  # in a sample, so that what a shaper lets pass at once is less than 1 %
_MOST_OPS = 64
_LATENCY_OPS = 200
_MOST_BYTES = 64 << 20  # of the buffers of a sample together, unless it is one
_FAST_MBIT = 10_000.0  # taken for the rate where there is none

LATENCY_KINDS = ("all_reduce", "broadcast", BARRIER)
LATENCY_SIZES = "8B,1KiB,8KiB,64KiB"
SIZES = "64KiB,1MiB,25MiB"


@dataclass(frozen=True)
class Case:
    """One setting in which all sides do the same. ``size``: as asked for, in bytes."""

    kind: str
    rate_mbit: float | None
    workers: int
    size: int

    @property
    def what(self) -> Kind:
        """The collective."""
        return KINDS[self.kind]

    @property
    def elements(self) -> int:
        """Of the largest buffer of a rank."""
        return self.what.elements(self.size, self.workers)

    @property
    def bytes(self) -> int:
        """Of the largest buffer of a rank; may differ from what was asked for by less than n
        elements."""
        return self.elements * ELEMENT_BYTES

    @property
    def links(self) -> str:
        """Their rate, for tables."""
        return rate_text(self.rate_mbit)

    def least_bytes(self, side: Side, mtu: int = 1500) -> int:
        """What one of them puts on the fullest link at least, in its fuller direction."""
        if side.by_ranks:
            return self.what.ring_bytes(self.bytes, self.workers, mtu, side.field or 32)
        assert side.field is not None
        return self.what.switch_bytes(self.bytes, self.workers, side.field, mtu)

    def ring_bytes(self, mtu: int = 1500) -> int:
        """The same of an ideal algorithm of float32 without a switch."""
        return self.what.ring_bytes(self.bytes, self.workers, mtu)

    def ops(self, side: Side) -> int:
        """How many a sample has, back to back: one may be too short to time."""
        one = self.least_bytes(side)
        if not one:
            return _MOST_OPS
        wanted = math.ceil(_SAMPLE_TRAINS * TRAIN / one)
        return max(1, min(wanted, _MOST_OPS, _MOST_BYTES // self.bytes))

    def limit_s(self, ops: int) -> float:
        """How long a sample of ``ops`` of them may take before it is given up."""
        rate = self.rate_mbit or _FAST_MBIT
        return 60.0 + 20 * ops * 8 * 2 * self.bytes / (rate * 1e6)

    def __str__(self) -> str:
        size = "" if self.kind == BARRIER else f" of {size_text(self.bytes)}"
        return f"{self.links}, {self.workers} workers, {self.kind}{size}"


@dataclass(frozen=True)
class Options:
    """One run of ``wiresum bench collectives``."""

    workers: tuple[int, ...] = (4,)
    collectives: tuple[str, ...] = tuple(KINDS)
    sizes: tuple[int, ...] = (64 << 10, 1 << 20, 25 << 20)
    rates: tuple[float | None, ...] = (1000.0,)
    fields: tuple[int, ...] = FIELDS
    carriers: tuple[str, ...] = ("switch", RANKS)
    tcp: tuple[str, ...] = ()
    repeat: int = 5
    latency: bool = False
    """Whether single ones are timed."""
    ops: int = 0
    """Operations of a sample; 0: as many as it takes."""
    lanes: int = 256
    slots: int = 0
    mtu: int = 1500
    name: str = "bench"
    spoil: bool = False

    @property
    def sides(self) -> list[Side]:
        """All sides in the order of a round; gloo follows the first, so that what changes slowly
        on the machine meets both."""
        sides = [
            Side(field=field, transport=RANKS if carrier == RANKS else "udp")
            for carrier in self.carriers
            for field in self.fields
        ]
        for place, tcp in enumerate(self.tcp):
            sides.insert(1 + 2 * place, Side(tcp=tcp))
        return sides

    def sides_of(self, case: Case) -> list[Side]:
        """Those that a case concerns.

        Fields concern sums alone; copies and barriers of runs without a controller are gloo's.
        """
        if case.what.sums:
            return self.sides
        switch = [side for side in self.sides if not side.by_ranks][:1]
        return [side for side in self.sides if side.field is None or side in switch]

    def cases_of(self, workers: int) -> list[Case]:
        """All cases with so many workers, in the order of a round."""
        return [
            Case(kind, rate, workers, size)
            for rate in self.rates
            for kind in self.collectives
            for size in (self.sizes if kind != BARRIER else (0,))
        ]

    def ops_of(self, case: Case, side: Side) -> int:
        """How many operations a sample has."""
        return self.ops or (_LATENCY_OPS if self.latency else case.ops(side))

    def check(self) -> "Options":
        """Return the options; raises :class:`RackUsageError` for what makes no sense."""
        check_name(self.name)
        program(self.lanes)
        for case in self.cases_of(self.workers[0]):
            if not self.sides_of(case):
                raise RackUsageError(lines.NOTHING_TO_MEASURE.of(kind=case.kind))
        return self


def parse_kinds(text: str) -> tuple[str, ...]:
    """Parse ``all_reduce,both``. Raises :class:`RackUsageError`."""
    names = tuple(each.strip() for each in text.split(","))
    if not set(names) <= set(KINDS) or len(set(names)) < len(names):
        known = ", ".join(KINDS)
        raise RackUsageError(lines.UNKNOWN_NAMES.of(option="--collectives", text=text, known=known))
    return names
