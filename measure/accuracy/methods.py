"""What n workers do with their gradients, or with the changes of their models."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from zlib import crc32

import torch

from wiresum.host_agent.hooks.exchange import Course, Exchange, Part
from wiresum.host_agent.hooks.rules import DEFAULT_POLICY, Rule, rule_for

Tensors = list[torch.Tensor]
Mean = Callable[[list[Tensors]], int]
"""Turns the tensors of all workers into their mean, in the first worker's place. Returns the bytes
that one worker hands to an all-reduce."""


_PLAIN = Course()


@dataclass(frozen=True)
class Method:
    """One row. ``limit``: the largest relative excess over float32's loss; None: none is stated.

    ``every``: steps between synchronizations. ``rate``: factor of the learning rate. ``control``:
    it must exceed :data:`~wiresum.measure.accuracy.judge.CONTROL_EXCESS`.
    """

    name: str
    make: Callable[[int, Mapping[str, torch.Size]], Mean]
    limit: float | None = None
    every: int = 1
    rate: float = 1.0
    control: bool = False


def _exact(workers: int, shapes: Mapping[str, torch.Size]) -> Mean:
    def mean(all_: list[Tensors]) -> int:
        for first, *others in zip(*all_, strict=True):
            for each in others:
                first.add_(each)
            first.div_(workers)
        return 4 * sum(each.numel() for each in all_[0])

    return mean


def blocks(
    rule: Rule, *, feedback: bool = True, course: Course = _PLAIN
) -> Callable[[int, Mapping[str, torch.Size]], Mean]:
    """A codec of ``host_agent/hooks``, with its default policy."""

    def make(workers: int, shapes: Mapping[str, torch.Size]) -> Mean:
        parts = []
        for name, shape in shapes.items():
            own = rule_for(name, shape, DEFAULT_POLICY, rule)
            parts.append(Part(shape.numel(), own, feedback and not own.exact, crc32(name.encode())))
        exchanges = [Exchange(parts, workers, course, rank=rank) for rank in range(workers)]

        def mean(all_: list[Tensors]) -> int:
            taken = [one.take(own) for one, own in zip(exchanges, all_, strict=True)]
            words = torch.stack(taken).amax(0)
            lanes = [one.chosen(words) for one in exchanges]
            total = lanes[0].clone()
            for each in lanes[1:]:
                total += each
            for one, own in zip(exchanges, all_, strict=True):
                one.keep()
                one.give(total, own)
            return 4 * (words.numel() + total.numel())

        return mean

    return make


def _two_bits(workers: int, shapes: Mapping[str, torch.Size]) -> Mean:
    """Nearest of -M, 0, M, where M is the largest magnitude of a tensor; no feedback."""

    def mean(all_: list[Tensors]) -> int:
        for first, *others in zip(*all_, strict=True):
            largest = torch.stack([each.abs().max() for each in (first, *others)]).max()
            if largest > 0:
                rounded = [(each / largest).round() for each in (first, *others)]
                first.copy_(torch.stack(rounded).mean(0) * largest)
        return sum(each.numel() for each in all_[0]) // 4

    return mean


def _random_k(workers: int, shapes: Mapping[str, torch.Size]) -> Mean:
    """The same random hundredth of the elements on all workers; no feedback."""
    generator = torch.Generator().manual_seed(1)
    exact = _exact(workers, shapes)

    def mean(all_: list[Tensors]) -> int:
        size = exact(all_)
        for each in all_[0]:
            each.mul_(torch.rand(each.shape, generator=generator) < 0.01)
        return size // 100

    return mean


FLOAT32 = "float32"

METHODS: Mapping[str, Method] = MappingProxyType(
    {
        each.name: each
        for each in (
            Method(FLOAT32, _exact),
            Method("block-float:bits=32", blocks(Rule()), 0.001),
            Method("block-float:bits=16", blocks(Rule(bits=16)), 0.001),
            Method("block-float:bits=8", blocks(Rule(bits=8)), 0.01),
            Method("block-float:bits=8,feedback=no", blocks(Rule(bits=8), feedback=False), 0.01),
            Method("top-k:k=0.1,bits=8", blocks(Rule(0.1, 8)), 0.03),
            Method("top-k:k=0.1,bits=8, 3 × the rate", blocks(Rule(0.1, 8)), 0.03, rate=3.0),
            Method("top-k:k=0.1,bits=8,feedback=no", blocks(Rule(0.1, 8), feedback=False)),
            Method("local-steps:h=8", _exact, every=8),
            Method(
                "sparse-loco:h=8,k=0.1,bits=8",
                blocks(Rule(0.1, 8), course=Course(decay=0.95)),
                0.02,
                every=8,
            ),
            Method("control: 2 bits, nearest", _two_bits, control=True),
            Method("control: 1 % at random", _random_k, control=True),
        )
    }
)
"""By name; float32 first."""


def named(names: Sequence[str]) -> list[Method]:
    """The methods of these names, all if there are none; float32 always. Raises ``KeyError``."""
    return [METHODS[name] for name in dict.fromkeys((FLOAT32, *(names or METHODS)))]
