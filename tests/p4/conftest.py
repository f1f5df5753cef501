import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import bmv2
from support.targets import Target, install_switch
from wiresum import p4

PORTS = [1, 2, 3, 4]


@pytest.fixture(scope="module", params=["soft-64", "bmv2-64", "soft-256", "bmv2-256"])
def switch(request: pytest.FixtureRequest) -> Iterator[Target]:
    """The switch program on each switch that is here, with an address and four ports."""
    kind, lanes = request.param.split("-")
    program = p4.program(int(lanes))
    if kind == "bmv2":
        if not bmv2.available():
            pytest.skip(f"{bmv2.BINARY} is not on PATH: the program runs on the softswitch only")
        with tempfile.TemporaryDirectory() as directory:
            target = bmv2.Bmv2(program, Path(directory))
            try:
                install_switch(target, PORTS)
                yield target
            finally:
                target.close()
    else:
        from support.soft import Soft

        soft = Soft(program)
        install_switch(soft, PORTS)
        yield soft


@pytest.fixture(scope="session")
def soft_switch() -> Target:
    """The 64-lane program on the softswitch."""
    from support.soft import Soft

    soft = Soft(p4.program(64))
    install_switch(soft, PORTS)
    return soft
