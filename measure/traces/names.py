"""Names of collectives and dtypes in traces, and what nccl-tests compute from them."""

import re

_KINDS = {
    "allreduce": "all_reduce",
    "allgather": "all_gather",
    "reducescatter": "reduce_scatter",
    "alltoall": "all_to_all",
    "alltoallv": "all_to_all",
    "broadcast": "broadcast",
    "reduce": "reduce",
    "gather": "gather",
    "scatter": "scatter",
    "send": "send",
    "recv": "recv",
    "recvanysource": "recv",
    "sendrecv": "send_recv",
    "barrier": "barrier",
    "monitoredbarrier": "barrier",
}
_DECORATION = re.compile(r"base|coalesced|intotensor|tensor|single|sparse|oop|inplace")
_KERNEL = re.compile(
    r"(?:void )?nccl(?:Dev)?(?:Kernel)?_?([A-Za-z]+?)(?:(?:Ring|Tree)\w*Kernel)?(?:[^A-Za-z]|$)"
)

_DTYPES = {
    "float": "float32", "float32": "float32", "double": "float64", "float64": "float64",
    "half": "float16", "c10::half": "float16", "float16": "float16",
    "bfloat16": "bfloat16", "c10::bfloat16": "bfloat16",
    "long": "int64", "long int": "int64", "int64": "int64", "long long": "int64",
    "int": "int32", "int32": "int32", "short": "int16", "short int": "int16", "int16": "int16",
    "char": "int8", "signed char": "int8", "int8": "int8",
    "byte": "uint8", "unsigned char": "uint8", "uint8": "uint8", "bool": "bool",
    "complexfloat": "complex64", "c10::complex<float>": "complex64",
    "complexdouble": "complex128", "c10::complex<double>": "complex128",
    "float8_e4m3fn": "float8_e4m3fn", "c10::float8_e4m3fn": "float8_e4m3fn",
    "float8_e5m2": "float8_e5m2", "c10::float8_e5m2": "float8_e5m2",
}  # fmt: skip

_WIDTHS = {
    "float64": 8, "int64": 8, "complex64": 8, "complex128": 16, "float32": 4, "int32": 4,
    "float16": 2, "bfloat16": 2, "int16": 2, "int8": 1, "uint8": 1, "bool": 1,
    "float8_e4m3fn": 1, "float8_e5m2": 1,
}  # fmt: skip

SYMMETRIC = frozenset({"all_reduce", "all_gather", "reduce_scatter", "all_to_all", "barrier"})
"""No rank can end one of these before the last rank has begun it."""

POINT_TO_POINT = frozenset({"send", "recv", "send_recv"})


def kind_of(name: str) -> str:
    """wiresum's name of a collective that torch, NCCL or gloo calls ``name``."""
    plain = re.sub(r"[^a-z]", "", name.lower())
    return _KINDS.get(plain) or _KINDS.get(_DECORATION.sub("", plain)) or name


def kernel_kind(name: str) -> str:
    """The collective of an NCCL kernel: ``ncclDevKernel_AllReduce_Sum_f32_RING_LL(…)``."""
    found = _KERNEL.match(name)
    return kind_of(found[1]) if found else "unknown"


def dtype_of(name: object) -> str | None:
    """torch's name of a dtype; None for what is no dtype, such as ``TensorList``."""
    return _DTYPES.get(name.lower().removeprefix("torch.")) if isinstance(name, str) else None


def message_bytes(
    kind: str, dtype: str | None, taken: int | None, given: int | None, ranks: int | None
) -> int | None:
    """The size S of a message, in bytes, as nccl-tests define it (doc/PERFORMANCE.md).

    It is the larger of both buffers of a rank. ``taken`` and ``given``: elements of the input and
    the output, ``ranks``: of the group. None for what is not known.
    """
    if kind == "barrier":
        return 0
    elements = taken
    if kind == "all_gather":
        elements = given
        if elements is None and taken is not None and ranks is not None:
            elements = taken * ranks
    elif kind in ("recv", "scatter"):
        elements = given if given is not None else taken
    width = _WIDTHS.get(dtype or "")
    return None if elements is None or width is None else elements * width


def bus_factor(kind: str, ranks: int | None) -> float | None:
    """busbw ÷ algbw, as nccl-tests define it; None where that is not known or not defined."""
    if kind in ("broadcast", "reduce", "send", "recv", "send_recv"):
        return 1.0
    if ranks is None or ranks < 1:
        return None
    if kind == "all_reduce":
        return 2 * (ranks - 1) / ranks
    if kind in ("all_gather", "reduce_scatter", "all_to_all", "gather", "scatter"):
        return (ranks - 1) / ranks
    return None


def sent_factor(kind: str, ranks: int | None) -> float | None:
    """What a rank sends over its link, as a multiple of the message; the mean over the ranks.

    Of gloo's algorithms and of NCCL's rings, without headers; None where it is not known. gloo's
    reduce sends more than a ring, and its trace shows a reduce-scatter as the all-reduce it is.
    """
    if kind in ("send", "recv", "barrier"):
        return float(kind == "send")
    if ranks is None or ranks < 1:
        return None
    if kind == "all_reduce":
        return 2 * (ranks - 1) / ranks
    if kind in ("all_gather", "reduce_scatter", "all_to_all", "broadcast", "gather"):
        return (ranks - 1) / ranks
    return None
