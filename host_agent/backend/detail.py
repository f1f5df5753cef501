"""``TORCH_DISTRIBUTED_DEBUG=DETAIL``: all ranks compare each collective before they start it.

torch wraps its own backends for that (``ProcessGroupWrapper``), and only those. The wrapper cannot
see that one rank's collective goes over the switch and another's over the fallback, so this does
the same for all collectives of a group.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import DebugLevel, get_debug_level

from wiresum.host_agent import errors, lines
from wiresum.host_agent.backend.routing import op_name

_BYTES = 512  # of a description on the wire

# Which argument has the tensors that must be alike on all ranks, as in ProcessGroupWrapper.
_ARGUMENT = {
    "allreduce": 0,
    "allreduce_coalesced": 0,
    "broadcast": 0,
    "reduce": 0,
    "reduce_scatter": 0,
    "reduce_scatter_single": 1,
    "allgather": 1,
    "all_gather_single": 1,
    "gather": 1,
    "scatter": 0,
}


class Detail:
    """Compares collectives between ranks, if the debug level asks for it."""

    def __init__(
        self, rank: int, members: Sequence[int], make_group: Callable[[], dist.ProcessGroup]
    ) -> None:
        """``make_group`` makes a gloo group of its own; all ranks do at their first collective.

        ``members``: the numbers of the group's ranks in the default group, for the error.
        The level that holds is that of now, as with torch's own groups.
        """
        self.on = get_debug_level() == DebugLevel.DETAIL
        """Whether it compares anything."""
        self._rank = rank
        self._members = members
        self._make_group = make_group
        self._group: dist.ProcessGroup | None = None

    @staticmethod
    def tensors_of(method: str, args: Sequence[Any]) -> Sequence[torch.Tensor]:
        """The tensors that must be alike on all ranks, of a call of ``ProcessGroup.method``."""
        index = _ARGUMENT.get(method)
        if index is None or index >= len(args):
            return []
        tensors = args[index]
        return [tensors] if isinstance(tensors, torch.Tensor) else list(tensors)

    @staticmethod
    def options_of(args: Sequence[Any]) -> str:
        """The options of a call that must be alike on all ranks."""
        words = []
        for arg in args:
            if hasattr(arg, "reduceOp"):
                words.append(op_name(arg.reduceOp))
            if hasattr(arg, "rootRank"):
                words.append(f"root {arg.rootRank}")
        return ", ".join(words)

    def check(
        self, number: int, method: str, tensors: Sequence[torch.Tensor], options: str
    ) -> None:
        """Raise :class:`CollectiveMismatch` if the ranks' collectives ``number`` differ."""
        if not self.on:
            return
        if self._group is None:
            self._group = self._make_group()
        said = self._exchange(self._group, _describe(number, method, tensors, options))
        for rank, other in enumerate(said):
            if other != said[self._rank]:
                raise errors.CollectiveMismatch(
                    lines.DETECTED_MISMATCH.of(
                        rank=self._members[self._rank],
                        mine=said[self._rank],
                        other=self._members[rank],
                        theirs=other,
                    )
                )

    @staticmethod
    def _exchange(group: dist.ProcessGroup, mine: str) -> list[str]:
        packed = torch.zeros(_BYTES, dtype=torch.uint8, device="cpu")
        text = mine.encode()[:_BYTES]
        packed[: len(text)] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
        gathered = [torch.empty_like(packed) for _ in range(group.size())]
        group.allgather([gathered], [packed]).wait()
        return [bytes(each.tolist()).rstrip(b"\0").decode(errors="replace") for each in gathered]


def _describe(number: int, method: str, tensors: Sequence[torch.Tensor], options: str) -> str:
    shapes = "; ".join(f"{list(t.shape)} {t.dtype} on {t.device.type}" for t in tensors)
    details = ", ".join(filter(None, (options, shapes)))
    return f"collective {number}: {method}({details})"
