import itertools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support import bmv2
from support.leased import HOSTS, Rack
from support.targets import Lease, Target, install_switch
from wiresum import p4
from wiresum.p4.packet import DropReason

PORTS = [1, 2, 3, 4]
EPOCHS = itertools.count(1)


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


@pytest.fixture
def lease(switch: Target) -> Iterator[Callable[..., Rack]]:
    """Makes leases, each with an epoch of its own; withdraws them at the end."""
    made: list[Rack] = []

    def make(
        workers: int = 2, job: int = 5, slots: int = 8, slot_base: int = 16, key: int = 0xFEED_0001
    ) -> Rack:
        rack = Rack(switch, Lease(job, next(EPOCHS), key, slot_base, slots, HOSTS[:workers]))
        made.append(rack)
        return rack

    yield make
    for rack in made:
        rack.withdraw()


@pytest.fixture
def drops(switch: Target) -> Callable[[DropReason], int]:
    """How often a reason was counted since the test began."""
    before = {reason: switch.counter("drops", reason) for reason in DropReason}
    return lambda reason: switch.counter("drops", reason) - before[reason]
