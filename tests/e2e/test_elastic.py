"""An elastic torchrun: nodes join and die, and every attempt sums over the switch, exactly."""

import json
import os
import signal
import socket
import sys
from pathlib import Path

import numpy as np
import pytest
from elastic import SIZE, digest, gradients

from support.processes import Commands
from support.site import Run, descendants, eventually
from support.training import rack
from wiresum.controller.client import ControllerClient
from wiresum.controller.v1 import controller_pb2 as pb

SCRIPT = Path(__file__).with_name("elastic.py")
LIMIT_S = 400.0

Line = tuple[str, int, int, int, int, str, str]
"""What, attempt, ranks, rank, step, digest, carrier."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Elastic:
    """The nodes of a training, each a ``wiresum run`` of a torchrun with one worker."""

    def __init__(self, cli: Commands, folder: Path, controller: str, nodes: str) -> None:
        """``nodes``: how many, as torchrun's option says."""
        self._cli, self._controller, self._nodes = cli, controller, nodes
        self.folder = folder
        folder.mkdir()
        self._endpoint = f"127.0.0.1:{free_port()}"
        self.nodes: list[Run] = []
        """Those that must be alive."""

    def node(self) -> Run:
        """Start one more."""
        quick = "last_call_timeout=1"
        torchrun = [
            sys.executable, "-m", "torch.distributed.run", f"--nnodes={self._nodes}",
            "--nproc-per-node=1",
            "--max-restarts=20", "--rdzv-backend=c10d", f"--rdzv-endpoint={self._endpoint}",
            f"--rdzv-conf={quick}", "--rdzv-id=elastic", "--local-addr=127.0.0.1",
        ]  # fmt: skip
        options = ("--controller", self._controller, "--name", "elastic")
        command = [*torchrun, str(SCRIPT), "--out", str(self.folder)]
        # Else, in torch 2.13, a node that joins waits in vain for the address of a rank 0 that has
        # told it in an earlier round only.
        env = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"} if ":" in self._nodes else {}
        run = Run(self._cli.start("run", *options, "--", *command, **env))
        self.nodes.append(run)
        return run

    def lines(self) -> list[Line]:
        """What all workers have noted, whole lines only."""
        found: list[Line] = []
        for path in sorted(self.folder.glob("log.*")):
            *whole, _ = path.read_text().split("\n")
            found += [tuple(json.loads(line)) for line in whole]
        return found

    def until(self, ranks: int, steps: int = 3, after: int = -1) -> int:
        """Wait until an attempt later than ``after`` has so many ranks and steps; its number."""

        def reached() -> list[int]:
            for node in self.nodes:
                assert node.process.poll() is None, node.end()
            lines = self.lines()
            last = max((line[1] for line in lines), default=0)
            made = [line for line in lines if line[1] == last and line[0] == "step"]
            there = {line[3] for line in made if line[2] == ranks}
            enough = len(there) == ranks and len(made) >= ranks * steps
            return [last] if enough and last > after else []

        (attempt,) = eventually(reached, f"{steps} steps of {ranks} ranks", LIMIT_S)
        return int(attempt)

    def check(self) -> set[int]:
        """Every rank has had the reference's weights after each step; the numbers of ranks."""
        lines = self.lines()
        known = {0: np.zeros(SIZE, np.float32)}
        sizes = set()
        for attempt in sorted({line[1] for line in lines}):
            mine = [line for line in lines if line[1] == attempt]
            (ranks,) = {line[2] for line in mine}
            (start,) = {line[4] for line in mine if line[0] == "loaded"}
            sizes.add(ranks)
            for step in range(start + 1, max(line[4] for line in mine) + 1):
                total = sum(gradients(step, rank) for rank in range(ranks))
                known[step] = known[step - 1] + total
            for _, _, _, rank, step, seen, carrier in mine:
                assert seen == digest(known[step]), (attempt, rank, step)
                assert carrier == "switch"
        return sizes


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_nodes_join_and_die(cli: Commands, tmp_path: Path) -> None:
    controller = rack(cli)
    training = Elastic(cli, tmp_path / "out", controller, "1:4")
    with ControllerClient(controller, token=cli.mark) as client:
        first = training.node()
        attempts = [training.until(1)]
        second = training.node()
        attempts.append(training.until(2))
        third = training.node()
        attempts.append(training.until(3))
        (job,) = client.list_jobs(live_only=True)
        assert (job.workers, job.state) == (3, pb.JOB_STATE_READY)
        training.nodes.remove(second)
        second.kill_everything()
        attempts.append(training.until(2))
        fourth = training.node()
        attempts.append(training.until(3))
        (now,) = client.list_jobs(live_only=True)
        assert (now.id, now.slots) == (job.id, job.slots), "the same job, and the same slots"
        assert now.epoch > job.epoch
        assert attempts == sorted(set(attempts)), "each number of ranks is an attempt of its own"
        (training.folder / "stop").touch()
        for node in (third, fourth, first):
            status, _, err = node.end(LIMIT_S)
            assert status == 0, err
        assert training.check() >= {1, 2, 3}
        (switch,) = client.list_switches()
        assert (switch.jobs, switch.free_slots) == (0, switch.slots)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_two_nodes_restart_when_a_worker_dies(cli: Commands, tmp_path: Path) -> None:
    """Each node counts its restarts for itself, and torchrun's store keeps what was said before."""
    training = Elastic(cli, tmp_path / "out", rack(cli), "2")
    nodes = [training.node(), training.node()]
    attempts = [training.until(2)]
    for node in nodes:
        os.kill(worker_of(node), signal.SIGKILL)
        seen = attempts[-1]
        attempts.append(training.until(2, after=seen))
    (training.folder / "stop").touch()
    for node in nodes:
        status, _, err = node.end(LIMIT_S)
        assert status == 0, err
    assert attempts == sorted(set(attempts))
    assert training.check() == {2}


def worker_of(node: Run) -> int:
    """The pid of a node's worker."""
    (pid,) = [
        pid
        for pid in descendants(node.process.pid)
        if "LOCAL_RANK=" in Path(f"/proc/{pid}/environ").read_text()
        and SCRIPT.name in Path(f"/proc/{pid}/cmdline").read_text()
    ]
    return pid
