"""Links as Hockney's model has them, fitted to timed messages: pure.

A message of S bytes takes alpha + S / beta one way. What is timed is a message and its answer of
one byte, so the least time of the smallest message is twice alpha, and 1 / beta is the slope. Times
of one direction alone would need clocks that agree: alpha is half of there and back.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

HEADERS = 66
"""Bytes of Ethernet, IPv4 and TCP with its time stamps in each packet."""
UNEQUAL = 1.25
"""How much faster the one direction of a pair is than the other, to be called so."""
_GBIT = 1e9 / 8


@dataclass(frozen=True)
class Pair:
    """One direction between two ranks.

    ``alpha_us``: microseconds. ``beta_gbit``: Gbit/s of whole packets, as a link's rate counts.
    """

    sender: int
    receiver: int
    alpha_us: float
    beta_gbit: float


@dataclass(frozen=True)
class Links:
    """All pairs that were timed, in the order of ranks; ``note``: why some or all are missing."""

    pairs: tuple[Pair, ...]
    note: str

    @property
    def slowest(self) -> Pair | None:
        """The direction of the least bandwidth."""
        return min(self.pairs, key=lambda pair: pair.beta_gbit, default=None)

    def unequal(self) -> list[tuple[Pair, Pair]]:
        """Pairs with a slow and a fast direction, in this order; the most unequal ones first."""
        back = {(pair.sender, pair.receiver): pair for pair in self.pairs}
        found = [
            (pair, other)
            for pair in self.pairs
            if (other := back.get((pair.receiver, pair.sender))) is not None
            and other.beta_gbit > UNEQUAL * pair.beta_gbit
        ]
        return sorted(found, key=lambda each: each[0].beta_gbit / each[1].beta_gbit)


def fit(
    rtt_s: float, samples: Sequence[tuple[float, float]], mss: float
) -> tuple[float, float] | None:
    """Alpha in microseconds and beta in Gbit/s; None if the samples give no bandwidth.

    ``samples``: bytes, and seconds there and back; ``mss``: bytes of payload in a packet. The line
    begins at ``rtt_s``, and least squares give its slope: the largest messages weigh most.
    """
    squares = sum(size * size for size, _ in samples)
    products = sum(size * max(0.0, seconds - rtt_s) for size, seconds in samples)
    if rtt_s <= 0 or mss < 1 or squares <= 0 or products <= 0:
        return None
    beta = squares / products * (mss + HEADERS) / mss / _GBIT
    return (rtt_s / 2 * 1e6, beta) if math.isfinite(beta) else None


def fitted(timed: Iterable[dict[str, object]], note: str) -> Links:
    """The links from what the ranks have written; what several of them tell counts once.

    Raises KeyError, TypeError or ValueError for what no rank writes.
    """
    found: dict[tuple[int, int], Pair] = {}
    for each in timed:
        sender, receiver, rtt, mss = (
            _number(each[name]) for name in ("from", "to", "rtt_s", "mss")
        )
        samples = each["samples"]
        if not isinstance(samples, list):
            raise TypeError("samples are a list")
        line = fit(rtt, [(_number(size), _number(took)) for size, took in samples], mss)
        if line is not None:
            found.setdefault((int(sender), int(receiver)), Pair(int(sender), int(receiver), *line))
    return Links(tuple(found[key] for key in sorted(found)), note)


def _number(value: object) -> float:
    if isinstance(value, int | float) and value == value and abs(value) < 1e18:
        return float(value)
    raise ValueError(f"{value!r} is no number")
