"""Collectives as units of pieces: every rank gets the same bits as from gloo, or the exact sum."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from carried_rig import Threads, bits
from torch._C import _distributed_c10d as c10d

from wiresum.host_agent import stats
from wiresum.host_agent.errors import EngineError

pytestmark = pytest.mark.usefixtures("fresh_counters")

Tensors = list[torch.Tensor]


@pytest.fixture(scope="module", params=[2, 3])
def ranks(request: pytest.FixtureRequest) -> Iterator[Threads]:
    ranks = Threads(request.param)
    yield ranks
    ranks.close()


def options(kind: Any, op: Any = None, root: int | None = None) -> Any:
    made = kind()
    if op is not None:
        made.reduceOp = op if isinstance(op, c10d.ReduceOp) else c10d.ReduceOp(op)
    if root is not None:
        made.rootRank = root
    return made


DTYPES = (
    torch.bool, torch.uint8, torch.int16, torch.int64, torch.float16, torch.bfloat16,
    torch.float32, torch.float64, torch.complex64, torch.float8_e4m3fn,
)  # fmt: skip


def anything(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> torch.Tensor:
    """Any bits, NaNs among them."""
    size = torch.empty(shape, dtype=dtype).nbytes
    made = torch.Generator().manual_seed(seed)
    raw = torch.randint(0, 2 if dtype is torch.bool else 256, (size,), generator=made)
    return raw.to(torch.uint8).view(dtype).reshape(shape)


def layouts(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """The same elements, and memory of other layouts."""
    yield tensor.clone()
    if tensor.dim() == 2:
        yield tensor.t().contiguous().t()
        wide = torch.zeros(tensor.shape[0], 2 * tensor.shape[1], dtype=tensor.dtype)
        wide[:, ::2] = tensor
        yield wide[:, ::2]


@pytest.mark.parametrize("shape", [(), (0,), (1,), (7, 5), (64, 33)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_copies_bring_the_bits_of_any_dtype_and_layout(
    ranks: Threads, dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    n, root = ranks.size, ranks.size - 1
    values = [anything(shape, dtype, rank) for rank in range(n)]
    others = [anything(shape, dtype, 100 + rank) for rank in range(n)]

    def empties(like: torch.Tensor) -> Tensors:
        return [torch.zeros_like(like) for _ in range(n)]

    def run(group: Any, rank: int) -> list[tuple[str, Tensors]]:
        found = []
        for mine in layouts(values[rank]):
            sent = mine.clone()
            group.broadcast([sent], options(c10d.BroadcastOptions, root=root)).wait()
            found.append(("broadcast", [sent]))
            for single in (False, True):
                whole = torch.zeros(n * mine.numel(), dtype=dtype)
                gathered = empties(mine)
                if single:
                    group._allgather_base(whole, mine.contiguous()).wait()
                    gathered = list(whole.tensor_split(n))
                else:
                    group.allgather([gathered], [mine]).wait()
                found.append(("all_gather", gathered))
            gathered = empties(mine) if rank == root else []
            outputs = [gathered] if rank == root else []
            group.gather(outputs, [mine], options(c10d.GatherOptions, root=root)).wait()
            if rank == root:
                found.append(("all_gather", gathered))
            got = torch.zeros_like(mine)
            gives = [[each.clone() for each in others]] if rank == root else []
            group.scatter([got], gives, options(c10d.ScatterOptions, root=root)).wait()
            found.append(("scatter", [got]))
            two = [torch.zeros(n * mine.numel(), dtype=dtype) for _ in range(2)]
            flat = mine.reshape(-1)
            group.allgather_into_tensor_coalesced(two, [flat, flat]).wait()
            found += [("all_gather", list(each.tensor_split(n))) for each in two]
            assert bits(mine) == bits(values[rank])  # what is given stays as it is
        return found

    for rank, found in enumerate(ranks.all(run)):
        for name, tensors in found:
            expected = {
                "broadcast": [values[root]], "all_gather": values, "scatter": [others[rank]],
            }[name]  # fmt: skip
            assert [bits(each) for each in tensors] == [bits(each) for each in expected], name
    assert stats()["fallback"] == {}
    assert stats()["switch"].keys() == {
        "broadcast", "all_gather", "all_gather_into_tensor", "gather", "scatter",
        "all_gather_into_tensor_coalesced",
    }  # fmt: skip


def integers(count: int, dtype: torch.dtype, seed: int) -> torch.Tensor:
    made = torch.Generator().manual_seed(seed)
    least = 0 if dtype is torch.uint8 else -8
    return torch.randint(least, 9, (count,), generator=made).to(dtype)


SUMS = [
    (op, dtype)
    for op in (c10d.ReduceOp.SUM, c10d.ReduceOp.MAX, c10d.ReduceOp.MIN)
    for dtype in (torch.float32, torch.bfloat16, torch.int32, torch.int8)
] + [(op, torch.float16) for op in (c10d.ReduceOp.AVG, c10d._make_nccl_premul_sum(0.5))]


def label(value: Any) -> str:
    """The same in every process: a premultiplied sum's own name has an address in it."""
    return str(getattr(value, "op", value)).rpartition(".")[2]


@pytest.mark.parametrize("count", [1, 40, 3000])
@pytest.mark.parametrize(("op", "dtype"), SUMS, ids=label)
def test_reduces_and_reduce_scatters_are_exact(
    ranks: Threads, op: Any, dtype: torch.dtype, count: int
) -> None:
    n = ranks.size
    values = [integers(n * count, dtype, rank) for rank in range(n)]
    stacked = torch.stack(values)
    name = label(op)
    total = stacked.double().sum(0)
    expected = {
        "SUM": total.to(dtype), "AVG": (total / n).to(dtype), "PREMUL_SUM": (total / 2).to(dtype),
        "MAX": stacked.amax(0), "MIN": stacked.amin(0),
    }[name]  # fmt: skip

    def run(group: Any, rank: int) -> None:
        mine, part = values[rank], expected[rank * count :][:count]
        kind = options(c10d.ReduceScatterOptions, op)
        out = torch.zeros(count, dtype=dtype)
        group._reduce_scatter_base(out, mine, kind).wait()
        assert torch.equal(out, part), (out, part)
        out = torch.zeros(count, 2, dtype=dtype)[:, 0]
        group.reduce_scatter([out], [list(mine.tensor_split(n))], kind).wait()
        assert torch.equal(out, part)
        two = [torch.zeros(count, dtype=dtype) for _ in range(2)]
        group.reduce_scatter_tensor_coalesced(two, [mine, mine], kind).wait()
        assert all(torch.equal(each, part) for each in two)
        assert torch.equal(mine, integers(n * count, dtype, rank))  # it has only been read
        reduced = mine.clone()
        group.reduce([reduced], options(c10d.ReduceOptions, op, 1)).wait()
        assert torch.equal(reduced, expected if rank == 1 else mine)
        chunk = mine.clone()
        group._reduce_scatter_base(chunk[rank * count :][:count], chunk, kind).wait()  # in place
        assert torch.equal(chunk[rank * count :][:count], part)

    ranks.all(run)
    assert stats()["fallback"] == {}


def test_a_reduce_scatter_may_write_over_what_a_turned_view_of_it_gives(ranks: Threads) -> None:
    n, dtype = ranks.size, torch.float32
    squares = [integers(16, dtype, rank).view(4, 4) for rank in range(n)]

    def run(group: Any, rank: int) -> None:
        mine = squares[rank].clone()
        kind = options(c10d.ReduceScatterOptions, c10d.ReduceOp.SUM)
        group.reduce_scatter([mine], [[mine.t()] * n], kind).wait()
        assert torch.equal(mine, torch.stack(squares).sum(0).t())

    ranks.all(run)


def test_works_of_all_kinds_may_be_in_flight_together_and_have_futures(ranks: Threads) -> None:
    n = ranks.size

    def run(group: Any, rank: int) -> None:
        sums = [torch.full((n * 600,), rank + 1.0) for _ in range(4)]
        outs = [torch.zeros(600) for _ in sums]
        wholes = [torch.zeros(n * 5) for _ in sums]
        works = []
        for values, out, whole in zip(sums, outs, wholes, strict=True):
            works.append(group._reduce_scatter_base(out, values))
            works.append(group._allgather_base(whole, torch.full((5,), float(rank))))
            works.append(group.barrier())
        for work in reversed(works):
            work.get_future().wait()
            assert work.is_success()
        for out, whole in zip(outs, wholes, strict=True):
            assert bool((out == n * (n + 1) / 2).all())
            assert whole.tolist() == [float(r) for r in range(n) for _ in range(5)]

    ranks.all(run)


def test_blocks_with_inf_or_nan_reach_their_reader_alone(ranks: Threads) -> None:
    n, count = ranks.size, 2000

    def run(group: Any, rank: int) -> None:
        mine = torch.full((n * count,), 1.0)
        if rank == 0:
            mine[count + 300] = float("inf")  # of the part that rank 1 gets
            mine[5] = float("nan")
        before = mine.clone()
        out = torch.zeros(count)
        group._reduce_scatter_base(out, mine).wait()
        expected = torch.full((count,), float(n))
        if rank == 1:
            expected[300] = float("inf")
        if rank == 0:
            expected[5] = float("nan")
        assert torch.equal(out.nan_to_num(-1.0), expected.nan_to_num(-1.0))
        assert bits(mine) == bits(before)

    ranks.all(run)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda g: g.allgather([[torch.zeros(3)]], [torch.zeros(3)]),
        lambda g: g.allgather([[torch.zeros(3)] * g.size()], [torch.zeros(4)]),
        lambda g: g.allgather([[torch.zeros(3).int()] * g.size()], [torch.zeros(3)]),
        lambda g: g._allgather_base(torch.zeros(5), torch.zeros(3)),
        lambda g: g._reduce_scatter_base(torch.zeros(3), torch.zeros(5)),
        lambda g: g.reduce_scatter([torch.zeros(3)], [[torch.zeros(3)]]),
        lambda g: g.broadcast([torch.zeros(3)], options(c10d.BroadcastOptions, root=7)),
        lambda g: g.broadcast([torch.zeros(3)], options(c10d.BroadcastOptions, root=-1)),
        lambda g: g.scatter([torch.zeros(3)], [], options(c10d.ScatterOptions, root=g.rank())),
        lambda g: g.gather([], [torch.zeros(3)], options(c10d.GatherOptions, root=g.rank())),
    ],
)
def test_wrong_arguments_are_refused_as_gloo_refuses_them(ranks: Threads, wrong: Any) -> None:
    group = ranks.groups[0]
    raised = []
    for target in (group, group.router.inner):
        try:
            wrong(target).wait()
        except Exception as error:
            # gloo's own checks begin with the time.
            raised.append((type(error), str(error).splitlines()[0].rpartition("] ")[2]))
    assert len(raised) == 2
    assert raised[0] == raised[1]


def test_ranks_that_differ_in_the_root_all_get_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    ranks = Threads(2)

    def run(group: Any, rank: int) -> str:
        tensor = torch.full((9,), float(rank))
        with pytest.raises(EngineError) as raised:
            group.broadcast([tensor], options(c10d.BroadcastOptions, root=rank)).wait()
        assert tensor.tolist() == [float(rank)] * 9
        return str(raised.value)

    assert all("have issued different collectives" in said for said in ranks.all(run))
    ranks.close()


def test_copies_stay_on_gloo_where_no_switch_can_come() -> None:
    ranks = Threads(2)
    for agent in ranks.agents:
        agent.may_have_switch = False

    def run(group: Any, rank: int) -> None:
        tensor = torch.full((9,), float(rank))
        group.broadcast([tensor], options(c10d.BroadcastOptions, root=1)).wait()
        group.barrier().wait()
        out = torch.zeros(9)
        group._reduce_scatter_base(out, torch.ones(18)).wait()
        assert (tensor.tolist(), out.tolist()) == ([1.0] * 9, [2.0] * 9)

    ranks.all(run)
    assert stats()["switch"] == {"reduce_scatter_tensor": 2}
    assert stats()["fallback"].keys() == {"broadcast", "barrier"}
    ranks.close()
