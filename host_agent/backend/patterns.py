"""What a collective has in common with others like it, so that these take a short way.

The first one of a form is read, checked and planned. Where its plan is one piece that lies in the
caller's one tensor, and nothing to copy, whatever has the same key has that plan, too.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch._C import _distributed_c10d as c10d

from wiresum.host_agent.agent.issued import SWITCH
from wiresum.host_agent.backend.dispatch import ordinary
from wiresum.host_agent.backend.plans import Piece, Plan
from wiresum.host_agent.backend.request import Request, label_of

Key = tuple[Any, ...]
"""Method, options, dtype and number of elements: all that decides how a collective is carried.

A call of another form, such as one of a tensor in place of a list, has none: gloo is to judge it.
"""

MOST = 256
"""How many patterns a group keeps."""

_OPTIONS: dict[str, tuple[type, Callable[[Any], Any]]] = {
    "allreduce": (c10d.AllreduceOptions, lambda given: int(given.reduceOp.op)),
    "broadcast": (c10d.BroadcastOptions, lambda given: (given.rootRank, given.rootTensor)),
    "reduce": (
        c10d.ReduceOptions,
        lambda given: (int(given.reduceOp.op), given.rootRank, given.rootTensor),
    ),
}
"""The methods that there are patterns for: what the caller gives beside one tensor, and its key."""
_BARRIER = ("barrier",)
_WORD = torch.empty(0, device="cpu")


def key_of(method: str, args: Sequence[Any]) -> Key | None:
    """The key of the call ``method(*args)``; None for one that has to go the whole way.

    None also where torch's dispatcher would see the call: by its tensor or its thread.
    """
    if method == "barrier":
        alone = not args or (len(args) == 1 and type(args[0]) is c10d.BarrierOptions)
        return _BARRIER if alone and ordinary(_WORD) else None
    if method not in _OPTIONS or len(args) != 2:
        return None
    tensors, options = args
    kind, read = _OPTIONS[method]
    if type(options) is not kind or type(tensors) is not list or len(tensors) != 1:
        return None
    (tensor,) = tensors
    if not ordinary(tensor) or not tensor.is_contiguous():
        return None
    return method, tensor.dtype, tensor.numel(), read(options)


@dataclass(slots=True)
class Pattern:
    """What all collectives of one key have in common."""

    label: str
    listed: tuple[str, str, str, str, int | None]
    """What the ledger gets."""
    bytes: int
    average: bool
    piece: Piece
    """Without its memory; that of a barrier has its own, in which there is nothing but zeros."""

    @classmethod
    def of(cls, request: Request, plan: Plan) -> "Pattern | None":
        """That of a collective that was planned; None for one with more than its one piece."""
        if len(plan.pieces) != 1 or plan.copies:
            return None
        (piece,) = plan.pieces
        tensors = request.all_tensors
        if tensors:
            if not _same_memory(tensors, piece):
                return None
            piece = replace(piece, memory=None)
        label = label_of(request.method)
        listed = (label, SWITCH, request.described, *request.agreed)
        return cls(label, listed, request.bytes, request.op == "AVG", piece)


def _same_memory(tensors: Sequence[torch.Tensor], piece: Piece) -> bool:
    return (
        len(tensors) == 1
        and piece.memory is not None
        and piece.memory.data_ptr() == tensors[0].data_ptr()
        and piece.memory.dtype == tensors[0].dtype
    )
