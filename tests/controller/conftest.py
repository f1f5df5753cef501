from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from controller_rig import ADMIN_TOKEN, QUICK, Clock, Rig, until
from fake_switch import FakeSwitch

from wiresum.controller.api.server import serving
from wiresum.controller.office.core import Core
from wiresum.controller.rules.jobs import Limits
from wiresum.controller.state.store import Store
from wiresum.controller.tokens import hashed


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def fake(tmp_path: Path) -> AsyncIterator[FakeSwitch]:
    switch = FakeSwitch(f"unix:{tmp_path}/p4")
    await switch.start()
    yield switch
    assert switch.broken == []
    switch.freeze.set()
    if switch.running:
        await switch.kill()


@pytest.fixture
async def rig(fake: FakeSwitch, clock: Clock, tmp_path: Path) -> AsyncIterator[Rig]:
    store = Store(tmp_path / "store.sqlite")
    core = Core(store, clock=clock, limits=Limits(), loop_options=QUICK)
    async with serving(core, "127.0.0.1:0", fixed_admin=hashed(ADMIN_TOKEN)) as address:
        rig = Rig(core, clock, fake, str(address))
        await core.add_switch(rig.facts())
        await until(lambda: core.fleet.is_up("s1"))
        yield rig
        rig.close()
    store.close()
