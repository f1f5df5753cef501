"""What has to wait for what on a device; and that these tests see it if one wait is missing."""

import contextlib
import functools
import gc
import inspect
import textwrap
import threading
import time
import unittest.mock
import weakref
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import torch
from carried_rig import Threads, bits
from staged_rig import Staged, numbers, options
from torch._C import _distributed_c10d as c10d

from support.simulated_device import SimulatedDevice
from wiresum.common.patience import Patience
from wiresum.host_agent import stats
from wiresum.host_agent.backend.cuda import cutting, job, pool, staging, work
from wiresum.host_agent.backend.cuda.torch_device import TorchDevices
from wiresum.host_agent.backend.plans import Piece
from wiresum.host_agent.backend.work import SwitchWork
from wiresum.host_agent.errors import CollectiveTimeout, EngineClosed, PeerLost

pytestmark = pytest.mark.usefixtures("fresh_counters")

LATE_S = (0.001, 0.004, 0.008)
"""How late each operation is: of the script's stream, of the first one, and of the second."""

FAULT_S = 0.4
"""How late streams begin where a wait is missing: long enough that somebody does not wait."""
COUNT = 150_000


@pytest.fixture(autouse=True)
def _small_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutting.rounds, "__defaults__", (1 << 15,))
    monkeypatch.setattr(pool.Pool.__init__, "__defaults__", (2 << 16,))


def train(group: Any, rank: int, device: Any = None) -> list[torch.Tensor]:
    """Compute, communicate, and compute on; on a stream of ``device``, without blocking for it."""
    one, sent, out = numbers(COUNT, rank), numbers(900, rank), torch.zeros(9000)
    whole = torch.zeros(group.size() * 3000)
    part = numbers(3000, 9 + rank)
    stream = None if device is None else device.stream()
    with contextlib.nullcontext() if stream is None else stream.using():
        one.mul_(3)
        sent.add_(rank)
        out.fill_(7.0)
        whole.fill_(8.0)
        part.mul_(5)
        gathered = group._allgather_base(whole, part)
        works = [
            group.allreduce([one]),
            group.broadcast([sent], options(c10d.BroadcastOptions, root=0)),
            group.broadcast([out], options(c10d.BroadcastOptions, root=0)),
        ]
        gathered.wait()
        if stream is not None:
            stream.late_s = 0
        early = whole * 2
        for each in works:
            each.wait()
        one.add_(1)
        total = early + sent.sum()
    if stream is not None:
        stream.drain()
    return [one, sent, out, whole, part, early, total]


def trained(ranks: Staged, hold_s: float = 0.01, others_s: float = 0.0) -> list[list[torch.Tensor]]:
    """The script's stream begins after ``hold_s``, or when another one has done something."""

    def held(device: Any) -> None:
        patience = Patience(hold_s)
        while patience.step(0.001) > 0:
            if any(each.started.is_set() for each in device.streams[1:]):
                return
            time.sleep(0.001)

    for device in ranks.devices:
        device.late_s = LATE_S
        later = functools.partial(time.sleep, others_s)
        device.holds = (functools.partial(held, device), later, later)
    found = ranks.all(lambda group, rank: train(group, rank, ranks.devices[rank]))
    for device in ranks.devices:
        del device.streams[0]  # the script's own, for which nobody keeps memory
    ranks.check()
    return found


def all_bits(found: list[list[torch.Tensor]]) -> list[list[bytes]]:
    return [[bits(each) for each in tensors] for tensors in found]


@pytest.fixture(scope="module", params=[1, 2])
def expected(request: pytest.FixtureRequest) -> Iterator[tuple[int, list[list[bytes]]]]:
    plain = Threads(request.param, 8)
    yield request.param, all_bits(plain.all(train))
    plain.close()


def test_a_stream_waits_for_results_and_results_wait_for_a_stream(expected: Any) -> None:
    ranks = Staged(expected[0], 8)
    assert all_bits(trained(ranks)) == expected[1]
    assert stats()["fallback"] == {}
    ranks.close()


FAULTS = {
    "the first stream does not wait for the script's": (
        staging.Staging, "begin", "lane.down.wait(device.current().record())", "pass", 2,
    ),
    "the exponents are read before they are computed": (
        staging.Staging, "_agree", "wait_until(job.planned.done, ", "_nothing(", 2,
    ),
    "the engine reads before the copy has ended": (
        staging.Staging, "_depart", "wait_until(flight.copied.done, ", "_nothing(", 2,
    ),
    "the end does not wait for what was planned": (
        staging.Staging, "_finish", "lane.up.wait(job.planned)", "pass", 1,
    ),
    "the script's stream does not wait for the results": (
        work.StagedWork, "wait", "self._device.current().wait(self._ready)", "pass", 2,
    ),
    "a buffer is used again before it was copied from": (
        staging.Staging, "_copy_up", "give_back(flight.buffer, after)", "give_back(flight.buffer)",
        2,
    ),
    "the pool lends what the device still uses": (
        pool.Pool, "take", "and buffer.idle", "", 2,
    ),
    "memory is not kept for the streams": (
        staging.Staging, "_keep", "stream.keep(tensor)", "pass", 2,
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_missing_wait_is_seen(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, name, text, instead, size = FAULTS[fault]
    source = textwrap.dedent(inspect.getsource(getattr(kind, name)))
    assert source.count(text) == 1, "the test knows another text"
    made: dict[str, Any] = {}
    names = vars(inspect.getmodule(kind)) | {"_nothing": lambda *_given: None}
    exec(source.replace(text, instead), names, made)
    plain = Threads(size, 8)
    expected = all_bits(plain.all(train))
    plain.close()
    monkeypatch.setattr(kind, name, made[name])
    ranks = Staged(size, 8)
    hold_s = 30.0 if fault.startswith("the first stream") else 0.01
    try:
        same = all_bits(trained(ranks, hold_s, FAULT_S)) == expected
    except AssertionError as seen:
        same = "is not kept for" not in str(seen)
    assert not same
    ranks.close()


def test_a_future_runs_its_callbacks_after_the_copies() -> None:
    ranks = Staged(2, 32)

    def run(group: Any, rank: int) -> float:
        ended = threading.Event()
        tensor = torch.full((COUNT,), rank + 1.0)
        work = group.allreduce([tensor])

        def double(future: Any) -> torch.Tensor:
            future.value()[0].mul_(2)  # on the stream of the copies
            ended.set()
            return future.value()[0]

        doubled = work.get_future().then(double)
        work.wait()
        assert doubled.wait() is tensor or doubled.value().data_ptr() == tensor.data_ptr()
        assert ended.is_set()
        ranks.devices[rank].check()
        return float(tensor.sum())

    assert ranks.all(run) == [6.0 * COUNT] * 2
    ranks.close()


def test_a_collective_of_a_callback_is_carried_out() -> None:
    ranks = Staged(2)

    def run(group: Any, rank: int) -> list[float]:
        first, second = torch.full((5,), 1.0), torch.full((5,), 2.0 + rank)
        issued: list[Any] = []

        def then(_future: Any) -> None:
            issued.append(group.allreduce([second], c10d.AllreduceOptions()))

        group.allreduce([first]).get_future().then(then).wait()
        issued[0].wait()
        return [float(first[0]), float(second[0])]

    assert ranks.all(run) == [[2.0, 5.0]] * 2
    ranks.close()


def test_an_engine_that_takes_nothing_ends_works_with_its_error() -> None:
    ranks = Staged(2, 8)
    ranks.agents[0].gone = PeerLost("rank 1 is gone")
    tensor = torch.ones(COUNT)
    work = ranks.groups[0].allreduce([tensor])
    with pytest.raises(PeerLost, match="rank 1 is gone"):
        work.wait()
    with pytest.raises(RuntimeError, match="rank 1 is gone"):
        work.get_future().wait()
    assert work.is_completed()
    assert not work.is_success()
    with pytest.raises(PeerLost):
        ranks.groups[0].barrier().wait()
    ranks.close()


@pytest.mark.parametrize("field", [32, 8])
def test_after_a_collective_that_a_rank_cannot_stage_it_sums_nothing_that_does_not_belong_together(
    field: int,
) -> None:
    ranks = Staged(2, field)
    device, fails = ranks.devices[0], [True]

    def pinned(size: int) -> torch.Tensor:
        if threading.current_thread().name == "wiresum-stage" and fails.pop():
            raise MemoryError("no pinned memory")
        return SimulatedDevice.pinned(device, size)

    device.pinned = pinned  # type: ignore[method-assign]
    tensors = [[torch.full((3000,), 1.0 + number) for number in range(3)] for _ in range(2)]
    works = [
        [group.allreduce([tensor]) for tensor in mine]
        for group, mine in zip(ranks.groups, tensors, strict=True)
    ]
    on_host = tensors[0][0].clone()
    with pytest.raises(MemoryError, match="no pinned memory"):
        works[0][0].wait()
    for each in works[0][1:]:
        with pytest.raises(EngineClosed, match="no more work: MemoryError: no pinned memory"):
            each.wait()
    ranks.groups[0].router.devices = TorchDevices()  # its tensors are the host's again
    with pytest.raises(EngineClosed, match="no more work"):
        ranks.groups[0].allreduce([on_host]).wait()
    ranks.groups[0].shutdown()
    ranks.groups[1].shutdown()
    for each in works[1]:
        with pytest.raises((EngineClosed, PeerLost)):
            each.wait()
    ranks.close()


def test_a_collective_whose_own_limit_is_over_goes_on_and_the_next_ones_are_right() -> None:
    ranks = Staged(2, 8)
    ranks.devices[0].holds = (functools.partial(time.sleep, 0.3),)
    given = options(c10d.AllreduceOptions)
    given.timeout = timedelta(milliseconds=20)

    def run(group: Any, rank: int) -> list[float]:
        first, second = torch.full((3000,), 1.0 + rank), torch.full((3000,), 5.0)
        work, other = group.allreduce([first], given), group.allreduce([second])
        if rank == 0:
            with pytest.raises(CollectiveTimeout):
                work.wait()
        other.wait()
        ranks.devices[rank].check()
        return [float(first[0]), float(second[0])]

    for found in ranks.all(run):
        assert found == pytest.approx([3.0, 10.0], rel=0.02)
    ranks.close()


def test_exponents_stay_in_memory_until_the_engine_has_ended() -> None:
    memory = torch.zeros(3, dtype=torch.int32)
    agreed = job.Agreed(Piece(memory, 3, "max_uint32", False, -1, 0, -1, True))
    taken, there = agreed.taken, weakref.ref(memory)
    taken.expect([7])
    with pytest.raises(CollectiveTimeout):
        agreed.wait(0.01)
    del agreed, memory
    gc.collect()
    assert there() is not None
    taken.ticket_ended(7, None, [])
    assert there() is None


def test_a_thread_that_waits_asks_the_engine_for_no_ticket_before_all_of_them_are_set() -> None:
    asked: list[tuple[int, int]] = []

    class Asked:
        def await_end(self, first: int, count: int, timeout_s: float, leave: bool) -> bool:
            asked.append((first, count))
            return True

        def flush(self) -> None:
            """Nothing is held back."""

    class Slow(list[int]):
        def __getitem__(self, index: Any) -> Any:
            assert not waited._ends_soon(1.0)
            return super().__getitem__(index)

    class Owner:
        def late(self, _seconds: float) -> PeerLost:
            return PeerLost("late")

        def complete_later(self, job: Callable[[], None]) -> None:
            job()

        def repair(self, _work: Any, _spans: Any, done: Callable[[None], None]) -> None:
            done(None)

        def limit_of(self, _options: Any) -> float:
            return 5.0

    waited = SwitchWork(Owner(), Owner(), "a", [], [], None)
    waited.prompt = Asked()
    waited.expect(Slow([40, 41]))
    assert asked == []
    assert waited.wait()
    assert asked == [(40, 2)]


def test_shutting_down_ends_what_is_on_its_way() -> None:
    ranks = Staged(2, 8)
    works = [ranks.groups[0].allreduce([torch.ones(COUNT)]) for _ in range(3)]
    ranks.groups[0].shutdown()
    for each in works:
        with pytest.raises((EngineClosed, PeerLost)):
            each.wait()
    ranks.close()


def test_what_a_device_cannot_stage_now_goes_over_the_fallback() -> None:
    ranks = Staged(2)
    for group in ranks.groups:
        group.router.devices.reason = "a graph is captured"

    def run(group: Any, rank: int) -> float:
        tensor = torch.ones(4)
        group.allreduce([tensor]).wait()
        return float(tensor[0])

    assert ranks.all(run) == [2.0, 2.0]
    assert stats()["fallback"] == {"all_reduce": {"a graph is captured": 2}}
    ranks.close()


@pytest.mark.parametrize("most", [1 << 12, 1 << 16, 1 << 30])
def test_rounds_cut_pieces_into_whole_blocks_that_are_never_small(most: int) -> None:
    counts = [0, 1, 1024, 1025, 4095, 4096, 100_001, 7]
    found: dict[int, list[tuple[int, int]]] = {}
    for parts in cutting.rounds(counts, [4 * each for each in counts], most):
        for part in parts:
            found.setdefault(part.piece, []).append((part.first, part.count))
    for piece, count in enumerate(counts):
        parts_of = found[piece]
        ends = [first + size for first, size in parts_of]
        assert [first for first, _ in parts_of] == [0, *ends[:-1]]
        assert ends[-1] == count
        if len(parts_of) > 1:
            assert all(size > 1024 for _, size in parts_of)
            assert all(first % 256 == 0 for first, _ in parts_of)


def test_a_pool_makes_no_more_than_it_may_and_lends_again() -> None:
    made: list[int] = []

    def make(size: int) -> torch.Tensor:
        made.append(size)
        return torch.empty(size, dtype=torch.uint8)

    lent = pool.Pool(make, 1 << 18)
    one, two = lent.take(1 << 17), lent.take(1 << 17)
    assert one is not None
    assert two is not None
    assert lent.take(1) is None
    lent.give_back(one)
    assert lent.take(1 << 17) is one
    lent.give_back(two)
    lent.give_back(one)
    assert lent.take(1 << 17) is two
    assert lent.take(1 << 17) is one  # two of one size
    lent.give_back(one)
    lent.give_back(two)
    large = lent.take(1 << 20)  # alone it may be larger
    assert large is not None
    assert lent.held == 1 << 20
    assert lent.take(1) is None
    assert made == [1 << 17, 1 << 17, 1 << 20]


def test_a_pool_counts_no_memory_that_it_could_not_get() -> None:
    refused = pool.Pool(unittest.mock.Mock(side_effect=MemoryError), 1 << 18)
    with pytest.raises(MemoryError):
        refused.take(1 << 17)
    assert refused.held == 0


def test_ranges_of_blocks_with_inf_or_nan_are_joined() -> None:
    assert job.nonfinite(torch.tensor([-1, -1, 5, -1]), 800) == [(0, 512), (768, 32)]
