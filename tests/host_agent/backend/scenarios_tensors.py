"""Tensors whose memory is not simply their values, and values that integers cannot carry."""

import math

import torch
import torch.distributed as dist
from scenario_tools import expect, over_switch, rank, same_everywhere, size


def check(name: str, tensor: torch.Tensor, expected: torch.Tensor | float) -> None:
    right = torch.as_tensor(expected, dtype=tensor.dtype).expand(tensor.shape)
    expect(
        torch.allclose(tensor.resolve_neg(), right, rtol=1e-6, atol=0, equal_nan=True),
        f"{name}: {tensor} is not {right}",
    )


def views() -> None:
    n, before = size(), over_switch()
    on_one = torch._neg_view(torch.ones(4)) if rank() == 0 else torch.ones(4)
    dist.all_reduce(on_one)
    check("a negative view on rank 0", on_one, n - 2)
    imaginary = torch.full((3,), 1 + 2j).conj().imag
    expect(imaginary.is_neg(), "not a negative view")
    dist.all_reduce(imaginary)
    check("the imaginary part of a conjugate", imaginary, -2 * n)
    expanded = torch.ones(1).expand(4) if rank() == 1 else torch.ones(4)
    dist.all_reduce(expanded)
    check("an expanded tensor on rank 1", expanded, n)
    rows = torch.tensor([[1.0], [2.0]]).expand(2, 3)
    dist.all_reduce(rows)
    check("expanded rows", rows, torch.tensor([[1.0], [2.0]]) * n)
    windows = torch.ones(5).as_strided((3, 3), (1, 1))
    dist.all_reduce(windows)
    check("windows that overlap", windows, n)
    with torch.inference_mode():
        turned = torch.ones(4, 6).t()
        dist.all_reduce(turned)
    check("a transposed inference tensor", turned, n)
    scalar = torch.tensor(float(rank()))
    dist.all_reduce(scalar)
    check("a scalar", scalar, n * (n - 1) / 2)
    leaf = torch.nn.Parameter(torch.ones(3))
    dist.all_reduce(leaf)
    check("a leaf that requires grad", leaf.detach(), n)
    empty = torch.zeros(0)
    dist.all_reduce(empty)
    expect(over_switch() == before + 9, "some went over the fallback")
    channels = torch.ones(2, 3, 4, 5).to(memory_format=torch.channels_last)
    dist.all_reduce(channels)
    check("channels last", channels, n)
    twice = torch.ones(300)
    dist.all_reduce_coalesced([twice, twice])
    expect(bool(((twice == n) | (twice == n * n)).all()), f"the same tensor twice: {twice[0]}")


def small_beside_large() -> None:
    n = size()
    mixed = torch.tensor([3e9, 0.125, float(rank()), 3e-30, 0.0])
    dist.all_reduce(mixed)
    check("3e9, 0.125, rank", mixed, torch.tensor([3e9, 0.125, (n - 1) / 2, 3e-30, 0.0]) * n)
    means = torch.tensor([2.345, 3.0e9, 1e-5])
    dist.all_reduce(means, dist.ReduceOp.AVG)
    check("means", means, torch.tensor([2.345, 3.0e9, 1e-5]))
    expect(same_everywhere([mixed, means]), "ranks differ")


def not_finite() -> None:
    n, inf = size(), math.inf
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        for count in (5, 600, 5000):
            tensor = torch.ones(count, dtype=dtype)
            tensor[0] = inf
            tensor[1] = inf if rank() == 0 else -inf
            tensor[2] = math.nan if rank() == n - 1 else 1.0
            tensor[3] = -inf if rank() == 0 else 5.0
            dist.all_reduce(tensor)
            right = torch.full((count,), float(n))
            right[:4] = torch.tensor([inf, math.nan, math.nan, -inf])
            check(f"{dtype} x {count}", tensor, right.to(dtype))
            expect(same_everywhere([tensor]), f"{dtype} x {count}: ranks differ")
    mean = torch.full((600,), 3.0)
    mean[599] = inf
    dist.all_reduce(mean, dist.ReduceOp.AVG)
    check("mean", mean[:599], 3.0)
    expect(mean[599].item() == inf, mean[599])
    half = torch.full((300,), 60000.0, dtype=torch.float16)
    half[7] = inf
    dist.all_reduce(half)
    expect(not bool(half.isfinite().any()), "60000 + 60000 is no float16")
    many = [torch.full((700,), float(number)) for number in range(20)]
    for tensor in many:
        tensor[rank()] = math.nan
    works = [dist.all_reduce(tensor, async_op=True) for tensor in many]
    for work, tensor in reversed(list(zip(works, many, strict=True))):
        expect(work.wait() and work.is_success(), work.exception())
        expect(int((~tensor.isfinite()).sum()) == n, tensor[:5])
        expect(same_everywhere([tensor]), "ranks differ")
    turned = torch.ones(40, 30).t()
    turned[3, 4] = inf
    dist.all_reduce(turned)
    expect(turned[3, 4].item() == inf and int((turned == n).sum()) == 1199, "transposed")
    dist.all_reduce_coalesced(both := [torch.full((4,), inf), torch.ones(4)])
    expect(bool((both[0] == inf).all()) and bool((both[1] == n).all()), both)
