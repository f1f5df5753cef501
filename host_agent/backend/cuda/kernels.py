"""The inner loops of block floating point on a device: the bits of ``engine/codecs/kernels.inl``.

:class:`TorchKernels` are operations of torch, for any device, and the definition of the others;
:mod:`.triton_kernels` are the same in one pass over the memory each.

All of them take a run of whole blocks of 256 elements, of which the last one may be short. A lane
holds 32 / F fields, element j in the bits from jF; here a lane is the sum of q << jF mod 2^32,
which is the engine's lane less the encoding of zero: a block of zeros has lanes that are 0, and
the engine sends no 256 words that are 0 on all ranks.
"""

from typing import NamedTuple, Protocol

import torch

from wiresum.host_agent._engine import BLOCK

ROUNDER, ROUNDER_BITS = 12582912.0, 0x4B400000
"""Adding 1.5 * 2^23 to a float of less than 2^22 rounds it to nearest even, and leaves the integer
in the low bits."""

INFINITE = 0x7F800000
"""The bits of Inf; those of NaNs are larger."""
NONFINITE = -1
"""The code of a block with Inf or NaN, as int32: the largest as uint32."""

EXACT_BELOW = 2.0**-80
"""Steps from which on sums are multiplied in single precision."""


class Scales(NamedTuple):
    """What the agreed codes mean, a number for each block; on the device.

    The parameters of ``QuantizeParams`` and ``DequantizeParams`` (``engine/codecs/kernels.hpp``).
    ``a`` is 0 for blocks that are not sent.
    """

    codes: torch.Tensor
    a: torch.Tensor
    b: torch.Tensor
    step: torch.Tensor
    high: torch.Tensor
    low: torch.Tensor

    def of(self, first: int, end: int) -> "Scales":
        """Those of some blocks."""
        return Scales(*(each[first:end] for each in self))


class Fields(NamedTuple):
    """How fields lie in lanes, for so many workers."""

    bits: int
    level: int
    """L: |q| <= L."""
    workers: int

    @property
    def per_lane(self) -> int:
        """Fields of a lane."""
        return 32 // self.bits

    @property
    def lanes(self) -> int:
        """Lanes of a block."""
        return BLOCK // self.per_lane

    @property
    def middle(self) -> int:
        """A field of the engine's sum that means 0."""
        return self.workers * self.level

    @property
    def zeros(self) -> int:
        """The lane of those, as int32."""
        lane = sum(self.middle << shift for shift in range(0, 32, self.bits))
        return lane - (1 << 32) if lane >= 1 << 31 else lane


class Kernels(Protocol):
    """What a device does for the codec. Each takes memory of the device, on the current stream."""

    def codes(self, values: torch.Tensor, codes: torch.Tensor) -> None:
        """Write the code of each block: the bits of its largest magnitude, or NONFINITE."""

    def encode(
        self, values: torch.Tensor, scales: Scales, fields: Fields, lanes: torch.Tensor
    ) -> None:
        """Quantize: ``lanes`` are those of whole blocks."""

    def decode(
        self, lanes: torch.Tensor, scales: Scales, fields: Fields, values: torch.Tensor
    ) -> None:
        """Write sums or means; blocks with Inf or NaN stay as they are."""


def scales_of(codes: torch.Tensor, fields: Fields, *, average: bool) -> Scales:
    """``BlockFloat::encode`` and ``decode``: the parameters of each block, in double precision."""
    largest = codes.view(torch.float32).double()
    sent = codes > 0
    largest = torch.where(sent, largest, 1.0)
    bits = largest.view(torch.int64)
    # largest = fraction * 2^exponent, 0.5 <= fraction < 1; denormals are normal as doubles.
    exponent = (bits >> 52) - 1022
    fraction = ((bits & ((1 << 52) - 1)) | (1022 << 52)).view(torch.float64)
    first = torch.div(-exponent, 2, rounding_mode="trunc")
    a = _power_of_two(first)
    # Tensors alone: by a number, torch divides in two steps, which round twice.
    level = torch.full_like(fraction, fields.level)
    b = _power_of_two(-exponent - first) * (level / fraction).float()
    share = torch.full_like(fraction, fields.level * (fields.workers if average else 1))
    step = largest / share
    # Towards zero, so that the product with `high` never overflows where the sum does not.
    high = (step.float().view(torch.int32) & -0x10000).view(torch.float32)
    low = (step - high.double()).float()
    return Scales(codes, torch.where(sent, a, 0.0), b, step, high, low)


def _power_of_two(exponent: torch.Tensor) -> torch.Tensor:
    return ((exponent + 127) << 23).int().view(torch.float32)


class TorchKernels:
    """A pass over the memory for each operation."""

    def codes(self, values: torch.Tensor, codes: torch.Tensor) -> None:
        """See :class:`Kernels`."""
        bits = _rows(values).view(torch.int32) & 0x7FFFFFFF
        most = bits.amax(1)
        codes.copy_(torch.where(most < INFINITE, most, NONFINITE))

    def encode(
        self, values: torch.Tensor, scales: Scales, fields: Fields, lanes: torch.Tensor
    ) -> None:
        """See :class:`Kernels`."""
        limit = float(fields.level)
        y = (_rows(values) * scales.a[:, None]) * scales.b[:, None]
        y = torch.where(y < limit, y, limit)
        y = torch.where(y > -limit, y, -limit)
        y = torch.where(scales.a[:, None] != 0, y, 0.0)
        q = (y + ROUNDER).view(torch.int32) - ROUNDER_BITS
        shifts = torch.arange(0, 32, fields.bits, dtype=torch.int32, device=values.device)
        q = q.view(-1, fields.per_lane) << shifts
        lanes.copy_(q.sum(1, dtype=torch.int32))

    def decode(
        self, lanes: torch.Tensor, scales: Scales, fields: Fields, values: torch.Tensor
    ) -> None:
        """See :class:`Kernels`."""
        shifts = torch.arange(0, 32, fields.bits, dtype=torch.int32, device=values.device)
        words = (lanes + fields.zeros)[:, None] >> shifts
        sums = ((words & ((1 << fields.bits) - 1)) - fields.middle).view(-1, BLOCK)
        single = sums.float()
        quick = single * scales.high[:, None] + single * scales.low[:, None]
        # Rounded to 48 bits first, then to a float: see `dequantize_exactly`.
        product = sums.double() * scales.step[:, None]
        spread = product * 33.0
        exact = (spread - (spread - product)).float()
        found = torch.where(scales.step[:, None] >= EXACT_BELOW, quick, exact)
        found = torch.where(scales.codes[:, None] == 0, 0.0, found).view(-1)[: values.numel()]
        kept = (scales.codes == NONFINITE).repeat_interleave(BLOCK)[: values.numel()]
        values.copy_(torch.where(kept, values, found.to(values.dtype)))


def _rows(values: torch.Tensor) -> torch.Tensor:
    """Float32 in whole blocks, the last one filled up with zeros."""
    missing = -values.numel() % BLOCK
    floats = values.float()
    if missing:
        floats = torch.nn.functional.pad(floats, (0, missing))
    return floats.view(-1, BLOCK)
