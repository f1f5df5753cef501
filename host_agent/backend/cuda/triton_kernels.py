"""The kernels of :mod:`.kernels` in Triton: each reads its memory once and writes its result once.

Products and sums are not contracted (``enable_fp_fusion``): the bits are those of the CPU's codec.
"""

from typing import Any

import torch
import triton
import triton.language as tl

from wiresum.host_agent._engine import BLOCK
from wiresum.host_agent.backend.cuda.kernels import (
    EXACT_BELOW,
    INFINITE,
    ROUNDER,
    ROUNDER_BITS,
    Fields,
    Scales,
)

ROWS = 8
"""Blocks of one program."""


@triton.jit  # type: ignore[untyped-decorator]
def _codes(
    values: Any, codes: Any, count: Any,
    ROWS: tl.constexpr, BLOCK: tl.constexpr, INFINITE: tl.constexpr,
) -> None:  # fmt: skip
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    at = rows[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :]
    x = tl.load(values + at, mask=at < count, other=0.0).to(tl.float32)
    most = tl.max(x.to(tl.int32, bitcast=True) & 0x7FFFFFFF, axis=1)
    tl.store(codes + rows, tl.where(most < INFINITE, most, -1), mask=rows * BLOCK < count)


@triton.jit  # type: ignore[untyped-decorator]
def _encode(
    values: Any, a: Any, b: Any, lanes: Any, count: Any, limit: Any,
    ROWS: tl.constexpr, LANES: tl.constexpr, PER: tl.constexpr,
    ROUNDER: tl.constexpr, ROUNDER_BITS: tl.constexpr,
) -> None:  # fmt: skip
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    there = rows * (LANES * PER) < count
    lane = rows[:, None] * LANES + tl.arange(0, LANES)[None, :]
    place = tl.arange(0, PER)
    at = lane[:, :, None] * PER + place[None, None, :]
    x = tl.load(values + at, mask=at < count, other=0.0).to(tl.float32)
    first = tl.load(a + rows, mask=there, other=0.0)[:, None, None]
    second = tl.load(b + rows, mask=there, other=0.0)[:, None, None]
    y = (x * first) * second
    y = tl.where(y < limit, y, limit)
    y = tl.where(y > -limit, y, -limit)
    y = tl.where(first != 0.0, y, 0.0)
    q = (y + ROUNDER).to(tl.int32, bitcast=True) - ROUNDER_BITS
    words = tl.sum(q << (place * (32 // PER))[None, None, :], axis=2)
    tl.store(lanes + lane, words.to(tl.int32), mask=there[:, None])


@triton.jit  # type: ignore[untyped-decorator]
def _decode(
    lanes: Any, codes: Any, step: Any, high: Any, low: Any, values: Any, count: Any,
    zeros: Any, middle: Any,
    ROWS: tl.constexpr, LANES: tl.constexpr, PER: tl.constexpr, EXACT_BELOW: tl.constexpr,
) -> None:  # fmt: skip
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    there = rows * (LANES * PER) < count
    lane = rows[:, None] * LANES + tl.arange(0, LANES)[None, :]
    place = tl.arange(0, PER)
    at = lane[:, :, None] * PER + place[None, None, :]
    words = tl.load(lanes + lane, mask=there[:, None], other=0) + zeros
    mask: tl.constexpr = (1 << (32 // PER)) - 1
    sums = ((words[:, :, None] >> (place * (32 // PER))[None, None, :]) & mask) - middle
    code = tl.load(codes + rows, mask=there, other=0)[:, None, None]
    single = sums.to(tl.float32)
    found = single * tl.load(high + rows, mask=there, other=0.0)[:, None, None]
    found = found + single * tl.load(low + rows, mask=there, other=0.0)[:, None, None]
    steps = tl.load(step + rows, mask=there, other=1.0)
    if tl.min(steps, axis=0) < EXACT_BELOW:  # rare: rounded to 48 bits first, then to a float
        product = sums.to(tl.float64) * steps[:, None, None]
        spread = product * 33.0
        exact = (spread - (spread - product)).to(tl.float32)
        found = tl.where(steps[:, None, None] < EXACT_BELOW, exact, found)
    found = tl.where(code == 0, 0.0, found)
    if values.dtype.element_ty == tl.bfloat16:  # Triton's interpreter would cut the last bits off
        bits = found.to(tl.int32, bitcast=True)
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        result = bits.to(tl.int16).to(tl.bfloat16, bitcast=True)
    else:
        result = found.to(values.dtype.element_ty)
    tl.store(values + at, result, mask=(at < count) & (code != -1))


class TritonKernels:
    """See :class:`~wiresum.host_agent.backend.cuda.kernels.Kernels`."""

    def codes(self, values: torch.Tensor, codes: torch.Tensor) -> None:
        """One program for some blocks."""
        if values.numel():
            _codes[_grid(values)](
                values, codes, values.numel(), ROWS=ROWS, BLOCK=BLOCK, INFINITE=INFINITE,
                enable_fp_fusion=False,
            )  # fmt: skip

    def encode(
        self, values: torch.Tensor, scales: Scales, fields: Fields, lanes: torch.Tensor
    ) -> None:
        """One program for some blocks."""
        if values.numel():
            _encode[_grid(values)](
                values, scales.a, scales.b, lanes, values.numel(), float(fields.level),
                ROWS=ROWS, LANES=fields.lanes, PER=fields.per_lane,
                ROUNDER=ROUNDER, ROUNDER_BITS=ROUNDER_BITS, enable_fp_fusion=False,
            )  # fmt: skip

    def decode(
        self, lanes: torch.Tensor, scales: Scales, fields: Fields, values: torch.Tensor
    ) -> None:
        """One program for some blocks."""
        if values.numel():
            _decode[_grid(values)](
                lanes, scales.codes, scales.step, scales.high, scales.low, values, values.numel(),
                fields.zeros, fields.middle,
                ROWS=ROWS, LANES=fields.lanes, PER=fields.per_lane, EXACT_BELOW=EXACT_BELOW,
                enable_fp_fusion=False,
            )  # fmt: skip


def _grid(values: torch.Tensor) -> tuple[int]:
    return (triton.cdiv(values.numel(), ROWS * BLOCK),)
