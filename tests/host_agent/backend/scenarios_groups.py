"""Scenarios: groups of some of the ranks, each with a carrier of its own, in any order."""

import os
import threading
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from scenario_tools import expect, rank, same_everywhere, size
from scenarios_carried import carried
from scenarios_sharded import steps, transformer
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks import post_localSGD_hook
from torch.distributed.algorithms.model_averaging.averagers import PeriodicModelAverager
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)
from torch.nn.parallel import DistributedDataParallel

from wiresum import host_agent

LIMIT_S = 60.0
ROUGH = 1e-4 if os.environ.get("WIRESUM_FIELD", "32") == "32" else 0.02
"""How far a loss may be from gloo's."""


def on_switch() -> bool:
    """Whether this run is to end up on the switch, in every group."""
    return "ON_SWITCH" in os.environ


def group_named(name: str) -> dict[str, Any]:
    """What the process says of one of its groups."""
    (found,) = [each for each in host_agent.dump()["groups"] if each["name"] == name]
    return dict(found)


def settled(*groups: Any) -> None:
    """Sum in these groups until the switch carries for all of them, if it is to."""
    deadline = time.monotonic() + LIMIT_S
    while on_switch():
        for group in groups:
            dist.all_reduce(torch.ones(1), group=group)
        names = [group.group_name for group in groups]
        left = [n for n in names if group_named(n)["lease"]["carrier"] != "switch"]
        late = torch.tensor([float(len(left))])
        dist.all_reduce(late)
        if not late.item():
            return
        expect(time.monotonic() < deadline, [group_named(name)["lease"] for name in left])
        time.sleep(0.02)


def destroyed(*groups: Any) -> None:
    """Give back what these groups have: there are more scenarios in this run."""
    for group in groups:
        dist.destroy_process_group(group)


def mine(groups: list[Any]) -> list[Any]:
    """Those of the groups that this rank is in."""
    return [each for each in groups if each is not dist.GroupMember.NON_GROUP_MEMBER]


SUMS = {"all_reduce", "reduce_scatter_tensor"}


def used(names: set[str], run: Callable[[], Any]) -> None:
    """Run something: the carrier gets exactly these collectives, and nothing falls back.

    Over the ranks, in a run in which no switch can come, copies stay on gloo.
    """
    if on_switch():
        carried(names, run)
        return
    before = host_agent.stats()
    run()
    after = host_agent.stats()
    found = {name for name in after["ranks"] if after["ranks"][name] != before["ranks"].get(name)}
    expect(found == names & SUMS, (found, names))
    for name, reasons in after["fallback"].items():
        new = {why for why in reasons if reasons[why] != before["fallback"].get(name, {}).get(why)}
        expect(all(why.startswith("no switch can come") for why in new), (name, new))


def groups_in_any_order() -> None:
    """Neighbours on a ring: each rank is in two groups, and begins with another one of them."""
    n, r = size(), rank()
    pairs = [(each, (each + 1) % n) for each in range(n)]
    groups = {pair: dist.new_group(list(pair)) for pair in pairs}
    ours = {pair: group for pair, group in groups.items() if r in pair}

    def summed(backwards: bool, count: int = 1000) -> None:
        order = sorted(ours, reverse=backwards)
        tensors = {pair: torch.full((count,), r + 1.0) for pair in order}
        works = [dist.all_reduce(tensors[p], group=ours[p], async_op=True) for p in order]
        for work in works:
            work.wait()
        for pair, tensor in tensors.items():
            expect(bool((tensor == sum(pair) + 2.0).all()), (pair, tensor))

    def run() -> None:
        for step in range(6):
            summed(backwards=bool((r + step) % 2))

    summed(backwards=bool(r % 2))
    settled(*ours.values())
    used({"all_reduce"}, run)
    destroyed(*ours.values())


def groups_of_several_threads() -> None:
    """A thread for each group: none of them waits for another."""
    n, r = size(), rank()
    halves = mine([dist.new_group(list(range(k, n, 2))) for k in range(2)])
    firsts = mine([dist.new_group(list(range(k, k + n // 2))) for k in range(0, n, n // 2)])
    wrong: list[Any] = []

    def work(group: Any, late: float) -> None:
        members = dist.get_process_group_ranks(group)
        for step in range(8):
            time.sleep(late)
            tensor = torch.full((500,), float(r + step))
            dist.all_reduce(tensor, group=group)
            gathered = [torch.zeros(3) for _ in members]
            dist.all_gather(gathered, torch.full((3,), float(r)), group=group)
            if not bool((tensor == sum(members) + len(members) * step).all()):
                wrong.append((group.group_name, tensor))
            if [each[0].item() for each in gathered] != members:
                wrong.append((group.group_name, gathered))

    groups = halves + firsts
    threads = [
        threading.Thread(target=work, args=(group, 0.004 * ((r + k) % 3)))
        for k, group in enumerate(groups)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)
    expect(not any(thread.is_alive() for thread in threads), "a thread hangs")
    expect(wrong == [], wrong)
    destroyed(*groups)


def groups_that_are_never_used() -> None:
    """They cost no thread of ours; they go when they are destroyed, and may be made anew."""
    before = {thread.name for thread in threading.enumerate()}
    ranks = list(range(size() - 1))
    for _ in range(8):
        group = dist.new_group(ranks)
        if rank() in ranks:
            expect({thread.name for thread in threading.enumerate()} <= before, "more threads")
            dist.destroy_process_group(group)
    group = dist.new_group(ranks, use_local_synchronization=True)
    again = None
    if rank() in ranks:
        for _ in range(2):
            tensor = torch.ones(5)
            dist.all_reduce(tensor, group=group)
            expect(tensor.tolist() == [float(len(ranks))] * 5, tensor)
            dist.destroy_process_group(group)
            group = dist.new_group(ranks, use_local_synchronization=True)
        again = group
    alone = dist.new_group([rank()], use_local_synchronization=True)
    dist.all_reduce(torch.ones(1), group=alone)
    expect(group_named(alone.group_name)["why"] == "the group has one rank", "not alone")
    if again is not None:
        dist.destroy_process_group(again)


def same_losses(train: Callable[[Any], list[float]], names: set[str], *dims: str) -> None:
    """``train(mesh)`` has the same losses over gloo; over wiresum it uses these collectives."""
    shape = (2, size() // 2)
    # With other names: of meshes that are equal, DTensor takes the first one's groups.
    others = tuple(f"{name}_over_gloo" for name in dims)
    override: Any = dict.fromkeys(others, "gloo")
    over_gloo = init_device_mesh("cpu", shape, mesh_dim_names=others, backend_override=override)
    expected = train(over_gloo)
    mesh = init_device_mesh("cpu", shape, mesh_dim_names=dims)
    train(mesh)  # it begins over the ranks
    settled(*mesh.get_all_groups())
    found: list[float] = []
    used(names, lambda: found.extend(train(mesh)))
    destroyed(*mesh.get_all_groups(), *over_gloo.get_all_groups())
    for ours, theirs in zip(found, expected, strict=True):
        expect(abs(ours - theirs) <= ROUGH * abs(theirs), (found, expected))


def hsdp() -> None:
    def train(mesh: Any) -> list[float]:
        model = transformer()
        for layer in model:
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
        return steps(model, torch.optim.SGD(model.parameters(), lr=0.1))

    names = {"all_gather_into_tensor", "reduce_scatter_tensor", "all_reduce"}
    same_losses(train, names, "replicate", "shard")


def tensor_parallel() -> None:
    def train(mesh: Any) -> list[float]:
        torch.manual_seed(5)
        model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 8))
        plan = {"0": ColwiseParallel(), "2": RowwiseParallel()}
        data_parallel, parallel = mesh.mesh_dim_names
        parallelize_module(model, mesh[parallel], plan)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        # The ranks of one tensor-parallel group have the same data.
        data = torch.Generator().manual_seed(mesh.get_local_rank(data_parallel))
        losses = []
        for _ in range(4):
            x, y = torch.randn(6, 16, generator=data), torch.randn(6, 8, generator=data)
            loss = (model(x) - y).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(float(loss.detach()))
        return losses

    # The parameters are distributed by a scatter and a broadcast.
    same_losses(train, {"all_reduce", "broadcast", "scatter"}, "dp", "tp")


def ddp_over_a_dimension() -> None:
    def train(mesh: Any) -> list[float]:
        group = mesh.get_group(0)
        model = DistributedDataParallel(transformer(), process_group=group)
        return steps(model, torch.optim.SGD(model.parameters(), lr=0.1))

    same_losses(train, {"all_reduce", "broadcast", "all_gather"}, "dp", "tp")


def post_local_sgd() -> None:
    """torch's hook: sums within halves of the ranks at each step, and averages over all rarely."""
    half, _ = dist.new_subgroups(size() // 2)

    def train(group: Any, subgroup: Any) -> list[float]:
        model = DistributedDataParallel(transformer(), process_group=group)
        state = post_localSGD_hook.PostLocalSGDState(group, subgroup, 2)
        model.register_comm_hook(state, post_localSGD_hook.post_localSGD_hook)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        averager = PeriodicModelAverager(2, warmup_steps=2, process_group=group)
        losses = []
        data = torch.Generator().manual_seed(rank())
        for _ in range(4):
            x = torch.randint(0, 20, (4, 8), generator=data)
            loss = model(x).square().mean()
            loss.backward()
            optimizer.step()
            averager.average_parameters(model.parameters())
            optimizer.zero_grad()
            losses.append(float(loss.detach()))
        return losses

    train(dist.group.WORLD, half)
    settled(half)
    found: list[float] = []
    names = {"all_reduce", "broadcast", "all_gather"}
    used(names, lambda: found.extend(train(dist.group.WORLD, half)))
    destroyed(half)
    theirs, _ = dist.new_subgroups(size() // 2, backend="gloo")
    expected = train(dist.new_group(backend="gloo"), theirs)
    for one, other in zip(found, expected, strict=True):
        expect(abs(one - other) <= ROUGH * abs(other), (found, expected))


def backends_of_dimensions() -> None:
    """A mesh of which one dimension alone is wiresum's, as torch's ``backend_override`` says."""
    override: Any = {"replicate": "wiresum", "shard": "gloo"}
    names = ("replicate", "shard")
    shape = (2, size() // 2)
    mesh = init_device_mesh("cpu", shape, mesh_dim_names=names, backend_override=override)

    def run() -> None:
        for name in names:
            group = mesh.get_group(name)
            tensor = torch.full((4,), float(rank()))
            dist.all_reduce(tensor, group=group)
            expect(tensor.tolist() == [float(sum(dist.get_process_group_ranks(group)))] * 4, name)

    before = sum(host_agent.stats()["ranks"].values()) + sum(host_agent.stats()["switch"].values())
    run()
    after = sum(host_agent.stats()["ranks"].values()) + sum(host_agent.stats()["switch"].values())
    expect(after == before + 1, (before, after))
    expect(group_named(mesh.get_group("replicate").group_name)["why"] is None, "no agent")
    destroyed(*mesh.get_all_groups())


def same_bits() -> None:
    """A digest of what groups have summed, for the comparison of runs over other carriers."""
    mesh = init_device_mesh("cpu", (2, size() // 2), mesh_dim_names=("dp", "tp"))
    made = torch.Generator().manual_seed(rank())
    settled(*mesh.get_all_groups())
    tensors = []
    for count in (1, 700, 5000):
        for group in mesh.get_all_groups():
            tensor = torch.randn(count, generator=made)
            dist.all_reduce(tensor, group=group)
            tensors.append(tensor)
    whole = torch.cat(tensors)
    dist.all_reduce(whole)
    expect(same_everywhere([whole]), "the ranks differ")
    destroyed(*mesh.get_all_groups())
    if rank() == 0:
        # A line of its own, in one piece: other ranks write to the same pipe.
        digest = hash(tuple(whole.view(torch.int32).tolist()))
        print(f"\nbits {digest}\n", end="", flush=True)
