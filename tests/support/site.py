"""An operator's site for end-to-end tests: a switch, a controller with TLS, tenants with tokens."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.processes import Commands
from support.spawn import SPAWNED_BY, WORKER
from support.training import spawned
from wiresum.controller.client import ControllerClient, add_switch_request
from wiresum.controller.client.local_site import take_over
from wiresum.controller.v1 import controller_pb2 as pb

LOOP = Path(__file__).resolve().parents[1] / "e2e" / "reduce.py"
LIMIT_S = 90.0


def eventually(condition: Callable[[], Any], what: str, limit_s: float = LIMIT_S) -> Any:
    """Wait until ``condition`` gives something true, and return it."""
    deadline = time.monotonic() + limit_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {limit_s:g} s: {what}"
        time.sleep(0.05)
    return found


class Site:
    """A switch and its controller; ``admin`` is the environment of the operator.

    Processes started from here on belong to ``cli``, which a test that shares a site may replace.
    """

    def __init__(self, cli: Commands, *options: str) -> None:
        self.cli = cli
        self.directory = cli.directory / "site"
        self.directory.mkdir()
        self.options = options
        switch = self.cli.start(
            "switch", "serve", "--lanes", "256", "--p4runtime", "127.0.0.1:0",
            "--port", "1=udp:127.0.0.1:0",
        )  # fmt: skip
        self.listen = "127.0.0.1:0"
        self.start()
        self.admin = {
            "WIRESUM_CONTROLLER": self.address,
            "WIRESUM_CA": self.ca,
            "WIRESUM_TOKEN": Path(self.ready["admin_token_file"]).read_text().strip(),
        }
        facts = _ready_line(switch)
        ip, port = facts["ports"]["1"].removeprefix("udp:").rsplit(":", 1)
        request = add_switch_request(
            "s1",
            p4runtime=facts["p4runtime"],
            ip=ip,
            udp_port=int(port),
            hosts=[("127.0.0.0/8", 1)],
        )
        with self.client() as client:
            take_over(client, request, self._check, LIMIT_S)

    def start(self) -> None:
        """Start the controller, or start it again at the same place."""
        store = str(self.directory / "controller.sqlite")
        self.controller = self.cli.start(
            "controller", "serve", "--listen", self.listen, "--store", store, *self.options,
            WIRESUM_ADMIN_TOKEN="",  # as an operator starts it: the token is in a file
        )  # fmt: skip
        self.ready = _ready_line(self.controller)
        self.listen, self.address = self.ready["listen"], self.ready["address"]
        self.ca = self.ready["ca"]

    def _check(self) -> None:
        assert self.controller.poll() is None, self.controller.communicate()[1]

    def kill_controller(self) -> None:
        """SIGKILL."""
        self.controller.kill()
        self.controller.wait()

    def client(self) -> ControllerClient:
        """The operator's; it says the same as the commands, which take a while to start."""
        token, ca = self.admin["WIRESUM_TOKEN"], self.admin["WIRESUM_CA"]
        return ControllerClient(self.address, token=token, ca=ca, cert="", key="")

    def operate(self, *arguments: str) -> str:
        """Run one of the operator's commands; return its output."""
        done = self.cli.run(*arguments, **self.admin)
        assert done.returncode == 0, done.stderr
        return str(done.stdout)

    def jobs(self) -> list[pb.Job]:
        """All jobs, newest first."""
        with self.client() as client:
            return client.list_jobs()

    def queued(self) -> bool:
        """Whether a job waits for room."""
        return any(job.state == pb.JOB_STATE_QUEUED for job in self.jobs())

    def switch(self) -> pb.Switch:
        """The switch."""
        with self.client() as client:
            return client.list_switches()[0]

    def free(self) -> int:
        """The number of free slots."""
        return self.switch().free_slots

    def tenant(self, name: str, priority: int = 0) -> Path:
        """Add a tenant; the file with its token."""
        path = self.directory / f"{name}.token"
        with self.client() as client:
            path.write_text(client.add_tenant(name, priority=priority).token)
        return path

    def run(self, token: Path, *options: str, command: list[str], **env: str) -> "Run":
        """Start ``wiresum run OPTIONS -- COMMAND`` as that tenant."""
        arguments = ["--controller", self.address, "--ca", self.ca, "--token-file", str(token)]
        return Run(self.cli.start("run", *arguments, *options, "--", *command, **env))

    def loop(
        self,
        token: Path,
        name: str,
        *options: str,
        workers: int,
        started_by: Callable[[int], list[str]] = spawned,
    ) -> "Run":
        """Start the looping training of that name."""
        out = self.cli.directory / name
        out.mkdir()
        command = [*started_by(workers), str(LOOP), "--out", str(out), "--pause", "0.1"]
        run = self.run(token, "--name", name, *options, command=command)
        run.out, run.workers = out, workers
        return run


def _ready_line(process: "subprocess.Popen[str]") -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, process.communicate()[1]
    return dict(json.loads(line))


class Run:
    """A ``wiresum run`` in the background."""

    out: Path
    workers: int

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process

    def _read(self, name: str) -> str:
        """The output of the loop; fails if the run has ended instead."""
        if self.process.poll() is not None:
            out, err = self.process.communicate()
            raise AssertionError(f"it ended with {self.process.returncode}: {out}{err}")
        path = self.out / name
        return path.read_text() if path.exists() else ""

    def step(self) -> int:
        """The step of the slowest rank; -1 before its first step."""
        return min(int(self._read(f"step.{rank}") or -1) for rank in range(self.workers))

    def lease(self, rank: int = 0) -> dict[str, Any]:
        """The lease that a rank works with."""
        text = self._read(f"lease.{rank}")
        return dict(json.loads(text)) if text else {"slots": 0, "change": -1}

    def steps(self, more: int) -> None:
        """Wait until all ranks have done so many more steps."""
        goal = self.step() + more
        eventually(lambda: self.step() >= goal, f"step {goal} (it is at {self.step()})")

    def until(self, condition: Callable[[dict[str, Any]], bool], what: str) -> None:
        """Wait until all ranks' leases are such."""
        eventually(
            lambda: all(condition(self.lease(rank)) for rank in range(self.workers)),
            f"{what} (rank 0 has {self.lease()})",
        )

    def stop(self) -> list[dict[str, Any]]:
        """End the loop after a step; the ranks' reports."""
        (self.out / "stop").touch()
        status, _, err = self.end()
        assert status == 0, err
        return [
            json.loads((self.out / f"report.{rank}.json").read_text())
            for rank in range(self.workers)
        ]

    def end(self, limit_s: float = LIMIT_S) -> tuple[int, str, str]:
        """Wait for the end: status, stdout, stderr."""
        try:
            out, err = self.process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            out, err = self.process.communicate()
            raise AssertionError(f"it hangs: {out}{err}") from None
        return self.process.returncode, out, err

    def workers_pids(self) -> list[int]:
        """The pids of the workers, which are forked, by rank."""
        below = {self.process.pid, *descendants(self.process.pid)}
        found = {}
        for entry in Path("/proc").glob("[0-9]*/environ"):
            try:
                pairs = (each.partition("=") for each in entry.read_text().split("\0"))
            except OSError:
                continue
            env = {name: value for name, _, value in pairs}
            if WORKER in env and int(env[SPAWNED_BY]) in below:
                found[int(env["RANK"])] = int(entry.parent.name)
        return [found[rank] for rank in sorted(found)]

    def kill_everything(self) -> None:
        """SIGKILL to the launcher, its guard and all below, at once."""
        everything = [self.process.pid, *descendants(self.process.pid)]
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in everything:
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    continue
        self.process.wait()


def descendants(pid: int) -> list[int]:
    """Everything below a process."""
    found = []
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in map(int, (task / "children").read_text().split()):
                found += [child, *descendants(child)]
    except OSError:
        pass  # it has just ended
    return found


def one_line(text: str, *words: str) -> str:
    """The line of ``text`` that holds all of ``words``."""
    for line in text.splitlines():
        if all(word in line for word in words):
            return line
    raise AssertionError(f"no line has {words} in:\n{text[-3000:]}")
