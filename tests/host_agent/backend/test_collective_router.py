"""The collective router over an engine that the test drives by hand."""

import ctypes
import logging
import threading
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from fakes import Ended, FakeAgent, FakeEngine, group_of_one, options

from wiresum.common.errors import LineText, code_of
from wiresum.host_agent import errors, stats
from wiresum.host_agent.agent.face import Unit
from wiresum.host_agent.backend.collectives import Collectives
from wiresum.host_agent.backend.integer_average import average
from wiresum.host_agent.backend.process_group import WiresumProcessGroup
from wiresum.host_agent.backend.routing import op_name

pytestmark = pytest.mark.usefixtures("fresh_counters")

LIMIT_S = 10.0
OPS = dist.ReduceOp


@pytest.fixture
def manual(agent: FakeAgent) -> FakeEngine:
    """The engine of ``group``, which ends no ticket by itself."""
    agent.engine.at_once = False
    return agent.engine


@pytest.mark.parametrize("average", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_the_switch_sums_and_averages_three_dtypes(
    group: WiresumProcessGroup, agent: FakeAgent, dtype: str, average: bool
) -> None:
    tensor = torch.ones(7, dtype=getattr(torch, dtype))
    assert group.allreduce([tensor], options(OPS.AVG if average else OPS.SUM)).wait()
    assert agent.engine.calls == [(7, dtype, average)]
    assert stats()["switch"] == {"all_reduce": 1}
    assert stats()["fallback"] == {}


@pytest.mark.parametrize("dtype", ["int32", "int16", "int8", "uint8"])
def test_integers_are_summed_in_words_of_32_bits(
    group: WiresumProcessGroup, agent: FakeAgent, dtype: str
) -> None:
    tensor = torch.ones(7, dtype=getattr(torch, dtype))
    assert group.allreduce([tensor], options(OPS.SUM)).wait()
    assert agent.engine.calls == [(7, "int32", False)]
    assert stats()["switch_bytes"] == 7 * tensor.element_size()


@pytest.mark.parametrize("op", [OPS.MAX, OPS.MIN])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int32", "int8"])
def test_the_largest_and_the_least_are_found_in_words(
    group: WiresumProcessGroup, agent: FakeAgent, dtype: str, op: object
) -> None:
    tensor = torch.tensor([-3, 0, 5], dtype=getattr(torch, dtype))
    before = tensor.clone()
    assert group.allreduce([tensor], options(op)).wait()
    assert agent.engine.calls == [(3, "max_uint32", False)]
    assert torch.equal(tensor, before)  # the only rank's own


@pytest.mark.parametrize(
    ("tensor", "op", "reason"),
    [
        (torch.ones(3, dtype=torch.float64), OPS.MAX, "MAX of float64"),
        (torch.ones(3, dtype=torch.int64), OPS.MIN, "MIN of int64"),
        (torch.ones(3), OPS.PRODUCT, "PRODUCT"),
        (torch.ones(3, dtype=torch.int64), OPS.SUM, "int64"),
        (torch.ones(3, dtype=torch.int32), OPS.AVG, "AVG of int32"),
        (torch.ones(16_385), OPS.MAX, "MAX of more than 16384 float32"),
        (torch.ones(16_385, dtype=torch.int8), OPS.SUM, "SUM of more than 16384 int8"),
        (torch.ones(3, dtype=torch.int32), OPS.BAND, "BAND"),
        (torch.ones(3, dtype=torch.float64), OPS.SUM, "float64"),
        (torch.ones(3).to_sparse(), OPS.SUM, "sparse"),
    ],
)
def test_what_the_switch_cannot_do_goes_to_gloo_and_says_why(
    group: WiresumProcessGroup,
    agent: FakeAgent,
    caplog: pytest.LogCaptureFixture,
    tensor: torch.Tensor,
    op: object,
    reason: str,
) -> None:
    with caplog.at_level(logging.INFO, "wiresum"):
        for _ in range(3):
            group.allreduce([tensor.clone()], options(op)).wait()
    assert agent.engine.calls == []
    (why,) = stats()["fallback"]["all_reduce"]
    assert reason in why
    assert stats()["fallback"]["all_reduce"][why] == 3
    assert len([r for r in caplog.records if reason in r.getMessage()]) == 1


def test_a_group_without_a_lease_says_why_at_its_first_collective(
    caplog: pytest.LogCaptureFixture,
) -> None:
    group = group_of_one(None, "only the default group has a lease")
    with caplog.at_level(logging.INFO, "wiresum"):
        for _ in range(3):
            group.allreduce([torch.ones(3)], options()).wait()
    (said,) = caplog.records
    assert said.levelname == "WARNING"
    assert "all_reduce goes over the fallback: only the default group has a lease" in (
        said.getMessage()
    )
    assert stats()["fallback_bytes"] == 36
    group.shutdown()


def test_an_average_of_integers_is_their_sum_divided_towards_zero(
    group: WiresumProcessGroup, agent: FakeAgent
) -> None:
    tensor = torch.tensor([-7, 7, 8])
    group.allreduce([tensor], options(OPS.AVG)).wait()  # of one rank
    assert tensor.tolist() == [-7, 7, 8]
    assert agent.engine.calls == []

    # The sum over this one rank, as if it were that of three; whoever waits how often.
    start = group.router.inner.allreduce
    work = average(start, [tensor], options(OPS.AVG), 3)
    work.wait()
    assert work.get_future().wait()[0] is tensor
    work.wait()
    assert tensor.tolist() == [-2, 2, 2]


def test_the_forms_of_a_call(group: WiresumProcessGroup, agent: FakeAgent) -> None:
    tensor = torch.ones(2)
    group.allreduce(tensor).wait()
    group.allreduce([tensor], OPS.SUM).wait()
    group.allreduce([tensor], op=OPS.AVG, timeout=timedelta(seconds=5)).wait()
    group.allreduce_coalesced([tensor, tensor.clone()]).wait()
    assert [average for _, _, average in agent.engine.calls] == [False, False, True] + 2 * [False]
    assert stats()["switch"] == {"all_reduce": 3, "all_reduce_coalesced": 1}
    assert stats()["switch_tensors"] == 5


def test_an_all_reduce_of_a_list_sums_over_the_list_as_gloo_does(
    group: WiresumProcessGroup, agent: FakeAgent
) -> None:
    for dtype in (torch.float32, torch.float64):
        tensors = [torch.tensor([1.0], dtype=dtype), torch.tensor([2.0], dtype=dtype)]
        group.allreduce(tensors).wait()
        assert [tensor.item() for tensor in tensors] == [3.0, 3.0]
    for wrong in ([], [torch.ones(1), torch.ones(2)]):
        with pytest.raises(RuntimeError):
            group.allreduce(wrong, options()).wait()
    assert agent.engine.calls == []


def test_a_non_contiguous_tensor_gets_the_result_back(
    group: WiresumProcessGroup, manual: FakeEngine
) -> None:
    base = torch.arange(12.0).view(3, 4)
    parameter = torch.nn.Parameter(torch.arange(4.0).view(2, 2))
    work = group.allreduce_coalesced([base.t()[1:3], parameter.t()])
    assert not work.is_completed()
    for address, count in manual.buffers:  # the engine works in place
        buffer = (ctypes.c_float * count).from_address(address)
        for i in range(count):
            buffer[i] *= 10
    for ticket in (0, 1):
        manual.ended.put(Ended(ticket))
    assert work.wait()
    expected = torch.arange(12.0).view(3, 4)
    expected[:, 1:3] *= 10
    assert torch.equal(base, expected)
    assert torch.equal(parameter, torch.arange(4.0).view(2, 2) * 10)


def test_a_work_ends_with_its_last_ticket(group: WiresumProcessGroup, manual: FakeEngine) -> None:
    work = group.allreduce_coalesced([torch.ones(1), torch.ones(2)])
    manual.ended.put(Ended(1))
    with pytest.raises(errors.CollectiveTimeout, match="fake"):
        work.wait(timedelta(milliseconds=50))
    assert not work.is_completed()
    manual.ended.put(Ended(0))
    assert work.wait(timedelta(seconds=LIMIT_S))
    assert work.is_success()


def test_a_second_group_of_all_ranks_has_a_timeout_of_its_own(
    group: WiresumProcessGroup, manual: FakeEngine
) -> None:
    second = group_of_one(None, timeout_s=0.05, world=group.router)
    for issue in (lambda: second.allreduce([torch.ones(1)]), second.barrier):
        with pytest.raises(errors.CollectiveTimeout, match=r" timeout of 0\.05 s on rank 0"):
            issue().wait()
    second.shutdown()


@pytest.mark.parametrize(
    "kind", ["CollectiveTimeout", "CollectiveMismatch", "SwitchUnreachable", "CodecError"]
)
def test_an_error_of_the_engine_is_raised_as_its_type(
    group: WiresumProcessGroup, manual: FakeEngine, kind: str
) -> None:
    work = group.allreduce([torch.ones(3)])
    future = work.get_future()
    manual.ended.put(Ended(0, "rank 3 is missing", kind))
    with pytest.raises(getattr(errors, kind), match="rank 3 is missing"):
        work.wait()
    with pytest.raises(Exception, match="rank 3 is missing"):
        future.wait()
    assert isinstance(work.exception(), getattr(errors, kind))
    assert not work.is_success()
    assert stats()["failed"] == {kind: 1}


def test_a_future_asked_for_late_completes_too(group: WiresumProcessGroup) -> None:
    tensor = torch.ones(3)
    work = group.allreduce([tensor])
    work.wait()
    assert work.get_future().wait()[0] is tensor
    assert work.get_future() is work.get_future()


def test_callbacks_may_wait_for_other_collectives(
    group: WiresumProcessGroup, manual: FakeEngine
) -> None:
    count = 12  # more than any fixed small pool would have threads
    works = [group.allreduce([torch.ones(1)]) for _ in range(count + 1)]
    last = works[-1].get_future()
    threads = set()

    def callback(_: object) -> int:
        threads.add(threading.get_ident())
        last.wait()
        return 1

    chained = [work.get_future().then(callback) for work in works[:-1]]
    for ticket in range(count + 1):  # the one that all the others wait for comes last
        manual.ended.put(Ended(ticket))
    assert [future.wait() for future in chained] == [1] * count
    assert threading.get_ident() not in threads
    assert len(threads) == count


def test_a_collective_issued_in_a_callback_does_not_use_the_switch(
    group: WiresumProcessGroup, manual: FakeEngine
) -> None:
    def callback(_: object) -> float:
        tensor = torch.ones(1)
        group.allreduce([tensor]).wait()
        group.broadcast([tensor]).wait()
        return float(tensor)

    future = group.allreduce([torch.ones(1)]).get_future().then(callback)
    manual.ended.put(Ended(0))
    assert future.wait() == 1.0
    assert len(manual.calls) == 1
    assert "callback" in next(iter(stats()["fallback"]["all_reduce"]))


def test_shutdown_ends_what_is_in_flight(agent: FakeAgent, manual: FakeEngine) -> None:
    group = group_of_one(agent)
    work = group.allreduce([torch.ones(1)])
    group.shutdown()
    group.shutdown()
    assert agent.engine.closed
    with pytest.raises(errors.EngineClosed):
        work.wait(timedelta(seconds=LIMIT_S))
    assert stats()["engine"] == {"collectives": 1}


def test_a_lost_lease_explains_what_fails(
    group: WiresumProcessGroup, agent: FakeAgent, manual: FakeEngine
) -> None:
    work = group.allreduce([torch.ones(1)])
    agent.gone = errors.EngineError("job x is expired")
    manual.ended.put(Ended(0, "closed", "EngineClosed"))
    with pytest.raises(errors.EngineError, match="job x is expired"):
        work.wait(timedelta(seconds=LIMIT_S))
    with pytest.raises(errors.EngineError, match="job x is expired"):
        group.allreduce([torch.ones(1)])


@pytest.mark.parametrize("said", ["rank 0 is silent (for 3 s)", "rank 0 is silent"])
def test_an_error_in_a_group_says_once_which_ranks_it_means(
    agent: FakeAgent, manual: FakeEngine, said: str
) -> None:
    numbers = "(ranks 0 of this group are ranks 3 of the run)"
    group = group_of_one(agent, members=(3,))
    for ticket, line in enumerate([said, f"{said} {numbers}"]):
        work = group.allreduce([torch.ones(1)])
        manual.ended.put(Ended(ticket, LineText(line, "E301"), "CollectiveTimeout"))
        with pytest.raises(errors.CollectiveTimeout) as caught:
            work.wait(timedelta(seconds=LIMIT_S))
        assert str(caught.value) == f"{said} {numbers}"
        assert code_of(caught.value) == "E301"
    with pytest.raises(errors.CollectiveTimeout, match=r"on rank 3$"):
        group.allreduce([torch.ones(1)]).wait(timedelta(milliseconds=10))
    group.shutdown()


def test_tensors_of_several_devices_are_an_error_that_names_the_rank(
    group: WiresumProcessGroup, agent: FakeAgent
) -> None:
    output, given = torch.zeros(2), torch.zeros(2, device="meta")
    with pytest.raises(errors.EngineError) as caught:
        group._allgather_base(output, given)
    words = "all_gather_into_tensor on rank 0 has tensors on cpu and meta"
    assert words in str(caught.value)
    with pytest.raises(errors.EngineError, match="all_reduce_coalesced on rank 0"):
        group.allreduce_coalesced([output, given])
    assert agent.engine.calls == []
    assert stats()["fallback"] == {}
    assert group.allreduce([output]).wait()


@pytest.mark.parametrize("detail", [False, True])
def test_collectives_of_cpu_tensors_are_on_the_cpu_whatever_the_default_device_is(
    group: WiresumProcessGroup, agent: FakeAgent, detail: bool
) -> None:
    group.router._detail.on = detail
    overlapping = torch.ones(8).as_strided((2, 3), (1, 1))
    with torch.device("meta"):
        assert group.barrier(dist.BarrierOptions()).wait(timedelta(seconds=LIMIT_S))
        work = group.allreduce([overlapping], options())
        assert work.wait(timedelta(seconds=LIMIT_S))
    assert agent.engine.calls == [(1, "max_uint32", False), (6, "float32", False)]
    assert all(data != 0 for data, _ in agent.engine.buffers)
    assert overlapping.tolist() == [[1.0] * 3] * 2


def test_a_ticket_may_end_before_it_is_known(group: WiresumProcessGroup, agent: FakeAgent) -> None:
    polled = threading.Event()
    original = agent.engine.collect

    def collect(pieces: Unit) -> None:
        original(pieces)
        polled.wait(0.2)  # gives the poller the time to see it; correct either way

    agent.engine.collect = collect  # type: ignore[method-assign]
    works = [group.allreduce_coalesced([torch.ones(1), torch.ones(1)]) for _ in range(2)]
    assert all(work.wait(timedelta(seconds=LIMIT_S)) for work in works)


def test_without_a_link_everything_is_done_by_the_fallback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    group = group_of_one(None, "no switch here", said=True)
    with caplog.at_level(logging.INFO, "wiresum"):
        group.allreduce([torch.ones(1)]).wait()
        group.barrier().wait()
    assert stats()["fallback"] == {
        "all_reduce": {"no switch here": 1},
        "barrier": {"no switch here": 1},
    }
    assert caplog.records == []  # said once, when the group was made
    group.shutdown()


def test_every_collective_is_overridden() -> None:
    # What C++ can call and Python does not override would run holding the GIL.
    kept = {
        # what C++ answers from the registered backends or the object itself
        *("BackendType", "CUSTOM", "GLOO", "MPI", "NCCL", "UCC", "UNDEFINED", "XCCL"),
        *("bound_device_id", "boxed", "unbox", "group_name", "group_desc"),
        "use_pg_for_symm_mem_rendezvous",
        # makes groups; not collectives of this one
        *("split_group", "merge_remote_group"),
    }
    public = {name for name in dir(dist.ProcessGroup) if not name.startswith("_")}
    missing = {
        name
        for name in public - kept
        if getattr(WiresumProcessGroup, name) is getattr(dist.ProcessGroup, name)
    }
    assert missing == set()
    for name in ("_allgather_base", "_reduce_scatter_base", "_start_coalescing", "_end_coalescing"):
        assert hasattr(Collectives, name)
    assert "group_name" not in vars(WiresumProcessGroup) | vars(Collectives)


def test_names_of_operations() -> None:
    assert op_name(OPS.SUM) == "SUM"
    assert op_name(OPS(OPS.AVG)) == "AVG"
    assert op_name(options(OPS.MAX).reduceOp) == "MAX"
