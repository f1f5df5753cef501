"""A rank: collectives and trainings of tensors on a device, beside the same ones elsewhere.

on_device.py cuda|simulated check           the bits of CPU tensors; the losses of gloo
on_device.py cuda|simulated time BACKEND    seconds of a step of DDP and of FSDP2, one line of JSON
"""

import datetime
import hashlib
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from support.simulated_device import SimulatedDevice, SimulatedDevices

KIND, WHAT, *MORE = sys.argv[1:]
SIMULATED = KIND == "simulated"
WIDTH, LAYERS, STEPS = (64, 3, 3) if SIMULATED else (1024, 12, 10)


def place() -> torch.device:
    if SIMULATED:
        return torch.device("cpu")
    number = int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count()
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


def settle() -> None:
    if not SIMULATED:
        torch.cuda.synchronize()


def collectives(to: Callable[[torch.Tensor], torch.Tensor]) -> list[torch.Tensor]:
    """Some of every kind; ``to`` puts tensors where they shall be."""
    n, rank = dist.get_world_size(), dist.get_rank()
    made = torch.Generator().manual_seed(rank)
    large = torch.randn(3_000_001 if not SIMULATED else 70_001, generator=made)
    spoiled = large[:30_000].clone()
    spoiled[700 + rank], spoiled[20_000] = float("inf"), float("nan")
    values = [
        large, large[:5000].bfloat16(), large[:9000].half(), large[:9].clone(), spoiled,
        (large[:3000] * 100).int(),
    ]  # fmt: skip
    found = [to(each.clone()) for each in values]
    works = [dist.all_reduce(each, async_op=True) for each in found]
    mean, least = to(large[:50_000].clone()), to(large[:700].clone())
    works.append(dist.all_reduce(mean, dist.ReduceOp.AVG, async_op=True))
    works.append(dist.all_reduce(least, dist.ReduceOp.MIN, async_op=True))
    part, whole = to(torch.zeros(20_000)), to(torch.zeros(n * 7000, dtype=torch.float64))
    given = to(large[: n * 20_000].clone())
    works.append(dist.reduce_scatter_tensor(part, given, async_op=True))
    works.append(dist.all_gather_into_tensor(whole, to(large[:7000].double()), async_op=True))
    sent = to(large[:4000].clone())
    works.append(dist.broadcast(sent, n - 1, async_op=True))
    for work in works:
        work.wait()
    settle()
    return [each.cpu() for each in (*found, mean, least, part, whole, sent)]


def network(where: torch.device) -> nn.Sequential:
    torch.manual_seed(3)
    layers: list[nn.Module] = [nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS)]
    return nn.Sequential(*(m for layer in layers for m in (layer, nn.GELU()))).to(where)


def ddp(where: torch.device, group: Any) -> nn.Module:
    ids = None if SIMULATED else [where]
    return DistributedDataParallel(network(where), device_ids=ids, process_group=group)


def fsdp2(where: torch.device, group: Any) -> nn.Module:
    model = network(where)
    mesh = DeviceMesh.from_group(group or dist.group.WORLD, where.type)
    for layer in model:
        if isinstance(layer, nn.Linear):
            fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def train(model: nn.Module, where: torch.device) -> tuple[list[float], float]:
    """The losses, and the median seconds of a step."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    data = torch.Generator().manual_seed(dist.get_rank())
    losses, seconds = [], []
    for _ in range(STEPS):
        x = torch.randn(64, WIDTH, generator=data).to(where)
        settle()
        began = time.perf_counter()
        loss = (model(x) - x).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        settle()
        seconds.append(time.perf_counter() - began)
        losses.append(float(loss.detach()))
    return losses, statistics.median(seconds[STEPS // 3 :])


def digest(tensors: list[torch.Tensor]) -> list[str]:
    return [hashlib.sha256(t.contiguous().view(-1).view(torch.uint8).numpy().tobytes()).hexdigest()
            for t in tensors]  # fmt: skip


def check(where: torch.device) -> None:
    router = dist.group.WORLD.router
    expected = digest(collectives(lambda tensor: tensor))
    gloo = dist.new_group(backend="gloo")
    others = {each.__name__: train(each(where, gloo), where)[0] for each in (ddp, fsdp2)}
    simulated = SimulatedDevice(dist.get_rank(), 0.0002)
    if SIMULATED:
        router.devices = SimulatedDevices(simulated)
    found = digest(collectives(lambda tensor: tensor.to(where)))
    assert found == expected, [a == b for a, b in zip(found, expected, strict=True)]
    for each in (ddp, fsdp2):
        losses, _ = train(each(where, None), where)
        theirs = others[each.__name__]
        assert all(
            abs(a - b) < 0.01 * abs(b) for a, b in zip(losses, theirs, strict=True)
        ), (each.__name__, losses, theirs)  # fmt: skip
    simulated.check()
    assert bool(simulated.copied_bytes) == SIMULATED
    print("bits equal")


def main() -> None:
    where = place()
    backend = MORE[0] if MORE else "wiresum"
    dist.init_process_group(backend, timeout=datetime.timedelta(seconds=60))
    if WHAT == "check":
        check(where)
    else:
        timed = {each.__name__: train(each(where, None), where)[1] for each in (ddp, fsdp2)}
        if dist.get_rank() == 0:
            print(json.dumps(timed))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
