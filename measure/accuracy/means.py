"""Means of n workers' tensors, as codecs and their rivals take them; all workers in one process."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol
from zlib import crc32

import torch

from wiresum.host_agent.hooks.exchange import Course, Exchange, Part
from wiresum.host_agent.hooks.rules import DEFAULT_POLICY, Rule, rule_for

Tensors = list[torch.Tensor]
Shapes = Mapping[str, torch.Size]


class Mean(Protocol):
    """``seconds``: processor time of all workers for what a float32 all-reduce has not to do."""

    seconds: float

    def __call__(self, all_: list[Tensors]) -> int:
        """Turn the tensors of all workers into their mean, in the first worker's place.

        Returns the bytes that one worker hands to an all-reduce.
        """


Make = Callable[[int, Shapes, int], Mean]
"""For so many workers, these tensors, and a training of so many steps."""


class _Timed:
    seconds = 0.0

    @contextmanager
    def _counted(self) -> Iterator[None]:
        before = time.process_time()
        yield
        self.seconds += time.process_time() - before


class Exact(_Timed):
    """Float32."""

    def __init__(self, workers: int, shapes: Shapes, steps: int) -> None:
        self._workers = workers

    def __call__(self, all_: list[Tensors]) -> int:
        """As :class:`Mean` says."""
        for first, *others in zip(*all_, strict=True):
            for each in others:
                first.add_(each)
            first.div_(self._workers)
        return 4 * sum(each.numel() for each in all_[0])


class Codec(_Timed):
    """A codec of ``host_agent/hooks``, with its default policy, bit for bit."""

    def __init__(
        self, workers: int, shapes: Shapes, rule: Rule, feedback: bool, course: Course
    ) -> None:
        parts = []
        for name, shape in shapes.items():
            own = rule_for(name, shape, DEFAULT_POLICY, rule)
            parts.append(Part(shape.numel(), own, feedback and not own.exact, crc32(name.encode())))
        self._ranks = [Exchange(parts, workers, course, rank=rank) for rank in range(workers)]

    def __call__(self, all_: list[Tensors]) -> int:
        """As :class:`Mean` says."""
        with self._counted():
            taken = [one.take(own) for one, own in zip(self._ranks, all_, strict=True)]
        words = torch.stack(taken).amax(0)
        with self._counted():
            lanes = [one.chosen(words) for one in self._ranks]
        total = lanes[0].clone()
        for each in lanes[1:]:
            total += each
        with self._counted():
            for one, own in zip(self._ranks, all_, strict=True):
                one.keep()
                one.give(total, own)
        return 4 * (words.numel() + total.numel())


def blocks(
    rule: Rule,
    *,
    feedback: bool = True,
    decay: float = 1.0,
    momentum: float = 0.0,
    warm: float = 0.0,
) -> Make:
    """:class:`Codec`. ``warm``: the part of the steps in which k falls."""

    def make(workers: int, shapes: Shapes, steps: int) -> Mean:
        course = Course(decay, momentum, round(warm * steps))
        return Codec(workers, shapes, rule, feedback, course)

    return make


class Half(_Timed):
    """Torch's fp16 hook: each worker's share as float16, which gloo adds."""

    def __init__(self, workers: int, shapes: Shapes, steps: int) -> None:
        self._workers = workers

    def __call__(self, all_: list[Tensors]) -> int:
        """As :class:`Mean` says."""
        for own in zip(*all_, strict=True):
            with self._counted():
                shares = [each.half().div_(self._workers) for each in own]
            total = shares[0]
            for each in shares[1:]:
                total = total + each
            with self._counted():
                for each in own:
                    each.copy_(total)
        return 2 * sum(each.numel() for each in all_[0])


class PowerSGD(_Timed):
    """Torch's PowerSGD hook (Vogels et al. 2019): error feedback, warm start; the first two steps
    and all that would not become half as large go as they are."""

    def __init__(self, workers: int, shapes: Shapes, steps: int, rank: int) -> None:
        self._rank = rank
        self._exact = Exact(workers, shapes, steps)
        generator = torch.Generator().manual_seed(0)
        self._kept: dict[int, list[torch.Tensor]] = {}
        self._bases: dict[int, torch.Tensor] = {}
        for place, shape in enumerate(shapes.values()):
            rows, columns = shape[0], shape.numel() // shape[0]
            if len(shape) > 1 and 2 * rank * (rows + columns) < rows * columns:
                self._kept[place] = [torch.zeros(rows, columns) for _ in range(workers)]
                self._bases[place] = torch.randn(columns, rank, generator=generator)
        self._step = 0

    def __call__(self, all_: list[Tensors]) -> int:
        """As :class:`Mean` says."""
        self._step += 1
        if self._step <= 2:
            return self._exact(all_)
        plain = [
            [each for place, each in enumerate(own) if place not in self._kept] for own in all_
        ]
        size = self._exact(plain)
        for place, kept in self._kept.items():
            with self._counted():
                matrices = [
                    own[place].view(each.shape) + each for own, each in zip(all_, kept, strict=True)
                ]
                sides = [each @ self._bases[place] for each in matrices]
            side = torch.stack(sides).mean(0)
            with self._counted():
                for _ in matrices:  # each worker does this, with the same result
                    left, _ = torch.linalg.qr(side)
                rights = [each.T @ left for each in matrices]
            right = torch.stack(rights).mean(0)
            with self._counted():
                for own, each, matrix in zip(all_, kept, matrices, strict=True):
                    found = left @ right.T
                    each.copy_(matrix - found)
                    own[place].copy_(found.view_as(own[place]))
            self._bases[place] = right
            size += 4 * (left.numel() + right.numel())
        return size


class TwoBits(_Timed):
    """Nearest of -M, 0, M, where M is the largest magnitude of a tensor; no feedback."""

    def __init__(self, workers: int, shapes: Shapes, steps: int) -> None:
        pass

    def __call__(self, all_: list[Tensors]) -> int:
        """As :class:`Mean` says."""
        for first, *others in zip(*all_, strict=True):
            largest = torch.stack([each.abs().max() for each in (first, *others)]).max()
            if largest > 0:
                rounded = [(each / largest).round() for each in (first, *others)]
                first.copy_(torch.stack(rounded).mean(0) * largest)
        return sum(each.numel() for each in all_[0]) // 4


class RandomK(_Timed):
    """The same random hundredth of the elements on all workers; no feedback."""

    def __init__(self, workers: int, shapes: Shapes, steps: int) -> None:
        self._generator = torch.Generator().manual_seed(1)
        self._exact = Exact(workers, shapes, steps)

    def __call__(self, all_: list[Tensors]) -> int:
        """As :class:`Mean` says."""
        size = self._exact(all_)
        for each in all_[0]:
            each.mul_(torch.rand(each.shape, generator=self._generator) < 0.01)
        return size // 100
