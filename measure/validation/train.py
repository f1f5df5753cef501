"""One rank of a training whose computation is waiting. Runs in a process that ``crew.py`` forks."""

import math
import os
import statistics
import time
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from wiresum.host_agent.remedies import hooks

_WARM_UP = 3

_KEPT: list[nn.Module] = []
"""Models, until the process ends: one that is freed right after its last collective can hang, when
torch 2.13's gloo joins its threads with the GIL held.
"""

_library: Any = torch.library.Library("wiresum_bench", "DEF")  # type: ignore[no-untyped-call]
_library.define("compute(Tensor x, float ms) -> Tensor")


def _compute(x: torch.Tensor, ms: float) -> torch.Tensor:
    """As an operator of its own, so that profilers see it as computation."""
    time.sleep(ms / 1e3)
    return x.clone()


_library.impl("compute", _compute, "CPU")


class _Work(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any, weight: Any, gradient: Any, forth: float, back: float) -> Any:
        ctx.gradient, ctx.back = gradient, back
        return torch.ops.wiresum_bench.compute(x, forth)

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        return (
            torch.ops.wiresum_bench.compute(grad, ctx.back),
            ctx.gradient.clone(),
            None,
            None,
            None,
        )


class Layer(nn.Module):
    """Takes its time, and has a gradient that is never zero: a matrix, as codecs want it."""

    def __init__(self, elements: int, forth_ms: float, back_ms: float) -> None:
        super().__init__()
        rows = 1 << int(math.log2(elements)) // 2
        self.weight = nn.Parameter(torch.zeros(rows, elements // rows))
        self.gradient = torch.randn(self.weight.shape)
        self.times = forth_ms, back_ms

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The input, later."""
        work: Any = _Work
        return work.apply(x, self.weight, self.gradient, *self.times)  # type: ignore[no-any-return]


def train(order: dict[str, Any]) -> dict[str, Any]:
    """Train, and return the seconds of each step after the first ones.

    ``WIRESUM_MEASURE`` in the environment makes wiresum record the steps of a plain run.
    """
    torch.set_num_threads(1)
    torch.manual_seed(int(os.environ["RANK"]))
    from wiresum.host_agent import autoload

    autoload.register()
    dist.init_process_group(order["backend"])
    layers, compute = order["layers"], order["compute_ms"]
    elements = order["size"] // 4 // layers
    each = compute / layers
    model = DistributedDataParallel(
        nn.Sequential(*(Layer(elements, each / 3, each * 2 / 3) for _ in range(layers))),
        bucket_cap_mb=order["size"] / (1 << 20) / 4,
    )
    if order["hook"]:
        hooks.put(model, order["hook"])
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
    x = torch.ones(1, requires_grad=True)
    took = []
    for step in range(_WARM_UP + order["steps"]):
        begun = time.perf_counter()
        optimizer.zero_grad(set_to_none=False)
        model(x).sum().backward()
        optimizer.step()
        if step >= _WARM_UP:
            took.append(time.perf_counter() - begun)
    if order["backend"] == "gloo":
        dist.barrier()
    dist.destroy_process_group()
    _KEPT.append(model)
    return {"median": statistics.median(took), "mean": statistics.fmean(took), "steps": took}
