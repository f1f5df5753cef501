"""Links, workers and switches of a rack fail under a training: it goes on, with the same bits."""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.processes import marked
from support.rack_process import Up, wait_for
from support.spawn import WORKER
from support.training import spawned
from wiresum.testbed.processes import Mark

pytestmark = [pytest.mark.root, pytest.mark.timeout(1800)]

STEADY = Path(__file__).parents[1] / "e2e" / "steady.py"
WORKERS = 3
STEPS = {"soft": 150, "bmv2": 50}
"""BMv2 takes seconds for a step."""
LIMIT_S = 400.0
SWITCH_PORT = 22355

CUT = "add table ip cut; add chain ip cut out {{ type filter hook output priority 0; }}; {rules}"
TO_SWITCH = f"add rule ip cut out udp dport {SWITCH_PORT} drop"
ALL_OUT = "add rule ip cut out oif != lo drop"
ALL_IN = (
    "add chain ip cut in { type filter hook input priority 0; }; add rule ip cut in iif != lo drop"
)


class Training:
    """One rank on each worker of a rack; ``apart``: beside it, on this host."""

    def __init__(self, rack: Up, out: Path, *, apart: bool = False, **env: str) -> None:
        self.rack, self.out = rack, out
        out.mkdir()
        if not apart:
            (out / "slow").touch()
        steps = STEPS[rack.facts["switch"]]
        master, port = "10.0.0.1", 29555
        if apart:
            with socket.create_server(("127.0.0.1", 0)) as free:
                master, port = free.getsockname()
        self.ranks = []
        for rank in range(WORKERS):
            facts = {
                "RANK": str(rank), "WORLD_SIZE": str(WORKERS), "MASTER_ADDR": master,
                "MASTER_PORT": str(port), "WIRESUM_FIELD": "8", "WIRESUM_LOG_FORMAT": "text", **env,
            }  # fmt: skip
            enter = [] if apart else rack.enter(f"w{rank}")
            command = [*enter, "env", *(f"{k}={v}" for k, v in facts.items())]
            script = [*spawned(1), str(STEADY), "--out", str(out), "--steps", str(steps)]
            self.ranks.append(rack.cli.popen([*command, *script, "--pause", "0"]))

    def steps(self) -> list[list[str]]:
        """Step and carrier of each rank."""
        paths = [self.out / f"step.{rank}" for rank in range(WORKERS)]
        if any(each.poll() is not None for each in self.ranks):
            time.sleep(5.0)
            raise AssertionError(["".join(each.communicate()) for each in self.ranks])
        there = all(path.exists() for path in paths)
        return [path.read_text().split() for path in paths] if there else []

    def reach(self, step: int) -> None:
        """Wait until all ranks have done that step."""
        done = lambda: (now := self.steps()) and min(int(at) for at, _ in now) >= step  # noqa: E731
        wait_for(lambda: bool(done()), f"step {step}", LIMIT_S)

    def until(self, carrier: str) -> None:
        """Wait until all ranks have this carrier."""
        wait_for(lambda: {how for _, how in self.steps()} == {carrier}, carrier, LIMIT_S)

    def end(self) -> tuple[list[dict[str, Any]], list[str]]:
        """The ranks' reports and their output."""
        (self.out / "slow").unlink(missing_ok=True)
        said = []
        for each in self.ranks:
            out, err = each.communicate(timeout=LIMIT_S)
            assert each.returncode == 0, out + err
            said.append(out + err)
        paths = [self.out / f"report.{rank}.json" for rank in range(WORKERS)]
        reports = [json.loads(path.read_text()) for path in paths]
        assert len({report["digest"] for report in reports}) == 1
        return reports, said

    def pid(self, rank: int) -> int:
        """The process id of a rank."""
        found = [
            pid
            for pid in marked(self.rack.cli.mark)
            if {f"RANK={rank}", f"{WORKER}=1"}
            <= set(Path(f"/proc/{pid}/environ").read_text().split("\0"))
        ]
        (pid,) = found
        return pid


def nft(rack: Up, node: str, text: str) -> None:
    rack.on(node, "nft", text)


@pytest.fixture
def rack(up: Callable[..., Up], kind: str) -> Up:
    subprocess.run(["nft", "--version"], check=True, capture_output=True)
    return up("--switch", kind, "--workers", str(WORKERS))


def test_links_workers_and_switches_fail_and_the_bits_stay(rack: Up, tmp_path: Path) -> None:
    quick = {"WIRESUM_SWITCH_TIMEOUT": "1.5"}
    (plain, *_), _ = Training(rack, tmp_path / "plain", apart=True, WIRESUM_CARRIER="ranks").end()
    bits = plain["digest"]

    # One worker cannot reach the switch: it says so, and all go over the ranks together.
    training = Training(rack, tmp_path / "cut", **quick)
    training.reach(3)
    training.until("switch")
    nft(rack, "w1", CUT.format(rules=TO_SWITCH))
    training.until("ranks")
    nft(rack, "w1", "delete table ip cut")
    training.until("switch")
    reports, said = training.end()
    assert reports[0]["digest"] == bits
    # On a busy machine the ranks may try to go back before the rule is deleted.
    for report in reports:
        first, *others = report["carriers"]
        assert (first, others[-1], "ranks" in others) == ("switch", "switch", True)
    assert "the ranks sum without the switch: rank 1 on " in said[0]

    # A switch that is killed; the rack starts it again. The ranks' own links go through it, too.
    training = Training(rack, tmp_path / "killed", **quick)
    training.reach(3)
    Mark(**rack.record()["processes"]["s1"]).send(signal.SIGKILL)
    training.reach(int(training.steps()[0][0]) + 5)
    reports, _ = training.end()
    assert reports[0]["digest"] == bits

    # Faults shorter than the limit need no other carrier: a partition, a stopped worker.
    training = Training(rack, tmp_path / "short", WIRESUM_SWITCH_TIMEOUT="30")
    training.reach(3)
    training.until("switch")
    nft(rack, "w2", CUT.format(rules=f"{ALL_OUT}; {ALL_IN}"))
    time.sleep(3.0)
    nft(rack, "w2", "delete table ip cut")
    training.reach(int(training.steps()[0][0]) + 3)
    stopped = training.pid(1)
    os.kill(stopped, signal.SIGSTOP)
    time.sleep(6.0)
    os.kill(stopped, signal.SIGCONT)
    reports, _ = training.end()
    assert reports[0]["digest"] == bits
    assert [report["carriers"] for report in reports] == [["switch"]] * WORKERS
