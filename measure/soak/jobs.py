"""A job of a soak: a job on the controller, and one torchrun on the host of each rank."""

import contextlib
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from wiresum.common.children import process
from wiresum.host_agent.launcher.options import JobOptions
from wiresum.host_agent.launcher.session import Session
from wiresum.measure.soak.judge import Step
from wiresum.measure.soak.schedule import JobSpec
from wiresum.testbed.namespaces import enter
from wiresum.testbed.processes import mark
from wiresum.testbed.rack import Rack, worker_ip

_FIRST_PORT, _PORTS = 29500, 400
_RESTARTS = 1000
_RANKS = re.compile(r"^(\[rank\d+\]: )+")  # torch puts it before each line, once more each restart


@dataclass(frozen=True)
class Size:
    """How much a training does: the steps of a lap, the width of the model, seconds of rest."""

    steps: int
    width: int
    pause_s: float

    def arguments(self, out: Path) -> list[str]:
        """Of ``wiresum.measure.soak.train``."""
        size = ["--steps", str(self.steps), "--width", str(self.width)]
        return [*size, "--pause", str(self.pause_s), "--out", str(out)]

    def at_once(self) -> "Size":
        """The same training without rest."""
        return replace(self, pause_s=0.0)


SIZES = {"soft": Size(100, 64, 0.1), "bmv2": Size(60, 24, 0.1)}
"""By kind of switch: BMv2 takes a few thousand packets a second."""

SWITCH_TIMEOUT_S = 2.0


class Job:
    """A running job. Close it, whatever happens."""

    def __init__(
        self, rack: Rack, spec: JobSpec, size: Size, limit_s: float, folder: Path, log: Path
    ) -> None:
        """Make the job and start its workers. Raises ``WiresumError``.

        ``limit_s``: of joining and of a collective. ``folder`` gets what the
        workers report, ``log`` what they print.
        """
        self.spec = spec
        self.log = log
        self._rack = rack
        self._folder = folder
        self._limit_s = limit_s
        self._files: list[IO[str]] = []
        self._partial = [""] * spec.recipe.workers
        self._last_pid = [0] * spec.recipe.workers
        self._attempt_at = 0  # where the log of the latest attempt begins; bytes
        self._running: list[subprocess.Popen[bytes]] = []
        self._exits = contextlib.ExitStack()
        folder.mkdir()
        try:
            session = Session(
                JobOptions(
                    controller=rack.controller,
                    token=rack.token,
                    field=spec.recipe.field,
                    name=spec.name,
                    timeout_s=limit_s,
                    switch_timeout_s=SWITCH_TIMEOUT_S,
                )
            )
            self._session = self._exits.enter_context(session)
            self._exits.callback(self._end)
            output = self._exits.enter_context(log.open("ab"))
            for rank in range(spec.recipe.workers):
                path = folder / f"steps.{rank}"
                path.touch()
                self._files.append(self._exits.enter_context(path.open()))
            for node in range(spec.recipe.workers):
                self._running.append(self._start(node, size, output))
        except BaseException:
            self._exits.close()
            raise

    def _start(self, node: int, size: Size, output: IO[bytes]) -> "subprocess.Popen[bytes]":
        spec, rack = self.spec, self._rack
        host = f"w{spec.hosts[node]}"
        meets = f"{worker_ip(spec.hosts[0])}:{_FIRST_PORT + spec.number % _PORTS}"
        # A node that the network hides for some seconds is not taken for dead.
        settings = f"is_host={int(node == 0)},keep_alive_max_attempt=12,read_timeout=90"
        command = [
            *process.module("torch.distributed.run"),
            *["--nnodes", str(spec.recipe.workers), "--nproc-per-node", "1"],
            *["--rdzv-backend", "c10d", "--rdzv-endpoint", meets, "--rdzv-id", spec.name],
            *["--rdzv-conf", settings, "--local-addr", worker_ip(spec.hosts[node])],
            *["--max-restarts", str(_RESTARTS), "-m", "wiresum.measure.soak.train"],
            *[*size.arguments(self._folder), "--limit", str(self._limit_s)],
        ]
        env = {
            **rack.variables(host),
            **self._session.environment.variables(),
            "OMP_NUM_THREADS": "1",  # the rack's workers share this machine's cores
            "PYTHONSAFEPATH": "1",
            "WIRESUM_LOG_FORMAT": "text",
            # torchrun's nodes count restarts each for itself: see torch's elastic agent.
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        }
        env.pop("TORCH_DEVICE_BACKEND_AUTOLOAD", None)
        return process.start(
            [*enter(rack.record.nodes[host].namespace), *command],
            supervised=True,
            options=process.ProcessOptions(
                env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            ),
        )

    def steps(self) -> Iterator[tuple[int, Step]]:
        """The ranks and their steps since the last call."""
        for rank, file in enumerate(self._files):
            text = self._partial[rank] + file.read()
            *whole, self._partial[rank] = text.split("\n")
            for line in whole:
                step = Step(**json.loads(line))
                if self._last_pid[rank] not in (0, step.pid):
                    self._attempt_at = self.log.stat().st_size
                self._last_pid[rank] = step.pid
                yield rank, step

    def pid(self, rank: int) -> int:
        """The process of a rank; 0 before its first step."""
        return self._last_pid[rank]

    def dump(self) -> None:
        """Let its workers print where they are, into the log."""
        for pid in self._last_pid:
            found = mark(pid)
            if found is not None:
                found.send(signal.SIGUSR1)

    def leave(self) -> None:
        """Let it end after its lap."""
        (self._folder / "leave").touch()

    def status(self) -> int | None:
        """torchrun's status: the first one that is not 0. None: it runs."""
        ended = [child.poll() for child in self._running]
        failed = [code for code in ended if code]
        if failed:
            return process.exit_status(failed[0])
        return None if None in ended else 0

    def check(self) -> None:
        """Raise ``WiresumError`` if its lease is over."""
        self._session.check()

    def why(self) -> str:
        """The first line of the workers' output that names an error, since their last start."""
        for line in self.log.read_bytes()[self._attempt_at :].decode(errors="replace").splitlines():
            text = _RANKS.sub("", line).strip()
            if "Error: " in text or text.startswith("wiresum."):
                return f": {text}"
        return ""

    def let_go(self) -> None:
        """Let the workers end, and do not wait for it: :meth:`close` does."""
        for child in self._running:
            if child.poll() is None:
                assert isinstance(child, process.Supervised)
                child.let_go()

    def _end(self) -> None:
        self.let_go()
        for child in self._running:
            if child.poll() is None:
                process.end_supervised(child)

    def close(self) -> None:
        """End the workers and release the job."""
        self._exits.close()


def environment_of_reference(field: int) -> dict[str, str]:
    """The environment of a training whose ranks sum, without a switch and a controller."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("WIRESUM_")}
    env.pop("TORCH_DEVICE_BACKEND_AUTOLOAD", None)
    mine = {"WIRESUM_CARRIER": "ranks", "WIRESUM_FIELD": str(field)}
    return {**env, **mine, "OMP_NUM_THREADS": "1", "PYTHONSAFEPATH": "1"}
