"""Scenarios: every collective over the carrier: copies bit for bit, sums as of integers."""

import os
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from scenario_tools import expect, rank, size

from wiresum import host_agent

DTYPES = (
    torch.bool, torch.uint8, torch.int64, torch.float16, torch.bfloat16, torch.float64,
    torch.complex64, torch.float8_e4m3fn,
)  # fmt: skip
COUNTS = (0, 1, 13, 5000)


def carried(names: set[str], run: Callable[[], Any]) -> None:
    """Run something, and see that exactly these collectives were carried, and none fell back."""
    before = host_agent.stats()
    run()
    after = host_agent.stats()
    found = {
        name
        for path in ("switch", "ranks")
        for name, count in after[path].items()
        if count != before[path].get(name, 0)
    }
    expect(found == names, (found, names))
    expect(after["fallback"] == before["fallback"], after["fallback"])
    if "ON_SWITCH" in os.environ:
        expect(after["ranks"] == before["ranks"], after["ranks"])


def anything(count: int, dtype: torch.dtype, of: int) -> torch.Tensor:
    made = torch.Generator().manual_seed(1000 * count + of)
    raw = torch.randint(
        0, 2 if dtype is torch.bool else 256, (count, dtype.itemsize), generator=made
    )
    return raw.to(torch.uint8).view(dtype).reshape(-1)


def bits(tensor: torch.Tensor) -> list[int]:
    copy = torch.empty(tensor.numel(), dtype=tensor.dtype).copy_(tensor.reshape(-1))
    found: list[int] = copy.view(torch.uint8).tolist()
    return found


def copies() -> None:
    n, r, root = size(), rank(), size() - 1

    def run() -> None:
        for count in COUNTS:
            for dtype in DTYPES:
                values = [anything(count, dtype, each) for each in range(n)]
                others = [anything(count, dtype, 100 + each) for each in range(n)]
                wide = torch.stack([values[r], values[r]], dim=1)
                mine = wide[:, 0]  # not contiguous
                sent = mine.clone()
                dist.broadcast(sent, root)
                expect(bits(sent) == bits(values[root]), ("broadcast", dtype, count))
                gathered = [torch.zeros_like(values[0]) for _ in range(n)]
                dist.all_gather(gathered, mine)
                whole = torch.zeros(n * count, dtype=dtype)
                dist.all_gather_into_tensor(whole, mine, async_op=True).wait()
                expect(bits(torch.cat(gathered)) == bits(torch.cat(values)), (dtype, count))
                expect(bits(whole) == bits(torch.cat(values)), (dtype, count))
                parts = [torch.zeros_like(values[0]) for _ in range(n)] if r == root else None
                dist.gather(mine, parts, root)
                expect(parts is None or bits(torch.cat(parts)) == bits(whole), (dtype, count))
                got = torch.zeros_like(mine)
                dist.scatter(got, others if r == root else None, root)
                expect(bits(got) == bits(others[r]), ("scatter", dtype, count))
                expect(bits(mine) == bits(values[r]), "what is given has changed")
            dist.barrier()

    names = {
        "broadcast", "all_gather", "all_gather_into_tensor", "gather", "scatter", "barrier"
    }  # fmt: skip
    carried(names, run)


def scattered_sums() -> None:
    n, r = size(), rank()
    integers = (torch.int32, torch.int16, torch.uint8)
    cases = [(dist.ReduceOp.SUM, dtype) for dtype in (torch.float32, torch.bfloat16, *integers)]
    cases += [(op, dtype) for op in (dist.ReduceOp.MAX, dist.ReduceOp.MIN) for dtype in integers]
    cases.append((dist.ReduceOp.AVG, torch.float16))

    def run() -> None:
        for count in (1, 13, 3000):
            for op, dtype in cases:
                values = [torch.ones(n * count, dtype=dtype) * (each + 1) for each in range(n)]
                for each, tensor in enumerate(values):
                    tensor[::7] = 2 * each
                stacked = torch.stack(values)
                total = {
                    dist.ReduceOp.SUM: stacked.double().sum(0),
                    dist.ReduceOp.AVG: stacked.double().sum(0) / n,
                    dist.ReduceOp.MAX: stacked.double().amax(0),
                    dist.ReduceOp.MIN: stacked.double().amin(0),
                }[op]
                part = total[r * count :][:count]
                mine = values[r].clone()
                # The codec's own rounding aside: fields of few bits hold these only roughly.
                loose = 0.0 if dtype in integers or count < 300 else ROUGH * n
                out = torch.zeros(count, dtype=dtype)
                dist.reduce_scatter_tensor(out, mine, op)
                expect(bool(((out.double() - part).abs() <= loose).all()), (op, dtype, count))
                again = torch.zeros(count, dtype=dtype)
                dist.reduce_scatter(again, list(mine.tensor_split(n)), op)
                summed = mine.clone()
                dist.all_reduce(summed, op)
                expect(bits(again) == bits(out), (op, dtype, count))
                reduced = mine.clone()
                dist.reduce(reduced, 1, op)
                expect(bits(reduced) == bits(summed if r == 1 else mine), (op, dtype, count))
                expect(bits(mine) == bits(values[r]), "what is given has changed")

    carried({"reduce_scatter_tensor", "reduce_scatter", "reduce", "all_reduce"}, run)


ROUGH = {"16": 0.05, "8": 1.0}.get(os.environ.get("WIRESUM_FIELD", ""), 0.0)


def both_ways() -> None:
    """All-gathers and reduce-scatters in flight together, waited for in any order."""
    n, r = size(), rank()
    works, checks = [], []
    for number in range(12):
        values = torch.full((n * 1500,), float(r + number))
        out, whole = torch.zeros(1500), torch.zeros(n * 700)
        works.append(dist.reduce_scatter_tensor(out, values, async_op=True))
        works.append(
            dist.all_gather_into_tensor(whole, torch.full((700,), 10.0 * r), async_op=True)
        )
        checks.append((out, sum(each + number for each in range(n)), whole))
    for work in reversed(works):
        work.wait()
    for out, total, whole in checks:
        if ROUGH == 0.0:
            expect(bool((out == total).all()), (out, total))
        expected = torch.arange(n).repeat_interleave(700) * 10.0
        expect(torch.equal(whole, expected), whole)
