"""What the hosts pay for a remedy, and how near a carrier comes to its links: with ranges.

Speeds are in bytes of float32 tensor per second on one core. ``switch`` is from
docs/performance.md; ``call``, ``hook``, ``powersgd`` and ``blocks`` were fitted to the steps in
docs/planning/advise.json. The others are estimates, wide on purpose: no benchmark here has measured
them. ``wiresum advise --calibrate`` measures the codec's and the cipher's speed on the machine
where it runs.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

GB = 1e9


@dataclass(frozen=True)
class Range:
    """A value that is known within limits: pessimistic, middle, optimistic."""

    low: float
    middle: float
    high: float

    def at(self, view: str) -> float:
        """The value under one of :data:`VIEWS`."""
        return {"low": self.low, "middle": self.middle, "high": self.high}[view]

    @classmethod
    def about(cls, value: float, down: float = 0.5, up: float = 1.5) -> "Range":
        """Around a measured value."""
        return cls(value * down, value, value * up)


@dataclass(frozen=True)
class Costs:
    """All of them.

    ``encode``, ``decode``: wiresum's codec, by bits of a field. ``fp16``: both conversions of the
    hook, and the float16 sums of gloo. ``powersgd``: the hook's products and its error feedback.
    ``blocks``: the choice of blocks, their codec and their residuals.
    ``cipher``: encryption, bytes per second. ``switch``: the share of its link that a worker of a
    switch reaches; ``ranks``: the share of a link that the ranks reach where they sum themselves.
    ``call``: seconds for each sum of the ranks, and for each other rank on the same core: threads
    that wake each other, and wait for it. ``hook``: the same for each all-reduce of a DDP hook.
    ``powersgd_share``: bytes of the low-rank factors, as a share of the
    gradient's.
    """

    encode: Mapping[int, Range] = field(
        default_factory=lambda: {
            32: Range(2 * GB, 5 * GB, 8 * GB),
            16: Range(2 * GB, 5 * GB, 8 * GB),
            8: Range(2 * GB, 5 * GB, 8 * GB),
        }
    )
    decode: Mapping[int, Range] = field(
        default_factory=lambda: {
            32: Range(2 * GB, 5 * GB, 8 * GB),
            16: Range(2 * GB, 6 * GB, 10 * GB),
            8: Range(2 * GB, 6 * GB, 10 * GB),
        }
    )
    fp16: Range = Range(0.7 * GB, 1.5 * GB, 4 * GB)
    powersgd: Range = Range(0.2 * GB, 0.4 * GB, 1 * GB)
    blocks: Range = Range(0.2 * GB, 0.4 * GB, 1 * GB)
    powersgd_share: Range = Range(1 / 16, 1 / 100, 1 / 500)
    cipher: Range = Range(0.7 * GB, 1.5 * GB, 3 * GB)
    switch: Range = Range(0.90, 0.96, 0.99)
    ranks: Range = Range(0.8, 1.0, 1.0)
    call: Range = Range(0.012, 0.006, 0.002)
    hook: Range = Range(0.005, 0.0025, 0.0005)

    def with_codec(self, encode: Mapping[int, float], decode: Mapping[int, float]) -> "Costs":
        """The same with a codec that was measured: bytes per second by bits of a field."""
        return replace(
            self,
            encode={bits: Range.about(speed) for bits, speed in encode.items()},
            decode={bits: Range.about(speed) for bits, speed in decode.items()},
        )


VIEWS = ("low", "middle", "high")
"""The pessimistic, the middle and the optimistic value of each range."""
