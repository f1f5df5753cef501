"""Levels, votes and rotations by the book, in plain integers and numpy: for the engine's tests."""

import numpy as np
from numpy.typing import NDArray

BLOCK = 256
NONFINITE = (1 << 31) - 1
ZERO = -(1 << 31)

Floats = NDArray[np.float32]
Whole = NDArray[np.int64]


def philox(counter: tuple[int, ...], key: tuple[int, int]) -> tuple[int, ...]:
    """Four words of Philox4x32-10 (Salmon et al. 2011)."""
    a, b, c, d = counter
    low, high = key
    for _ in range(10):
        one, two = 0xD2511F53 * a, 0xCD9E8D57 * c
        a, b, c, d = (
            (two >> 32) ^ b ^ low, two & 0xFFFFFFFF, (one >> 32) ^ d ^ high, one & 0xFFFFFFFF,
        )  # fmt: skip
        low, high = (low + 0x9E3779B9) & 0xFFFFFFFF, (high + 0xBB67AE85) & 0xFFFFFFFF
    return a, b, c, d


def words_of_block(seed: int, rank: int, step: int, purpose: int, origin: tuple[int, int]) -> Whole:
    """The random words of a block, one for each element."""
    drawn = [
        philox(((origin[0] + at) & 0xFFFFFFFF, step, origin[1], purpose), (seed, rank))
        for at in range(BLOCK // 4)
    ]
    return np.array(drawn, np.int64).T.reshape(-1)


def largest(block: Floats) -> float:
    return float(np.abs(block).max())


def _sum_in_eight(values: NDArray[np.float64]) -> float:
    parts = np.zeros(8)
    for row in values.reshape(-1, 8):
        parts = parts + row
    total = 0.0
    for part in parts:
        total += float(part)
    return total


def mean(block: Floats, length: int = BLOCK) -> float:
    return float(np.float32(_sum_in_eight(np.abs(block.astype(np.float64))) / length))


def root_mean_square(block: Floats, length: int = BLOCK) -> float:
    squares = block.astype(np.float64) ** 2
    return float(np.float32(np.sqrt(_sum_in_eight(squares) / length)))


def word(number: float) -> int:
    """As it travels: floats that are not negative compare like their bits."""
    if not np.isfinite(number):
        return NONFINITE
    return int(np.float32(number).view(np.int32)) + ZERO


def number_in(word: int) -> float:
    return float(np.array(word - ZERO, np.uint32).view(np.float32))


def to_levels(
    block: Floats, unit: float, top: int, drawn: Whole | None = None, up: bool = False
) -> Whole:
    """Of each element a level from 0 to ``top``."""
    if drawn is None and top == 1:
        return ((block > 0) | ((block == 0) & up)).astype(np.int64)
    exact = block.astype(np.float64) * (top / (2 * unit)) + top / 2
    exact = np.clip(exact, 0, top)
    if drawn is None:
        return np.rint(exact).astype(np.int64)
    whole = np.floor(exact)
    return (whole + ((drawn >> 1) * 2.0**-31 < exact - whole)).astype(np.int64)


def pack(levels: Whole, bits: int) -> list[int]:
    """Lanes of 32 bits, the first level in the lowest bits."""
    per_lane = 32 // bits
    return [
        sum(int(level) << at * bits for at, level in enumerate(levels[start : start + per_lane]))
        for start in range(0, BLOCK, per_lane)
    ]


def unpack(lanes: list[int], bits: int) -> Whole:
    per_lane = 32 // bits
    found = [lane >> at * bits & (1 << bits) - 1 for lane in lanes for at in range(per_lane)]
    return np.array(found[:BLOCK], np.int64)


def value(sums: Whole, unit: float, top: int, workers: int) -> Floats:
    """The mean that a sum of ``workers`` levels stands for."""
    zero = workers * top
    return ((2 * sums - zero).astype(np.float64) * (unit / zero)).astype(np.float32)


def hadamard(block: Floats) -> Floats:
    """By definition: signs of the parity of i & j, times 1/16; in the order of the butterflies."""
    values, half = block.copy(), 1
    while half < BLOCK:
        pairs = values.reshape(-1, 2, half)
        values = np.stack([pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]], 1).reshape(-1)
        half *= 2
    return values * np.float32(1 / 16)


def signs(drawn: Whole) -> Floats:
    return np.where(drawn & 1, -1, 1).astype(np.float32)
