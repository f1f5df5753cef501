"""Block floating point by the book, in numpy's integers and wide floats: what the codec is held to.

Quantities per block of 256: exponent code, M (float32), e with M < 2**e, b with 2**b <= L.
"""

import numpy as np
from numpy.typing import NDArray

from wiresum.host_agent import _engine
from wiresum.host_agent.errors import EngineError

BLOCK = 256
NONFINITE = 0xFFFFFFFF

Codes = NDArray[np.uint32]
Floats = NDArray[np.float32]


def level(workers: int, field: int) -> int:
    """L: what one rank's field may hold in either direction."""
    largest: int = 2**field - 1
    return largest // (2 * workers)


def codes_of(values: Floats) -> Codes:
    """Exponent code of each block of one rank's values."""
    bits = values.view(np.uint32) & np.uint32(0x7FFFFFFF)
    codes = np.maximum.reduceat(bits, np.arange(0, len(bits), BLOCK)) if len(bits) else bits[:0]
    codes[codes >= 0x7F800000] = NONFINITE
    return codes


def is_sent(code: int) -> bool:
    """Whether a block with this agreed code travels."""
    return 0 < code < 0x7F800000


def magnitude(code: int) -> tuple[np.float32, int]:
    """M and e."""
    largest = np.array([code], np.uint32).view(np.float32)[0]
    return largest, int(np.frexp(np.float64(largest))[1])


def quantize_32(values: Floats, code: int, workers: int) -> NDArray[np.int64]:
    """q of F = 32: exact in float64, since the scale is a power of two."""
    _, e = magnitude(code)
    b = level(workers, 32).bit_length() - 1
    return np.rint(np.ldexp(values.astype(np.float64), b - e)).astype(np.int64)


def dequantize(
    total: NDArray[np.int64], code: int, workers: int, field: int, average: bool
) -> Floats:
    """total * M / L (F = 32: total * 2**(e-b)), or an nth of it, as float32.

    F = 32: the nearest float32. The numerator is exact in a long double, the quotient has 64 bits:
    enough for the rounding to float32 to be as if it were the only one.
    F = 16, 8: the same but for the closest calls, see ``quotient_narrow``.
    """
    largest, e = magnitude(code)
    share = workers if average else 1
    if field == 32:
        b = level(workers, 32).bit_length() - 1
        with np.errstate(over="ignore"):
            return (np.ldexp(total.astype(np.longdouble), e - b) / np.longdouble(share)).astype(
                np.float32
            )
    divisor = level(workers, field) * share
    scale = float(largest) / divisor
    if scale < 2.0**-80:
        return (
            total.astype(np.longdouble) * np.longdouble(largest) / np.longdouble(divisor)
        ).astype(np.float32)
    result = quotient_narrow(total, scale)
    # No more than a hair further from the true quotient than the nearest float is.
    true = total.astype(np.longdouble) * np.longdouble(largest) / np.longdouble(divisor)
    finite = np.isfinite(result)
    gap = np.spacing(np.abs(result[finite])).astype(np.longdouble)
    off = np.abs(result[finite].astype(np.longdouble) - true[finite])
    assert (off <= gap * (0.5 + 2.0**-6) + 2.0**-149).all()
    return result


def quotient_narrow(total: NDArray[np.int64], scale: float) -> Floats:
    """A narrow sum times ``scale`` in float32: with its first 8 bits, and with the rest."""
    high = (np.array(scale, np.float32).view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    low = np.float32(scale - float(high))
    sums = total.astype(np.float32)
    with np.errstate(over="ignore", under="ignore"):
        return sums * high + sums * low


def unpack(lanes: NDArray[np.uint32], field: int) -> NDArray[np.int64]:
    """Fields u of the lanes, little index in the low bits."""
    per_lane = 32 // field
    shifts = np.arange(per_lane, dtype=np.uint64) * np.uint64(field)
    fields = (lanes.astype(np.uint64)[:, None] >> shifts) & np.uint64(2**field - 1)
    return fields.reshape(-1).astype(np.int64)


def switch_sum(contributions: list[NDArray[np.uint32]]) -> NDArray[np.uint32]:
    """What the switch makes of the ranks' lanes: sums mod 2**32."""
    total = np.zeros_like(contributions[0])
    for lanes in contributions:
        total = total + lanes
    return total


def block_slices(count: int) -> list[slice]:
    """Where each block of a tensor lies."""
    return [slice(at, min(at + BLOCK, count)) for at in range(0, count, BLOCK)]


def available() -> list[str]:
    """The instruction sets of this machine that the engine has kernels for."""
    best = _engine.isa()
    names = []
    for name in ("baseline", "avx2", "avx512"):
        try:
            _engine.set_isa(name)
        except EngineError:
            continue
        names.append(name)
    _engine.set_isa(best)
    return names
