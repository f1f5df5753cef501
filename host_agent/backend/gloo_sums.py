"""Sums over the ranks (``agent.sums.Sums``) by a gloo group of their own."""

from collections.abc import Callable, Sequence
from datetime import timedelta

import torch
import torch.distributed as dist

from wiresum.host_agent.agent.sums import Pending
from wiresum.host_agent.backend.connections import Connections


class TensorWords:
    """Words in a tensor: ``agent.sums.Words``."""

    def __init__(self, sums: "GlooSums", count: int) -> None:
        self._sums = sums
        self._tensor = torch.zeros(count, dtype=torch.int32)
        self._address = self._tensor.data_ptr()

    @property
    def address(self) -> int:
        """Where they lie."""
        return self._address

    def __len__(self) -> int:
        return self._tensor.numel()

    def get(self, first: int, count: int) -> list[int]:
        """The values of some words."""
        return self._tensor[first : first + count].tolist()

    def put(self, first: int, values: Sequence[int]) -> None:
        """Set some words."""
        self._tensor[first : first + len(values)] = torch.tensor(values, dtype=torch.int32)

    def total(self, count: int) -> Pending:
        """Start a sum mod 2^32 of the first ``count`` words."""
        return self._sums.start(self._tensor[:count], self._sums.sum)

    def maximum(self, count: int) -> Pending:
        """Start a maximum of the first ``count`` signed words."""
        return self._sums.start(self._tensor[:count], self._sums.max)


class GlooSums:
    """One rank's part. gloo adds int32 as two's complement, so sums wrap like the switch's."""

    def __init__(
        self, make_group: Callable[[], dist.ProcessGroup], ranks: int, limit_s: float
    ) -> None:
        """All ranks make it at the same time: it makes its group.

        ``limit_s``: how long one sum may take; seconds.
        """
        self.sum = _options(dist.ReduceOp.SUM, limit_s)
        self.max = _options(dist.ReduceOp.MAX, limit_s)
        self._others = ranks - 1
        self._connections = Connections()
        with self._connections:
            self._group = make_group()
        self._severed = False

    def words(self, count: int) -> TensorWords:
        """New memory."""
        return TensorWords(self, count)

    def largest(self, values: Sequence[int]) -> list[int]:
        """The largest value of each place over all ranks. Waits."""
        tensor = torch.tensor(values, dtype=torch.int64)
        self.start(tensor, self.max).wait()
        return tensor.tolist()

    def sever(self) -> None:
        """End what waits, on all ranks."""
        self._severed = True
        self._connections.sever(self._others)

    def start(self, tensor: torch.Tensor, options: dist.AllreduceOptions) -> Pending:
        """Start an all-reduce in place."""
        if self._severed:
            raise ConnectionError("the connections between the ranks are closed")
        return self._group.allreduce([tensor], options)


def _options(op: dist.ReduceOp.RedOpType, limit_s: float) -> dist.AllreduceOptions:
    options = dist.AllreduceOptions()
    options.reduceOp = dist.ReduceOp(op)
    options.timeout = timedelta(seconds=limit_s)
    return options
