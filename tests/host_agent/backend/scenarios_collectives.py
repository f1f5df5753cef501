"""Scenarios: every collective, over its path, with the right result."""

import warnings
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as functional
from scenario_tools import LIMIT, expect, fell_back, over_switch, rank, same_everywhere, size
from torch import nn


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


def anything(count: int, dtype: torch.dtype, of: int) -> torch.Tensor:
    """Random numbers of a rank."""
    made = torch.Generator().manual_seed(1000 * count + of)
    if dtype.is_floating_point:
        return torch.randn(count, generator=made).to(dtype)
    limits = torch.iinfo(dtype)
    return torch.randint(limits.min, limits.max + 1, (count,), generator=made).to(dtype)


def integer_averages() -> None:
    """gloo has no AVG of integers: the sum, divided towards zero."""
    values = (torch.arange(-5, 6) * 7 + rank()).to(torch.int64)
    total = sum((torch.arange(-5, 6) * 7 + each) for each in range(size()))
    expected = torch.tensor([int(each / size()) for each in total.tolist()])
    for dtype in (torch.int64, torch.int32, torch.int8):
        plain, waited, future = (values.to(dtype) for _ in range(3))
        dist.all_reduce(plain, dist.ReduceOp.AVG)
        work = dist.all_reduce(waited, dist.ReduceOp.AVG, async_op=True)
        work.wait()
        work.wait()
        assert work.get_future().wait()[0] is not None
        dist.all_reduce(future, dist.ReduceOp.AVG, async_op=True).get_future().wait()
        for found in (plain, waited, future):
            assert torch.equal(found, expected.to(dtype)), (dtype, found, expected)


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
    dist.all_reduce_coalesced(several)
    assert all(bool((t == size()).all()) for t in several)
    noise = torch.randn(10_000, generator=torch.Generator().manual_seed(rank()))
    gathered = [torch.empty_like(noise) for _ in range(size())]
    dist.all_gather(gathered, noise)
    exact = torch.stack(gathered).double().sum(0)
    dist.all_reduce(noise)
    assert float((noise - exact).abs().max()) < 1e-6 * size()
    assert same_everywhere([noise])
    assert fell_back("all_reduce") == 0


def words() -> None:
    """Integers are summed exactly, MAX and MIN are found, of every dtype that 32 bits hold."""
    before, fallen, count = over_switch(), fell_back("all_reduce"), 0
    floats = (torch.float32, torch.float16, torch.bfloat16)
    for dtype in (torch.int32, torch.int16, torch.int8, torch.uint8, *floats):
        for elements in (1, 1000, 5000):
            stacked = torch.stack([anything(elements, dtype, each) for each in range(size())])
            mine = stacked[rank()]
            wanted = {
                dist.ReduceOp.MAX: stacked.amax(0), dist.ReduceOp.MIN: stacked.amin(0),
                dist.ReduceOp.SUM: stacked.sum(0, dtype=dtype),
            }  # fmt: skip
            if dtype.is_floating_point:
                del wanted[dist.ReduceOp.SUM]
            for op, result in wanted.items():
                found = mine.clone()
                dist.all_reduce(found, op=op, async_op=True).wait()
                expect(torch.equal(found, result), (dtype, op, found, result))
                count += 1
    several = [torch.full((2, 3), rank() + 1, dtype=torch.int8).t(), torch.ones(600).char()]
    dist.all_reduce_coalesced(several)
    expect(bool((several[0] == size() * (size() + 1) // 2).all()), several[0])
    expect(bool((several[1] == size()).all()), several[1])
    odd = torch.tensor([float("nan") if rank() else 1.0, float(rank()), -float("inf")])
    for op in (dist.ReduceOp.MAX, dist.ReduceOp.MIN):
        found = odd.clone()
        dist.all_reduce(found, op=op)
        expect(bool(found[0].isnan()) and found[2] == -float("inf"), found)
        expect(same_everywhere([found]), found)
    expect(over_switch() - before == count + 3, (over_switch() - before, count))
    expect(fell_back("all_reduce") == fallen, fell_back("all_reduce"))


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
            tensor = torch.full((3,), step, dtype=torch.int64)
            dist.all_reduce(tensor)
            assert bool((tensor == step * size()).all())
        else:
            tensor = torch.tensor([float(rank())], dtype=torch.float64)
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
        dist.barrier(pair)
    assert over_switch() == before + (3 if r < 2 else 2)
