"""Which collectives the switch carries, and how; and the reason for each that it does not.

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
PREMUL_SUM = "PREMUL_SUM"
DEVICES = frozenset({"cpu", "cuda"})
"""The types of devices whose tensors the switch carries."""
_NAMES = {member: name for name, member in dist.ReduceOp.RedOpType.__members__.items()}
_NUMBERS = (*_FLOATS, *sorted(INTEGERS, key=str))
_DTYPES = {"SUM": _NUMBERS, "AVG": tuple(_FLOATS), PREMUL_SUM: tuple(_FLOATS),
           "MAX": _NUMBERS, "MIN": _NUMBERS}  # fmt: skip
"""What the switch reduces, by operation."""

MOST_WORDS = 16_384
"""Elements of a tensor that goes as words. More are slower than over gloo: narrow integers are
widened, and the exponent stream, in which MAX travels, has an eighth of the slots."""


ARGUMENTS = "gloo says what is wrong with its arguments"

CARRIED = {
    "all_reduce": "a sum that all ranks read",
    "all_reduce_coalesced": "a sum for each tensor",
    "reduce": "a sum that the root alone reads",
    "reduce_scatter": "n sums, each read by one rank",
    "reduce_scatter_tensor": "n sums, each read by one rank",
    "reduce_scatter_tensor_coalesced": "n sums for each tensor",
    "broadcast": "a copy from the root to all others",
    "all_gather": "n copies, each from one rank to all others",
    "all_gather_coalesced": "n copies for each tensor",
    "all_gather_into_tensor": "n copies, each from one rank to all others",
    "all_gather_into_tensor_coalesced": "n copies for each tensor",
    "gather": "n - 1 copies to the root",
    "scatter": "n - 1 copies from the root",
    "barrier": "a maximum of one word that all ranks read",
}
"""The collectives that the switch carries, by their users' names, and what they are to it."""

_PAIRS = "bytes go from one rank to one other, and the switch saves none of them"
NEVER = {
    "all_to_all": _PAIRS,
    "all_to_all_single": _PAIRS,
    "send": _PAIRS,
    "recv": _PAIRS,
    "monitored_barrier": "it says which ranks are late, by messages of theirs to rank 0",
}
"""The collectives that it never carries, and why."""

REFUSED = {
    "PRODUCT": "a switch adds and compares",
    "BAND, BOR, BXOR": "a switch adds and compares",
    "sums of float64, int64, complex, bool": "a lane has 32 bits",
    "AVG or PREMUL_SUM of integers": "the average of integers is not exact",
    "integers but int32, and MAX and MIN, of more than 16,384 elements": "gloo is faster",
    "sparse and quantized tensors": "their memory is not one run of elements",
    "tensors on other devices than CPUs and CUDA's": "nothing is known of their streams",
}
"""What of the carried collectives goes over the fallback all the same, and why."""


def op_name(op: object) -> str:
    """``SUM``, ``AVG``, … of a ``ReduceOp``, a ``RedOpType`` or the ``reduceOp`` of options."""
    # `ReduceOp(...) in (ReduceOp.SUM, …)` is always False: what options carry is a ReduceOp, its
    # `.op` the enum member.
    member = getattr(op, "op", op)
    name = _NAMES.get(member) if isinstance(member, dist.ReduceOp.RedOpType) else None
    return name or str(getattr(member, "name", member)).rsplit(".", 1)[-1]


def why_not(op: str, tensors: Sequence[torch.Tensor], largest: int) -> str | None:
    """The reason why the switch cannot carry a collective of these tensors, or None if it can.

    ``op`` is empty for one that reduces nothing. ``largest``: the elements of its largest tensor.
    """
    dtypes = _DTYPES.get(op)
    if op and dtypes is None:
        return f"the switch sums and compares, it does not compute {op}"
    for tensor in tensors:
        if tensor.layout is not torch.strided:
            return f"the tensor's layout is {tensor.layout}"
        if tensor.device.type not in DEVICES:
            return (
                f"the tensor is on {tensor.device.type}; only CPU and CUDA tensors use the switch"
            )
        if tensor.is_quantized:
            return "the tensor is quantized"
        if dtypes is None:
            continue
        if tensor.dtype not in dtypes:
            names = ", ".join(_name(each) for each in dtypes)
            return f"{op} of {_name(tensor.dtype)} is not one of {names}"
        if needs_words(tensor.dtype, op) and largest > MOST_WORDS:
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
