"""Settings for all tests."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from support import postgres
from support.examples import examples

# The time of an example depends on the machine, not on the code under test.
settings.register_profile(
    "wiresum", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True,
    max_examples=examples(100), derandomize=False,  # where CI is set, hypothesis would repeat them
)  # fmt: skip
settings.load_profile("wiresum")

# Processes inherit ignored signals: in the background of a script (SIGINT) or under nohup (SIGHUP)
# the processes under test would ignore the signals of the tests.
for _number, _usual in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, signal.SIG_DFL),
    (signal.SIGQUIT, signal.SIG_DFL),
):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _usual)

LONG = ("e2e", "testbed", "measure", "host_agent/launcher", "host_agent/backend", "controller/api")
"""The folders whose files take longest. Files run side by side: a long one that starts last would
run alone in the end."""

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the longest files."""

    def place(item: pytest.Item) -> int:
        folder = item.path.relative_to(_HERE).as_posix() if item.path.is_relative_to(_HERE) else ""
        return next((i for i, long in enumerate(LONG) if folder.startswith(f"{long}/")), len(LONG))

    items.sort(key=place)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[postgres.Postgres]:
    """A PostgreSQL server, for all tests of this process."""
    if reason := postgres.why_not():
        pytest.skip(reason)
    with postgres.Postgres() as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: postgres.Postgres) -> str:
    """A store without tables; one at a time."""
    return postgres_server.empty()
