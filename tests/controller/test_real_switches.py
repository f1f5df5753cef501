"""The controller against switches that forward: BMv2 and the softswitch, over P4Runtime."""

import asyncio
import contextlib
import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from controller_process import LIMIT_S, first_line
from controller_rig import QUICK, Clock, Rig, until
from fake_switch import FakeSwitch

from wiresum.controller.core import Core
from wiresum.controller.desired import desired
from wiresum.controller.jobs import Limits
from wiresum.controller.server import serving
from wiresum.controller.store import Store
from wiresum.controller.v1 import controller_pb2 as pb

Start = Callable[[Path], "subprocess.Popen[str]"]


def start_bmv2(directory: Path) -> "subprocess.Popen[str]":
    """BMv2 without ports: all that matters here is its P4Runtime server."""
    return subprocess.Popen(
        [
            *["simple_switch_grpc", "--no-p4", "--device-id", "0", "--"],
            *["--grpc-server-addr", f"unix:{directory}/p4"],
            *["--dp-grpc-server-addr", f"unix:{directory}/data"],
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def start_softswitch(directory: Path) -> "subprocess.Popen[str]":
    """The softswitch without a program: the controller brings it."""
    process = subprocess.Popen(
        [
            *[sys.executable, "-m", "wiresum.softswitch", "--port", "1=udp:127.0.0.1:0"],
            *["--p4runtime", f"unix:{directory}/p4"],
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        first_line(process)
    except BaseException:
        end(process)
        raise
    return process


def end(process: "subprocess.Popen[str]") -> None:
    process.kill()
    with contextlib.suppress(json.JSONDecodeError):
        process.communicate(timeout=LIMIT_S)


@pytest.fixture(
    params=[pytest.param("bmv2", marks=pytest.mark.bmv2), pytest.param("softswitch", id="soft")]
)
def start(request: pytest.FixtureRequest) -> Start:
    if request.param == "bmv2":
        if shutil.which("simple_switch_grpc") is None:
            pytest.skip("simple_switch_grpc is not on PATH")
        return start_bmv2
    if importlib.util.find_spec("wiresum.softswitch._softswitch") is None:
        pytest.skip("the softswitch is not built")
    return start_softswitch


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

    store = Store(":memory:")
    core = Core(store, clock=Clock(), limits=Limits(), loop_options=QUICK)
    try:
        async with serving(core, "127.0.0.1:0") as address:
            rig = Rig(core, Clock(), FakeSwitch(f"unix:{tmp_path}/p4"), str(address))
            await core.add_switch(rig.facts())
            await until(lambda: core.fleet.is_up("s1"), LIMIT_S)
            yield rig, restart
            rig.close()
    finally:
        store.close()
        for process in processes:
            end(process)


async def check_tables(rig: Rig) -> None:
    """What the switch holds becomes what the store says."""
    switch = rig.core.store.switches()[0]
    actual = None
    async with asyncio.timeout(LIMIT_S):
        while actual != desired(switch, rig.core.store.jobs_on("s1")):
            link = rig.core.fleet.loop("s1")._link
            assert link is not None
            actual = await link.read()


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

    await asyncio.to_thread(restart)
    await until(lambda: rig.core.fleet.confirmed(rig.core.jobs.get(job.id)), LIMIT_S)
    await check_tables(rig)
    for ended in (job, crowd):
        await rig.call(lambda client, ended=ended: client.release_job(ended.id, ended.token))
    await check_tables(rig)
    await rig.call(lambda client: client.remove_switch("s1"))
