"""Exposed communication time: waiting is counted where it happens, once, and nowhere else."""

import threading
import time
from collections.abc import Iterator
from datetime import timedelta

import pytest
import torch
from fakes import Ended, FakeAgent, FakeEngine, group_of_one

from wiresum.host_agent import stats
from wiresum.host_agent.backend import exposed
from wiresum.host_agent.backend.process_group import WiresumProcessGroup

pytestmark = pytest.mark.usefixtures("fresh_counters")

LIMIT_S = 10.0
WAIT_S = 0.2


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(at_once=False)


@pytest.fixture
def group(engine: FakeEngine) -> Iterator[WiresumProcessGroup]:
    group = group_of_one(FakeAgent(engine))
    yield group
    group.shutdown()


def end_later(engine: FakeEngine, *tickets: int) -> None:
    def end() -> None:
        for ticket in tickets:
            engine.ended.put(Ended(ticket))

    threading.Timer(WAIT_S, end).start()


def test_wait_counts_as_long_as_it_blocks(group: WiresumProcessGroup, engine: FakeEngine) -> None:
    work = group.allreduce([torch.ones(1)])
    end_later(engine, 0)
    began = time.monotonic()
    work.wait()
    took = time.monotonic() - began
    assert WAIT_S / 2 < stats()["exposed_s"] <= took
    before = stats()["exposed_s"]
    work.wait()
    assert stats()["exposed_s"] == before, "it has ended: nothing to wait for"
    assert stats()["ended"] == 1
    assert stats()["in_flight_s"] > WAIT_S / 2  # the waiter may wake later than its end


def test_a_wait_that_gives_up_counts_too(group: WiresumProcessGroup, engine: FakeEngine) -> None:
    work = group.allreduce([torch.ones(1)])
    with pytest.raises(Exception, match="did not end"):
        work.wait(timedelta(seconds=WAIT_S))
    assert stats()["exposed_s"] >= WAIT_S * 0.9
    engine.ended.put(Ended(0))


class Parameter:
    """A parameter whose gradient is all-reduced as DDP does it: issued by a hook in the middle of
    backward, waited for (in C++: through the future) in a callback at its end."""

    def __init__(self, group: WiresumProcessGroup, how: str, elsewhere: bool = False) -> None:
        self.value = torch.ones(3, requires_grad=True)
        self.value.register_post_accumulate_grad_hook(self._hook)
        self._group, self._how, self._elsewhere = group, how, elsewhere

    def _hook(self, parameter: torch.Tensor) -> None:
        assert parameter.grad is not None
        work = self._group.allreduce([parameter.grad])
        future = work.get_future()

        def finish() -> None:
            if self._how == "future":
                future.wait()
            elif self._how == "work":
                work.wait()

        engine = torch.autograd.Variable._execution_engine
        engine.queue_callback(finish)  # type: ignore[attr-defined]


@pytest.mark.parametrize("how", ["future", "work"])
def test_the_end_of_backward_counts_once(
    group: WiresumProcessGroup, engine: FakeEngine, how: str
) -> None:
    parameters = [Parameter(group, how) for _ in range(2)]
    loss = sum((p.value.sum() for p in parameters), torch.zeros(()))
    end_later(engine, 0, 1)
    began = time.monotonic()
    loss.backward()
    took = time.monotonic() - began
    assert WAIT_S / 2 < stats()["exposed_s"] <= took


def test_a_backward_that_nobody_waits_in_costs_nothing(
    group: WiresumProcessGroup, engine: FakeEngine
) -> None:
    parameter = Parameter(group, "not at all")
    parameter.value.sum().backward()
    assert stats()["exposed_s"] < WAIT_S / 2
    engine.ended.put(Ended(0))


def test_what_ended_during_backward_is_hidden(
    group: WiresumProcessGroup, engine: FakeEngine
) -> None:
    engine.at_once = True
    first = Parameter(group, "future")

    def slow(gradient: torch.Tensor) -> torch.Tensor:
        deadline = time.monotonic() + LIMIT_S
        while not stats()["ended"] and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(WAIT_S)
        return gradient

    inner = torch.ones(3, requires_grad=True)
    inner.register_hook(slow)
    # What was computed last comes first in backward: the parameter, then `inner`, which takes
    # its time while the collective travels.
    early = inner * 2
    began = time.monotonic()
    (first.value * 2 + early).sum().backward()
    assert time.monotonic() - began >= WAIT_S
    assert stats()["exposed_s"] < WAIT_S / 2
    assert stats()["ended"] == 1


def test_backwards_that_fail_leave_nothing_behind_for_long(
    group: WiresumProcessGroup, engine: FakeEngine
) -> None:
    engine.at_once = True

    def fail(_: torch.Tensor) -> None:
        raise ArithmeticError("on purpose")

    for _ in range(40):
        parameter = Parameter(group, "future")
        inner = torch.ones(3, requires_grad=True)
        inner.register_hook(fail)
        early = inner * 2
        with pytest.raises(ArithmeticError):
            (parameter.value * 2 + early).sum().backward()
    assert 0 < len(exposed._backwards) <= exposed._MOST
    exposed._backwards.clear()
