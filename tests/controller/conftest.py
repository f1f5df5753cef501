from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from fake_switch import FakeSwitch

from wiresum.controller.client import ControllerClient, add_switch_request
from wiresum.controller.core import Core
from wiresum.controller.jobs import Limits
from wiresum.controller.loop import LoopOptions
from wiresum.controller.server import serving
from wiresum.controller.store import Store
from wiresum.controller.v1 import controller_pb2 as pb


@dataclass
class Clock:
    """A clock that only the test moves."""

    time: float = 1_800_000_000.0

    def now(self) -> float:
        return self.time


QUICK = LoopOptions(period_s=60.0, retry_s=0.02, max_retry_s=0.1, connect_s=5.0)


@dataclass
class Rig:
    """A controller with its network face, and a fake switch."""

    core: Core
    clock: Clock
    switch: FakeSwitch
    address: str
    client: ControllerClient = field(init=False)

    def __post_init__(self) -> None:
        self.client = ControllerClient(self.address)

    def facts(self, **changes: object) -> pb.AddSwitchRequest:
        facts: dict[str, object] = {
            "p4runtime": self.switch.address,
            "ip": "127.0.0.1",
            "udp_port": 5555,
            "hosts": [("127.0.0.0/8", 1), ("10.0.2.0/24", 2)],
            "lanes": 64,
        }
        return add_switch_request("s1", **(facts | changes))  # type: ignore[arg-type]


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
    await switch.kill()


@pytest.fixture
async def rig(fake: FakeSwitch, clock: Clock, tmp_path: Path) -> AsyncIterator[Rig]:
    store = Store(tmp_path / "store.sqlite")
    core = Core(store, clock=clock, limits=Limits(), loop_options=QUICK)
    async with serving(core, "127.0.0.1:0") as address:
        rig = Rig(core, clock, fake, str(address))
        await core.add_switch(rig.facts())
        await until(lambda: core.fleet.is_up("s1"))
        yield rig
        rig.client.close()
    store.close()


async def until(condition: Callable[[], bool], limit_s: float = 10.0) -> None:
    """Wait until ``condition`` holds; fail if it takes longer than ``limit_s``."""
    import asyncio

    async with asyncio.timeout(limit_s):
        while not condition():
            await asyncio.sleep(0.005)


Call = Callable[[], Awaitable[object]]
