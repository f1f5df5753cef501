"""The tensors that are reduced, and the check of the result.

Every all-reduce has fresh data, so that a buffer of an earlier one cannot pass for a result. All of
it is cut from one array that the processes share: a rank's contribution starts at an offset and is
scaled by a power of two, both of them a function of (round, operation, rank).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wiresum.common.errors import LineText, WiresumError
from wiresum.measure import lines

BLOCK = 256  # elements of the base array that have a magnitude in common
SPARE = 1 << 20  # elements by which contributions are shifted against each other
LARGEST_INTEGER = 1000
_PIECE = 1 << 20  # elements that are checked at a time
_EPSILON = 2.0**-24  # of float32, when rounding to nearest

Floats = NDArray[np.float32]


class WrongResult(WiresumError):
    """An all-reduce returned something else than the sum."""


def make(path: Path, elements: int, seed: int) -> None:
    """Write the base arrays for contributions of up to ``elements`` elements.

    First reals whose magnitudes vary by 2^±8 from block to block, then integers; none is zero.
    """
    total = -(-(elements + SPARE) // BLOCK) * BLOCK
    rng = np.random.default_rng(seed)
    with path.open("wb") as file:
        reals = rng.standard_normal(total, dtype=np.float32)
        reals[reals == 0] = 1.0
        magnitude = np.exp2(rng.integers(-8, 9, total // BLOCK)).astype(np.float32)
        (reals.reshape(-1, BLOCK) * magnitude[:, None]).tofile(file)
        integers = rng.integers(1, LARGEST_INTEGER, total, dtype=np.int32)
        (integers * rng.choice([-1, 1], total)).astype(np.float32).tofile(file)


class Data:
    """The base arrays, mapped from the file that :func:`make` wrote."""

    def __init__(self, path: Path) -> None:
        both: Floats = np.memmap(path, np.float32, mode="r")
        self._reals, self._integers = both.reshape(2, -1)

    def contribution(
        self, key: tuple[int, int], rank: int, first: int, out: Floats, integers: bool
    ) -> None:
        """Write elements ``first`` … of a rank's contribution to all-reduce ``key`` to ``out``."""
        rng = np.random.default_rng([*key, rank])
        offset = int(rng.integers(SPARE)) + first
        scale = np.float32(1 if integers else 2.0 ** int(rng.integers(-3, 4)))
        base = self._integers if integers else self._reals
        np.multiply(base[offset : offset + out.size], scale, out=out)

    def check(
        self,
        key: tuple[int, int],
        workers: int,
        result: Floats,
        integers: bool,
        field: int | None,
        level: int = 0,
    ) -> None:
        """Raise :class:`WrongResult` unless ``result`` is the sum of all ranks' contributions.

        ``field`` and ``level`` (L): the codec's, whose bound holds then; None: float32 all the
        way. Integers in 32-bit fields and in float32 are summed exactly.
        """
        for wrong in self.wrong_sums(key, workers, result, integers, field, level):
            raise WrongResult(wrong.line)

    def wrong_sums(
        self,
        key: tuple[int, int],
        workers: int,
        result: Floats,
        integers: bool,
        field: int | None,
        level: int = 0,
        base: int = 0,
    ) -> Iterator["Wrong"]:
        """The parts of ``result`` that :meth:`check` would refuse.

        ``base``: the first element of the contributions whose sum ``result`` is; a block of the
        codec begins there.
        """
        part = np.empty(min(_PIECE, result.size), np.float32)
        for first in range(0, result.size, _PIECE):
            got = result[first : first + _PIECE]
            exact = np.zeros(got.size)
            sizes = np.zeros(got.size)
            for rank in range(workers):
                mine = part[: got.size]
                self.contribution(key, rank, base + first, mine, integers)
                exact += mine
                np.abs(mine, out=mine)
                if field is None:
                    sizes += mine
                else:
                    np.maximum(sizes, mine, out=sizes)
            if integers and field in (None, 32):
                bound = np.zeros(got.size)
            elif field is None:
                bound = sizes * (workers * _EPSILON)
            else:
                bound = codec_bound(sizes, workers, field, level) + np.abs(exact) * 2 * _EPSILON
            yield from _wrong(got, exact, bound, first, result.size)

    def wrong_copies(
        self, key: tuple[int, int], source: int, result: Floats, integers: bool, base: int = 0
    ) -> Iterator["Wrong"]:
        """The parts of ``result`` that differ from elements ``base`` … of what ``source`` gave."""
        part = np.empty(min(_PIECE, result.size), np.float32)
        for first in range(0, result.size, _PIECE):
            got = result[first : first + _PIECE]
            mine = part[: got.size]
            self.contribution(key, source, base + first, mine, integers)
            yield from _wrong(got, mine, np.zeros(got.size), first, result.size)


class Wrong(NamedTuple):
    """Elements of a part of a result that are not what they must be."""

    elements: int
    line: LineText
    """The first of them."""


def _wrong(
    got: Floats, exact: NDArray[Any], bound: NDArray[np.float64], first: int, size: int
) -> Iterator[Wrong]:
    wrong = ~(np.abs(got - exact) <= bound)  # NaN is wrong too
    if wrong.any():
        at, count = int(np.argmax(wrong)), int(wrong.sum())
        line = lines.WRONG_ELEMENT.of(
            at=first + at,
            size=size,
            found=got[at],
            expected=exact[at],
            bound=bound[at],
            count=count,
        )
        yield Wrong(count, line)


def codec_bound(
    sizes: NDArray[np.float64], workers: int, field: int, level: int
) -> NDArray[np.float64]:
    """How far the sum in each element may be off: half a step of the block's scale for each rank.

    ``sizes``: the largest magnitude of any rank in each element; blocks of 256 begin at the first.
    ``level``: L, the largest number that one rank may contribute (see DESIGN: one adder).
    """
    bound = np.empty_like(sizes)
    for start in range(0, sizes.size, BLOCK * 4096):
        span = slice(start, min(start + BLOCK * 4096, sizes.size))
        blocks = -(-(span.stop - span.start) // BLOCK)
        padded = np.zeros(blocks * BLOCK)
        padded[: span.stop - span.start] = sizes[span]
        largest = padded.reshape(blocks, BLOCK).max(axis=1)
        if field == 32:
            # A power of two: 2^(e-b), with M < 2^e, and 2^b the largest one not above L.
            _, exponent = np.frexp(largest)
            step = np.exp2(exponent - np.floor(np.log2(level)))
        else:
            # The quantizer's float products may move a tie by L * 2^-22 of a step.
            step = largest / level * (1 + level * 2.0**-21)
        bound[span] = np.repeat(step * (workers * 0.5), BLOCK)[: span.stop - span.start]
    return bound
