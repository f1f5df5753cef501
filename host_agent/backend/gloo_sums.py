"""Sums and copies over the ranks (``agent.sums.Sums``) by a gloo group of their own.

gloo's all-reduce is a ring: 2 (n - 1) messages one after the other. Where the words are few, up to
``DIRECT`` ranks send all of theirs to all others instead, and each combines what it gets: more
bytes, but no message waits for another one. With more ranks, too many messages would meet in one
link.

Of what has one reader each (a reduce-scatter), every rank sends each other one its part, and adds
what it gets: (n - 1) / n of all words, half of what a ring's all-reduce sends. Copies go from their
source straight to their readers, but for those of one source to all: gloo's broadcast is a tree.
"""

import ctypes
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Final

import torch
import torch.distributed as dist

from wiresum.host_agent.agent.sums import Copy, Pending, Words
from wiresum.host_agent.backend.connections import Connections

DIRECT: Final = 16
"""The most ranks that send few words to each other directly."""

FEW_BYTES: Final = 1 << 16
"""The most bytes by which one rank may send more in a sum than over the ring. At 1 Gbit/s they take
half a millisecond, about as long as a message that the ring has to wait for.

Two ranks send no more bytes directly than over the ring. They sum larger tensors over the ring all
the same: gloo's direct exchange fills one direction of their link at a time, the ring both."""


_TAGS: Final = 1 << 30


class TensorWords:
    """Words in a tensor: ``agent.sums.Words``."""

    def __init__(self, sums: "GlooSums", count: int) -> None:
        self._sums = sums
        self._tensor = torch.zeros(count, dtype=torch.int32, device="cpu")
        self._address = self._tensor.data_ptr()

    @property
    def tensor(self) -> torch.Tensor:
        """All of them."""
        return self._tensor

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
        words = torch.tensor(values, dtype=torch.int32, device="cpu")
        self._tensor[first : first + len(values)] = words

    def total(self, count: int) -> Pending:
        """Start a sum mod 2^32 of the first ``count`` words."""
        return self._sums.total(self._tensor[:count])

    def maximum(self, count: int) -> Pending:
        """Start a maximum of the first ``count`` signed words."""
        return self._sums.maximum(self._tensor[:count])

    def scattered(self, counts: Sequence[int], got: Words) -> Pending:
        """Start sums of runs of words, one for each rank; this rank's will be in ``got``."""
        assert isinstance(got, TensorWords)
        return _Scattered(self._sums, self._tensor, counts, got.tensor)


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
        self._limit = self._exchange.timeout = timedelta(seconds=limit_s)
        self.ranks = ranks
        self._copies = 0
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
        tensor = torch.tensor(values, dtype=torch.int64, device="cpu")
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

    def exchange(
        self,
        gives: torch.Tensor,
        gets: torch.Tensor,
        give: Sequence[int] = (),
        get: Sequence[int] = (),
    ) -> dist.Work:
        """Start to send parts of ``gives`` to one rank each, and to get as many.

        ``give``, ``get``: how many words to and from each rank; empty: equal parts.
        """
        self._check()
        return self._group.alltoall_base(gets, gives, list(get), list(give), self._exchange)

    def copy(self, copies: Sequence[Copy]) -> Pending:
        """Start to copy bytes between ranks."""
        self._check()
        copies = [each for each in copies if each.size and each.readers]
        sources = {each.source for each in copies}
        tree = len(sources) == 1 and all(len(each.readers) == self.ranks - 1 for each in copies)
        works: list[dist.Work] = []
        for each in copies:
            self._copies = self._copies % _TAGS + 1  # the same on all ranks: a tag of its own
            if tree:
                works.append(self._group.broadcast([_memory(each)], self._from(each.source)))
            elif each.source == self.rank:
                tensor = _memory(each)
                # Not all to the same rank at a time.
                for reader in sorted(each.readers, key=lambda r: (r - self.rank) % self.ranks):
                    works.append(self._group.send([tensor], reader, self._copies))
            elif self.rank in each.readers:
                works.append(self._group.recv([_memory(each)], each.source, self._copies))
        return _Works(works, self._limit)

    def _from(self, source: int) -> dist.BroadcastOptions:
        options = dist.BroadcastOptions()
        options.rootRank, options.timeout = source, self._limit
        return options

    def _check(self) -> None:
        if self._severed:
            raise ConnectionError("the connections between the ranks are closed")


class _Works:
    """All of these."""

    def __init__(self, works: Sequence[dist.Work], limit: timedelta) -> None:
        self._works, self._limit = works, limit

    def wait(self) -> None:
        for work in self._works:
            work.wait(self._limit)


class _Scattered:
    """Each rank sends the others the words that are for them, and adds what it gets."""

    def __init__(
        self, sums: GlooSums, gives: torch.Tensor, counts: Sequence[int], got: torch.Tensor
    ) -> None:
        mine = counts[sums.rank]
        self._rows = got[: sums.ranks * mine].view(sums.ranks, mine)
        gets = [mine] * sums.ranks
        self._work = sums.exchange(gives[: sum(counts)], self._rows.view(-1), counts, gets)

    def wait(self) -> None:
        self._work.wait()
        total = self._rows[0]
        for words in self._rows[1:]:
            total.add_(words)


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


def _memory(copy: Copy) -> torch.Tensor:
    """The bytes of a copy on this rank, where they are."""
    array = (ctypes.c_uint8 * copy.size).from_address(copy.address)
    return torch.frombuffer(array, dtype=torch.uint8)


def _raise_to(tensor: torch.Tensor, other: torch.Tensor) -> None:
    torch.maximum(tensor, other, out=tensor)


def _all_reduce(op: dist.ReduceOp.RedOpType, limit_s: float) -> dist.AllreduceOptions:
    options = dist.AllreduceOptions()
    options.reduceOp = dist.ReduceOp(op)
    options.timeout = timedelta(seconds=limit_s)
    return options
