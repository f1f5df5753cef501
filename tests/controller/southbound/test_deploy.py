"""``wiresum switch deploy`` against BMv2 and the softswitch, and who is in charge of a switch."""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from controller_process import LIMIT_S, run_cli
from real_switches import PARAMETERS, end, starter

from support.p4runtime import INSERT, Client, Names, exact, load_config
from wiresum.common.address import AddressError
from wiresum.controller.southbound.deploy import DeployError, deploy
from wiresum.p4 import UnknownProgram, program


@pytest.fixture(params=PARAMETERS)
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Where a switch without a program serves P4Runtime."""
    process: subprocess.Popen[str] = starter(request.param)(tmp_path)
    try:
        deadline = time.monotonic() + LIMIT_S
        while not (tmp_path / "p4").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline, "it does not serve"
            time.sleep(0.01)
        yield f"unix:{tmp_path}/p4"
    finally:
        end(process)


def an_entry(lanes: int) -> dict[str, object]:
    """An entry of the switch program's table of its own addresses."""
    names = Names(load_config(program(lanes).json, program(lanes).p4info).p4info)
    match = [exact(1, bytes([10, 0, 0, 254]))]
    return {"table_entry": names.entry("addresses", "switch_address", 0x020000000001, match=match)}


def named(lanes: int) -> str:
    """How ``switch deploy`` names the committed program."""
    return f"wiresum {program(lanes).version}, {lanes} lanes"


def test_deploying_twice_keeps_the_tables(address: str) -> None:
    first = deploy(address, lanes=64)
    assert (first.before, first.after) == ("", named(64))
    assert first.pushed
    assert first.api_version.startswith("1.")
    with Client(address, 1) as client:
        client.standing()
        client.write(INSERT, **an_entry(64))
    again = deploy(address, lanes=64)
    assert (again.before, again.pushed) == (named(64), False)
    with Client(address) as reader:
        assert len(reader.read_tables()) == 1
    forced = deploy(address, lanes=64, force=True)
    assert forced.pushed
    with Client(address) as reader:
        assert reader.read_tables() == []


def test_another_program_is_replaced(address: str) -> None:
    deploy(address, lanes=64)
    other = deploy(address, lanes=256)
    assert (other.before, other.after, other.pushed) == (
        named(64),
        named(256),
        True,
    )


def test_two_clients_cannot_both_be_master(address: str) -> None:
    with Client(address, 10) as master:
        assert master.standing() == (0, 10)
        master.set_config(load_config(program(64).json, program(64).p4info))
        with pytest.raises(DeployError, match=r"another client is in charge .*election id 10"):
            deploy(address, lanes=256)
        with pytest.raises(DeployError, match=r"election id 10"):
            deploy(address, lanes=256, election_id=10)
        # The one in charge has lost nothing by that.
        master.write(INSERT, **an_entry(64))
        # ... until somebody with a higher id comes, for as long as they stay.
        assert deploy(address, lanes=256, election_id=11).pushed
        assert master.standing() == (grpc.StatusCode.ALREADY_EXISTS.value[0], 11)
        assert master.standing() == (0, 10)


def test_a_stale_master_is_refused(address: str) -> None:
    deploy(address, lanes=64)
    with Client(address, 10) as stale, Client(address, 11) as master:
        while master.standing() != (0, 11):
            pass
        with pytest.raises(grpc.RpcError) as refused:
            stale.write(INSERT, **an_entry(64))
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
        with pytest.raises(grpc.RpcError) as refused:
            stale.set_config(load_config(program(256).json, program(256).p4info))
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
        master.write(INSERT, **an_entry(64))


def test_a_wrong_device_is_named(address: str) -> None:
    with pytest.raises(DeployError, match=r"device 7"):
        deploy(address, lanes=64, device_id=7)


@pytest.mark.parametrize(
    ("where", "lanes", "error", "words"),
    [
        ("unix:{tmp}/nobody", 64, DeployError, "cannot be reached"),
        ("127.0.0.1:1", 64, DeployError, "cannot be reached"),
        ("nonsense", 64, AddressError, "HOST:PORT"),
        ("127.0.0.1:1", 63, UnknownProgram, "64 or 256"),
    ],
)
def test_impossible_deployments_are_refused(
    where: str, lanes: int, error: type[Exception], words: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=words) as raised:
        deploy(where.format(tmp=tmp_path), lanes=lanes)
    assert "\n" not in str(raised.value)


def test_the_deploy_command_reports_the_switch(address: str) -> None:
    done = run_cli("switch", "deploy", "--p4runtime", address, "--lanes", "64")
    assert done.returncode == 0, done.stderr
    before, primary, now = done.stdout.splitlines()[1:]
    assert "no program" in before
    assert "election id 1" in primary
    assert "64 lanes (pushed)" in now
    refused = run_cli("switch", "deploy", "--p4runtime", address + "x", "--lanes", "64")
    assert refused.returncode == 1
    assert len(refused.stderr.splitlines()) == 1
