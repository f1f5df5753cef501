"""What n workers do with their gradients, or with the changes of their models."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import torch

from wiresum.host_agent.hooks.rules import Coding, Rounding, Rule
from wiresum.measure.accuracy.means import (
    Exact,
    Half,
    Make,
    PowerSGD,
    RandomK,
    TwoBits,
    blocks,
)


@dataclass(frozen=True)
class Method:
    """One row. ``limit``: the largest relative excess over float32's loss; None: none is stated.

    ``every``: steps between synchronizations; ``outer``: rate and Nesterov momentum of the outer
    optimizer then. ``rate``: factor of the learning rate; ``momentum``: AdamW's β₁. ``control``: it
    must exceed :data:`~wiresum.measure.accuracy.judge.CONTROL_EXCESS`.
    """

    name: str
    make: Make
    limit: float | None = None
    every: int = 1
    rate: float = 1.0
    momentum: float = 0.9
    outer: tuple[float, float] = (1.0, 0.0)
    control: bool = False


FLOAT32 = "float32"

_STOCHASTIC = Rounding.STOCHASTIC
_TERNARY, _VOTE = Rule(coding=Coding.TERNARY), Rule(coding=Coding.VOTE)
_TERNGRAD = Rule(coding=Coding.TERNARY, rounding=_STOCHASTIC)
_DILOCO = (0.7, 0.9)
_CALM = (0.9, 0.6)
_PAPERS, _PRESET = "outer rate 0.7, momentum 0.9", "diloco:h=32,bits=8"
_8_BITS = blocks(Rule(bits=8))

METHODS: Mapping[str, Method] = MappingProxyType(
    {
        each.name: each
        for each in (
            Method(FLOAT32, Exact),
            Method("block-float:bits=32", blocks(Rule()), 0.001),
            Method("block-float:bits=16", blocks(Rule(bits=16)), 0.001),
            Method("block-float:bits=8", _8_BITS, 0.01),
            Method("block-float:bits=8,feedback=no", blocks(Rule(bits=8), feedback=False), 0.01),
            Method(
                "block-float:bits=8,rounding=stochastic,feedback=no",
                blocks(Rule(bits=8, rounding=_STOCHASTIC), feedback=False),
                0.01,
            ),
            Method("block-float:bits=4", blocks(Rule(bits=4)), 0.05),
            Method("ternary", blocks(_TERNARY), 0.05),
            Method("ternary:feedback=no", blocks(_TERNGRAD, feedback=False)),
            Method("vote", blocks(_VOTE), 0.05),
            Method("vote, 2 × the rate", blocks(_VOTE), 0.05, rate=2.0),
            Method("vote:feedback=no", blocks(_VOTE, feedback=False)),
            Method("thc:bits=8", blocks(Rule(bits=8, coding=Coding.THC)), 0.01),
            Method("thc:bits=4", blocks(Rule(bits=4, coding=Coding.THC)), 0.05),
            Method("top-k:k=0.1,bits=8", blocks(Rule(0.1, 8)), 0.03),
            Method("top-k:k=0.1,bits=8, 3 × the rate", blocks(Rule(0.1, 8)), 0.03, rate=3.0),
            Method(
                "top-k:k=0.1,bits=8,momentum=0.9,warmup=half of the steps",
                blocks(Rule(0.1, 8), warm=0.5, momentum=0.9),
                0.03,
                momentum=0.0,
            ),
            Method("top-k:k=0.1,bits=8,feedback=no", blocks(Rule(0.1, 8), feedback=False)),
            Method("fp16", Half),
            Method("powersgd, rank 1", partial(PowerSGD, rank=1)),
            Method("powersgd, rank 2", partial(PowerSGD, rank=2)),
            Method("local-steps:h=8", Exact, every=8),
            Method(f"DiLoCo, h = 32, {_PAPERS}", Exact, every=32, outer=_DILOCO),
            Method(f"DiLoCo, h = 32, 8 bits, {_PAPERS}", _8_BITS, 0.02, every=32, outer=_DILOCO),
            Method(_PRESET, _8_BITS, 0.02, every=32, outer=_CALM),
            Method(f"{_PRESET}, ½ × the rate", _8_BITS, 0.02, every=32, rate=0.5, outer=_CALM),
            Method("sparse-loco:h=8,k=0.1,bits=8", blocks(Rule(0.1, 8), decay=0.95), 0.02, every=8),
            Method("control: 2 bits, nearest", TwoBits, control=True),
            Method("control: 1 % at random", RandomK, control=True),
        )
    }
)
"""By name; float32 first."""


def named(names: Sequence[str]) -> list[Method]:
    """The methods of these names, all if there are none; float32 always. Raises ``KeyError``."""
    return [METHODS[name] for name in dict.fromkeys((FLOAT32, *(names or METHODS)))]


def encoding_rate(method: Method, workers: int = 4, rounds: int = 3) -> float | None:
    """Bytes of gradients per second of one core that a worker encodes, keeps and decodes.

    Of a matrix of 4 MiB, processor time, the best of so many rounds. None: there is nothing to do.
    """
    shape = torch.Size((1024, 1024))
    mean = method.make(workers, {"w": shape}, 0)
    generator = torch.Generator().manual_seed(1)
    took = []
    for _ in range(rounds + 2):  # the first ones get memory; of PowerSGD's they go as they are
        before = mean.seconds
        mean([[torch.randn(shape, generator=generator)] for _ in range(workers)])
        took.append(mean.seconds - before)
    best = min(took[2:])
    return None if best == 0.0 else 4 * shape.numel() * workers / best
