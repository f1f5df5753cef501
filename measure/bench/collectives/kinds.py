"""The collectives that are measured: their sizes, and the least that they put on a link.

Sizes and bandwidths are those of nccl-tests: the size is that of the largest buffer of a rank (what
an all-gather gives, what a reduce-scatter takes); algbw = size / time; busbw = algbw times a
factor, which makes it comparable with the speed of a link: what a collective needs at least where
no switch adds. With a switch that adds, busbw may exceed the link's speed.
"""

from collections.abc import Callable
from dataclasses import dataclass

from wiresum.measure.model import limits
from wiresum.p4.packet import HEADER_BYTES

ROOT = 0
"""The root of collectives that have one."""

ELEMENT_BYTES = 4  # of float32

Share = Callable[[int], float]
"""Of the size, by the number of ranks."""


def _none(_ranks: int) -> float:
    return 0.0


def _all(_ranks: int) -> float:
    return 1.0


def _part(ranks: int) -> float:
    return 1 / ranks


def _others(ranks: int) -> float:
    return (ranks - 1) / ranks


def _twice(ranks: int) -> float:
    return 2 * _others(ranks)


@dataclass(frozen=True)
class Lanes:
    """What goes up and down the fullest link to a switch, of sums and of copies: shares of the
    size.

    Sums have F of 32 bits of each element, copies have all.
    """

    sum_up: Share = _none
    sum_down: Share = _none
    copy_up: Share = _none
    copy_down: Share = _none


@dataclass(frozen=True)
class Kind:
    """One collective. ``name`` is torch's; ``both`` is a reduce-scatter beside an all-gather."""

    name: str
    bus: Share
    """busbw by algbw."""
    ring: Share
    """What an ideal algorithm without a switch puts on the fullest link, in each direction."""
    switch: Lanes
    sums: bool
    """Whether it reduces, so that the field matters."""
    divided: bool = False
    """Whether a rank has an equal part of the buffer."""

    def elements(self, size: int, ranks: int) -> int:
        """Elements of the largest buffer for a size in bytes: each part has at least one."""
        if self.name == BARRIER:
            return 0
        wanted = max(1, size // ELEMENT_BYTES)
        return max(1, wanted // ranks) * ranks if self.divided else wanted

    def ring_bytes(self, size: int, ranks: int, mtu: int, field: int = 32) -> int:
        """What an ideal algorithm over TCP puts on the fullest link, in each direction.

        ``field``: bits of an element on the wire, for a sum.
        """
        bits = field if self.sums and self.name != BOTH else 32
        share = self.ring(ranks) * bits / 32
        if self.name == BOTH:
            share = _others(ranks) * (1 + field / 32)
        return limits.framed(round(size * share), mtu, limits.TCP)

    def switch_bytes(self, size: int, ranks: int, field: int, mtu: int) -> int:
        """What it puts on the fullest link to the switch, in the fuller direction, at least."""
        lanes = self.switch
        most = max(
            lanes.sum_up(ranks) * field / 32 + lanes.copy_up(ranks),
            lanes.sum_down(ranks) * field / 32 + lanes.copy_down(ranks),
        )
        return limits.framed(round(size * most), mtu, limits.UDP + HEADER_BYTES)


BARRIER, BOTH = "barrier", "both"

_TO_ALL = Lanes(copy_up=_part, copy_down=_others)

KINDS = {
    kind.name: kind
    for kind in (
        Kind("all_reduce", _twice, _twice, Lanes(_all, _all), True),
        Kind("reduce_scatter_tensor", _others, _others, Lanes(_all, _part), True, divided=True),
        Kind("all_gather_into_tensor", _others, _others, _TO_ALL, False, divided=True),
        Kind("broadcast", _all, _all, Lanes(copy_up=_all, copy_down=_all), False),
        Kind("reduce", _all, _all, Lanes(_all, _all), True),
        Kind("gather", _others, _others, _TO_ALL, False, divided=True),
        Kind("scatter", _others, _others, Lanes(copy_up=_others, copy_down=_part), False, True),
        Kind(BARRIER, _none, _none, Lanes(), False),
        Kind(BOTH, _twice, _twice, Lanes(_all, _part, _part, _others), True, divided=True),
    )
}
"""By name, in the order of the tables."""
