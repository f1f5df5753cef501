"""Events of torch's profiler for the collectives that wiresum carries itself.

Each has two: the operator ``wiresum::all_reduce``, which is the call, with the arguments of NCCL's
``record_param_comms``; and, begun within it, the range ``wiresum:all_reduce``, which lasts until
the result is there. Python can give arguments only to what ends on the same thread, and an operator
that is named ``record_param_comms`` itself crashes torch 2.13.
"""

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
from torch.autograd.profiler import record_function
from torch.futures import Future

_DTYPES = {
    torch.float32: "Float", torch.float16: "Half", torch.bfloat16: "BFloat16", torch.int32: "Int",
    torch.int16: "Short", torch.int8: "Char", torch.uint8: "Byte",
}  # fmt: skip
"""As NCCL's events name them."""
_MOST_RANKS = 30
"""A longer list is cut short, as torch does it."""


class Traced:
    """One collective in the trace. A context manager around the call; :meth:`end` is its end."""

    def __init__(
        self,
        label: str,
        inputs: Sequence[torch.Tensor],
        outputs: Sequence[torch.Tensor],
        group: str,
        ranks: Sequence[int],
    ) -> None:
        """``label``: the users' name of the collective; ``group``: torch's name of the group."""
        self._label = label
        self._done: Future[None] = Future()
        listed = ", ".join(map(str, ranks[:_MOST_RANKS]))
        arguments = {
            "Collective name": label.replace("_", ""),
            "dtype": next((_DTYPES.get(tensor.dtype, "") for tensor in (*inputs, *outputs)), ""),
            "In msg nelems": sum(tensor.numel() for tensor in inputs),
            "Out msg nelems": sum(tensor.numel() for tensor in outputs),
            "Group size": len(ranks),
            "Process Group Name": group,
            "Process Group Ranks": f"[{listed}{', ...' if len(ranks) > _MOST_RANKS else ''}]",
        }
        self._call: Any = torch._C._profiler._RecordFunctionFast(f"wiresum::{label}", (), arguments)

    def __enter__(self) -> "Traced":
        self._call.__enter__()
        lasting = record_function(f"wiresum:{self._label}")
        lasting.__enter__()  # type: ignore[no-untyped-call]
        lasting._call_end_callbacks_on_future(self._done)
        return self

    def __exit__(self, *error: object) -> None:
        self._call.__exit__(*error)
        if error[0] is not None:
            self.end()

    def end(self) -> None:
        """The result is there, or will never be. On any thread; the profiler may have stopped."""
        with contextlib.suppress(RuntimeError):  # it has ended before
            self._done.set_result(None)


def profiling() -> bool:
    """Whether torch's profiler runs in this process."""
    return bool(torch.autograd.profiler._is_profiler_enabled)
