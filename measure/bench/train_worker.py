"""One rank of a training to a given loss. Runs in a process that ``train_crew.py`` forks."""

import functools
import hashlib
import os
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from wiresum.host_agent.remedies import hooks
from wiresum.measure.bench.train_methods import METHODS, H, Method
from wiresum.measure.demo.text import Corpus, load
from wiresum.optim import DelayedGradients, DiLoCo, LocalSGD, sparse_loco

CONTEXT, EMBEDDED, HIDDEN, BATCH = 8, 48, 512, 32
RATE = 3e-3
HELD_OUT = 512
"""Places of the validation text that are looked at, each time the same."""

_KEPT: list[object] = []
"""Models, until the process ends: one that is freed right after its last collective can hang, when
torch 2.13's gloo joins its threads with the GIL held.
"""


@functools.cache
def _corpus() -> Corpus:
    return load()


def prepare() -> None:
    """What all ranks need, before they are forked."""
    _corpus()


def network() -> nn.Module:
    """Predicts a character from those before it, with random weights (Bengio et al. 2003).

    It has many parameters for what it computes, 1 MB of them, so that links are the limit also
    where the ranks share few cores.
    """
    characters = _corpus().characters
    return nn.Sequential(
        nn.Embedding(characters, EMBEDDED), nn.Flatten(), nn.Linear(CONTEXT * EMBEDDED, HIDDEN),
        nn.ReLU(), nn.Linear(HIDDEN, characters),
    )  # fmt: skip


def loss_of(
    model: nn.Module, data: torch.Tensor, order: torch.Generator, count: int
) -> torch.Tensor:
    """The mean loss at so many random places."""
    starts = torch.randint(len(data) - CONTEXT, (count,), generator=order)
    before = data[starts[:, None] + torch.arange(CONTEXT)]
    return nn.functional.cross_entropy(model(before), data[starts + CONTEXT])


def prepared(
    method: Method, model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[nn.Module, AbstractContextManager[object]]:
    """What is called in place of the model, and what the training is a ``with`` block of."""
    way, _, number = method.steps.rpartition("-")
    if way == "local":
        return model, LocalSGD(model, optimizer, int(number))
    if way == "diloco":
        outer = torch.optim.SGD(model.parameters(), lr=0.7, momentum=0.9, nesterov=True)
        return model, DiLoCo(model, optimizer, outer, int(number))
    if way == "sparse-loco":
        return model, sparse_loco(model, optimizer, int(number))
    parallel = DistributedDataParallel(model)
    if method.hook:
        hooks.put(parallel, method.hook)
    if way == "delayed":
        return parallel, DelayedGradients(parallel, optimizer, int(number))
    return parallel, nullcontext()


def train(order: dict[str, Any]) -> dict[str, Any]:
    """Train until the loss, ``order["target"]``, or until ``order["stop_s"]`` seconds have passed.

    Returns the first rank's looks, pairs of seconds since the start and the loss on held-out text;
    the steps; the bytes that this rank's interface has sent; and a hash of the weights.
    """
    torch.set_num_threads(1)
    torch.manual_seed(order["seed"])
    from wiresum.host_agent import autoload

    autoload.register()
    method = METHODS[order["method"]]
    dist.init_process_group("gloo" if method.carrier == "gloo" else "wiresum")
    rank = dist.get_rank()
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    whole, block = prepared(method, model, optimizer)
    data = torch.Generator().manual_seed(1000 * order["seed"] + rank)
    looks: list[tuple[float, float]] = []
    _warm_up(model)
    sent, begun, step = _sent_bytes(), time.perf_counter(), 0
    with block:
        while step < order["steps"]:
            step += 1
            optimizer.zero_grad()
            loss_of(whole, _corpus().train, data, BATCH).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if step % H == 0 and _over(order, model, begun, looks):
                break
    sent = _sent_bytes() - sent
    weights = torch.cat([each.detach().reshape(-1) for each in model.parameters()])
    dist.barrier()
    dist.destroy_process_group()
    _KEPT.extend((model, whole, block))
    return {
        "looks": looks,
        "steps": step,
        "sent": sent,
        "weights": hashlib.sha256(weights.numpy().tobytes()).hexdigest(),
    }


def _warm_up(model: nn.Module) -> None:
    """Connect, and open the windows of the connections."""
    size = sum(each.numel() for each in model.parameters())
    for _ in range(2):
        dist.all_reduce(torch.ones(size))
    dist.barrier()


def _over(
    order: dict[str, Any], model: nn.Module, begun: float, looks: list[tuple[float, float]]
) -> bool:
    """Whether the training ends: the first rank looks, and tells the others."""
    over = torch.zeros(1)
    if dist.get_rank() == 0:
        seconds = time.perf_counter() - begun
        with torch.no_grad():
            held_out = torch.Generator().manual_seed(0)
            loss = float(loss_of(model, _corpus().validation, held_out, HELD_OUT))
        looks.append((seconds, loss))
        over += loss <= order["target"] or seconds > order["stop_s"]
    dist.broadcast(over, 0)
    return bool(over)


def _sent_bytes() -> int:
    """What the rank's interface has sent, headers included."""
    interface = os.environ["GLOO_SOCKET_IFNAME"]
    return int(Path(f"/sys/class/net/{interface}/statistics/tx_bytes").read_text())
