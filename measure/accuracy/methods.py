"""What n workers do with their gradients, or with the changes of their models."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch

from wiresum.host_agent.hooks.exchange import Exchange, Part
from wiresum.host_agent.hooks.rules import DEFAULT_POLICY, Rule, rule_for

Tensors = list[torch.Tensor]
Mean = Callable[[list[Tensors]], int]
"""Turns the tensors of all workers into their mean, in the first worker's place. Returns the bytes
that one worker hands to an all-reduce."""


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
    share: float, bits: int, *, feedback: bool = True, decay: float = 1.0
) -> Callable[[int, Mapping[str, torch.Size]], Mean]:
    """The codec of ``host_agent/hooks``, with its default policy."""

    def make(workers: int, shapes: Mapping[str, torch.Size]) -> Mean:
        rules = [
            rule_for(name, shape, DEFAULT_POLICY, Rule(share, bits))
            for name, shape in shapes.items()
        ]
        parts = [
            Part(shape.numel(), rule, feedback and not rule.exact)
            for shape, rule in zip(shapes.values(), rules, strict=True)
        ]
        exchanges = [Exchange(parts, workers, decay) for _ in range(workers)]

        def mean(all_: list[Tensors]) -> int:
            taken = [one.take(own) for one, own in zip(exchanges, all_, strict=True)]
            words = torch.stack(taken).amax(0)
            lanes = [one.chosen(words) for one in exchanges]
            for one in exchanges:
                one.keep()
            total = lanes[0].clone()
            for each in lanes[1:]:
                total += each
            exchanges[0].give(total, all_[0])
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
            Method("block-float:bits=32", blocks(1.0, 32), 0.001),
            Method("block-float:bits=16", blocks(1.0, 16), 0.001),
            Method("block-float:bits=8", blocks(1.0, 8), 0.01),
            Method("block-float:bits=8,feedback=no", blocks(1.0, 8, feedback=False), 0.01),
            Method("top-k:k=0.1,bits=8", blocks(0.1, 8), 0.03),
            Method("top-k:k=0.1,bits=8, 3 × the rate", blocks(0.1, 8), 0.03, rate=3.0),
            Method("top-k:k=0.1,bits=8,feedback=no", blocks(0.1, 8, feedback=False)),
            Method("local-steps:h=8", _exact, every=8),
            Method("sparse-loco:h=8,k=0.1,bits=8", blocks(0.1, 8, decay=0.95), 0.02, every=8),
            Method("control: 2 bits, nearest", _two_bits, control=True),
            Method("control: 1 % at random", _random_k, control=True),
        )
    }
)
"""By name; float32 first."""


def named(names: Sequence[str]) -> list[Method]:
    """The methods of these names, all if there are none; float32 always. Raises ``KeyError``."""
    return [METHODS[name] for name in dict.fromkeys((FLOAT32, *(names or METHODS)))]
