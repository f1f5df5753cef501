"""Measures each case plainly, lets ``advise`` predict, then measures every remedy.

One rack stands for all cases; its links are changed from case to case. The ranks of each training
are forked anew (``crew.py``).
"""

import json
import os
import select
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from wiresum.common.children import process
from wiresum.host_agent.environment import MEASURE, MEASURE_STEPS, Carrier, Environment
from wiresum.host_agent.launcher.options import JobOptions
from wiresum.host_agent.launcher.session import Session
from wiresum.measure import lines
from wiresum.measure.remedies import PLAIN, REMEDIES, Remedy
from wiresum.measure.remedies import Carrier as Sums
from wiresum.measure.validation import judge
from wiresum.measure.validation.cases import Case, Options
from wiresum.testbed.errors import RackError
from wiresum.testbed.namespaces import run as run_command
from wiresum.testbed.options import RackOptions
from wiresum.testbed.rack import Rack, worker_ip

LANES = 256
START_S = 45.0
_IMPORT_S = 120.0
_END_S = 30.0
"""How long the crew may need beside a training: to end its ranks, and to read what they left."""

_FIRST_PORT = 29600


class Validation:
    """One run; use as a context manager. Everything raises ``WiresumError``."""

    def __init__(self, options: Options, say: Callable[[str], None]) -> None:
        self.options = options
        self._say = say
        self._exits = ExitStack()
        self._port = _FIRST_PORT
        self._crew: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Validation":
        most = max(self.options.workers)
        fastest = max(self.options.rates)
        try:
            self._rack = self._exits.enter_context(
                Rack(
                    RackOptions(
                        workers=most,
                        rate_mbit=fastest,
                        lanes=LANES,
                        offloads=True,
                        name=self.options.name,
                    )
                )
            )
            self._folder = Path(tempfile.mkdtemp(prefix="wiresum-advise-"))
            self._exits.callback(shutil.rmtree, self._folder, ignore_errors=True)
            self._start_crew()
        except BaseException:
            self._exits.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._exits.close()

    def case(self, case: Case) -> dict[str, Any]:
        """Measure and predict one case; an entry of the JSON."""
        self._shape(case)
        report = self._report(case)
        found = judge.predicted(report)
        measured: dict[str, float] = {}
        for name in (PLAIN, *self.options.remedies):
            measured[name] = self._train(case, REMEDIES[name])
            self._say(
                f"{case}: {name}: {1e3 * measured[name]:.0f} ms, predicted "
                f"{1e3 * found[name].step_s:.0f}"
            )
        return {
            "model": case.model.name,
            "rate_mbit": case.rate_mbit,
            "workers": case.workers,
            "unequal": case.unequal,
            "measured": measured,
            "report": report,
        }

    # ---- the network

    def _shape(self, case: Case) -> None:
        """Give the links of a case their rates."""
        switch = self._rack.record.nodes["s1"].namespace
        for number, rate in enumerate(case.rates):
            worker = self._rack.record.nodes[f"w{number}"].namespace
            ends = ((worker, f"w{number}-eth0"), (switch, f"s1-eth{number + 1}"))
            for namespace, interface in ends:
                limit = ("htb", "rate", f"{rate:g}mbit", "burst", "32k", "quantum", "1514")
                where = ("dev", interface, "parent", "5:", "classid", "5:1")
                run_command("tc", "-n", namespace, "class", "change", *where, *limit)

    # ---- trainings

    def _start_crew(self) -> None:
        env = {k: v for k, v in os.environ.items() if not k.startswith("WIRESUM_")}
        env |= {"OMP_NUM_THREADS": "1", "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}
        self._log = self._folder / "crew.log"
        with self._log.open("ab") as errors:
            self._crew = process.start(
                process.module("wiresum.measure.validation.crew"),
                supervised=False,
                options=process.ProcessOptions(
                    env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
                ),
            )
        self._exits.callback(process.end, self._crew)
        self._answer(_IMPORT_S)

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

    def _report(self, case: Case) -> dict[str, Any]:
        """Measure the plain run as ``wiresum measure`` does; its report."""
        from wiresum.measure.live.job import job_in
        from wiresum.measure.traces import show
        from wiresum.measure.traces.load import load
        from wiresum.measure.traces.summary import summarize

        folder = self._folder / f"traces-{self._port}"
        folder.mkdir()
        more = {MEASURE: str(folder), MEASURE_STEPS: str(self.options.steps)}
        more["KINETO_LOG_LEVEL"] = "99"
        self._run(case, REMEDIES[PLAIN], more, 3 * self.options.steps + 8)
        job, notes = job_in(folder, None)
        report = summarize(load(folder), job, notes)
        shutil.rmtree(folder)
        return show.as_json(report)

    def _train(self, case: Case, remedy: Remedy) -> float:
        """Seconds of a step: the median of the steps, of the median rank."""
        found = sorted(each["median"] for each in self._run(case, remedy, {}, self.options.steps))
        return float(found[len(found) // 2])

    def _run(
        self, case: Case, remedy: Remedy, more: dict[str, str], steps: int
    ) -> list[dict[str, Any]]:
        """One training; once more, if a rank fails or does not end in time."""
        answer = self._try(case, remedy, more, steps)
        if "error" in answer:
            self._say(f"{case}: {remedy.name}: once more, since {answer['error']}")
            answer = self._try(case, remedy, more, steps)
        if "error" in answer:
            raise RackError(lines.PART_FAILED.of(part="a training", why=answer["error"]))
        return list(answer["ranks"])

    def _try(self, case: Case, remedy: Remedy, more: dict[str, str], steps: int) -> dict[str, Any]:
        with ExitStack() as exits:
            variables: dict[str, str] = {}
            if remedy.carrier is Sums.RANKS:
                made = Environment("", None, "", remedy.field or 32, None, carrier=Carrier.RANKS)
                variables = made.variables()
            elif remedy.carrier is Sums.SWITCH:
                options = JobOptions(
                    controller=self._rack.controller,
                    token=self._rack.token,
                    field=remedy.field or 32,
                    name=f"advise-{self._port}",
                    carrier=Carrier.SWITCH,
                )
                session = exits.enter_context(Session(options))
                carrier = replace(session.environment, carrier=Carrier.SWITCH)
                variables = carrier.variables()
            self._port += 1
            limit_s = _limit_s(case, steps)
            order = {
                "backend": "gloo" if remedy.carrier is Sums.GLOO else "wiresum",
                "hook": remedy.hook,
                "size": case.model.size,
                "layers": case.model.layers,
                "compute_ms": case.model.compute_ms,
                "steps": steps,
                "folder": str(self._folder),
                "limit_s": limit_s,
                "ranks": [
                    self._place(case, rank, variables | more) for rank in range(case.workers)
                ],
            }
            assert self._crew is not None
            assert self._crew.stdin is not None
            self._crew.stdin.write(json.dumps(order).encode() + b"\n")
            self._crew.stdin.flush()
            return self._answer(limit_s + _END_S)

    def _place(self, case: Case, rank: int, variables: dict[str, str]) -> dict[str, Any]:
        env = self._rack.variables(f"w{rank}")
        if "WIRESUM_JOB" not in variables:
            env.pop("WIRESUM_CONTROLLER", None)
        env |= variables | {
            "RANK": str(rank),
            "WORLD_SIZE": str(case.workers),
            "LOCAL_RANK": "0",
            "MASTER_ADDR": worker_ip(0),
            "MASTER_PORT": str(self._port),
            "OMP_NUM_THREADS": "1",
        }
        return {"namespace": self._rack.record.nodes[f"w{rank}"].namespace, "env": env}


def _limit_s(case: Case, steps: int) -> float:
    """How long a training may take: several times what its computing and its ring need."""
    ring = 2 * case.model.size * 8 / (min(case.rates) * 1e6)
    return START_S + 4 * (steps + 3) * (case.model.compute_ms / 1e3 + ring)
