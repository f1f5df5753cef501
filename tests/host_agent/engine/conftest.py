"""What several of the engine's tests share."""

from collections.abc import Iterator

import pytest

from wiresum.host_agent.launcher.embedded import Embedded


@pytest.fixture(scope="module")
def embedded() -> Iterator[Embedded]:
    with Embedded() as pair:
        yield pair
