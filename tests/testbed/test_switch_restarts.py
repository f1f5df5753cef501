"""A switch that restarts is programmed again without a command; its jobs go on or end in a line."""

import contextlib
import json
import os
import queue
import signal
import socket
import subprocess
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.processes import Commands
from support.rack_process import LIMIT_S, Up, wait_for
from support.training import spawned
from wiresum.testbed.processes import Mark

WORKER = Path(__file__).with_name("worker.py")
TIMEOUT_S = "4"
MANY = 50  # all-reduces after which a job is taken to go on


class Place(ABC):
    """A switch, a controller that drives it, and two workers."""

    cli: Commands
    controller: str
    master: str
    master_port = 29517  # free in a rack's own namespaces
    shm = ""  # the socket of a shm port through which the workers reach the switch

    def enter(self, _rank: int) -> list[str]:
        """The prefix that runs a command on the host of a worker."""
        return []

    @abstractmethod
    def restart(self) -> None:
        """Kill the switch, and see another one start in its place."""

    def switch(self) -> dict[str, Any]:
        """The switch as the controller sees it."""
        command = [*self.cli.wiresum, "switch", "list", "--json", "--controller", self.controller]
        done = subprocess.run(
            [*self.enter(0), *command], env=self.cli.env, check=True, capture_output=True, text=True
        )
        (only,) = json.loads(done.stdout)
        return dict(only)


def free_port(kind: socket.SocketKind) -> int:
    """A port of 127.0.0.1 that nobody uses."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert isinstance(port, int)
    return port


class Loopback(Place):
    """The embedded switch on a udp port: needs no root."""

    master = "127.0.0.1"

    def __init__(self, cli: Commands, folder: Path) -> None:
        self.cli = cli
        self._udp = f"127.0.0.1:{free_port(socket.SOCK_DGRAM)}"
        self.master_port = free_port(socket.SOCK_STREAM)
        self._p4runtime = f"unix:{folder}/p4runtime"
        self._process = self._start()
        _, ready = cli.serve(
            "controller", "serve", "--listen", "127.0.0.1:0", "--store", ":memory:", "--plaintext"
        )
        self.controller = ready["address"]
        added = cli.run(
            "switch", "add", "s1", "--p4runtime", self._p4runtime, "--address", self._udp,
            *("--host", "127.77.0.0/16=2" if self.shm else "127.0.0.0/8=1"),
            *("--lanes", "64", "--controller", self.controller),
        )  # fmt: skip
        assert added.returncode == 0, added.stderr

    def _start(self) -> "subprocess.Popen[str]":
        serve = ["switch", "serve", "--p4runtime", self._p4runtime, "--port", f"1=udp:{self._udp}"]
        serve += ["--port", f"2=shm:{self.shm}"] if self.shm else []
        return self.cli.serve(*serve)[0]

    def restart(self) -> None:
        self._process.kill()
        self._process.wait()
        self._process = self._start()


class SharedMemory(Loopback):
    """The same with a shm port: its workers connect again."""

    def __init__(self, cli: Commands, folder: Path) -> None:
        self.shm = str(folder / "shm")
        super().__init__(cli, folder)


class InRack(Place):
    """Either switch in a rack, which starts it again by itself."""

    master = "10.0.0.1"

    def __init__(self, rack: Up) -> None:
        self.cli = rack.cli
        self.controller = rack.facts["controller"]
        self._rack = rack

    def enter(self, rank: int) -> list[str]:
        return self._rack.enter(f"w{rank}")

    def _mark(self) -> Mark:
        return Mark(**self._rack.record()["processes"]["s1"])

    def restart(self) -> None:
        before = self._mark()
        before.send(signal.SIGKILL)
        wait_for(lambda: self._mark() != before and self._mark().alive(), "a new switch")


@pytest.fixture(
    params=[
        pytest.param("loopback", marks=pytest.mark.slow),
        "shm",
        pytest.param("soft", marks=pytest.mark.root),
        # controller/test_real_switches.py restarts BMv2 as well, without workers.
        pytest.param("bmv2", marks=[pytest.mark.root, pytest.mark.bmv2, pytest.mark.slow]),
    ]
)
def place(request: pytest.FixtureRequest, cli: Commands, tmp_path: Path) -> Place:
    if request.param == "loopback":
        return Loopback(cli, tmp_path)
    if request.param == "shm":
        return SharedMemory(cli, tmp_path)
    if request.param == "bmv2" and not any(
        (Path(folder) / "simple_switch_grpc").exists() for folder in os.get_exec_path()
    ):
        pytest.skip("simple_switch_grpc is not on PATH")
    up: Callable[..., Up] = request.getfixturevalue("up")
    return InRack(up("--switch", request.param, "--workers", "2"))


class Lines:
    """The output of a process, line by line, with a limit to every wait."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self._ended = False
        self._new: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._new.put(line.rstrip("\n"))
        self._new.put("")

    def forget(self) -> None:
        """Skip the lines that have come so far, except the end."""
        while not self._new.empty() and self._new.queue[0] == "summed":
            self._new.get()

    def next(self) -> str:
        """The next line; empty once there are no more."""
        if self._ended:
            return ""
        try:
            line = self._new.get(timeout=LIMIT_S)
        except queue.Empty:
            raise AssertionError("neither output nor an end") from None
        self._ended = not line
        return line


@contextlib.contextmanager
def workers(place: Place, folder: Path) -> Iterator[list[Lines]]:
    env = {
        "WORLD_SIZE": "2", "MASTER_ADDR": place.master, "MASTER_PORT": str(place.master_port),
        "WIRESUM_CONTROLLER": place.controller, "WIRESUM_TIMEOUT": TIMEOUT_S,
        "WIRESUM_SHM": place.shm,
    }  # fmt: skip
    processes = [
        place.cli.popen(
            [*place.enter(rank), *spawned(1), str(WORKER), str(folder)], RANK=str(rank), **env
        )
        for rank in range(2)
    ]
    try:
        yield [Lines(process) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def programmed(place: Place) -> bool:
    """Whether the controller reports that the switch is up."""
    return str(place.switch()["state"]) == "up"


def test_a_switch_that_restarts(place: Place, tmp_path: Path) -> None:
    folder = tmp_path / "phases"
    folder.mkdir()
    with workers(place, folder) as both:
        for each in both:
            assert each.next() == "summed", each.process.communicate()[1]

        # Nothing in flight: the job does not notice.
        place.restart()
        (folder / "again").touch()
        for each in both:
            assert each.next() == "summed"
        assert programmed(place)

        # In the middle of a stream: the job goes on, or ends in a line that says where it hung.
        for each in both:
            for _ in range(5):
                assert each.next() == "summed"
        place.restart()
        for each in both:
            each.forget()
            said = {each.next() for _ in range(MANY)}
            if said != {"summed"}:
                (error,) = said - {"summed", ""}
                assert error.startswith("error: ")
                assert "switch s1" in error
                assert each.process.wait(LIMIT_S) == 3
    wait_for(lambda: programmed(place), "the switch is up")
