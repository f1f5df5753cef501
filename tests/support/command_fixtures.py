"""The fixture of tests that start wiresum's commands; a conftest imports it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.processes import Commands, commands


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Commands]:
    with commands(tmp_path) as made:
        yield made
    assert not made.left_behind(), "processes were left behind"
