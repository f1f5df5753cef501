"""A group of one rank over an engine that the test drives by hand, and counters of its own."""

from collections.abc import Iterator

import pytest
from fakes import FakeAgent, group_of_one

from wiresum.host_agent.agent import counters
from wiresum.host_agent.backend.process_group import WiresumProcessGroup


@pytest.fixture
def fresh_counters(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test counts begins at nothing."""
    fresh = counters.Counters()
    for module in ("collective_router", "completion", "report", "work", "exposed"):
        monkeypatch.setattr(f"wiresum.host_agent.backend.{module}.COUNTERS", fresh)


@pytest.fixture
def agent() -> FakeAgent:
    """That of ``group``."""
    return FakeAgent()


@pytest.fixture
def group(agent: FakeAgent) -> Iterator[WiresumProcessGroup]:
    """A group of one rank."""
    group = group_of_one(agent)
    yield group
    group.shutdown()
