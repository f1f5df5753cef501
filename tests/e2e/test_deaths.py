"""Hundreds of agents that vanish in the middle of their work leave nothing behind."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from finsy.proto import p4r

from support import deaths as dying
from support.p4runtime import Client
from support.processes import Commands
from wiresum.controller.client import ControllerClient
from wiresum.p4 import packet

EXPIRY_S = 3.0
LIMIT_S = 60.0
WARM = 0.3  # of the deaths, after which memory may not grow with every death any more
GROWTH_BYTES = 8 << 20
STORE_BYTES_PER_JOB = 4096


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(0.1)


class Server:
    """The resources that a process holds."""

    def __init__(self, pid: int) -> None:
        self.folder = Path("/proc", str(pid))

    def memory(self) -> int:
        """Bytes of memory."""
        for line in (self.folder / "status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no VmRSS")

    def descriptors(self) -> int:
        """Open files and sockets."""
        return len(list((self.folder / "fd").iterdir()))

    def threads(self) -> int:
        """Threads."""
        return len(list((self.folder / "task").iterdir()))


def left_on(switch: Client) -> list[str]:
    """Entries and groups that a job has put there."""
    ours = {"membership", "deliver", "l2", "hosts", "routes"}
    groups = [str(group) for group in groups_of(switch)]
    config = switch.get_config()
    names = {table.preamble.id: table.preamble.name for table in config.p4info.tables}
    entries = [entry for entry in switch.read_tables() if not entry.is_default_action]
    return groups + [str(entry) for entry in entries if names[entry.table_id] in ours]


def groups_of(switch: Client) -> list[Any]:
    everything = p4r.PacketReplicationEngineEntry(multicast_group_entry=p4r.MulticastGroupEntry())
    read = switch.read(p4r.Entity(packet_replication_engine_entry=everything))
    groups = [each.packet_replication_engine_entry.multicast_group_entry for each in read]
    return [group for group in groups if group.multicast_group_id != packet.FLOOD_GROUP]


@pytest.fixture
def place(cli: Commands, tmp_path: Path) -> dict[str, Any]:
    """A switch and a controller with a store in a file, and leases that expire soon."""
    switch, facts = cli.serve(
        "switch", "serve", "--lanes", str(dying.LANES), "--p4runtime", "127.0.0.1:0",
        "--port", "1=udp:127.0.0.1:0",
    )  # fmt: skip
    store = tmp_path / "store.sqlite"
    controller, ready = cli.serve(
        "controller", "serve", "--listen", "127.0.0.1:0", "--store", str(store), "--plaintext",
        "--expiry", str(EXPIRY_S),
    )  # fmt: skip
    done = cli.run(
        "switch", "add", "s1", "--p4runtime", facts["p4runtime"],
        "--address", facts["ports"]["1"].removeprefix("udp:"), "--host", "127.0.0.0/8=1",
        "--lanes", str(dying.LANES), "--controller", ready["address"],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return {
        "controller": ready["address"], "p4runtime": facts["p4runtime"], "store": store,
        "servers": {"switch": Server(switch.pid), "controller": Server(controller.pid)},
    }  # fmt: skip


def forks(cli: Commands, place: dict[str, Any], *options: str) -> "subprocess.Popen[str]":
    """Start the fork server."""
    command = [sys.executable, "-m", "support.deaths", "--controller", place["controller"]]
    tests = str(Path(dying.__file__).parents[1])
    return cli.popen([*command, *options], PYTHONPATH=tests, GRPC_ENABLE_FORK_SUPPORT="0")


@pytest.mark.parametrize("deaths", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_agents_that_vanish_leave_nothing_behind(
    cli: Commands, place: dict[str, Any], deaths: int
) -> None:
    servers: dict[str, Server] = place["servers"]
    server = forks(cli, place, "--deaths", str(deaths))
    assert server.stdout is not None
    memory: list[dict[str, int]] = []
    died: dict[str, int] = {}
    for line in server.stdout:
        said = json.loads(line)
        died = said.get("died", died)
        memory.append({name: each.memory() for name, each in servers.items()})
    _, err = server.communicate(timeout=LIMIT_S)
    assert server.returncode == 0, err
    assert sum(died.values()) >= deaths
    for how in ("worker", "worker of a live job", "survivor", "while joining", "launcher"):
        assert died[how] > 0

    with (
        ControllerClient(place["controller"], token=cli.mark) as client,
        Client(place["p4runtime"]) as switch,
    ):
        wait_for(lambda: client.list_jobs(live_only=True) == [], "the end of all leases")
        wait_for(lambda: left_on(switch) == [], "the end of all entries")
        (shown,) = client.list_switches()
        assert (shown.jobs, shown.free_slots) == (0, packet.SLOTS)
        (slots,) = client.list_slots()
        assert [(held.slots, held.job_id) for held in slots.ranges] == [(packet.SLOTS, "")]
        jobs = len(client.list_jobs())

        # Every slot and every number is there for the next one.
        out, err = forks(cli, place, "--fresh", str(packet.SLOTS)).communicate(timeout=LIMIT_S)
        assert out, err
        job = json.loads(out)
        assert job["number"] == 1
        client.release_job(job["job"], job["token"])

    first = memory[int(WARM * len(memory))]
    for name, before in first.items():
        assert memory[-1][name] - before < GROWTH_BYTES, (name, memory)
    for name, each in servers.items():
        assert each.threads() < 64, name
        wait_for(lambda each=each: each.descriptors() < 64, f"the end of {name}'s connections")
    stored = sum(path.stat().st_size for path in place["store"].parent.glob("store.sqlite*"))
    assert stored < STORE_BYTES_PER_JOB * jobs + (8 << 20), (stored, jobs)
