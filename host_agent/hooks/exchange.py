"""The mean of tensors over all ranks, of which only the most important blocks are sent.

1. Each rank adds what it has not sent before (the *residual*) to its tensors, and computes one word
   for each block of 256 elements: the bits of its largest magnitude, or of another number that says
   how large the block is (see ``formats.py``).
2. An all-reduce MAX of the words: now all ranks know how large each block is anywhere.
3. Of each tensor, all ranks choose the same blocks: those of the largest words, of equal ones the
   first. A block that holds Inf or NaN on some rank is always chosen. No indices are sent.
4. The chosen blocks are quantized at the agreed scale, and an all-reduce SUM of int32 adds their
   lanes: any backend that sums int32 mod 2^32 gives the same bits. Fields of 32, 16 and 8 bits,
   rounded to nearest, are the integers that a switch adds for an engine of that field
   (`codecs/block_float.cpp`).
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
from wiresum.host_agent._engine import BLOCK
from wiresum.host_agent.errors import CodecError
from wiresum.host_agent.hooks.formats import (
    LARGEST,
    LEAST,
    NONFINITE,
    ZERO,
    Draw,
    Encoded,
    format_of,
    packed_of,
    words_of,
)
from wiresum.host_agent.hooks.rules import Rule

__all__ = ["NONFINITE", "ZERO", "Course", "Exchange", "Part", "choose"]


@dataclass(frozen=True)
class Part:
    """One tensor of an exchange. ``feedback``: whether it has a residual.

    ``key``: a number of 32 bits that no other tensor of the training has; random words follow from
    it.
    """

    count: int
    rule: Rule
    feedback: bool
    key: int = 0

    @property
    def blocks(self) -> int:
        """The last one may be padded with zeros."""
        return -(-self.count // BLOCK)


@dataclass(frozen=True)
class Course:
    """What goes from one step to the next.

    ``decay``: factor of the residuals before each step. ``momentum``: residuals take up gradients
    that have gone through such a momentum, and a block that is sent begins anew (momentum
    correction and masking, Lin et al. 2018); 0: the gradients themselves. ``warmup``: in so many
    steps the part of the blocks that is sent falls from all to that of the rule. ``seed``: of all
    that is random.
    """

    decay: float = 1.0
    momentum: float = 0.0
    warmup: int = 0
    seed: int = 0


_PLAIN = Course()


@dataclass
class _Group:
    """The chosen blocks of one format. ``rows``: which; a slice of all is faster."""

    rows: torch.Tensor | slice
    words: torch.Tensor
    encoded: Encoded
    feedback: bool


@dataclass
class Sent:
    """What of an exchange is on its way, laid aside: the exchange can begin anew meanwhile."""

    groups: list[_Group]
    lanes: torch.Tensor


class Exchange:
    """Tensors that go together, with their residuals; used again at each step.

    Call :meth:`begin`, :meth:`send`, and :meth:`finish`, in this order.
    """

    def __init__(
        self, parts: Sequence[Part], workers: int, course: Course = _PLAIN, *, rank: int = 0
    ) -> None:
        """``rank``: this one; only random rounding and votes depend on it.

        Raises ``CodecError`` for fields that are too narrow for so many workers.
        """
        self.parts = tuple(parts)
        self.step = 0
        """How many steps this exchange has made; the largest of all ranks', once they agree."""
        self._workers = workers
        self._course = course
        self._rank = rank
        kinds = {part: format_of(part.rule, workers, part.feedback) for part in parts}
        self._formats = sorted(set(kinds.values()), key=repr)
        self.mark = crc32(repr((self.parts, course, self._formats)).encode()) >> 1
        """The same on all ranks if these choose and quantize alike."""
        # Their maxima are m and -m only if all ranks have the same mark.
        self._marks = torch.tensor([self.mark, -self.mark], dtype=torch.int32)
        starts = [0]
        for part in parts:
            starts.append(starts[-1] + part.blocks)
        self._starts = starts
        fed = any(part.feedback for part in parts)
        self._residuals = torch.zeros(starts[-1] * BLOCK if fed else 0)
        # From taking to keeping only, so that a step that fails between leaves nothing behind.
        self._values = self._moved = torch.empty(0)
        counts = torch.tensor([part.blocks for part in parts], dtype=torch.int64)
        self._part_of = torch.repeat_interleave(torch.arange(len(parts)), counts)
        self._first = torch.tensor(starts[:-1], dtype=torch.int64)
        self._lengths = torch.full((starts[-1],), BLOCK)
        for part, end in zip(parts, starts[1:], strict=True):
            if part.blocks:
                self._lengths[end - 1] -= part.blocks * BLOCK - part.count
        self._padding = torch.empty(0, dtype=torch.int64)
        if any(how.rotated or how.majority for how in self._formats):
            inside = (torch.arange(BLOCK) < self._lengths[:, None]).view(-1)
            self._padding = (~inside).nonzero().view(-1)
        kind = torch.tensor([self._formats.index(kinds[part]) for part in parts])
        self._kind = kind[self._part_of]
        self._warm = -1.0
        self._quota = torch.empty(0)
        self._thresholds = torch.empty(0)
        if any(part.rule.threshold for part in parts):
            self._thresholds = torch.tensor([part.rule.threshold for part in parts])
        self._origins = self._made_origins()
        self._fed = torch.tensor([part.feedback for part in parts])[self._part_of]
        self._velocities: torch.Tensor | None = None
        if course.momentum and fed:
            self._velocities = torch.zeros_like(self._residuals)
        self._codes: tuple[torch.Tensor, dist.Work | None] | None = None
        self._groups: list[_Group] = []
        self.lanes = torch.empty(0, dtype=torch.int32)
        """What is being summed."""

    def _made_origins(self) -> torch.Tensor:
        """Of each block the number of its first counter, and the key of its part."""
        number = torch.arange(self._starts[-1]) - self._first[self._part_of]
        keys = torch.tensor([part.key for part in self.parts], dtype=torch.int64)[self._part_of]
        return torch.stack([number * (BLOCK // 4), keys], dim=1).to(torch.int32)

    def velocity(self, place: int) -> torch.Tensor | None:
        """The momentum that goes into a residual, laid out like it; None: there is none."""
        if self._velocities is None or not self.parts[place].feedback:
            return None
        start = self._starts[place] * BLOCK
        return self._velocities[start : start + self.parts[place].count]

    def residual(self, place: int) -> torch.Tensor:
        """The residual of a tensor that has feedback, flat; a view. Valid between two steps."""
        start = self._starts[place] * BLOCK
        return self._residuals[start : start + self.parts[place].count]

    def begin(self, tensors: Sequence[torch.Tensor], group: dist.ProcessGroup | None) -> list[int]:
        """Take the tensors, which may be changed then, and begin to agree on the codes.

        Returns the places of those that hold Inf or NaN on this rank.
        """
        words = self.take(tensors)
        spoiled = self.spoiled(words)
        step = torch.tensor([self.step], dtype=torch.int32)
        words = torch.cat([words, self._marks, step])
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
        most, minus_least, self.step = words[-3:].tolist()
        if most != -minus_least:
            raise CodecError(lines.OTHER_CODECS.of())
        self.lanes = self.chosen(words[:-3])
        summed: dist.Work | None = dist.all_reduce(self.lanes, group=group, async_op=True)
        self.keep()
        assert summed is not None
        return summed

    def lay_aside(self) -> Sent:
        """After :meth:`send`: what is on its way. Then :meth:`begin` may be called again."""
        sent = Sent(self._groups, self.lanes)
        self._groups, self.lanes = [], torch.empty(0, dtype=torch.int32)
        return sent

    def take_up(self, sent: Sent) -> None:
        """Before :meth:`finish`: what was laid aside. Not between a begin and a laying aside."""
        self._groups, self.lanes = sent.groups, sent.lanes

    def finish(self, tensors: Sequence[torch.Tensor]) -> None:
        """Write the means into the tensors, once the work of :meth:`send` is done."""
        lanes, self.lanes = self.lanes, torch.empty(0, dtype=torch.int32)
        self.give(lanes, tensors)

    # ---- the same without a carrier

    def take(self, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        """Take the tensors: one word for each block, for a MAX over all ranks.

        Taken again before :meth:`keep`, it is as if the first time had not been.
        """
        decay, momentum = self._course.decay, self._course.momentum
        self._values = torch.zeros(max(self._starts[-1], LEAST) * BLOCK)
        if self._velocities is not None:
            self._moved = torch.zeros_like(self._velocities)
        for place, (part, tensor) in enumerate(zip(self.parts, tensors, strict=True)):
            start, flat = self._starts[place] * BLOCK, tensor.detach().reshape(-1)
            mine = self._values[start : start + part.count]
            if not part.feedback:
                mine.copy_(flat)
                continue
            velocity = self.velocity(place)
            if velocity is not None:
                moved = self._moved[start : start + part.count]
                flat = torch.mul(velocity, momentum, out=moved).add_(flat)
            if decay == 1.0:
                torch.add(self.residual(place), flat, out=mine)
            else:
                torch.mul(self.residual(place), decay, out=mine).add_(flat)
        blocks = self._values.numel() // BLOCK
        words = torch.empty(blocks, dtype=torch.int32)
        whole = packed_of(self._values, self._workers, 32)
        whole.exponents(0, blocks, words.data_ptr())
        words = words[: self._starts[-1]]
        for number, how in enumerate(self._formats):
            if how.statistic == LARGEST:
                continue
            which = self._kind == number
            rows = self._values.view(-1, BLOCK)[: self._starts[-1]]
            if not bool(which.all()):
                rows = rows[which]
            lengths = self._lengths[which]
            if how.rotated:  # a rotation spreads a short block over a whole one
                lengths.fill_(BLOCK)
            words[which] = words_of(how.statistic, rows, lengths)
        return words

    def spoiled(self, words: torch.Tensor) -> list[int]:
        """The places of tensors that hold Inf or NaN."""
        return sorted(set(self._part_of[words == NONFINITE].tolist()))

    def chosen(self, words: torch.Tensor) -> torch.Tensor:
        """From the maxima the lanes of the chosen blocks, for a SUM mod 2^32 over all ranks."""
        warmup = self._course.warmup
        warm = max(0.0, 1.0 - self.step / warmup) if warmup else 0.0
        if warm != self._warm:
            self._warm = warm
            quota = [part.rule.blocks(part.blocks, warm) for part in self.parts]
            self._quota = torch.tensor(quota, dtype=torch.int64)
        chosen = choose(words, self._part_of, self._first, self._quota)
        if self._thresholds.numel():
            chosen &= self._large_enough(words) | (words == NONFINITE)
        rows = self._values.view(-1, BLOCK)[: self._starts[-1]]
        draw = Draw(self._course.seed, self._rank, self.step)
        self._groups = []
        for number, how in enumerate(self._formats):
            places = (chosen & (self._kind == number)).nonzero().view(-1)
            which: torch.Tensor | slice = places
            if places.numel() == words.numel():
                which = slice(0, places.numel())
            mine = words[which]
            encoded = how.encoded(
                rows[which], mine, self._lengths[which], self._origins[which], draw
            )
            self._groups.append(_Group(which, mine, encoded, bool(self._fed[which].any())))
        # Never empty: backends differ in what they make of a sum of nothing.
        pad = torch.zeros(1, dtype=torch.int32)
        return torch.cat([*(each.encoded.lanes for each in self._groups), pad])

    def _large_enough(self, words: torch.Tensor) -> torch.Tensor:
        """Blocks that reach their part's threshold."""
        sizes = torch.where(words == NONFINITE, ZERO, words).bitwise_xor(ZERO).view(torch.float32)
        largest = torch.zeros(len(self.parts)).scatter_reduce_(0, self._part_of, sizes, "amax")
        return sizes >= (self._thresholds * largest)[self._part_of]

    def keep(self) -> None:
        """Update the residuals, after :meth:`chosen` and before :meth:`give`."""
        self.step += 1
        rows = self._values.view(-1, BLOCK)[: self._starts[-1]]
        for each in self._groups:
            if self._velocities is not None:
                self._moved.view(-1, BLOCK)[each.rows] = 0.0
            sent = each.encoded.sent() if each.feedback else None
            if sent is None:  # nothing is kept, or what 32 bits round, which is below float32's own
                rows[each.rows] = 0.0
                continue
            left = rows[each.rows]
            left -= sent
            left[each.words == NONFINITE] = 0.0
            if not isinstance(each.rows, slice):  # else it is a view
                rows[each.rows] = left
        if self._residuals.numel():
            self._residuals.copy_(rows.view(-1))
            self._residuals[self._padding] = 0.0
        if self._velocities is not None:
            self._velocities.copy_(self._moved)
        self._values = self._moved = torch.empty(0)

    def give(self, summed: torch.Tensor, tensors: Sequence[torch.Tensor]) -> None:
        """From the sums of the lanes the means, which are written into the tensors."""
        whole = any(isinstance(each.rows, slice) for each in self._groups)
        means = torch.empty(0) if whole else torch.zeros(self._starts[-1], BLOCK)
        at = 0
        for each in self._groups:
            count = each.encoded.lanes.numel()
            mean, missing = each.encoded.means(summed[at : at + count])
            at += count
            mean[each.words == NONFINITE] = float("nan")
            if missing is not None and each.feedback:
                self._residuals.view(-1, BLOCK)[each.rows] += missing
                self._residuals[self._padding] = 0.0
            if isinstance(each.rows, slice):
                means = mean
            elif not whole:
                means[each.rows] = mean
        self._groups = []
        flat = means.view(-1)
        for part, start, tensor in zip(self.parts, self._starts, tensors, strict=False):
            tensor.copy_(flat[start * BLOCK :][: part.count].view_as(tensor))


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
