"""The codecs, with what each costs and how far it is off. Without torch."""

from dataclasses import asdict, dataclass
from typing import Any

from wiresum.host_agent._engine import BLOCK, budget
from wiresum.host_agent.errors import CodecError
from wiresum.host_agent.hooks.clip import clip_for
from wiresum.host_agent.hooks.rules import WIDTHS
from wiresum.p4 import FIELDS

DENSITY = 0.1
"""The part of the blocks that the table's top-k sends."""

_NO_BUDGET = "no budget for so many workers"
_THREE_LEVELS = "0.75·s; more beyond 2.25·s"
_HOOK = "DDP; CPU tensors"
_EXPONENTS = 4 / BLOCK


@dataclass(frozen=True)
class Codec:
    """One row. ``level`` is L: the largest magnitude of one rank's field, None if there is none."""

    name: str
    bytes_per_element: float
    level: int | None
    error: str
    needs: str

    def as_json(self) -> dict[str, Any]:
        """For a file."""
        return asdict(self)


def codecs(workers: int = 2) -> list[Codec]:
    """The codecs that are used at every step, for so many workers.

    ``wiresum run --codec`` takes each ``name``; also powersgd, local-steps, diloco and
    sparse-loco.

    In ``error``, M is the largest magnitude of a block on any rank, and s its root mean square on
    the rank where that is largest; *rotated*: the error is that of an element of the rotated block.
    Bytes are what a rank hands to an all-reduce, with exponents.
    """
    rows = []
    for bits in WIDTHS:
        level = _level(workers, bits)
        error = _NO_BUDGET
        if level is not None:
            error = f"{workers}·2⁻³⁰·M" if bits == max(FIELDS) else f"M/{2 * level}"
            if bits == min(WIDTHS) and level == 1:
                error = _THREE_LEVELS
        rows.append(Codec(f"block-float:bits={bits}", _bytes(bits), level, error, _HOOK))
    for bits in (16, 8, 4):
        level = _level(workers, bits)
        error = _NO_BUDGET if level is None else f"M/{level}; unbiased without feedback"
        name = f"block-float:bits={bits},rounding=stochastic"
        rows.append(Codec(name, _bytes(bits), level, error, _HOOK))
    for bits in WIDTHS:
        level = _level(workers, bits)
        error = "what is not sent, until it is; then as block-float"
        if level is None:
            error = _NO_BUDGET
        size = DENSITY * (_bytes(bits) - _EXPONENTS) + _EXPONENTS
        rows.append(Codec(f"top-k:k={DENSITY:g},bits={bits}", size, level, error, _HOOK))
    few = "for SGD a learning rate of its own"
    size = _bytes((2 * workers).bit_length())
    rows.append(Codec("ternary", size, 1, _THREE_LEVELS, f"{_HOOK}; feedback"))
    size = _bytes(workers.bit_length())
    rows.append(Codec("vote", size, None, "all but the sign", f"{_HOOK}; feedback; {few}"))
    for bits in (8, 4):
        level = _level(workers, bits)
        error = _NO_BUDGET
        if level is not None:
            top = (2**bits - 1) // workers
            level, clip = top // 2, clip_for(top)
            error = f"{clip / top:.2g}·s, rotated; more beyond {clip:g}·s"
        rows.append(Codec(f"thc:bits={bits}", _bytes(bits), level, error, _HOOK))
    rows.append(Codec("fp16", 2.0, None, "2⁻¹¹ of an element", "DDP; torch's hook"))
    return rows


def _bytes(bits: int) -> float:
    """Of an element in fields of ``bits``, as many in a lane as fit."""
    return 4 * -(-BLOCK // (32 // bits)) / BLOCK + _EXPONENTS


def _level(workers: int, bits: int) -> int | None:
    try:
        return budget(workers, bits)
    except CodecError:
        return None
