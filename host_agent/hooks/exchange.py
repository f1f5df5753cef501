"""The mean of tensors over all ranks, of which only the most important blocks are sent.

1. Each rank adds what it has not sent before (the *residual*) to its tensors, and computes one
   exponent code for each block of 256 elements: the bits of its largest magnitude.
2. An all-reduce MAX of the codes: now all ranks know how large each block is anywhere.
3. Of each tensor, all ranks choose the same blocks: those of the largest codes, of equal ones the
   first. A block that holds Inf or NaN on some rank is always chosen. No indices are sent.
4. The chosen blocks are quantized at the agreed scale, and an all-reduce SUM of int32 adds their
   lanes: the integers that a switch adds for an engine of that field (`codecs/block_float.cpp`),
   so that any backend that sums int32 mod 2^32 gives the same bits.
5. What was not sent, and what the quantization has rounded off, stays in the residual: error
   feedback (Seide et al. 2014; Karimireddy et al. 2019).

Blocks begin anew with each tensor, so the result does not depend on which tensors go together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32

import torch
import torch.distributed as dist

from wiresum.host_agent import lines
from wiresum.host_agent._engine import BLOCK, SMALL, Packed, budget
from wiresum.host_agent.errors import CodecError
from wiresum.host_agent.hooks.rules import Rule

_LEAST = SMALL // BLOCK + 1
"""Blocks of a buffer, at least: the codec gives smaller tensors one exponent per element."""

ZERO, NONFINITE = -(1 << 31), (1 << 31) - 1
"""Words (see ``Packed``) of a block that is zero, and of one that holds Inf or NaN."""


@dataclass(frozen=True)
class Part:
    """One tensor of an exchange. ``feedback``: whether it has a residual."""

    count: int
    rule: Rule
    feedback: bool

    @property
    def blocks(self) -> int:
        """The last one may be padded with zeros."""
        return -(-self.count // BLOCK)


@dataclass
class _Group:
    """The chosen blocks that have fields of ``bits``. ``rows``: which; a slice of all is faster."""

    bits: int
    rows: torch.Tensor | slice
    words: torch.Tensor
    values: torch.Tensor
    packed: Packed
    lanes: torch.Tensor
    filled: torch.Tensor | None
    """Of short blocks: which lanes hold elements, and are sent. None: all do."""

    @property
    def sent(self) -> torch.Tensor:
        """The lanes that are summed."""
        return self.lanes if self.filled is None else self.lanes[self.filled]


@dataclass
class Sent:
    """What of an exchange is on its way, laid aside: the exchange can begin anew meanwhile."""

    groups: list[_Group]
    lanes: torch.Tensor


class Exchange:
    """Tensors that go together, with their residuals; used again at each step.

    Call :meth:`begin`, :meth:`send`, and :meth:`finish`, in this order.
    """

    def __init__(self, parts: Sequence[Part], workers: int, decay: float = 1.0) -> None:
        """``decay``: factor of the residuals before each step.

        Raises ``CodecError`` for fields that are too narrow for so many workers.
        """
        self.parts = tuple(parts)
        self._workers = workers
        self._decay = decay
        for bits in {part.rule.bits for part in parts}:
            budget(workers, bits)
        mark = crc32(repr((self.parts, decay)).encode()) >> 1
        # Their maxima are m and -m only if all ranks have the same mark.
        self._marks = torch.tensor([mark, -mark], dtype=torch.int32)
        starts = [0]
        for part in parts:
            starts.append(starts[-1] + part.blocks)
        self._starts = starts
        self._values = torch.zeros(max(starts[-1], _LEAST) * BLOCK)
        counts = torch.tensor([part.blocks for part in parts], dtype=torch.int64)
        self._part_of = torch.repeat_interleave(torch.arange(len(parts)), counts)
        self._first = torch.tensor(starts[:-1], dtype=torch.int64)
        self._quota = torch.tensor([p.rule.blocks(p.blocks) for p in parts], dtype=torch.int64)
        self._lengths = torch.full((starts[-1],), BLOCK)
        for part, end in zip(parts, starts[1:], strict=True):
            if part.blocks:
                self._lengths[end - 1] -= part.blocks * BLOCK - part.count
        self._bits = torch.tensor([p.rule.bits for p in parts])[self._part_of]
        self._codes: tuple[torch.Tensor, dist.Work | None] | None = None
        self._groups: list[_Group] = []
        self._lanes = torch.empty(0, dtype=torch.int32)

    def residual(self, place: int) -> torch.Tensor:
        """The residual of a tensor, flat; a view. Valid between two steps."""
        start = self._starts[place] * BLOCK
        return self._values[start : start + self.parts[place].count]

    def begin(self, tensors: Sequence[torch.Tensor], group: dist.ProcessGroup | None) -> list[int]:
        """Take the tensors, which may be changed then, and begin to agree on the codes.

        Returns the places of those that hold Inf or NaN on this rank.
        """
        words = self.take(tensors)
        spoiled = sorted(set(self._part_of[words == NONFINITE].tolist()))
        words = torch.cat([words, self._marks])
        work = dist.all_reduce(words, dist.ReduceOp.MAX, group=group, async_op=True)
        self._codes = words, work
        return spoiled

    def send(self, group: dist.ProcessGroup | None) -> dist.Work:
        """Wait for the codes, and begin to sum the chosen blocks.

        Raises ``CodecError`` if the ranks would choose or quantize differently.
        """
        assert self._codes is not None
        words, work = self._codes
        self._codes = None
        if work is not None:
            work.wait()
        most, minus_least = words[-2:].tolist()
        if most != -minus_least:
            raise CodecError(lines.OTHER_CODECS.of())
        self._lanes = self.chosen(words[:-2])
        summed: dist.Work | None = dist.all_reduce(self._lanes, group=group, async_op=True)
        self.keep()
        assert summed is not None
        return summed

    def lay_aside(self) -> Sent:
        """After :meth:`send`: what is on its way. Then :meth:`begin` may be called again."""
        sent = Sent(self._groups, self._lanes)
        self._groups, self._lanes = [], torch.empty(0, dtype=torch.int32)
        return sent

    def take_up(self, sent: Sent) -> None:
        """Before :meth:`finish`: what was laid aside. Not between a begin and a laying aside."""
        self._groups, self._lanes = sent.groups, sent.lanes

    def finish(self, tensors: Sequence[torch.Tensor]) -> None:
        """Write the means into the tensors, once the work of :meth:`send` is done."""
        lanes, self._lanes = self._lanes, torch.empty(0, dtype=torch.int32)
        self.give(lanes, tensors)

    # ---- the same without a carrier

    def take(self, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        """Take the tensors: one word for each block, for a MAX over all ranks."""
        for place, (part, tensor) in enumerate(zip(self.parts, tensors, strict=True)):
            mine, flat = self.residual(place), tensor.detach().reshape(-1)
            if part.feedback:
                (mine if self._decay == 1.0 else mine.mul_(self._decay)).add_(flat)
            else:
                mine.copy_(flat)
        blocks = self._values.numel() // BLOCK
        words = torch.empty(blocks, dtype=torch.int32)
        whole = _packed(self._values, self._workers, 32)
        whole.exponents(0, blocks, words.data_ptr())
        return words[: self._starts[-1]]

    def chosen(self, words: torch.Tensor) -> torch.Tensor:
        """From the maxima the lanes of the chosen blocks, for a SUM mod 2^32 over all ranks."""
        chosen = choose(words, self._part_of, self._first, self._quota)
        rows = self._values.view(-1, BLOCK)
        self._groups = [
            self._encoded(rows, words, chosen & (self._bits == bits), bits)
            for bits in sorted({part.rule.bits for part in self.parts})
        ]
        # Never empty: backends differ in what they make of a sum of nothing.
        pad = torch.zeros(1, dtype=torch.int32)
        return torch.cat([*(each.sent for each in self._groups), pad])

    def keep(self) -> None:
        """Update the residuals, after :meth:`chosen` and before :meth:`give`."""
        for each in self._groups:
            self._keep(each, self._values.view(-1, BLOCK))

    def give(self, summed: torch.Tensor, tensors: Sequence[torch.Tensor]) -> None:
        """From the sums of the lanes the means, which are written into the tensors."""
        whole = any(isinstance(each.rows, slice) for each in self._groups)
        means = torch.empty(0) if whole else torch.zeros(self._starts[-1], BLOCK)
        at = 0
        for each in self._groups:
            lanes = each.lanes
            if each.filled is None:
                lanes = summed[at : at + lanes.numel()]
                at += lanes.numel()
            else:
                count = int(each.filled.sum())
                lanes[each.filled] = summed[at : at + count]
                at += count
            each.packed.decode(0, lanes.numel(), lanes.data_ptr())
            mean = each.values[: each.words.numel()]
            mean[each.words == NONFINITE] = float("nan")
            if isinstance(each.rows, slice):
                means = mean
            elif not whole:
                means[each.rows] = mean
        self._groups = []
        flat = means.view(-1)
        for part, start, tensor in zip(self.parts, self._starts, tensors, strict=False):
            tensor.copy_(flat[start * BLOCK :][: part.count].view_as(tensor))

    def _encoded(
        self, rows: torch.Tensor, words: torch.Tensor, chosen: torch.Tensor, bits: int
    ) -> _Group:
        places = chosen.nonzero().view(-1)
        count = places.numel()
        which: torch.Tensor | slice = places
        if count == words.numel():
            which = slice(0, count)
        mine = words[which]
        values = torch.empty(max(count, _LEAST), BLOCK)
        values[:count] = rows[which]
        packed = _agreed(values, mine, self._workers, bits, average=True)
        lanes = torch.empty(packed.lanes, dtype=torch.int32)
        packed.encode(0, lanes.numel(), lanes.data_ptr())
        lengths = self._lengths[places[mine != NONFINITE]]
        filled = None
        if bool((lengths < BLOCK).any()):
            per_lane = 32 // bits
            used = (lengths + per_lane - 1) // per_lane
            filled = (torch.arange(BLOCK // per_lane) < used[:, None]).view(-1)
        return _Group(bits, which, mine, values, packed, lanes, filled)

    def _keep(self, each: _Group, rows: torch.Tensor) -> None:
        """Leave in the residuals the error of what is sent."""
        if each.bits == 32:  # below float32's own
            rows[each.rows] = 0.0
            return
        sent = torch.empty_like(each.values)
        packed = _agreed(sent, each.words, self._workers, each.bits)
        lanes = each.lanes + _zeros_of_others(self._workers, each.bits)
        packed.decode(0, lanes.numel(), lanes.data_ptr())
        left = rows[each.rows]
        left -= sent[: each.words.numel()]
        left[each.words == NONFINITE] = 0.0
        if not isinstance(each.rows, slice):  # else it is a view
            rows[each.rows] = left


def choose(
    words: torch.Tensor, part_of: torch.Tensor, first: torch.Tensor, quota: torch.Tensor
) -> torch.Tensor:
    """Which blocks are sent: of each part those of the largest words, of equal ones the first.

    ``part_of``: the part of each block, ascending; ``first``: each part's first block; ``quota``:
    how many of a part are sent. Blocks of zeros never are, blocks with Inf or NaN always.
    """
    order = words.sort(descending=True, stable=True).indices
    order = order[part_of[order].sort(stable=True).indices]
    places = torch.arange(order.numel()) - first[part_of]
    chosen = torch.zeros(order.numel(), dtype=torch.bool)
    chosen[order] = places < quota[part_of]
    return (chosen & (words != ZERO)) | (words == NONFINITE)


def _agreed(
    values: torch.Tensor, words: torch.Tensor, workers: int, bits: int, average: bool = False
) -> Packed:
    """Blocks with these agreed words; more blocks in ``values`` are zero."""
    packed = _packed(values, workers, bits, average)
    padded = torch.full((values.shape[0],), ZERO, dtype=torch.int32)
    padded[: words.numel()] = words
    packed.agree(padded.numel(), padded.data_ptr())
    return packed


def _packed(values: torch.Tensor, workers: int, bits: int, average: bool = False) -> Packed:
    return Packed(values.data_ptr(), values.numel(), "float32", average, workers, bits)


def _zeros_of_others(workers: int, bits: int) -> int:
    """A lane in which each field is what all other ranks add for a zero; as int32."""
    field = (workers - 1) * budget(workers, bits)
    lane = sum(field << shift for shift in range(0, 32, bits))
    return lane - (1 << 32) if lane >= 1 << 31 else lane
