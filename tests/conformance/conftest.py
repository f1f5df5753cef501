import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from scenarios import ALL

from wiresum.testbed.conformance.bmv2 import BINARY, Bmv2Target, available
from wiresum.testbed.conformance.scenario import Scenario
from wiresum.testbed.conformance.soft import SoftTarget
from wiresum.testbed.conformance.target import Target

Start = Callable[[Scenario], AbstractContextManager[Target]]


@pytest.fixture(scope="session")
def start_soft(pytestconfig: pytest.Config) -> Callable[[Scenario], SoftTarget]:
    """Makes softswitches; compiled without optimization, which is quicker, and kept."""
    assert pytestconfig.cache is not None
    kept = str(pytestconfig.cache.mkdir("softswitch"))

    def start(scenario: Scenario) -> SoftTarget:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("XDG_CACHE_HOME", kept)
            patch.setenv("CXXFLAGS", "-O0")
            return SoftTarget(scenario.json, scenario.p4info)

    return start


@contextmanager
def running_bmv2(scenario: Scenario) -> Iterator[Bmv2Target]:
    with tempfile.TemporaryDirectory() as directory:  # a Unix socket's path must be short
        target = Bmv2Target(scenario, Path(directory))
        try:
            yield target
        finally:
            target.close()


@pytest.fixture(params=["soft", pytest.param("bmv2", marks=pytest.mark.bmv2)])
def start(
    request: pytest.FixtureRequest, start_soft: Callable[[Scenario], SoftTarget]
) -> Iterator[Callable[[str], Target]]:
    """Starts one of the suite's programs by name, on each switch that is here."""
    from contextlib import ExitStack

    if request.param == "bmv2" and not available():
        pytest.skip(f"{BINARY} is not on PATH: the program runs on the softswitch only")
    with ExitStack() as stack:

        def start_it(name: str) -> Target:
            scenario = ALL[name]
            target: Target
            if request.param == "bmv2":
                target = stack.enter_context(running_bmv2(scenario))
            else:
                target = start_soft(scenario)
            assert all(target.write(scenario.setup))
            target.ready(scenario.probes)
            return target

        yield start_it
