"""A collective of large tensors as rounds: a part of each piece travels while the next is copied.

All ranks cut alike: sizes alone decide. Parts of sums are whole blocks, and too large to get one
exponent for each element, so the sums have the bits of uncut ones.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from wiresum.host_agent._engine import BLOCK, SMALL

ROUND_BYTES = 4 << 20
"""Of the host's memory in one round; about."""

_LEAST = 2 * SMALL
"""Elements of a part, or bytes of one of a copy; about."""


class Part(NamedTuple):
    """Some elements of a piece, or bytes of a copy."""

    piece: int
    first: int
    count: int  # type: ignore[assignment]  # a tuple has a method of that name


def rounds(
    counts: Sequence[int], sizes: Sequence[int], most: int = ROUND_BYTES
) -> Iterator[list[Part]]:
    """The parts of each round. ``counts``: of each piece; ``sizes``: its bytes on the host."""
    number = max(1, -(-sum(sizes) // most))
    cuts = [_cuts(count, number) for count in counts]
    for at in range(max(map(len, cuts), default=1) - 1):
        yield [
            Part(piece, ends[at], ends[at + 1] - ends[at])
            for piece, ends in enumerate(cuts)
            if at + 1 < len(ends)
        ]


def _cuts(count: int, number: int) -> list[int]:
    """Where the parts of a piece begin, and where the last one ends."""
    parts = max(1, min(number, count // _LEAST))
    blocks = -(-count // BLOCK)
    return [*(blocks * at // parts * BLOCK for at in range(parts)), count]
