"""Integers, and MAX and MIN of any numbers, as words of 32 bits that the engine reduces.

The engine sums ``int32`` mod 2^32 and finds the largest ``max_uint32``. The maps here keep order:
a float32's bits, with the sign's bit flipped for positive numbers and all bits for negative ones,
are unsigned integers in the order of the numbers; -0.0 comes before +0.0. A NaN counts as larger
than all numbers for MAX, and as smaller for MIN, so that it reaches every rank.
"""

import torch

INTEGERS = frozenset({torch.int32, torch.int16, torch.int8, torch.uint8})
EXTREMA = frozenset({"MAX", "MIN"})

_SIGN = -(1 << 31)
_NAN = 0x7FC00000
"""The bits of a NaN without a sign; -1 has the bits of one with a sign."""


def needs_words(dtype: torch.dtype, op: str) -> bool:
    """Whether the engine is given words in place of the tensor's own memory."""
    return op in EXTREMA or (dtype in INTEGERS and dtype is not torch.int32)


def to_words(tensor: torch.Tensor, op: str) -> torch.Tensor:
    """Contiguous int32 with as many elements: what the engine is given for ``op``.

    ``op``: SUM of a tensor of integers, or MAX or MIN of one whose dtype float32 or int32 holds.
    """
    if op not in EXTREMA:
        return tensor.detach().to(torch.int32, copy=True).contiguous()
    if tensor.dtype.is_floating_point:
        values = tensor.detach().to(torch.float32, copy=True).contiguous()
        nan = _NAN if op == "MAX" else -1
        bits = values.view(torch.int32).masked_fill_(values.isnan(), nan)
        keys = bits ^ ((bits >> 31) | _SIGN)
    else:
        keys = tensor.detach().to(torch.int32).contiguous() ^ _SIGN
    return keys if op == "MAX" else keys.bitwise_not_()


def from_words(words: torch.Tensor, op: str, dtype: torch.dtype) -> torch.Tensor:
    """The numbers of that dtype: inverse of :func:`to_words`. Integers wrap as the dtype does."""
    if op not in EXTREMA:
        return words.to(dtype)
    keys = words if op == "MAX" else words.bitwise_not()
    if not dtype.is_floating_point:
        return (keys ^ _SIGN).to(dtype)
    return (keys ^ ((keys >> 31).bitwise_not() | _SIGN)).view(torch.float32).to(dtype)
