"""A rack under attack: a job of three workers, and a host that forges with every secret known.

What the workers sum stays right bit for bit, in every step; the switch's counters for the job
account for its own packets and no other; no host's idea of who is where has changed.
"""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.processes import Commands
from support.rack_process import LIMIT_S, Up, wait_for
from support.training import spawned

pytestmark = pytest.mark.root

HERE = Path(__file__).parent
VICTIMS, TENANTS = 3, 2
MACS = {f"10.0.0.{n}": f"02:00:0a:00:00:{n:02x}" for n in (1, 2, 3, 254)}
# BMv2 takes some thousand frames a second: an attack is not a flood here.
RATE = {"soft": 4000, "bmv2": 400}
LANES = {"soft": "256", "bmv2": "64"}
SECONDS = 2.0
FRAMES = {kind: int(SECONDS * rate / 4) for kind, rate in RATE.items()}


class Job:
    """Workers that reduce on hosts of a rack until they are told to stop."""

    def __init__(self, rack: Up, hosts: list[str], folder: Path, straggle_s: float) -> None:
        self.stop = folder / "stop"
        self.logs = [folder / f"rank{rank}" for rank in range(len(hosts))]
        address = rack.facts["workers"][hosts[0]]
        folder.mkdir()
        self.processes = []
        for rank, (where, log) in enumerate(zip(hosts, self.logs, strict=True)):
            env = {
                "RANK": str(rank), "WORLD_SIZE": str(len(hosts)), "MASTER_ADDR": address,
                "MASTER_PORT": "29531", "WIRESUM_CONTROLLER": rack.facts["controller"],
                "WIRESUM_TIMEOUT": "40",
            }  # fmt: skip
            with log.open("wb") as output:
                command = [*spawned(1), str(HERE / "attacked.py"), str(self.stop)]
                self.processes.append(
                    subprocess.Popen(
                        [*rack.enter(where), *command, str(straggle_s)],
                        env=rack.cli.env | env, stdout=output, stderr=output,
                    )
                )  # fmt: skip

    def steps(self) -> int:
        """How many steps all ranks have done; fails if one has ended or complained."""
        done = []
        for process, log in zip(self.processes, self.logs, strict=True):
            said = log.read_text()
            assert "error:" not in said, said[-2000:]
            assert process.poll() in (None, 0), said[-2000:]
            done.append(said.count("\nstep ") + said.startswith("step "))
        return min(done)

    def finish(self) -> int:
        """Let it end; the number of its steps."""
        self.stop.touch()
        for process, log in zip(self.processes, self.logs, strict=True):
            assert process.wait(LIMIT_S) == 0, log.read_text()[-2000:]
        return self.steps()

    def kill(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Callable[..., Job]]:
    """Starts jobs; ends what is left of them."""
    with contextlib.ExitStack() as stack:

        def start(rack: Up, hosts: list[str], straggle_s: float) -> Job:
            made = Job(rack, hosts, tmp_path / f"job-{hosts[0]}", straggle_s)
            stack.callback(made.kill)
            return made

        yield start


def strike(cli: Commands, name: str, kind: str, tenants: int) -> "subprocess.Popen[str]":
    command = [
        sys.executable, str(HERE / "attacker.py"), "--rack", name, "--victims", str(VICTIMS),
        "--seconds", str(SECONDS), "--frames", str(FRAMES[kind]), "--rate", str(RATE[kind]),
        "--tenants", str(tenants),
    ]  # fmt: skip
    return cli.popen(
        command, PYTHONPATH=f"{HERE.parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    )


def jobs_of(rack: Up) -> dict[int, dict[str, Any]]:
    """The controller's jobs by the number of their workers, with the switch's counters."""
    listed = json.loads(rack.on("w0", "wiresum", "job", "list", "--json"))
    shown = [json.loads(rack.on("w0", "wiresum", "job", "show", each["id"], "--json"))
             for each in listed]  # fmt: skip
    return {each["workers"]: each for each in shown}


def neighbours(rack: Up, host: str) -> dict[str, str]:
    """A host's ARP table."""
    lines = [line.split() for line in rack.on(host, "ip", "neigh").splitlines()]
    return {line[0]: line[line.index("lladdr") + 1] for line in lines if "lladdr" in line}


# A tenant sends the same frames as an outsider, and more.
@pytest.mark.parametrize(
    ("kind", "tenants"),
    [
        pytest.param("soft", 0, id="soft-outsider", marks=pytest.mark.slow),
        pytest.param("soft", TENANTS, id="soft-tenant"),
        pytest.param("bmv2", 0, id="bmv2-outsider", marks=[pytest.mark.bmv2, pytest.mark.slow]),
        pytest.param("bmv2", TENANTS, id="bmv2-tenant", marks=pytest.mark.bmv2),
    ],
    indirect=["kind"],
)
def test_an_attacked_job(
    up: Callable[..., Up], job: Callable[..., Job], cli: Commands, name: str, kind: str,
    tenants: int,
) -> None:  # fmt: skip
    rack = up("--switch", kind, "--workers", str(VICTIMS + 1), "--lanes", LANES[kind])
    victim = job(rack, ["w0", "w1", "w2"], 0.05)
    other = job(rack, [f"w{VICTIMS}"] * tenants, 0.05) if tenants else None
    for each in (victim, other):
        if each is not None:
            wait_for(lambda each=each: each.steps() > 2, "the first steps")
    attacker = strike(cli, name, kind, tenants)
    assert attacker.stdout is not None
    assert attacker.stdout.readline() == "striking\n", attacker.communicate()[1]
    out, err = attacker.communicate(timeout=LIMIT_S)
    assert attacker.returncode == 0, err
    said = json.loads(out)
    after = victim.steps()
    wait_for(lambda: victim.steps() > after + 2, "steps after the attack")

    if other is not None:
        other.kill()  # its own frames may have spoilt its own sums
    seen = jobs_of(rack)
    steps = victim.finish()
    assert steps > 5
    assert said["leaked"] == []
    assert said["sent"] >= FRAMES[kind]
    events = seen[VICTIMS]["events"]
    for name_of_event in ("mismatched", "out_of_lease"):
        assert events.get(name_of_event, 0) == 0, events
    drops = rack.switch()["drops"]
    for reason in ("spoofed_source", "tagged", "link_local", "forged_reply", "stranger"):
        assert drops[reason] > 0, drops
    for host in ("w0", "w1", "w2"):
        table = neighbours(rack, host)
        assert table["10.0.0.254"] == MACS["10.0.0.254"]
        assert {ip: mac for ip, mac in table.items() if MACS.get(ip, mac) != mac} == {}
    if other is not None:
        assert drops["out_of_lease"] > 0
        assert seen[TENANTS]["events"]["out_of_lease"] == drops["out_of_lease"]
