"""The codecs, with what each costs and how far it is off. Without torch."""

from dataclasses import asdict, dataclass
from typing import Any

from wiresum.host_agent._engine import BLOCK, budget
from wiresum.host_agent.errors import CodecError
from wiresum.p4 import FIELDS

DENSITY = 0.1
"""The part of the blocks that the table's top-k sends."""

_NO_BUDGET = "no budget for so many workers"


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

    ``wiresum run --codec`` takes each ``name``; also powersgd, local-steps and sparse-loco.

    In ``error``, M is the largest magnitude of a block on any rank. Bytes are what a rank hands to
    an all-reduce, exponents included.
    """
    exponents = 4 / BLOCK
    rows = []
    for bits in FIELDS:
        level = _level(workers, bits)
        error = _NO_BUDGET
        if level is not None:
            error = f"{workers}·2⁻³⁰·M" if bits == max(FIELDS) else f"M/{2 * level}"
        hook = "DDP; CPU tensors"
        rows.append(Codec(f"block-float:bits={bits}", bits / 8 + exponents, level, error, hook))
    for bits in FIELDS:
        level = _level(workers, bits)
        error = "what is not sent, until it is; then as block-float"
        if level is None:
            error = _NO_BUDGET
        size = DENSITY * bits / 8 + exponents
        rows.append(
            Codec(f"top-k:k={DENSITY:g},bits={bits}", size, level, error, "DDP; CPU tensors")
        )
    rows.append(Codec("fp16", 2.0, None, "2⁻¹¹ of an element", "DDP; torch's hook"))
    return rows


def _level(workers: int, bits: int) -> int | None:
    try:
        return budget(workers, bits)
    except CodecError:
        return None
