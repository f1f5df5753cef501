"""Debian's Slurm on this machine: a lease before the job starts, none after it has ended.

A slurmctld and one slurmd of the test's own, with ports, folders and a configuration of their own.
"""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.processes import Commands
from support.site import Site, eventually
from support.training import SCRIPT, spawned
from wiresum.controller.v1 import controller_pb2 as pb

NEEDED = ("slurmctld", "slurmd", "srun", "sinfo", "setsid")
missing = [name for name in NEEDED if shutil.which(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(700),
    pytest.mark.skipif(bool(missing), reason=f"not on PATH: {', '.join(missing)} (slurm-wlm)"),
    pytest.mark.skipif(os.geteuid() != 0, reason="slurmd needs root"),
]
SCRIPTS = Path(__file__).resolve().parents[2] / "deploy" / "slurm"
CONF = """
ClusterName=wiresum
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/none
CredType=cred/none
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
MessageTimeout=60
PrologSlurmctld={folder}/prolog.sh
EpilogSlurmctld={folder}/epilog.sh
NodeName=n0 NodeHostname={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=p Nodes=n0 Default=YES MaxTime=INFINITE State=UP
"""
WIRESUM_CONF = """
WIRESUM={folder}/wiresum
CONTROLLER={controller}
CA={ca}
TOKENS={folder}/tenants
STATE={folder}/leases
LIMIT_S=60
"""


@pytest.fixture
def site(cli: Commands) -> Site:
    return Site(cli)


def free_ports(count: int) -> list[int]:
    opened = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    found = [each.getsockname()[1] for each in opened]
    for each in opened:
        each.close()
    return found


class Slurm:
    """slurmctld and one node, with wiresum's scripts."""

    def __init__(self, cli: Commands, site: Site, folder: Path) -> None:
        self.cli, self.folder = cli, folder
        for name in ("state", "spool", "tenants"):
            (folder / name).mkdir(parents=True)
        host = socket.gethostname().split(".")[0]
        conf = folder / "slurm.conf"
        conf.write_text(CONF.format(host=host, ports=free_ports(2), folder=folder))
        for script in ("prolog.sh", "epilog.sh"):
            shutil.copy(SCRIPTS / script, folder)
        (folder / "wiresum.conf").write_text(
            WIRESUM_CONF.format(folder=folder, controller=site.address, ca=site.ca)
        )
        wiresum = folder / "wiresum"
        wiresum.write_text(f'#!/bin/sh\nexec {" ".join(cli.wiresum)} "$@"\n')
        wiresum.chmod(0o755)
        self.env = {"SLURM_CONF": str(conf)}
        self.daemons = [
            self._daemon("slurmctld", "-D", "-f", str(conf)),
            self._daemon("slurmd", "-D", "-f", str(conf), "-N", "n0"),
        ]
        eventually(lambda: "idle" in self._sinfo(), "the node is idle")

    def _daemon(self, *command: str) -> "subprocess.Popen[bytes]":
        with (self.folder / f"{command[0]}.log").open("wb") as log:
            return subprocess.Popen(
                command, env=self.cli.env | self.env, stdin=subprocess.DEVNULL, stdout=log,
                stderr=log,
            )  # fmt: skip

    def _sinfo(self) -> str:
        done = subprocess.run(
            ["sinfo", "-h"], env=self.cli.env | self.env, capture_output=True, text=True, timeout=60
        )
        return done.stdout

    def srun(self, account: str, *command: str, **env: str) -> "subprocess.Popen[str]":
        """Start one task of that account."""
        return self.cli.popen(["srun", "-n1", f"--account={account}", *command], **self.env, **env)

    def close(self) -> None:
        """End what a failed test has left running, then both."""
        subprocess.run(
            ["scancel", "--state=RUNNING"], env=self.cli.env | self.env, timeout=60, check=False
        )
        deadline = time.monotonic() + 30
        while "idle" not in self._sinfo() and time.monotonic() < deadline:
            time.sleep(0.2)
        for daemon in reversed(self.daemons):
            daemon.terminate()
        for daemon in self.daemons:
            try:
                daemon.wait(timeout=20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


@pytest.fixture
def slurm(cli: Commands, site: Site, tmp_path: Path) -> Iterator[Slurm]:
    made = Slurm(cli, site, tmp_path / "slurm")
    try:
        yield made
    finally:
        made.close()


def test_a_job_has_its_accounts_lease_before_it_starts_and_none_when_it_has_ended(
    slurm: Slurm, site: Site, tmp_path: Path
) -> None:
    token = site.tenant("vision")
    shutil.copy(token, slurm.folder / "tenants")
    free = site.free()
    out, started, go = (tmp_path / name for name in ("out", "started", "go"))
    out.mkdir()
    wait = f"touch {started}; while [ ! -e {go} ]; do sleep 0.1; done"
    train = " ".join([*spawned(2), str(SCRIPT), "--out", str(out)])
    run = f'{slurm.folder}/wiresum run --token-file {token} --name "slurm-$SLURM_JOB_ID"'
    task = slurm.srun(
        "vision", "sh", "-c", f"{wait}; exec {run} -- {train}",
        WIRESUM_CONTROLLER=site.address, WIRESUM_CA=site.ca, WIRESUM_TOKEN="",
    )  # fmt: skip
    eventually(lambda: started.exists() or task.poll() is not None, "the job's command starts")
    assert task.poll() is None, task.communicate()
    (job,) = site.jobs()
    assert (job.name, job.tenant, job.state) == ("slurm-1", "vision", pb.JOB_STATE_WAITING)
    assert site.free() == free - job.slots < free

    go.touch()
    _, errors = task.communicate(timeout=300)
    assert task.returncode == 0, errors
    assert "over the switch" in errors
    assert len(list(out.glob("report.*.json"))) == 2
    eventually(lambda: site.free() == free, "the epilog has released the lease")
    (job,) = site.jobs()
    assert job.state == pb.JOB_STATE_RELEASED
    assert job.workers == 2, "the training used the prolog's lease"

    # Killed, like a job at its time limit.
    started.unlink()
    task = slurm.srun("vision", "sh", "-c", f"touch {started}; exec sleep 1000")
    eventually(started.exists, "the job's command starts")
    assert site.free() < free
    subprocess.run(["scancel", "2"], env=slurm.cli.env | slurm.env, check=True, timeout=60)
    task.wait(timeout=60)
    eventually(lambda: site.free() == free, "the epilog has released the lease")

    # An account without a tenant.
    task = slurm.srun("others", "echo", "hello")
    assert task.communicate(timeout=60)[0] == "hello\n"
    assert len(site.jobs()) == 2
    deadline = time.monotonic() + 20
    while list((slurm.folder / "leases").iterdir()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert list((slurm.folder / "leases").iterdir()) == []
