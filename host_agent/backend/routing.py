"""Which all-reduces the switch can do, and the reason for each that it cannot.

Every rank must decide alike, so a decision looks only at what is the same on all ranks: the
operation, the dtype, the layout and the device.
"""

from collections.abc import Sequence

import torch
import torch.distributed as dist

from wiresum.host_agent.backend.words import EXTREMA, INTEGERS, needs_words

_FLOATS = {
    torch.float32: "float32",
    torch.float16: "float16",
    torch.bfloat16: "bfloat16",
}
_NUMBERS = (*_FLOATS, *sorted(INTEGERS, key=str))
_DTYPES = {"SUM": _NUMBERS, "AVG": tuple(_FLOATS), "MAX": _NUMBERS, "MIN": _NUMBERS}
"""What the switch reduces, by operation."""

MOST_WORDS = 16_384
"""Elements of a tensor that goes as words. More are slower than over gloo: narrow integers are
widened, and the exponent stream, in which MAX travels, has an eighth of the slots."""


def op_name(op: object) -> str:
    """``SUM``, ``AVG``, … of a ``ReduceOp``, a ``RedOpType`` or the ``reduceOp`` of options."""
    # `ReduceOp(...) in (ReduceOp.SUM, …)` is always False: what options carry is a ReduceOp, its
    # `.op` the enum member.
    member = getattr(op, "op", op)
    return str(getattr(member, "name", member)).rsplit(".", 1)[-1]


def why_not_tensors(tensors: Sequence[torch.Tensor], op: str) -> str | None:
    """The reason why the switch cannot all-reduce these tensors, or None if it can."""
    dtypes = _DTYPES.get(op)
    if dtypes is None:
        return f"the switch sums and compares, it does not compute {op}"
    for tensor in tensors:
        if tensor.layout is not torch.strided:
            return f"the tensor's layout is {tensor.layout}"
        if tensor.device.type != "cpu":
            return f"the tensor is on {tensor.device.type}; only CPU tensors use the switch"
        if tensor.dtype not in dtypes:
            names = ", ".join(_name(each) for each in dtypes)
            return f"{op} of {_name(tensor.dtype)} is not one of {names}"
        if needs_words(tensor.dtype, op) and tensor.numel() > MOST_WORDS:
            return f"{op} of more than {MOST_WORDS} {_name(tensor.dtype)}: gloo is faster"
    return None


def engine_dtype(buffer: torch.Tensor, op: str) -> str:
    """The engine's name of what it does with this buffer."""
    if op in EXTREMA:
        return "max_uint32"
    return _FLOATS.get(buffer.dtype, "int32")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def reduce_op(op: object) -> dist.ReduceOp:
    """``op`` as the type that torch's options take."""
    return op if isinstance(op, dist.ReduceOp) else dist.ReduceOp(op)  # type: ignore[arg-type]
