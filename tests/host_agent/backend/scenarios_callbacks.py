"""Collectives in callbacks of futures, on ranks that run them in other orders and threads."""

import time
from typing import Any

import torch
import torch.distributed as dist
from scenario_tools import expect, fell_back, over_switch, rank, same_everywhere, size
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks import powerSGD_hook
from torch.futures import Future, collect_all
from torch.nn.parallel import DistributedDataParallel

from wiresum.host_agent import dump


def ranks_sum() -> float:
    return size() * (size() + 1) / 2


def reduced(value: float, count: int = 100) -> torch.Tensor:
    tensor = torch.full((count,), value)
    dist.all_reduce(tensor)
    return tensor


def later(future: Any, late_on: int) -> Any:
    """Wait until ``future`` is complete on one rank: a callback then runs in this thread there."""
    if rank() == late_on:
        while not future.done():
            time.sleep(0.001)
        time.sleep(0.05)
    return future


def callbacks_on_complete_futures() -> None:
    for late_on in range(size()):
        first = torch.ones(1000)
        future = later(dist.all_reduce(first, async_op=True).get_future(), late_on)
        chained = future.then(lambda _: reduced(rank() + 1.0))
        second = reduced(10.0 * (rank() + 1))
        expect(bool((chained.wait() == ranks_sum()).all()), chained.value())
        expect(bool((second == 10 * ranks_sum()).all()), second)
        expect(bool((first == size()).all()), first)


def callbacks_in_any_order() -> None:
    wrong = []
    for _ in range(5):
        works = [dist.all_reduce(torch.ones(20000), async_op=True) for _ in range(8)]
        futures = [work.get_future() for work in works]
        if rank() == 1:
            works[5].wait()  # some run here, some on threads of the pool

        def callback(number: int) -> Any:
            def run(_future: object) -> bool:
                time.sleep(0.001 * ((number * (rank() + 3)) % 7))
                return bool((reduced(float(number)) == number * size()).all())

            return run

        chained = [future.then(callback(number)) for number, future in enumerate(futures, 1)]
        wrong += [number for number, each in enumerate(chained, 1) if not each.wait()]
        reduced(1.0)
    expect(wrong == [], wrong)


def callbacks_of_other_futures() -> None:
    """Futures that torch or the script has made, and those of collectives that fall back."""
    works = [dist.all_reduce(torch.ones(5000), async_op=True) for _ in range(3)]
    together = later(collect_all([work.get_future() for work in works]), 0)
    gathered = together.then(lambda _: reduced(2.0))
    counts = torch.tensor([rank()], dtype=torch.int64)
    fallback = later(dist.all_reduce(counts, async_op=True).get_future(), 1)
    after = fallback.then(lambda _: reduced(3.0))
    if rank() == 0:  # only here: it shifts no other callback's name
        dist.all_reduce  # noqa: B018
        fallback.then(lambda _: None)
    own: Future[int] = Future()
    mine = own.then(lambda _: reduced(4.0))
    own.set_result(1)
    for value, future in ((2.0, gathered), (3.0, after), (4.0, mine)):
        expect(bool((future.wait() == value * size()).all()), (value, future.value()))
    done: list[torch.Tensor] = []
    works[0].get_future().add_done_callback(lambda _: done.append(reduced(5.0)))
    while not done:
        time.sleep(0.001)
    expect(bool((done[0] == 5.0 * size()).all()), done)


def callbacks_of_callbacks() -> None:
    def outer(_future: object) -> torch.Tensor:
        inner = dist.all_reduce(torch.full((50,), 1.0), async_op=True).get_future()
        chained = later(inner, 1).then(lambda f: f.value()[0] * 0 + reduced(7.0, 50))
        return chained.wait()

    futures = [
        dist.all_reduce(torch.ones(100), async_op=True).get_future().then(outer) for _ in range(4)
    ]
    for future in reversed(futures):
        expect(bool((future.wait() == 7 * size()).all()), future.value())


def other_collectives_in_callbacks() -> None:
    def everything(_future: object) -> bool:
        shared = torch.full((3,), float(rank()))
        dist.broadcast(shared, 0)
        parts = [torch.zeros(2) for _ in range(size())]
        dist.all_gather(parts, torch.full((2,), float(rank())))
        flat = torch.zeros(size())
        dist.all_gather_into_tensor(flat, torch.tensor([float(rank())]))
        peak = torch.tensor([rank()], dtype=torch.int64)
        dist.all_reduce(peak, dist.ReduceOp.MAX)
        dist.barrier()
        said: list[Any] = [None] * size()
        dist.all_gather_object(said, {"rank": rank()})
        return (
            bool((shared == 0).all())
            and [part[0].item() for part in parts] == list(range(size()))
            and flat.tolist() == list(range(size()))
            and peak.item() == size() - 1
            and [each["rank"] for each in said] == list(range(size()))
        )

    futures = [
        later(dist.all_reduce(torch.ones(10), async_op=True).get_future(), number % size()).then(
            everything
        )
        for number in range(4)
    ]
    expect([future.wait() for future in futures] == [True] * 4, "collectives in callbacks")


def a_callback_that_raises() -> None:
    def fail(_future: object) -> None:
        reduced(1.0)
        raise ValueError("the script's own")

    future = dist.all_reduce(torch.ones(5), async_op=True).get_future().then(fail)
    try:
        future.wait()
    except Exception as error:
        expect("the script's own" in str(error), error)
    else:
        raise AssertionError("no error")


def powersgd() -> None:
    torch.manual_seed(0)
    layers = [nn.Linear(64, 64, bias=False), nn.ReLU(), nn.Linear(64, 64, bias=False)]
    model = DistributedDataParallel(nn.Sequential(*layers), bucket_cap_mb=0.01)
    state = powerSGD_hook.PowerSGDState(None, matrix_approximation_rank=1, start_powerSGD_iter=2)
    model.register_comm_hook(state, powerSGD_hook.powerSGD_hook)
    data = torch.Generator().manual_seed(rank())
    before, around = over_switch(), fell_back("all_reduce")
    for _ in range(20):
        model(torch.randn(8, 64, generator=data)).pow(2).sum().backward()
        expect(same_everywhere([p.grad for p in model.parameters()]), "gradients differ")
        model.zero_grad()
    # Each step has at least two all-reduces of its callbacks, and none of them goes around.
    expect(over_switch() > before + 40, "the callbacks' all-reduces were not carried")
    expect(fell_back("all_reduce") == around, "an all-reduce fell back")
    (beneath,) = [g for g in dump()["groups"] if g["name"] == "world/callbacks"]
    expect(beneath["collectives"].keys() <= {"switch", "ranks"}, beneath)
    expect(sum(beneath["collectives"].values()) >= 40, beneath)
