"""A collective whose results a waiter knows before the thread that ends works has ended it."""

import threading
from dataclasses import dataclass, field

import pytest
import torch
from fakes import Ended, FakeAgent, FakeEngine, group_of_one

from wiresum.host_agent.backend import completion, work
from wiresum.host_agent.backend.process_group import WiresumProcessGroup

LIMIT_S = 30.0


@dataclass
class PromptEngine(FakeEngine):
    """Its collectives have their results at once; ``poll`` reports them when it is told to."""

    at_once: bool = False
    flushes: int = 0
    left: list[int] = field(default_factory=list)

    def await_end(self, first: int, count: int, timeout_s: float, leave: bool) -> bool:
        self.left += range(first, first + count)
        return True

    def flush(self) -> None:
        self.flushes += 1
        while self.left:
            self.ended.put(Ended(self.left.pop(0)))


@pytest.fixture
def engine() -> PromptEngine:
    return PromptEngine()


@pytest.fixture
def group(engine: PromptEngine) -> WiresumProcessGroup:
    return group_of_one(FakeAgent(engine))


def test_a_future_that_is_asked_for_after_the_wait_is_complete(
    engine: PromptEngine, group: WiresumProcessGroup
) -> None:
    tensor = torch.ones(3)
    made = group.allreduce([tensor])
    assert made.wait()
    assert made.is_completed()
    assert made.is_success()
    assert engine.flushes == 0  # nobody was woken for it
    future = made.get_future()
    assert future.done()
    assert future.value()[0] is tensor
    group.shutdown()


def test_what_has_ended_well_stays_so_when_the_engine_cannot_be_asked_any_more(
    engine: PromptEngine, group: WiresumProcessGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_timeout_s: float) -> list[Ended]:
        raise RuntimeError("the engine is broken")

    made = group.allreduce([torch.ones(3)])
    assert made.wait()
    engine.left.clear()  # its completion is lost
    monkeypatch.setattr(engine, "poll", broken)
    engine.ended.put(None)
    assert made.get_future().done()
    assert made.is_success()
    assert made.exception() is None
    group.shutdown()


def test_what_is_being_ended_is_counted_before_the_counts_are_read(
    engine: PromptEngine, group: WiresumProcessGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    ending, go_on, counted = threading.Event(), threading.Event(), threading.Event()

    def count_ended(_in_flight_s: float) -> None:
        ending.set()
        assert go_on.wait(LIMIT_S)
        counted.set()

    monkeypatch.setattr(work.COUNTERS, "count_ended", count_ended)
    monkeypatch.setattr(completion, "SETTLE_S", LIMIT_S)
    assert group.allreduce([torch.ones(3)]).wait()
    engine.flush()
    assert ending.wait(LIMIT_S)
    threading.Timer(0.2, go_on.set).start()
    group.router.settle()
    assert counted.is_set()
    group.shutdown()
