"""Scenarios: trainings that shard the model or the optimizer end as over gloo, over the switch."""

import copy
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as functional
import torch.distributed.checkpoint as checkpoints
from scenario_tools import expect, rank, same_everywhere, size
from scenarios_carried import carried
from torch import nn
from torch.distributed.checkpoint.state_dict import get_model_state_dict, set_model_state_dict
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, MixedPrecisionPolicy, fully_shard
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.nn.parallel import DistributedDataParallel

warnings.simplefilter("ignore")
STEPS = 4


def transformer() -> nn.Module:
    torch.manual_seed(3)
    layers = [nn.TransformerEncoderLayer(32, 2, 64, 0.0, batch_first=True) for _ in range(2)]
    return nn.Sequential(nn.Embedding(20, 32), *layers, nn.Linear(32, 20))


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, count: int = STEPS) -> list[float]:
    """Train; the losses, in the mean over the ranks."""
    losses = []
    data = torch.Generator().manual_seed(rank())
    for _ in range(count):
        words = torch.randint(0, 20, (4, 9), generator=data)
        out = model(words[:, :-1])
        loss = nn.functional.cross_entropy(out.flatten(0, 1).float(), words[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return losses


def as_over_gloo(train: Callable[[Any], list[float]], names: set[str], rough: float = 1e-4) -> None:
    """``train(group)`` has the same losses over gloo; over this group it uses these collectives."""
    gloo = dist.new_group(backend="gloo")
    expected = train(gloo)
    found: list[float] = []
    carried(names, lambda: found.extend(train(dist.group.WORLD)))
    for ours, theirs in zip(found, expected, strict=True):
        expect(abs(ours - theirs) <= rough * abs(theirs), (found, expected))


def fsdp1() -> None:
    def train(group: Any) -> list[float]:
        model = FullyShardedDataParallel(
            transformer(), process_group=group, device_id=torch.device("cpu"),
            use_orig_params=True,
        )  # fmt: skip
        return steps(model, torch.optim.SGD(model.parameters(), lr=0.1))

    as_over_gloo(train, {"all_gather", "reduce_scatter_tensor"})


def sharded(mesh: DeviceMesh, policy: MixedPrecisionPolicy | None = None) -> nn.Module:
    model = transformer()
    options: dict[str, Any] = {"mp_policy": policy} if policy is not None else {}
    for layer in model:
        fully_shard(layer, mesh=mesh, **options)
    fully_shard(model, mesh=mesh, **options)
    return model


def mesh_of(group: Any) -> DeviceMesh:
    if group is dist.group.WORLD:
        return init_device_mesh("cpu", (size(),))
    return DeviceMesh.from_group(group, "cpu", torch.arange(size()))


def fsdp2() -> None:
    names = {"all_gather_into_tensor", "reduce_scatter_tensor"}
    for dtype, rough in ((None, 1e-4), (torch.bfloat16, 0.02)):
        policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=dtype)

        def train(group: Any, policy: MixedPrecisionPolicy = policy) -> list[float]:
            model = sharded(mesh_of(group), policy)
            return steps(model, torch.optim.SGD(model.parameters(), lr=0.1))

        as_over_gloo(train, names, rough)


def zero_optimizer() -> None:
    def train(group: Any) -> list[float]:
        model = DistributedDataParallel(transformer(), process_group=group)
        optimizer = ZeroRedundancyOptimizer(
            model.parameters(), torch.optim.Adam, process_group=group, lr=0.01
        )
        losses = steps(model, optimizer)
        expect(same_everywhere(list(model.parameters())), "the weights differ")
        return losses

    as_over_gloo(train, {"all_reduce", "broadcast", "all_gather"})


def checkpoint() -> None:
    """A checkpoint of a sharded model, and the same losses after it was loaded."""
    folder: list[Any] = [tempfile.mkdtemp() if rank() == 0 else None]

    def run() -> None:
        dist.broadcast_object_list(folder, 0)
        mesh = init_device_mesh("cpu", (size(),))
        model = sharded(mesh)
        steps(model, torch.optim.SGD(model.parameters(), lr=0.1), 1)
        kept = copy.deepcopy(get_model_state_dict(model))
        checkpoints.save({"model": kept}, checkpoint_id=folder[0])
        steps(model, torch.optim.SGD(model.parameters(), lr=0.1), 1)
        other = sharded(mesh)
        state = get_model_state_dict(other)
        checkpoints.load({"model": state}, checkpoint_id=folder[0])
        set_model_state_dict(other, state)
        for name, tensor in get_model_state_dict(other).items():
            expect(torch.equal(tensor.to_local(), kept[name].to_local()), name)

    names = {
        "all_gather_into_tensor", "reduce_scatter_tensor", "broadcast", "all_gather", "gather",
        "scatter",
    }  # fmt: skip
    carried(names, run)
    expect((Path(folder[0]) / ".metadata").exists(), folder)


def functional_collectives() -> None:
    n, r, world = size(), rank(), dist.group.WORLD

    def run() -> None:
        mine = torch.arange(3.0) + r
        gathered = functional.all_gather_tensor(mine, 0, world)
        expect(gathered.tolist() == [float(i + e) for e in range(n) for i in range(3)], gathered)
        parts = functional.reduce_scatter_tensor(torch.arange(2.0 * n) + r, "sum", 0, world)
        total = n * (n - 1) / 2
        expect(parts.tolist() == [n * (2 * r + i) + total for i in range(2)], parts)
        several = functional.all_gather_into_tensor_coalesced([mine, mine.int()], world)
        expect([len(each) for each in several] == [3 * n, 3 * n], several)
        sent = functional.broadcast(mine, 1, world)
        expect(sent.tolist() == [1.0, 2.0, 3.0], sent)

        @torch.compile(backend="aot_eager")
        def compiled(given: torch.Tensor) -> torch.Tensor:
            whole = functional.all_gather_tensor(given * 2, 0, world)
            return functional.reduce_scatter_tensor(whole + 1, "sum", 0, world)

        found = compiled(mine)
        expect(found.tolist() == [n * (2.0 * (i + r) + 1) for i in range(3)], found)

    names = {
        "all_gather_into_tensor_coalesced", "reduce_scatter_tensor_coalesced", "broadcast",
    }  # fmt: skip
    carried(names, run)
