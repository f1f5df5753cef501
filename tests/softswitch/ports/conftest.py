"""Switches with ports, running echo.p4 (data/echo.p4 lists the orders in the first byte)."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from echo_program import CPU_PORT, ECHO
from raw_lab import Lab, why_not

from support.switch_process import SwitchProcess


@pytest.fixture
def serve() -> Iterator[Callable[..., SwitchProcess]]:
    """Start switches that run echo.p4: ``serve("--port", "1=udp:127.0.0.1:0", prefix=[])``."""
    with ExitStack() as stack:

        def start(*options: str, prefix: tuple[str, ...] = ()) -> SwitchProcess:
            common = ("--program", str(ECHO), "--cpu-port", CPU_PORT)
            if "--p4runtime" not in options:
                common += ("--p4runtime", "127.0.0.1:0")
            return stack.enter_context(SwitchProcess(*common, *options, prefix=prefix))

        yield start


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the socket of a shm port shall be."""
    return tmp_path / "shm.sock"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    reason = why_not()
    if reason:
        pytest.skip(reason)
    lab = Lab(tmp_path_factory.mktemp("raw"))
    try:
        lab.build()
        yield lab
    finally:
        lab.remove()
