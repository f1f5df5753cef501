"""Sums over the ranks (``agent.sums.Sums``) by a gloo group of their own.

gloo's all-reduce is a ring: 2 (n - 1) messages one after the other. Where the words are few, up to
``DIRECT`` ranks send all of theirs to all others instead, and each combines what it gets: more
bytes, but no message waits for another one. With more ranks, too many messages would meet in one
link.
"""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Final

import torch
import torch.distributed as dist

from wiresum.host_agent.agent.sums import Pending
from wiresum.host_agent.backend.connections import Connections

DIRECT: Final = 16
"""The most ranks that send few words to each other directly."""

FEW_BYTES: Final = 1 << 16
"""The most bytes by which one rank may send more in a sum than over the ring. At 1 Gbit/s they take
half a millisecond, about as long as a message that the ring has to wait for.

Two ranks send no more bytes directly than over the ring. They sum larger tensors over the ring all
the same: gloo's direct exchange fills one direction of their link at a time, the ring both."""


class TensorWords:
    """Words in a tensor: ``agent.sums.Words``."""

    def __init__(self, sums: "GlooSums", count: int) -> None:
        self._sums = sums
        self._tensor = torch.zeros(count, dtype=torch.int32)
        self._address = self._tensor.data_ptr()

    @property
    def address(self) -> int:
        """Their address."""
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
        return self._sums.total(self._tensor[:count])

    def maximum(self, count: int) -> Pending:
        """Start a maximum of the first ``count`` signed words."""
        return self._sums.maximum(self._tensor[:count])


class GlooSums:
    """One rank's part. int32 wraps as two's complement, so sums wrap like the switch's."""

    def __init__(
        self,
        make_group: Callable[[], dist.ProcessGroup],
        ranks: int,
        limit_s: float,
        direct: int = DIRECT,
    ) -> None:
        """All ranks make it at the same time: it makes its group.

        ``limit_s``: how long one message, or one all-reduce, may take; seconds.
        """
        self._sum = _all_reduce(dist.ReduceOp.SUM, limit_s)
        self._max = _all_reduce(dist.ReduceOp.MAX, limit_s)
        self._exchange = dist.AllToAllOptions()
        self._exchange.timeout = timedelta(seconds=limit_s)
        self.ranks = ranks
        self._direct = ranks <= direct
        self._connections = Connections()
        with self._connections:
            self._group = make_group()
        self.rank = self._group.rank()
        self._severed = False

    def words(self, count: int) -> TensorWords:
        """New memory."""
        return TensorWords(self, count)

    def largest(self, values: Sequence[int]) -> list[int]:
        """The largest value of each place over all ranks. Waits."""
        tensor = torch.tensor(values, dtype=torch.int64)
        self.maximum(tensor).wait()
        return tensor.tolist()

    def sever(self) -> None:
        """End what waits, on all ranks."""
        self._severed = True
        self._connections.sever(self.ranks - 1)

    def total(self, tensor: torch.Tensor) -> Pending:
        """Start a sum in place."""
        if self._direct and tensor.nbytes * max(1, self.ranks - 2) <= FEW_BYTES:
            return _Direct(self, tensor, torch.Tensor.add_)
        return self._all_reduce(tensor, self._sum)

    def maximum(self, tensor: torch.Tensor) -> Pending:
        """Start a maximum in place."""
        if self._direct:
            return _Direct(self, tensor, _raise_to)
        return self._all_reduce(tensor, self._max)

    def _all_reduce(self, tensor: torch.Tensor, options: dist.AllreduceOptions) -> Pending:
        self._check()
        return self._group.allreduce([tensor], options)

    def exchange(self, gives: torch.Tensor, gets: torch.Tensor) -> dist.Work:
        """Start to send the n-th parts of ``gives`` to one rank each, and to get as many."""
        self._check()
        return self._group.alltoall_base(gets, gives, [], [], self._exchange)

    def _check(self) -> None:
        if self._severed:
            raise ConnectionError("the connections between the ranks are closed")


class _Direct:
    """Each rank sends all of its words to all others, and combines what it gets."""

    def __init__(
        self,
        sums: GlooSums,
        tensor: torch.Tensor,
        combine: Callable[[torch.Tensor, torch.Tensor], object],
    ) -> None:
        self._tensor, self._combine, self._rank = tensor, combine, sums.rank
        self._got = tensor.new_empty(sums.ranks, tensor.numel())
        self._work = sums.exchange(tensor.repeat(sums.ranks), self._got.view(-1))

    def wait(self) -> None:
        self._work.wait()
        for rank, words in enumerate(self._got):
            if rank != self._rank:
                self._combine(self._tensor, words)


def _raise_to(tensor: torch.Tensor, other: torch.Tensor) -> None:
    torch.maximum(tensor, other, out=tensor)


def _all_reduce(op: dist.ReduceOp.RedOpType, limit_s: float) -> dist.AllreduceOptions:
    options = dist.AllreduceOptions()
    options.reduceOp = dist.ReduceOp(op)
    options.timeout = timedelta(seconds=limit_s)
    return options
