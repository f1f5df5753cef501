"""The ways to train that ``wiresum bench train`` compares. Without torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from wiresum.measure import lines
from wiresum.measure.remedies import PLAIN, Carrier
from wiresum.testbed.errors import RackUsageError

H = 8
"""Steps between two looks at the loss, and between synchronizations at most."""


@dataclass(frozen=True)
class Method:
    """One row. ``steps``: what of ``wiresum.optim`` there is in place of DDP at every step.

    ``local-N``, ``diloco-N`` and ``sparse-loco-N`` synchronize every N steps, which divide
    :data:`H`; ``delayed-S`` applies gradients of S steps before. ``hook``: what is put on DDP, as
    ``wiresum run --codec`` takes it.
    """

    name: str
    title: str
    carrier: Carrier
    field: int = 32
    hook: str = ""
    steps: str = ""


_GLOO = (
    Method(PLAIN, "DDP over gloo, float32", Carrier.GLOO),
    Method("gloo-fp16", "torch's fp16 hook", Carrier.GLOO, hook="fp16"),
    Method("gloo-powersgd-1", "torch's PowerSGD, rank 1", Carrier.GLOO, hook="powersgd:rank=1"),
    Method("gloo-powersgd-2", "torch's PowerSGD, rank 2", Carrier.GLOO, hook="powersgd:rank=2"),
    Method("gloo-diloco-8", "DiLoCo, H = 8", Carrier.GLOO, steps="diloco-8"),
)

_CARRIED = tuple(
    Method(f"{carrier}-{field}", f"DDP, F = {field}, {by}", carrier, field)
    for carrier, by in ((Carrier.RANKS, "the ranks sum"), (Carrier.SWITCH, "a switch sums"))
    for field in (32, 16, 8)
)

_FEWER_BYTES = (
    Method(
        "ranks-top-k-0.25", "top-k, k = 0.25, 8 bits", Carrier.RANKS, hook="top-k:k=0.25,bits=8"
    ),
    Method("ranks-top-k-0.1", "top-k, k = 0.1, 8 bits", Carrier.RANKS, hook="top-k:k=0.1,bits=8"),
    Method("switch-top-k-0.1", "the same over a switch", Carrier.SWITCH, hook="top-k:k=0.1,bits=8"),
)

_FEWER_WAITS = (
    Method("ranks-8-local-4", "the models' mean every 4 steps", Carrier.RANKS, 8, steps="local-4"),
    Method("ranks-8-local-8", "the models' mean every 8 steps", Carrier.RANKS, 8, steps="local-8"),
    Method("ranks-8-diloco-8", "DiLoCo, H = 8", Carrier.RANKS, 8, steps="diloco-8"),
    Method("ranks-sparse-loco-8", "sparse-loco, H = 8", Carrier.RANKS, steps="sparse-loco-8"),
    Method("ranks-32-delayed-1", "delayed gradients, s = 1", Carrier.RANKS, 32, steps="delayed-1"),
    Method("ranks-8-delayed-1", "delayed gradients, s = 1", Carrier.RANKS, 8, steps="delayed-1"),
    Method("switch-8-delayed-1", "delayed gradients, s = 1", Carrier.SWITCH, 8, steps="delayed-1"),
)

METHODS: Mapping[str, Method] = MappingProxyType(
    {each.name: each for each in (*_GLOO, *_CARRIED, *_FEWER_BYTES, *_FEWER_WAITS)}
)
"""By name; the plain training, with which all are compared, first."""


def parse_methods(text: str) -> tuple[Method, ...]:
    """Parse ``ranks-8,switch-8``, empty: all; plain gloo always comes first.

    Raises ``RackUsageError``.
    """
    names: Sequence[str] = [each.strip() for each in text.split(",")] if text else list(METHODS)
    if not set(names) <= set(METHODS) or len(set(names)) < len(names):
        known = ", ".join(METHODS)
        raise RackUsageError(lines.UNKNOWN_NAMES.of(option="--methods", text=text, known=known))
    return tuple(METHODS[name] for name in dict.fromkeys((PLAIN, *names)))
