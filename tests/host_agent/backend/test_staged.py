"""Collectives of tensors on a device: through the host's memory to the bits of the same on a CPU.

The device is simulated (``support.simulated_device``): an event that is not waited for, or memory
that is used again too early, gives wrong bits here.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from carried_rig import Threads, bits
from staged_rig import Staged, numbers, options
from torch._C import _distributed_c10d as c10d

from wiresum.host_agent import stats
from wiresum.host_agent.backend.cuda import cutting, pool

pytestmark = pytest.mark.usefixtures("fresh_counters")

SUM, AVG = c10d.ReduceOp.SUM, c10d.ReduceOp.AVG
LARGE = 100_000
"""Elements of a sum that is cut into several rounds here."""


@pytest.fixture(autouse=True)
def _small_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many rounds, and memory for few of them at a time."""
    monkeypatch.setattr(cutting.rounds, "__defaults__", (1 << 16,))
    monkeypatch.setattr(pool.Pool.__init__, "__defaults__", (3 << 16,))


@pytest.fixture(params=[(2, 32), (2, 8), (3, 16)], ids=str)
def shape(request: pytest.FixtureRequest) -> tuple[int, int]:
    """Ranks, and bits of a field."""
    ranks, field = request.param
    return int(ranks), int(field)


@pytest.fixture
def both(shape: tuple[int, int]) -> Iterator[tuple[Threads, Staged]]:
    """The same ranks on the host and on devices."""
    plain, staged = Threads(*shape), Staged(*shape)
    yield plain, staged
    plain.close()
    staged.check()
    staged.close()


def all_reduces(group: Any, rank: int) -> list[torch.Tensor]:
    made = []
    works = []
    for number, (count, op, dtype) in enumerate(
        [
            (LARGE, SUM, torch.float32),
            (5, AVG, torch.float32),
            (LARGE // 3 + 77, AVG, torch.bfloat16),
            (3000, SUM, torch.float16),
            (1, SUM, torch.float32),
            (700, SUM, torch.int32),
            (900, c10d.ReduceOp.MAX, torch.float32),
            (LARGE // 2, SUM, torch.int32),
        ]
    ):
        values = numbers(count, 10 * number + rank)
        if dtype is torch.int32:
            values = values.clamp(-1000, 1000)
        made.append(values.to(dtype))
        works.append(group.allreduce([made[-1]], options(c10d.AllreduceOptions, op)))
    for work in works:
        work.wait()
    return made


def test_sums_of_a_device_have_the_bits_of_sums_of_the_host(both: Any) -> None:
    plain, staged = both
    expected = plain.all(all_reduces)
    found = staged.all(all_reduces)
    for mine, theirs in zip(found, expected, strict=True):
        assert [bits(each) for each in mine] == [bits(each) for each in theirs]
    assert stats()["fallback"] == {}


def sharded(group: Any, rank: int) -> list[torch.Tensor]:
    n = group.size()
    given = numbers(n * 20_000, rank)
    out, whole = torch.zeros(20_000), torch.zeros(n * 20_000)
    reduced = numbers(20_000, rank)
    listed = [torch.zeros(50, 30) for _ in range(n)]
    turned = [torch.zeros(30, 50).t() for _ in range(n)]
    mine = numbers(1500, rank).view(50, 30)
    copied = numbers(7, 3 + rank)
    gathered = [torch.zeros(3, 3) for _ in range(n)]
    got = torch.zeros(9000, dtype=torch.int64)
    pieces = [torch.arange(9000) + r for r in range(n)]
    many = [numbers(count, rank) for count in (5, 3000, 70_000)]
    works = [
        group._reduce_scatter_base(out, given, options(c10d.ReduceScatterOptions, AVG)),
        group._allgather_base(whole, given[:20_000].clone()),
        group.reduce([reduced], options(c10d.ReduceOptions, SUM, 1)),
        group.allgather([listed], [mine]),
        group.allgather([turned], [mine]),
        group.broadcast([copied], options(c10d.BroadcastOptions, root=n - 1)),
        group.barrier(),
        group.gather(
            [gathered] if rank == 0 else [], [torch.full((3, 3), float(rank))],
            options(c10d.GatherOptions, root=0),
        ),
        group.scatter(
            [got], [pieces] if rank == 1 else [], options(c10d.ScatterOptions, root=1)
        ),
        group.allreduce_coalesced(many, options(c10d.AllreduceCoalescedOptions, SUM)),
        group._reduce_scatter_base(given[rank * 20_000 :][:20_000], given),  # in place
    ]  # fmt: skip
    for work in works:
        work.wait()
    return [out, whole, reduced, *listed, *turned, copied, *gathered, got, *many, given]


def test_all_collectives_of_a_device_have_the_bits_of_those_of_the_host(both: Any) -> None:
    plain, staged = both
    expected = plain.all(sharded)
    found = staged.all(sharded)
    for mine, theirs in zip(found, expected, strict=True):
        assert [bits(each) for each in mine] == [bits(each) for each in theirs]
    assert stats()["fallback"] == {}


def test_blocks_with_inf_or_nan_have_the_bits_that_they_have_on_the_host(both: Any) -> None:
    plain, staged = both

    def run(group: Any, rank: int) -> list[torch.Tensor]:
        one, two = numbers(LARGE, rank), numbers(500, rank)
        if rank == 0:
            one[LARGE // 2], two[3] = float("inf"), float("nan")
            one[-1] = float("-inf")
        if rank == 1:
            one[30_000:30_600] = float("nan")
        out = torch.zeros(LARGE // group.size())
        scattered = one[: out.numel() * group.size()].clone()
        works = [
            group.allreduce([one], options(c10d.AllreduceOptions, AVG)),
            group.allreduce([two]),
            group._reduce_scatter_base(out, scattered),
        ]
        for work in works:
            work.wait()
        return [one, two, out, scattered]

    expected, found = plain.all(run), staged.all(run)
    for mine, theirs in zip(found, expected, strict=True):
        assert [bits(each) for each in mine] == [bits(each) for each in theirs]
    assert bool(found[0][0].isinf().any())


def test_tensors_of_inference_mode_have_the_bits_of_others(both: Any) -> None:
    plain, staged = both

    def run(group: Any, rank: int, *, inference: bool = True) -> list[torch.Tensor]:
        with torch.inference_mode(inference):
            one, two = numbers(LARGE // 4, rank), numbers(3000, rank)
            two[700] = float("inf")
            for work in [group.allreduce([one]), group.allreduce([two])]:
                work.wait()
            return [one, two]

    expected = plain.all(lambda group, rank: run(group, rank, inference=False))
    for ranks in (plain, staged):
        for mine, theirs in zip(ranks.all(run), expected, strict=True):
            assert [bits(each) for each in mine] == [bits(each) for each in theirs]


def test_narrow_fields_cross_to_the_host_in_place_of_floats(shape: tuple[int, int]) -> None:
    staged, field = Staged(*shape), shape[1]
    staged.all(lambda group, rank: group.allreduce([numbers(LARGE, rank)]).wait())
    bytes_of_floats = 2 * 4 * LARGE
    for device in staged.devices:
        device.check()
        codes = 2 * 4 * -(-LARGE // 256) if field < 32 else 0
        assert device.copied_bytes == pytest.approx(bytes_of_floats * field / 32 + codes, rel=0.02)
    staged.close()
