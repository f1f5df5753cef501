"""Servers to test against: the embedded switch, and BMv2 where it is installed."""

import itertools
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from finsy.proto import p4r

from support.p4runtime import Client, Names, load_config
from support.switch_process import SwitchProcess

DATA = Path(__file__).parent / "data"
LIMIT_S = 60

_election_ids = itertools.count(1)


@pytest.fixture(scope="session")
def config() -> p4r.ForwardingPipelineConfig:
    return load_config(DATA / "entities.json", DATA / "entities.p4info.txtpb", cookie=0xC0FFEE)


@pytest.fixture(scope="session")
def names(config: p4r.ForwardingPipelineConfig) -> Names:
    return Names(config.p4info)


def _embedded() -> Iterator[str]:
    with SwitchProcess("--p4runtime", "127.0.0.1:0", "--cpu-port", "255") as switch:
        yield switch.p4runtime
    assert switch.process.returncode == 0


def _bmv2(folder: Path) -> Iterator[str]:
    if not shutil.which("simple_switch_grpc"):
        pytest.skip("simple_switch_grpc is not on PATH")
    address = f"unix:{folder / 'bmv2.sock'}"
    command = ["simple_switch_grpc", "--no-p4", "--device-id", "0", "--"]
    command += ["--grpc-server-addr", address, "--cpu-port", "255"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with grpc.insecure_channel(address) as channel:
            grpc.channel_ready_future(channel).result(LIMIT_S)
        yield address
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module", params=["embedded", pytest.param("bmv2", marks=pytest.mark.bmv2)])
def target(request: pytest.FixtureRequest) -> str:
    """Which switch the tests of a module talk to."""
    return str(request.param)


@pytest.fixture(scope="module")
def address(target: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of its P4Runtime server."""
    yield from _bmv2(tmp_path_factory.mktemp("bmv2")) if target == "bmv2" else _embedded()


@pytest.fixture
def connect(address: str) -> Iterator[Callable[..., Client]]:
    """Open a controller: ``connect(election_id)``, or ``connect()`` without a stream."""
    clients: list[Client] = []

    def open_client(election_id: int | None = None, device_id: int = 0) -> Client:
        clients.append(Client(address, election_id, device_id))
        return clients[-1]

    yield open_client
    for client in clients:
        client.close()


@pytest.fixture
def primary(connect: Callable[..., Client], config: p4r.ForwardingPipelineConfig) -> Client:
    """The primary controller of a switch that has just been given the test program."""
    client = connect(1 << 70 | next(_election_ids))
    limit = time.monotonic() + LIMIT_S
    while client.standing()[0] != 0:  # a test before this one may still be leaving
        assert time.monotonic() < limit
    client.set_config(config)
    return client
