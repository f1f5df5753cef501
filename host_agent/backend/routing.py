"""Which all-reduces the switch can do, and the reason for each that it cannot.

Every rank must decide alike, so a decision looks only at what is the same on all ranks: the
operation, the dtype, the layout and the device.
"""

from collections.abc import Sequence

import torch
import torch.distributed as dist

SWITCH_DTYPES = {
    torch.float32: "float32",
    torch.float16: "float16",
    torch.bfloat16: "bfloat16",
}
_SWITCH_OPS = ("SUM", "AVG")


def op_name(op: object) -> str:
    """``SUM``, ``AVG``, … of a ``ReduceOp``, a ``RedOpType`` or the ``reduceOp`` of options."""
    # `ReduceOp(...) in (ReduceOp.SUM, …)` is always False: what options carry is a ReduceOp, its
    # `.op` the enum member.
    member = getattr(op, "op", op)
    return str(getattr(member, "name", member)).rsplit(".", 1)[-1]


def why_not_tensors(tensors: Sequence[torch.Tensor], op: str) -> str | None:
    """The reason why the switch cannot all-reduce these tensors, or None if it can."""
    if op not in _SWITCH_OPS:
        return f"the switch sums, it does not compute {op}"
    for tensor in tensors:
        if tensor.layout is not torch.strided:
            return f"the tensor's layout is {tensor.layout}"
        if tensor.device.type != "cpu":
            return f"the tensor is on {tensor.device.type}; only CPU tensors use the switch"
        if tensor.dtype not in SWITCH_DTYPES:
            name = str(tensor.dtype).removeprefix("torch.")
            return f"dtype {name} is not one of float32, float16, bfloat16"
    return None


def reduce_op(op: object) -> dist.ReduceOp:
    """``op`` as the type that torch's options take."""
    return op if isinstance(op, dist.ReduceOp) else dist.ReduceOp(op)  # type: ignore[arg-type]
