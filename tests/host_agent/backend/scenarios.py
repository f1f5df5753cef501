"""What the workers of the backend's tests do: ``torchrun scenarios.py NAME``."""

import datetime
import hashlib
import os
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as functional
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from wiresum import host_agent
from wiresum.host_agent import errors

LIMIT = datetime.timedelta(seconds=60)


def rank() -> int:
    return dist.get_rank()


def size() -> int:
    return dist.get_world_size()


def over_switch() -> int:
    """Collectives that went over the switch so far."""
    return int(sum(host_agent.stats()["switch"].values()))


def fell_back(collective: str) -> int:
    """How many of these collectives fell back so far."""
    return int(sum(host_agent.stats()["fallback"].get(collective, {}).values()))


def same_everywhere(tensors: Any) -> bool:
    flat = torch.cat([t.detach().flatten().view(torch.uint8) for t in tensors])
    digests: list[Any] = [None] * size()
    dist.all_gather_object(digests, hashlib.sha256(flat.numpy().tobytes()).hexdigest())
    return len(set(digests)) == 1


def integers(count: int, seed: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Small integers that differ by rank; their sums are exact in every dtype."""
    made = torch.Generator().manual_seed(seed * 100 + rank())
    return torch.randint(-8, 9, (count,), generator=made).to(dtype)


def reference(count: int, seed: int) -> torch.Tensor:
    """The int64 sum over all ranks of what :func:`integers` makes."""
    total = torch.zeros(count, dtype=torch.int64)
    for r in range(size()):
        made = torch.Generator().manual_seed(seed * 100 + r)
        total += torch.randint(-8, 9, (count,), generator=made)
    return total


def sums() -> None:
    before = over_switch()
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        for count in (0, 1, 255, 256, 257, 5000):
            ones = torch.ones(count, dtype=dtype)
            dist.all_reduce(ones)
            assert bool((ones == size()).all()), (dtype, count, ones)
            tensor = integers(count, count, dtype)
            dist.all_reduce(tensor)
            assert torch.equal(tensor.long(), reference(count, count)), (dtype, count)
    assert over_switch() - before == 36
    mean = torch.full((10,), float(rank()))
    dist.all_reduce(mean, op=dist.ReduceOp.AVG)
    assert torch.allclose(mean, torch.full((10,), (size() - 1) / 2)), mean
    # A view that is not contiguous, and the elements around it.
    base = torch.ones(6, 8)
    dist.all_reduce(base.t()[2:5])
    expected = torch.ones(6, 8)
    expected[:, 2:5] = size()
    assert torch.equal(base, expected)
    parameter = nn.Parameter(torch.ones(4, 4))
    with torch.no_grad():
        dist.all_reduce(parameter.t())
    assert bool((parameter == size()).all())
    several = [torch.ones(3), torch.ones(600)]
    dist.group.WORLD.allreduce(several).wait()
    dist.all_reduce_coalesced(several)
    assert all(bool((t == size() ** 2).all()) for t in several)
    noise = torch.randn(10_000, generator=torch.Generator().manual_seed(rank()))
    gathered = [torch.empty_like(noise) for _ in range(size())]
    dist.all_gather(gathered, noise)
    exact = torch.stack(gathered).double().sum(0)
    dist.all_reduce(noise)
    assert float((noise - exact).abs().max()) < 1e-6 * size()
    assert same_everywhere([noise])
    assert fell_back("all_reduce") == 0


def mixed() -> None:
    """More collectives of both kinds than it takes to meet a deadlock over the GIL."""
    total = 1600
    works = []
    before = over_switch(), fell_back("all_reduce")
    for step in range(total):
        kind = step % 4
        if kind in (0, 1):
            tensor = integers(100 + step % 7, step)
            works.append((step, tensor, dist.all_reduce(tensor, async_op=True)))
        elif kind == 2:
            tensor = torch.full((3,), step, dtype=torch.int32)
            dist.all_reduce(tensor)
            assert bool((tensor == step * size()).all())
        else:
            tensor = torch.tensor([float(rank())])
            dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
            assert float(tensor) == size() - 1
        if step % 50 == 49:
            for number, tensor, work in works:
                work.wait()
                assert torch.equal(tensor.long(), reference(len(tensor), number)), number
            works.clear()
            dist.barrier()
    assert over_switch() - before[0] == total // 2
    assert fell_back("all_reduce") - before[1] == total // 2


class Net(nn.Module):
    """Some layers; the last one is not used for odd steps."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(64, 64) for _ in range(6))
        self.head = nn.Linear(64, 4)
        self.spare = nn.Linear(64, 4)

    def forward(self, x: torch.Tensor, spare: bool) -> torch.Tensor:
        for layer in self.layers:
            x = torch.relu(layer(x))
        out: torch.Tensor = self.spare(x) if spare else self.head(x)
        return out


def trained(group: Any, steps: int, **options: Any) -> list[torch.Tensor]:
    torch.manual_seed(7)
    model = DistributedDataParallel(
        Net(), process_group=group, find_unused_parameters=True, bucket_cap_mb=0.05, **options
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    data = torch.Generator().manual_seed(rank())
    for step in range(steps):
        optimizer.zero_grad()
        x = torch.randn(8, 64, generator=data)
        model(x, step % 2 == 1).square().mean().backward()
        optimizer.step()
    return list(model.module.parameters())


def ddp() -> None:
    steps = 8
    before, fallen = over_switch(), fell_back("all_reduce")
    ours = trained(None, steps)
    assert over_switch() - before >= 2 * steps, "several buckets per step"
    assert same_everywhere(ours)
    gloo = trained(dist.new_group(backend="gloo"), steps)
    for a, b in zip(ours, gloo, strict=True):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-6)
    # find_unused_parameters all-reduces a bitmap of int32 in every step
    assert fell_back("all_reduce") - fallen == steps


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


def delegates() -> None:
    warnings.simplefilter("ignore")
    n, r = size(), rank()
    world = dist.group.WORLD
    tensor = torch.full((4,), float(r))
    dist.broadcast(tensor, 1)
    assert bool((tensor == 1).all())
    mine = torch.full((2,), float(r))
    everyone = torch.arange(n, dtype=torch.float32).repeat_interleave(2)
    gathered = [torch.empty(2) for _ in range(n)]
    dist.all_gather(gathered, mine)
    assert torch.equal(torch.cat(gathered), everyone)
    for gather in (dist.all_gather_into_tensor, world._allgather_base, world.all_gather_single):
        out = torch.empty(2 * n)
        work = gather(out, mine)
        if work is not None:
            work.wait()
        assert torch.equal(out, everyone), gather
    scattered = torch.empty(2)
    dist.reduce_scatter(scattered, [torch.full((2,), float(i)) for i in range(n)])
    assert bool((scattered == r * n).all())
    for scatter in (dist.reduce_scatter_tensor, world._reduce_scatter_base):
        out = torch.empty(2)
        work = scatter(out, everyone.clone())
        if work is not None:
            work.wait()
        assert bool((out == r * n).all()), scatter
    out = torch.empty(n)
    dist.all_to_all_single(out, torch.full((n,), float(r)))
    assert torch.equal(out, torch.arange(n, dtype=torch.float32))
    dist.reduce(tensor, 0)
    parts = [torch.empty(2) for _ in range(n)] if r == 0 else None
    dist.gather(mine, parts, 0)
    assert parts is None or torch.equal(torch.cat(parts), everyone)
    dist.scatter(scattered, list(everyone.split(2)) if r == 0 else None, 0)
    assert bool((scattered == r).all())
    if r == 0:
        dist.send(torch.tensor([5.0]), 1)
    elif r == 1:
        got = torch.empty(1)
        dist.recv(got, 0)
        assert float(got) == 5.0
    right, left = torch.empty(1), (r - 1) % n
    swaps = [
        dist.P2POp(dist.isend, torch.tensor([float(r)]), (r + 1) % n),
        dist.P2POp(dist.irecv, right, left),
    ]
    for work in dist.batch_isend_irecv(swaps):
        work.wait()
    assert float(right) == left
    objects: list[Any] = [None] * n
    dist.all_gather_object(objects, {"rank": r})
    assert [o["rank"] for o in objects] == list(range(n))
    objects = ["a", 2] if r == 0 else [None, None]
    dist.broadcast_object_list(objects, 0)
    assert objects == ["a", 2]
    dist.barrier()
    dist.monitored_barrier(timeout=LIMIT)
    before = over_switch()
    assert float(functional.all_reduce(torch.ones(1), "sum", world)) == n
    assert over_switch() == before + 1
    assert functional.all_gather_tensor(mine, 0, world).tolist() == everyone.tolist()
    assert functional.reduce_scatter_tensor(everyone, "sum", 0, world).tolist() == [r * n, r * n]
    with dist._coalescing_manager(async_ops=True) as manager:
        both = [torch.ones(3), torch.ones(5)]
        for one in both:
            dist.all_reduce(one)
    manager.wait()
    assert all(bool((t == n).all()) for t in both)
    assert over_switch() == before + 2
    pair = dist.new_group([0, 1])
    if r < 2:
        ones = torch.ones(3)
        dist.all_reduce(ones, group=pair)
        assert bool((ones == 2).all())
        assert any("default group" in why for why in host_agent.stats()["fallback"]["all_reduce"])
        dist.barrier(pair)
    assert over_switch() == before + 2


def fsdp() -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 8))
    mesh = init_device_mesh("cpu", (size(),))
    for layer in model:
        if isinstance(layer, nn.Linear):
            fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for _ in range(5):
        loss = model(torch.ones(4, 32) * (rank() + 1)).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    assert fell_back("all_gather_single") > 0
    assert fell_back("reduce_scatter_single") > 0


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


def _disagree(other: Callable[[], None]) -> None:
    """Rank 1 starts an all-reduce of 17 elements, then rank 0 something else."""
    store = dist.distributed_c10d._get_default_store()
    if rank() == 1:
        before = host_agent.stats()["engine"]["packets_sent"]
        dist.all_reduce(torch.ones(17), async_op=True)
        deadline = time.monotonic() + LIMIT.total_seconds()
        while host_agent.stats()["engine"]["packets_sent"] == before:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        store.set("sent", "1")
        store.wait(["seen"], LIMIT)
        return
    store.wait(["sent"], LIMIT)
    other()
    try:
        dist.all_reduce(torch.ones(3))
    except errors.EngineClosed as error:
        expect("\n" not in str(error), error)
    else:
        raise AssertionError("the engine goes on after an error")
    assert host_agent.stats()["failed"]["CollectiveMismatch"] == 1
    store.set("seen", "1")


def mismatch_in_wait() -> None:
    """Ranks that disagree get an error from wait()."""

    def other() -> None:
        work = dist.all_reduce(torch.ones(400), async_op=True)
        try:
            work.wait()
        except errors.CollectiveMismatch as error:
            expect("\n" not in str(error), error)
        else:
            raise AssertionError("wait() has swallowed the error")

    _disagree(other)


def mismatch_in_backward() -> None:
    """Ranks that disagree get the error from backward()."""
    model = DistributedDataParallel(nn.Linear(100, 100))

    def other() -> None:
        try:
            model(torch.ones(1, 100)).sum().backward()
        except RuntimeError as error:
            expect("CollectiveMismatch" in str(error), error)
        else:
            raise AssertionError("backward() has swallowed the error")

    _disagree(other)


def expect(condition: bool, what: object) -> None:
    if not condition:
        raise AssertionError(what)


def leave_in_flight() -> None:
    """The script ends without destroy_process_group while work of both kinds is in flight."""
    dist.barrier()
    if rank() == 0:
        for _ in range(20):
            dist.all_reduce(torch.ones(100_000), async_op=True).get_future()
        dist.all_reduce(torch.ones(100, dtype=torch.int32), async_op=True)
    os.environ["KEEP_GROUP"] = "1"


def again() -> None:
    """A second group in the same process gets an epoch of its own."""
    (first,) = host_agent.dump()["groups"]
    ones = torch.ones(3)
    dist.all_reduce(ones)
    dist.destroy_process_group()
    dist.init_process_group("wiresum", timeout=LIMIT)
    dist.all_reduce(ones)
    assert bool((ones == size() ** 2).all())
    second = host_agent.dump()["groups"][-1]
    assert second["lease"]["epoch"] > first["lease"]["epoch"]
    assert host_agent.stats()["engine"]["collectives"] == 2


def restart() -> None:
    """The first attempt dies in the middle; torchrun starts all ranks again."""
    ones = torch.ones(1000)
    dist.all_reduce(ones)
    if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        if rank() == 1:
            os._exit(3)
        dist.all_reduce(ones)  # never completes: torchrun ends this rank
    assert bool((ones == size()).all())
    print("restarted well", flush=True)


def fallback() -> None:
    """No controller: the same calls work, over gloo."""
    ones = torch.ones(3)
    dist.all_reduce(ones)
    assert bool((ones == size()).all())
    ours = trained(None, 2)
    assert same_everywhere(ours)
    assert over_switch() == 0


def count_reductions() -> None:
    """A script that knows nothing of wiresum; says how many all-reduces used the switch."""
    ones = torch.ones(3)
    dist.all_reduce(ones)
    dist.monitored_barrier()
    print(f"rank {rank()} of {size()}: {over_switch()} over the switch", flush=True)


def main() -> None:
    backend = sys.argv[2] if len(sys.argv) > 2 else "wiresum"
    if backend == "none":
        dist.init_process_group()
    else:
        dist.init_process_group(backend, timeout=LIMIT)
    for name in sys.argv[1].split("+"):
        scenario: Callable[[], None] = globals()[name]
        scenario()
        print(f"{name} passed on rank {os.environ['RANK']}", flush=True)
    if "KEEP_GROUP" not in os.environ:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
