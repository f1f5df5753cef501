"""The controller against switches that forward: BMv2 and the softswitch, over P4Runtime."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from controller_process import LIMIT_S
from controller_rig import ADMIN_TOKEN, QUICK, Clock, Rig, until
from fake_switch import FakeSwitch
from real_switches import PARAMETERS, Start, end, starter

from wiresum.controller.api.server import serving
from wiresum.controller.office.office import Office
from wiresum.controller.rules.limits import Limits
from wiresum.controller.southbound.desired import desired
from wiresum.controller.state.sqlite import SqliteStore
from wiresum.controller.tokens import hashed
from wiresum.controller.v1 import controller_pb2 as pb

# These are slower than a fake, BMv2 above all.
PATIENT = dataclasses.replace(QUICK, connect_s=LIMIT_S, counters_s=LIMIT_S)


@pytest.fixture(params=PARAMETERS)
def start(request: pytest.FixtureRequest) -> Start:
    return starter(request.param)


@pytest.fixture
async def real(start: Start, tmp_path: Path) -> AsyncIterator[tuple[Rig, Callable[[], None]]]:
    """A controller and a switch of its own, and a way to restart the switch."""
    processes = [start(tmp_path)]

    def restart() -> None:
        end(processes.pop())
        for socket in tmp_path.glob("*"):
            if socket.is_socket():
                socket.unlink()
        processes.append(start(tmp_path))

    store = SqliteStore(":memory:")
    office = Office(store, clock=Clock(), limits=Limits(), loop_options=PATIENT)
    try:
        async with serving(office, "127.0.0.1:0", fixed_admin=hashed(ADMIN_TOKEN)) as address:
            rig = Rig(office, Clock(), FakeSwitch(f"unix:{tmp_path}/p4"), str(address))
            await office.add_switch(rig.facts())
            await until(lambda: office.fleet.is_up("s1"), LIMIT_S)
            yield rig, restart
            rig.close()
    finally:
        store.close()
        for process in processes:
            end(process)


async def check_tables(rig: Rig) -> None:
    """What the switch holds becomes what the store says."""
    switch = rig.office.store.switches()[0]
    actual = None
    async with asyncio.timeout(LIMIT_S):
        while actual != desired(switch, rig.office.store.jobs_on("s1")):
            await asyncio.sleep(0.02)
            actual = await rig.office.fleet.loop("s1")._ask(lambda link: link.read())


async def test_the_whole_life_of_a_job(real: tuple[Rig, Callable[[], None]]) -> None:
    rig, restart = real
    job = await rig.create("demo", slots=64)
    crowd = await rig.create("crowd", slots=1024)
    first, _ = await asyncio.gather(rig.join_all(job), rig.join_all(crowd, 64))
    await check_tables(rig)
    second = await rig.join_all(job, 3, attempt=1)
    assert second[0].epoch > first[0].epoch
    await check_tables(rig)
    told = await rig.get(job, counters=True)
    assert (told.counters_error, set(told.events.values())) == ("", {0})
    (switch,) = await rig.call(lambda client: client.list_switches(counters=True))
    assert (switch.state, switch.counters_error) == (pb.SWITCH_STATE_UP, "")
    assert set(switch.drops.values()) == {0}

    loop = rig.office.fleet.loop("s1")
    connects = loop.tally.connects
    await asyncio.to_thread(restart)
    # What was confirmed before holds until the loss is noticed.
    await until(lambda: loop.tally.connects > connects, LIMIT_S)
    await until(lambda: rig.office.fleet.confirmed(rig.office.jobs.get(job.id)), LIMIT_S)
    await check_tables(rig)
    for ended in (job, crowd):
        await rig.call(lambda client, ended=ended: client.release_job(ended.id, ended.token))
    await check_tables(rig)
    await rig.call(lambda client: client.remove_switch("s1"))
