"""The command line, as processes."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from controller_process import LIMIT_S, first_line, run_cli, serving, switch_spec
from controller_rig import Rig
from fake_switch import FakeSwitch

from wiresum.controller.client import ControllerClient
from wiresum.controller.commands.spec import parse_switch
from wiresum.controller.errors import ControllerError, ServeError


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def one_line(text: str) -> str:
    assert text.endswith("\n")
    assert text.count("\n") == 1, text
    return text.strip()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_ends_when_told(number: signal.Signals) -> None:
    with serving("--store", ":memory:") as child:
        with child.client() as client:
            assert client.list_jobs() == []
        child.process.send_signal(number)
        out, err = child.process.communicate(timeout=LIMIT_S)
        assert (child.process.returncode, out, err) == (0, "", "")


def test_serve_ends_with_its_parent() -> None:
    script = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-m', 'wiresum.controller', 'controller',"
        " 'serve', '--listen', '127.0.0.1:0', '--store', ':memory:', '--plaintext',"
        " '--exit-with-parent'])\n"
        "child.wait()\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    listen = first_line(parent)["address"]
    parent.kill()
    # The controller holds the other end of the pipe until it ends.
    parent.communicate(timeout=LIMIT_S)
    with pytest.raises(ControllerError) as caught, ControllerClient(listen) as client:
        client.list_jobs()
    assert caught.value.code == "UNAVAILABLE"


def test_a_port_in_use() -> None:
    with serving("--store", ":memory:") as child:
        second = run_cli("controller", "serve", "--listen", child.listen, "--store", ":memory:")
    assert second.returncode == 1
    assert one_line(second.stderr).startswith(
        f"wiresum: cannot listen on {child.listen}: address already in use; choose another"
    )


def test_a_store_in_use(tmp_path: Path) -> None:
    store = str(tmp_path / "store.sqlite")
    with serving("--store", store):
        second = run_cli("controller", "serve", "--listen", "127.0.0.1:0", "--store", store)
    assert second.returncode == 1
    assert "is in use by another controller" in one_line(second.stderr)


def test_no_controller() -> None:
    address = f"127.0.0.1:{free_port()}"
    for arguments in (["switch", "list"], ["job", "list"], ["job", "show", "x"], ["slots"]):
        result = run_cli(*arguments, WIRESUM_CONTROLLER=address)
        assert result.returncode == 1
        assert one_line(result.stderr).startswith(
            f"wiresum: controller {address} cannot be reached (connection refused)"
        )
        assert result.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--plaintext", "--listen", "nowhere"], "listen address 'nowhere' is not HOST:PORT"),
        (["--listen", "192.0.2.1:0"], "cannot listen on 192.0.2.1:0: cannot assign"),
        (["--switch", "name=s1,colour=red"], "'colour=red' is not KEY=VALUE"),
        (["--switch", "name=s1"], "p4runtime=… is missing"),
    ],
)
def test_a_command_line_that_cannot_be_meant(arguments: list[str], message: str) -> None:
    result = run_cli("controller", "serve", "--store", ":memory:", *arguments)
    assert result.returncode in (1, 2)
    assert message in one_line(result.stderr)


async def test_the_life_of_a_switch_and_a_job(rig: Rig, fake: FakeSwitch) -> None:
    async def cli(*arguments: str) -> subprocess.CompletedProcess[str]:
        result = await asyncio.to_thread(run_cli, *arguments, WIRESUM_CONTROLLER=rig.address)
        assert result.stderr == ""
        assert result.returncode == 0
        return result

    added = await cli(
        *["switch", "add", "s2", "--p4runtime", fake.address + "2", "--address", "10.0.0.1:22355"],
        *["--host", "10.0.0.0/24=3", "--host", "10.0.1.0/24=4", "--lanes", "64"],
    )
    assert added.stdout == "switch s2 added: 4096 slots of 64 lanes\n"
    job = await rig.create("demo", slots=64, switch="s1")
    await rig.join_all(job)
    rig.switch.count("events", 8 + 2, 12345)

    switches = json.loads((await cli("switch", "list", "--json")).stdout)
    assert [(switch["name"], switch["state"]) for switch in switches] == [
        ("s1", "up"),
        ("s2", "down"),
    ]
    assert switches[0]["drops"]["stranger"] == 0
    assert switches[1]["hosts"] == [
        {"cidr": "10.0.0.0/24", "port": 3},
        {"cidr": "10.0.1.0/24", "port": 4},
    ]
    assert "cannot be reached" in switches[1]["reason"]
    assert "4032/4096" in (await cli("switch", "list")).stdout

    (listed,) = json.loads((await cli("job", "list", "--json")).stdout)
    shown = json.loads((await cli("job", "show", "demo", "--json")).stdout)
    assert listed["id"] == shown["id"] == job.id
    assert (shown["state"], shown["joined"], shown["events"]["completed"]) == (
        "ready",
        [0, 1],
        12345,
    )
    assert "token" not in shown
    assert job.token not in str(shown)
    assert "12345" in (await cli("job", "list")).stdout
    assert "completed 12345" in (await cli("job", "show", job.id)).stdout

    slots = json.loads((await cli("slots", "s1", "--json")).stdout)
    assert slots[0]["ranges"][0]["job_name"] == "demo"
    table = (await cli("slots")).stdout
    assert "0-63" in table
    assert "2048-4095" in table

    await cli("switch", "remove", "s2")
    failed = await asyncio.to_thread(
        run_cli, "switch", "remove", "s2", WIRESUM_CONTROLLER=rig.address
    )
    assert failed.returncode == 1
    assert one_line(failed.stderr) == "wiresum: there is no switch 's2' (known: s1)"


def test_serve_with_a_switch_in_one_string(tmp_path: Path) -> None:
    spec = switch_spec(f"unix:{tmp_path}/nobody")
    with (
        serving("--store", ":memory:", "--switch", spec) as child,
        child.client() as client,
    ):
        (switch,) = client.list_switches()
        assert (switch.name, switch.lanes, switch.mac) == ("s1", 64, "02:00:7f:00:00:01")


def test_switch_specs() -> None:
    request = parse_switch(
        "name=s1,p4runtime=unix:/x,address=10.0.0.1:22355,host=10.0.0.0/8=1,host=11.0.0.0/8=2,"
        "mac=02:00:00:00:00:01,device-id=7,shared-address=yes"
    )
    assert [(host.cidr, host.port) for host in request.hosts] == [
        ("10.0.0.0/8", 1),
        ("11.0.0.0/8", 2),
    ]
    assert (request.device_id, request.lanes, request.shared_address) == (7, 0, True)
    good = "name=s1,p4runtime=unix:/x,address=10.0.0.1:22355,host=10.0.0.0/8=1"
    assert not parse_switch(good).HasField("shared_address")
    for bad in (
        "",
        good + ",lanes=many",
        good + ",name=s2",
        good + ",shared-address=maybe",
        good + ",host=10.0.0.0/8",
        good + ",host=10.0.0.0/8=x",
    ):
        with pytest.raises(ServeError) as caught:
            parse_switch(bad)
        assert "\n" not in str(caught.value)
