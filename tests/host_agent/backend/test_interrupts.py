"""Ctrl-C at any moment of a collective: the engine may have the tensor already, or not yet."""

import random
import signal
import weakref
from collections.abc import Iterator
from datetime import timedelta

import pytest
import torch
from fakes import Ended, FakeAgent, FakeEngine, group_of_one

from wiresum.host_agent.agent.relay import Relay
from wiresum.host_agent.backend.process_group import WiresumProcessGroup

LIMIT = timedelta(seconds=60)


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(at_once=False)


@pytest.fixture
def group(engine: FakeEngine) -> Iterator[WiresumProcessGroup]:
    agent = FakeAgent(engine)
    agent.engine = Relay(engine)  # type: ignore[assignment]
    group = group_of_one(agent)
    yield group
    group.shutdown()


@pytest.fixture
def interrupts() -> Iterator[None]:
    def raise_it(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, raise_it)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


# An interrupt may also come while Python lets go of an object, where it can only be reported.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_memory_that_the_engine_has_stays_and_later_collectives_end(
    group: WiresumProcessGroup, engine: FakeEngine, interrupts: None
) -> None:
    moments = random.Random(2026)
    tensors: dict[int, weakref.ref[torch.Tensor]] = {}
    interrupted = 0
    for _ in range(400):
        tensor = torch.ones(100)
        tensors[tensor.data_ptr()] = weakref.ref(tensor)
        try:
            signal.setitimer(signal.ITIMER_REAL, moments.uniform(1e-6, 1e-3))
            group.allreduce([tensor])
            signal.setitimer(signal.ITIMER_REAL, 0)
        except KeyboardInterrupt:
            interrupted += 1
        del tensor
    assert interrupted > 20
    assert engine.tickets == sorted(set(engine.tickets))
    for address, _ in engine.buffers:
        assert tensors[address]() is not None, "freed while the engine works on it"
    for ticket in engine.tickets:
        engine.ended.put(Ended(ticket))
    engine.at_once = True
    assert group.allreduce([torch.ones(3)]).wait(LIMIT)
