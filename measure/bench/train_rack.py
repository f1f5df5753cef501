"""A rack on which one training after the other runs, with other links and other carriers.

One rack stands for all; its links are changed from case to case. The ranks of each training are
forked anew from one process that has imported torch (``train_crew.py``).
"""

import json
import os
import select
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from wiresum.common.children import process
from wiresum.host_agent.environment import Carrier, Environment
from wiresum.host_agent.launcher.options import JobOptions
from wiresum.host_agent.launcher.session import Session
from wiresum.measure import lines
from wiresum.measure.remedies import Carrier as Sums
from wiresum.testbed.errors import RackError
from wiresum.testbed.namespaces import run as run_command
from wiresum.testbed.options import RackOptions
from wiresum.testbed.rack import Rack, worker_ip

LANES = 256
START_S = 45.0
"""How long the ranks of a training may need to find each other."""

_IMPORT_S = 300.0
_END_S = 30.0
"""How long the crew may need beside a training: to end its ranks, and to read what they left."""

_FIRST_PORT = 29600


class Trainings:
    """The rack and the crew; use as a context manager. Everything raises ``WiresumError``.

    ``trainer``: the module whose ``train(order)`` is a rank's training; what it returns goes into
    JSON.
    """

    def __init__(self, name: str, workers: int, rate_mbit: float, trainer: str) -> None:
        self._options = RackOptions(
            workers=workers, rate_mbit=rate_mbit, lanes=LANES, offloads=True, name=name
        )
        self._trainer = trainer
        self._exits = ExitStack()
        self._port = _FIRST_PORT
        self._crew: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Trainings":
        try:
            self._rack = self._exits.enter_context(Rack(self._options))
            self.folder = Path(tempfile.mkdtemp(prefix="wiresum-trainings-"))
            self._exits.callback(shutil.rmtree, self.folder, ignore_errors=True)
            self._start_crew()
        except BaseException:
            self._exits.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._exits.close()

    def shape(self, rates: Sequence[float]) -> None:
        """Give the links of the first workers their rates, in Mbit/s, in both directions."""
        switch = self._rack.record.nodes["s1"].namespace
        for number, rate in enumerate(rates):
            worker = self._rack.record.nodes[f"w{number}"].namespace
            ends = ((worker, f"w{number}-eth0"), (switch, f"s1-eth{number + 1}"))
            for namespace, interface in ends:
                limit = ("htb", "rate", f"{rate:g}mbit", "burst", "32k", "quantum", "1514")
                where = ("dev", interface, "parent", "5:", "classid", "5:1")
                run_command("tc", "-n", namespace, "class", "change", *where, *limit)

    def run(
        self,
        order: Mapping[str, Any],
        workers: int,
        carrier: Sums,
        field: int,
        limit_s: float,
        more: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """One training: ``{"ranks": […]}``, what the ranks have returned, or ``{"error": why}``.

        ``more``: variables of the ranks' environment.
        """
        self._port += 1
        with self._sums(carrier, field) as variables:
            given = variables | dict(more or {})
            whole = dict(order) | {
                "folder": str(self.folder),
                "limit_s": limit_s,
                "ranks": [self._place(rank, workers, given) for rank in range(workers)],
            }
            assert self._crew is not None
            assert self._crew.stdin is not None
            with suppress(OSError):  # it has ended: its answer says so
                self._crew.stdin.write(json.dumps(whole).encode() + b"\n")
                self._crew.stdin.flush()
            return self._answer(limit_s + _END_S)

    @contextmanager
    def _sums(self, carrier: Sums, field: int) -> Iterator[dict[str, str]]:
        """The variables of ranks whose sums are carried so; a job on the switch for as long."""
        if carrier is Sums.GLOO:
            yield {}
        elif carrier is Sums.RANKS:
            yield Environment("", None, "", field, None, carrier=Carrier.RANKS).variables()
        else:
            options = JobOptions(
                controller=self._rack.controller,
                token=self._rack.token,
                field=field,
                name=f"{self._options.name}-{self._port}",
                carrier=Carrier.SWITCH,
            )
            with Session(options) as session:
                yield replace(session.environment, carrier=Carrier.SWITCH).variables()

    def _place(self, rank: int, workers: int, variables: dict[str, str]) -> dict[str, Any]:
        env = self._rack.variables(f"w{rank}")
        if "WIRESUM_JOB" not in variables:
            env.pop("WIRESUM_CONTROLLER", None)
        env |= variables | {
            "RANK": str(rank),
            "WORLD_SIZE": str(workers),
            "LOCAL_RANK": "0",
            "MASTER_ADDR": worker_ip(0),
            "MASTER_PORT": str(self._port),
            "OMP_NUM_THREADS": "1",
        }
        return {"namespace": self._rack.record.nodes[f"w{rank}"].namespace, "env": env}

    # ---- the crew

    def _start_crew(self) -> None:
        env = {k: v for k, v in os.environ.items() if not k.startswith("WIRESUM_")}
        env |= {"OMP_NUM_THREADS": "1", "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}
        self._log = self.folder / "crew.log"
        with self._log.open("ab") as errors:
            self._crew = process.start(
                [*process.module("wiresum.measure.bench.train_crew"), self._trainer],
                supervised=False,
                options=process.ProcessOptions(
                    env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
                ),
            )
        self._exits.callback(self._end_crew)
        self._answer(_IMPORT_S)

    def _end_crew(self) -> None:
        assert self._crew is not None
        process.end(self._crew)
        for stream in (self._crew.stdin, self._crew.stdout):
            if stream is not None:
                with suppress(OSError):  # an order may be left in it
                    stream.close()

    def _answer(self, limit_s: float) -> dict[str, Any]:
        """The crew's next line. Raises ``RackError`` if it has ended, or says nothing in time."""
        assert self._crew is not None
        assert self._crew.stdout is not None
        if not select.select([self._crew.stdout], [], [], limit_s)[0]:
            raise RackError(lines.CREW_SILENT.of(limit_s=limit_s))
        line = self._crew.stdout.readline()
        if not line:
            said = self._log.read_text(errors="replace").strip().splitlines() or ["no reason given"]
            raise RackError(lines.PART_FAILED.of(part="the trainings' process", why=said[-1]))
        answer: dict[str, Any] = json.loads(line)
        return answer
