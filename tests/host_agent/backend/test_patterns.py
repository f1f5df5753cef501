"""Collectives like one that was carried before take a short way; it must lead to the same place."""

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import torch
import torch.distributed as dist
from fakes import Ended, FakeAgent, group_of_one, options

from wiresum.host_agent import errors, stats
from wiresum.host_agent.backend import patterns
from wiresum.host_agent.backend.process_group import WiresumProcessGroup

pytestmark = pytest.mark.usefixtures("fresh_counters")

OPS = dist.ReduceOp


@pytest.fixture
def whole_way(group: WiresumProcessGroup, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The collectives that went the whole way."""
    went: list[str] = []
    whole = group.router._over_switch

    def noted(request, *rest):  # type: ignore[no-untyped-def]
        went.append(request.method)
        return whole(request, *rest)

    monkeypatch.setattr(group.router, "_over_switch", noted)
    return went


def test_the_second_of_a_kind_is_given_to_the_engine_as_the_first(
    group: WiresumProcessGroup, agent: FakeAgent, whole_way: list[str]
) -> None:
    for op in (OPS.SUM, OPS.AVG, OPS.SUM, OPS.AVG):
        tensor = torch.ones(7)
        assert group.allreduce([tensor], options(op)).wait()
        assert agent.engine.buffers[-1] == (tensor.data_ptr(), 7)
    assert agent.engine.calls == [(7, "float32", False), (7, "float32", True)] * 2
    assert whole_way == ["allreduce"] * 2
    assert stats()["switch"] == {"all_reduce": 4}
    assert stats()["switch_bytes"] == 4 * 28


@pytest.mark.parametrize(
    "other",
    [
        torch.ones(8),
        torch.ones(7, dtype=torch.bfloat16),
        torch.ones(14)[::2],
        torch.ones(7, dtype=torch.int16),
        torch.ones(7).as_subclass(type("Mine", (torch.Tensor,), {})),
    ],
    ids=["elements", "dtype", "strides", "words", "subclass"],
)
def test_what_is_not_alike_goes_the_whole_way_each_time_it_must(
    group: WiresumProcessGroup, whole_way: list[str], other: torch.Tensor
) -> None:
    assert group.allreduce([torch.ones(7)], options()).wait()
    assert group.allreduce([other], options()).wait()
    assert whole_way == ["allreduce"] * 2


def test_two_barriers_in_flight_are_two_maxima_of_a_word(
    group: WiresumProcessGroup, agent: FakeAgent, whole_way: list[str]
) -> None:
    agent.engine.at_once = False
    works = [group.barrier(dist.BarrierOptions()) for _ in range(3)]
    assert whole_way == ["barrier"]
    assert agent.engine.calls == [(1, "max_uint32", False)] * 3
    for ticket, work in zip(agent.engine.tickets, works, strict=True):
        agent.engine.ended.put(Ended(ticket))
        assert work.wait(timedelta(seconds=30))
    assert stats()["switch"] == {"barrier": 3}


@pytest.mark.parametrize(
    ("method", "given", "carried"),
    [
        ("reduce", lambda: (torch.ones(1, 7), dist.ReduceOptions()), 0),
        ("reduce", lambda: ((one for one in [torch.ones(7)]), dist.ReduceOptions()), 1),
        ("barrier", lambda: ("gloo raises what is wrong with it",), 0),
        ("barrier", lambda: (dist.BarrierOptions(), dist.BarrierOptions()), 0),
    ],
    ids=["tensor", "generator", "barrier of a text", "barrier of two"],
)
def test_a_call_of_another_form_goes_the_way_it_went_before_any_was_carried(
    group: WiresumProcessGroup,
    agent: FakeAgent,
    method: str,
    given: Callable[[], tuple[Any, ...]],
    carried: int,
) -> None:
    """What the call does to a group before, and after one like it with the usual arguments."""

    def outcome() -> tuple[object, int]:
        agent.engine.calls.clear()
        try:
            return getattr(group, method)(*given()).wait(), len(agent.engine.calls)
        except TypeError as error:
            return str(error)[:60], len(agent.engine.calls)

    first = outcome()
    assert first[1] == carried
    for _ in range(2):
        assert group.barrier(dist.BarrierOptions()).wait()
        assert group.reduce([torch.ones(7)], dist.ReduceOptions()).wait()
    assert outcome() == first


def test_memory_stays_while_the_engine_has_it_whatever_becomes_of_the_tensor(
    group: WiresumProcessGroup, agent: FakeAgent
) -> None:
    assert group.allreduce([torch.ones(1000)], options()).wait()
    agent.engine.at_once = False
    tensor = torch.full((1000,), 3.0)
    address = tensor.data_ptr()
    work = group.allreduce([tensor], options())
    tensor.data = torch.zeros(5)
    others = [torch.zeros(1000) for _ in range(50)]
    assert address not in [other.data_ptr() for other in others]
    agent.engine.ended.put(Ended(agent.engine.tickets[-1]))
    assert work.wait(timedelta(seconds=30))


def test_a_repeated_one_has_the_callers_limit_and_the_engines_error(
    group: WiresumProcessGroup, agent: FakeAgent
) -> None:
    assert group.allreduce([torch.ones(3)], options()).wait()
    agent.engine.at_once = False
    short = options()
    short.timeout = timedelta(milliseconds=20)
    with pytest.raises(errors.CollectiveTimeout):
        group.allreduce([torch.ones(3)], short).wait()
    work = group.allreduce([torch.ones(3)], options())
    agent.engine.ended.put(Ended(agent.engine.tickets[-1], "rank 1 is gone", "PeerLost"))
    with pytest.raises(errors.PeerLost, match="rank 1 is gone"):
        work.wait(timedelta(seconds=30))


def test_what_holds_inf_is_repaired_also_when_repeated(
    group: WiresumProcessGroup, agent: FakeAgent
) -> None:
    assert group.allreduce([torch.ones(4)], options(OPS.AVG)).wait()
    agent.engine.at_once = False
    tensor = torch.tensor([1.0, 2.0, float("inf"), 4.0], requires_grad=True)
    work = group.allreduce([tensor], options(OPS.AVG))
    agent.engine.ended.put(Ended(agent.engine.tickets[-1], nonfinite=[(2, 1)]))
    assert work.wait(timedelta(seconds=30))
    assert tensor.tolist() == [1.0, 2.0, float("inf"), 4.0]
    assert sum(stats()["fallback"]["all_reduce of blocks with Inf or NaN"].values()) == 1


def test_after_the_end_a_repeated_one_is_refused(agent: FakeAgent) -> None:
    group = group_of_one(agent)
    assert group.allreduce([torch.ones(3)], options()).wait()
    group.shutdown()
    with pytest.raises(errors.EngineClosed):
        group.allreduce([torch.ones(3)], options())


def test_a_second_group_of_all_ranks_repeats_on_its_own_thread_only(
    group: WiresumProcessGroup, agent: FakeAgent
) -> None:
    second = group_of_one(None, world=group.router)
    for _ in range(2):
        assert second.allreduce([torch.ones(5)], options()).wait()
    assert len(agent.engine.calls) == 2
    thread = threading.Thread(target=lambda: second.allreduce([torch.ones(5)], options()).wait())
    thread.start()
    thread.join(30)
    assert len(agent.engine.calls) == 2  # it went to gloo
    assert second.allreduce([torch.ones(5)], options()).wait()
    assert len(agent.engine.calls) == 3
    thread = threading.Thread(target=lambda: group.allreduce([torch.ones(5)], options()).wait())
    thread.start()
    thread.join(30)
    assert len(agent.engine.calls) == 4  # another thread uses the switch from now on
    assert second.allreduce([torch.ones(5)], options()).wait()
    assert len(agent.engine.calls) == 4
    second.shutdown()


def test_a_profile_shows_repeated_collectives(group: WiresumProcessGroup) -> None:
    for _ in range(2):
        assert group.allreduce([torch.ones(6)], options()).wait()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        assert group.allreduce([torch.ones(6)], options()).wait()
    assert "wiresum::all_reduce" in {event.name for event in profile.events()}


def test_a_group_keeps_so_many_patterns(
    group: WiresumProcessGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wiresum.host_agent.backend.collective_router.MOST", 3)
    for elements in range(1, 8):
        assert group.allreduce([torch.ones(elements)], options()).wait()
    assert len(group.router._patterns) == 3
    assert patterns.MOST >= 64
