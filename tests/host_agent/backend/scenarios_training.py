"""Scenarios: DDP, its hooks, compiled models."""

from typing import Any

import torch
import torch.distributed as dist
from scenario_tools import LIMIT, Net, fell_back, over_switch, rank, same_everywhere, size, trained
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def ddp() -> None:
    steps = 8
    before, fallen = over_switch(), fell_back("all_reduce")
    ours = trained(None, steps)
    assert over_switch() - before >= 2 * steps, "several buckets per step"
    assert same_everywhere(ours)
    gloo = trained(dist.new_group(backend="gloo"), steps)
    for a, b in zip(ours, gloo, strict=True):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-6)
    # find_unused_parameters all-reduces a bitmap of int32 in every step: that goes over it, too
    assert fell_back("all_reduce") == fallen


def overlap() -> None:
    """The first buckets are on their way before backward reaches the first layers."""
    torch.manual_seed(1)
    net = Net()
    model = DistributedDataParallel(net, bucket_cap_mb=0.02, find_unused_parameters=True)
    for _ in range(3):  # buckets are rebuilt after the first step
        model(torch.ones(2, 64), False).sum().backward()
    seen: list[int] = []
    before = over_switch()
    net.layers[0].weight.register_hook(lambda _: seen.append(over_switch()))
    model(torch.ones(2, 64), False).sum().backward()
    assert seen[0] - before >= 1, (seen, before)
    assert over_switch() > seen[0]
    # Nothing blocks: the other ranks enter this one only after rank 0 has gone on.
    store = dist.distributed_c10d._get_default_store()
    tensor = torch.ones(1000)
    if rank() != 0:
        store.wait(["issued"], LIMIT)
    work = dist.all_reduce(tensor, async_op=True)
    if rank() == 0:
        assert not work.is_completed()
        store.set("issued", "1")
    work.wait()
    assert bool((tensor == size()).all())


def hooks() -> None:
    """A communication hook that chains on our future, as torch's compression hooks do."""

    def half_hook(state: None, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
        small = bucket.buffer().half().div_(size())
        future = dist.all_reduce(small, async_op=True).get_future()

        def restore(ended: Any) -> torch.Tensor:
            out = bucket.buffer()
            out.copy_(ended.value()[0])
            return out

        return future.then(restore)

    before, fallen = over_switch(), fell_back("all_reduce")
    torch.manual_seed(1)
    model = DistributedDataParallel(nn.Linear(300, 300), bucket_cap_mb=0.1)
    model.register_comm_hook(None, half_hook)
    model(torch.full((2, 300), float(rank()))).sum().backward()
    assert same_everywhere([p.grad for p in model.parameters() if p.grad is not None])
    expected = 2 * (size() - 1) / 2
    weight = model.module.weight.grad
    assert weight is not None
    assert torch.allclose(weight, torch.full((300, 300), expected), rtol=1e-3)
    assert over_switch() > before
    assert fell_back("all_reduce") == fallen


def compiled() -> None:
    torch.manual_seed(5)
    # Larger than the first bucket, so that there are several and they are rebuilt.
    layers = [nn.Linear(600, 600) for _ in range(3)]
    model = DistributedDataParallel(nn.Sequential(*layers), bucket_cap_mb=2)
    fast = torch.compile(model, backend="aot_eager")
    before = over_switch()
    for _ in range(3):
        fast(torch.ones(2, 600) * rank()).sum().backward()
    assert over_switch() - before >= 3
    assert same_everywhere([p.grad for p in model.parameters() if p.grad is not None])
