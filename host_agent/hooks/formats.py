"""How blocks become fields of lanes, and sums of lanes means: what rules ask for, made for n ranks.

All formats are sums of integers that never leave their fields: block floating point, nearest or
stochastic (QSGD, Alistarh et al. 2017; the shared scale is IntSGD's, Mishchenko et al. 2022);
three levels (TernGrad, Wen et al. 2017); two levels, of which the majority is the result (signSGD,
Bernstein et al. 2019); and rotated blocks (THC, Li et al. 2024).
"""

from dataclasses import dataclass
from typing import Protocol

import torch

from wiresum.host_agent._engine import BLOCK, SMALL, Levels, Packed, budget, rotate
from wiresum.host_agent._engine import words as engine_words
from wiresum.host_agent.hooks.clip import clip_for
from wiresum.host_agent.hooks.rules import Coding, Rounding, Rule

LEAST = SMALL // BLOCK + 1
"""Blocks of a buffer, at least: the codec gives smaller tensors one exponent per element."""

ZERO, NONFINITE = -(1 << 31), (1 << 31) - 1
"""Words (see ``Packed``) of a block that is zero, and of one that holds Inf or NaN."""

LARGEST, MEAN, RMS = range(3)
"""What a word is made of (``Statistic`` in ``codecs/levels.hpp``)."""

_ROUNDING, _ROTATION = range(2)
"""Purposes of random words."""

_OF_ALL = 0xFFFFFFFF
"""In the place of a rank, for what is random and the same on all ranks."""

_HUGE, _DOWN = 0x71800000 ^ ZERO, 16
"""A rotation adds up to 256 numbers, and its result may be 16 times as large as they are: blocks
whose word says 2^100 or more are rotated as what is 2^16 times smaller, which is exact."""

TERNARY_GAIN = 1.5
"""The unit of three levels, relative to the root mean square of a block: somewhat more than is best
for a normal distribution (1.22), since gradients have heavier tails."""


@dataclass(frozen=True)
class Draw:
    """What random words follow from, beside the blocks: no state but numbers."""

    seed: int
    rank: int
    step: int

    def of(self, purpose: int, origins: torch.Tensor) -> tuple[int, int, int, int, int]:
        """For the engine; ``origins``: two words of 32 bits of each block."""
        rank = _OF_ALL if purpose == _ROTATION else self.rank
        step = self.step & 0xFFFFFFFF
        return self.seed & 0xFFFFFFFF, rank, step, purpose, origins.data_ptr()


@dataclass(frozen=True)
class Format:
    """How the blocks of one rule travel among ``workers`` ranks.

    ``top``: a rank's field is 0 to ``top``, 0 for block floating point as the engine has it.
    ``bits``: of a field. ``statistic``, ``gain``: a block's unit is ``gain`` times this number of
    the block, the largest of all ranks.
    """

    workers: int
    bits: int
    top: int = 0
    statistic: int = LARGEST
    gain: float = 1.0
    random: bool = False
    rotated: bool = False
    majority: bool = False

    @property
    def per_lane(self) -> int:
        """Fields of a lane."""
        return 32 // self.bits

    @property
    def lanes(self) -> int:
        """Lanes of a whole block."""
        return -(-BLOCK // self.per_lane)

    def encoded(
        self,
        rows: torch.Tensor,
        words: torch.Tensor,
        lengths: torch.Tensor,
        origins: torch.Tensor,
        draw: Draw,
    ) -> "Encoded":
        """Blocks ``(count, 256)`` with their agreed words; ``rows`` is not kept if it is a view."""
        if self.top == 0:
            return _PackedBlocks(self, rows, words, lengths)
        return _LevelBlocks(self, rows, words, lengths, origins, draw)


def format_of(rule: Rule, workers: int, feedback: bool) -> Format:
    """The format of a rule. Raises ``CodecError`` for fields too narrow for so many workers."""
    random = rule.rounding is Rounding.STOCHASTIC
    if rule.coding is Coding.VOTE:
        statistic = LARGEST if random and not feedback else MEAN
        bits = workers.bit_length()
        return Format(workers, bits, 1, statistic, 1.0, random, majority=True)
    if rule.coding is Coding.TERNARY:
        return _few_levels(workers, (2 * workers).bit_length(), 2, random, feedback)
    if rule.coding is Coding.THC:
        budget(workers, rule.bits)
        top = (2**rule.bits - 1) // workers
        return Format(workers, rule.bits, top, RMS, clip_for(top), random, rotated=True)
    level = budget(workers, rule.bits)
    if rule.bits == 32 or (rule.bits > 4 and not random):
        return Format(workers, rule.bits)
    return _few_levels(workers, rule.bits, 2 * level, random, feedback)


def _few_levels(workers: int, bits: int, top: int, random: bool, feedback: bool) -> Format:
    # Of three levels at the largest magnitude nearest rounding makes mostly zeros, and stochastic
    # rounding so large errors that feedback would grow without bound. Where only the mean counts,
    # unbiased rounding needs the largest magnitude.
    if top == 2 and (feedback or not random):
        return Format(workers, bits, top, RMS, TERNARY_GAIN, random)
    return Format(workers, bits, top, LARGEST, 1.0, random)


def words_of(statistic: int, rows: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """A word for each of the blocks, of which the first ``lengths`` elements count."""
    words = torch.empty(rows.shape[0], dtype=torch.int32)
    engine_words(
        statistic, rows.shape[0], rows.data_ptr(), lengths.data_ptr(), words.data_ptr()
    )  # fmt: skip
    return words


class Encoded(Protocol):
    """Blocks that are sent."""

    lanes: torch.Tensor
    """What is summed, int32; blocks that are not finite have none."""

    def sent(self) -> torch.Tensor | None:
        """What this rank's lanes stand for, ``(count, 256)``; None: the blocks themselves, but for
        what 32 bits round. Rows that are not finite mean nothing."""

    def means(self, summed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """From the sums the results, ``(count, 256)``, and by how much these are too small.

        That is the same on all ranks; None: not at all. Ends the use of the object."""


class _PackedBlocks:
    """Nearest rounding in fields of 32, 16 or 8 bits: the engine's own block floating point."""

    def __init__(
        self, how: Format, rows: torch.Tensor, words: torch.Tensor, lengths: torch.Tensor
    ) -> None:
        self._how = how
        self._words = words
        count = words.numel()
        self._values = torch.empty(max(count, LEAST), BLOCK)
        self._values[:count] = rows
        self._packed = self._agreed(self._values, average=True)
        self._all = torch.empty(self._packed.lanes, dtype=torch.int32)
        self._packed.encode(0, self._all.numel(), self._all.data_ptr())
        self._filled = _filled(how, lengths[words != NONFINITE])
        self.lanes = self._all if self._filled is None else self._all[self._filled]

    def sent(self) -> torch.Tensor | None:
        if self._how.bits == 32:
            return None
        sent = torch.empty_like(self._values)
        packed = self._agreed(sent)
        lanes = self._all + _zeros_of_others(self._how.workers, self._how.bits)
        packed.decode(0, lanes.numel(), lanes.data_ptr())
        return sent[: self._words.numel()]

    def means(self, summed: torch.Tensor) -> tuple[torch.Tensor, None]:
        if self._filled is not None:
            self._all[self._filled] = summed
            summed = self._all
        self._packed.decode(0, summed.numel(), summed.data_ptr())
        return self._values[: self._words.numel()], None

    def _agreed(self, values: torch.Tensor, average: bool = False) -> Packed:
        """Blocks with the agreed words; more blocks in ``values`` are zero."""
        packed = packed_of(values, self._how.workers, self._how.bits, average)
        padded = torch.full((values.shape[0],), ZERO, dtype=torch.int32)
        padded[: self._words.numel()] = self._words
        packed.agree(padded.numel(), padded.data_ptr())
        return packed


class _LevelBlocks:
    """Whatever is sums of a few levels."""

    def __init__(
        self,
        how: Format,
        rows: torch.Tensor,
        words: torch.Tensor,
        lengths: torch.Tensor,
        origins: torch.Tensor,
        draw: Draw,
    ) -> None:
        self._how = how
        self._levels = Levels(how.workers, how.top, how.bits, how.gain)
        self._finite: torch.Tensor | None = None
        self._words, self._origins, self._draw = words, origins, draw
        self._count = words.numel()
        spoiled = words == NONFINITE
        if bool(spoiled.any()):
            self._finite = ~spoiled
            rows, words, lengths = (each[self._finite] for each in (rows, words, lengths))
            self._words, self._origins = words, origins[self._finite]
        self._filled = None if how.rotated else _filled(how, lengths)
        self._huge: torch.Tensor | None = None
        if how.rotated:
            rows = rows.clone()
            huge = words >= _HUGE
            if bool(huge.any()):
                self._huge = huge
                rows[huge] *= 2.0**-_DOWN
                words = self._words = words - huge.to(torch.int32) * (_DOWN << 23)
            self._rotate(rows)
        # Of zeros every second rank votes for +, and at the next step the others do.
        up = (draw.rank + draw.step) % 2 == 0
        self._all = torch.empty(words.numel() * how.lanes, dtype=torch.int32)
        self._levels.encode(
            words.numel(), rows.data_ptr(), words.data_ptr(), self._all.data_ptr(),
            draw.of(_ROUNDING, self._origins) if how.random else None, up,
        )  # fmt: skip
        self.lanes = self._all if self._filled is None else self._all[self._filled]

    def sent(self) -> torch.Tensor:
        return self._whole(self._decoded(self._all, 1))

    def means(self, summed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        if self._filled is not None:
            self._all[self._filled] = summed
            summed = self._all
        mean = self._decoded(summed, self._how.workers)
        if not self._how.majority:
            return self._whole(mean), None
        units = (self._words ^ ZERO).view(torch.float32)[:, None]
        winner = mean.sign() * units
        return self._whole(winner), self._whole(mean.sub_(winner))

    def _decoded(self, lanes: torch.Tensor, workers: int) -> torch.Tensor:
        rows = torch.empty(self._words.numel(), BLOCK)
        self._levels.decode(
            rows.shape[0], lanes.data_ptr(), self._words.data_ptr(), workers, rows.data_ptr()
        )
        if self._how.rotated:
            self._rotate(rows, back=True)
            if self._huge is not None:
                most = torch.finfo(torch.float32).max
                rows[self._huge] = (rows[self._huge] * 2.0**_DOWN).clamp_(-most, most)
        return rows

    def _rotate(self, rows: torch.Tensor, back: bool = False) -> None:
        draw = self._draw.of(_ROTATION, self._origins)
        rotate(rows.shape[0], rows.data_ptr(), draw, back)

    def _whole(self, rows: torch.Tensor) -> torch.Tensor:
        """With zeros for what is not finite."""
        if self._finite is None:
            return rows
        whole = torch.zeros(self._count, BLOCK)
        whole[self._finite] = rows
        return whole


def _filled(how: Format, lengths: torch.Tensor) -> torch.Tensor | None:
    """Which lanes hold elements, and are sent; None: all do."""
    if not bool((lengths < BLOCK).any()):
        return None
    used = (lengths + how.per_lane - 1) // how.per_lane
    return (torch.arange(how.lanes) < used[:, None]).view(-1)


def packed_of(values: torch.Tensor, workers: int, bits: int, average: bool = False) -> Packed:
    """All of ``values`` as the engine would carry it."""
    return Packed(values.data_ptr(), values.numel(), "float32", average, workers, bits)


def _zeros_of_others(workers: int, bits: int) -> int:
    """A lane in which each field is what all other ranks add for a zero; as int32."""
    field = (workers - 1) * budget(workers, bits)
    lane = sum(field << shift for shift in range(0, 32, bits))
    return lane - (1 << 32) if lane >= 1 << 31 else lane
