from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from controller_rig import ADMIN_TOKEN, QUICK, Clock, Rig, until
from fake_switch import FakeSwitch

from support import postgres
from wiresum.controller.api.server import serving
from wiresum.controller.office.office import Office
from wiresum.controller.rules.limits import Limits
from wiresum.controller.state.sqlite import SqliteStore
from wiresum.controller.tokens import hashed


@pytest.fixture
def store_kind() -> str:
    """Folders whose tests run over both kinds of stores parametrize this."""
    return "sqlite"


@pytest.fixture
def open_store(
    store_kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> Callable[[], SqliteStore]:
    """Opens the same store again and again: a file, or a database."""
    if store_kind == "sqlite":
        return lambda: SqliteStore(tmp_path / "store.sqlite")
    url = request.getfixturevalue("postgres_url")
    return lambda: postgres.lead(url)


@pytest.fixture
def store(open_store: Callable[[], SqliteStore]) -> Iterator[SqliteStore]:
    """An empty store of that kind."""
    store = open_store()
    yield store
    store.close()


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
async def rig(fake: FakeSwitch, clock: Clock, store: SqliteStore) -> AsyncIterator[Rig]:
    office = Office(store, clock=clock, limits=Limits(), loop_options=QUICK)
    async with serving(office, "127.0.0.1:0", fixed_admin=hashed(ADMIN_TOKEN)) as address:
        rig = Rig(office, clock, fake, str(address))
        await office.add_switch(rig.facts())
        await until(lambda: office.fleet.is_up("s1"))
        yield rig
        rig.close()
