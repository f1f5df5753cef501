from collections.abc import Callable
from pathlib import Path

import pytest

from wiresum.softswitch import Switch

PROGRAMS = Path(__file__).resolve().parent / "programs"


@pytest.fixture(scope="session")
def program_cache(pytestconfig: pytest.Config) -> str:
    """The folder of the compiled test programs; kept from run to run, in pytest's own cache."""
    assert pytestconfig.cache is not None
    return str(pytestconfig.cache.mkdir("softswitch"))


@pytest.fixture(scope="session")
def load(program_cache: str) -> Callable[[str], Switch]:
    """Loads a test program by name, each once; compiled without optimization, which is quicker."""
    loaded: dict[str, Switch] = {}

    def get(name: str) -> Switch:
        if name not in loaded:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("XDG_CACHE_HOME", program_cache)
                patch.setenv("CXXFLAGS", "-O0")
                loaded[name] = Switch(PROGRAMS / f"{name}.json")
        loaded[name].reset()
        return loaded[name]

    return get
