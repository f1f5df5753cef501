"""Racks for tests: each under a name of its own, taken down whatever happens."""

import os
import shutil
from collections.abc import Callable, Iterator

import pytest

from support.processes import Commands
from support.rack_process import Up, namespaces
from wiresum.testbed.find_mininet import why_not


@pytest.fixture
def need_rack() -> None:
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)


@pytest.fixture
def name(need_rack: None, cli: Commands) -> Iterator[str]:
    """The name of a rack, which is gone afterwards."""
    chosen = f"test-{os.getpid()}"
    yield chosen
    cli.run("testbed", "down", "--name", chosen)
    assert namespaces(chosen) == []


@pytest.fixture
def up(cli: Commands, name: str) -> Callable[..., Up]:
    """Brings up a rack: ``up("--workers", "2")``."""

    def bring(*options: str) -> Up:
        process, facts = cli.serve("testbed", "up", "--name", name, *options)
        return Up(cli, name, process, facts)

    return bring


@pytest.fixture(params=["soft", pytest.param("bmv2", marks=pytest.mark.bmv2)])
def kind(request: pytest.FixtureRequest) -> str:
    """Each switch that a rack can have, as far as it is there."""
    if request.param == "bmv2" and shutil.which("simple_switch_grpc") is None:
        pytest.skip("simple_switch_grpc is not on PATH")
    return str(request.param)
