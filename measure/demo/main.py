"""``wiresum demo``: trains twice, checks the switch's counters, shows both."""

import importlib.util
import os
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from wiresum.common.children import process
from wiresum.common.temporary import PrivateFolder
from wiresum.host_agent.launcher.options import JobOptions
from wiresum.host_agent.launcher.run import execute
from wiresum.host_agent.launcher.session import Session
from wiresum.host_agent.launcher.signals import Signals
from wiresum.measure import lines
from wiresum.measure.demo.results import DemoError, Training, read, verify
from wiresum.measure.demo.show import NOTES, Bars, as_json, table, write_json, write_plot


def demo(
    *,
    workers: int,
    steps: int,
    field: int,
    seed: int,
    out: Path,
    json_file: Path | None,
    plot_file: Path | None,
) -> None:
    """Train over gloo, then over a switch of its own. Raises ``WiresumError``.

    The workers' output goes to ``demo-gloo.log`` and ``demo-wiresum.log`` in ``out``.
    """
    for module in ("torch", "matplotlib"):
        if importlib.util.find_spec(module) is None:
            raise DemoError(lines.DEMO_NEEDS_MODULE.of(module=module))
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DemoError(lines.NO_FOLDER.of(folder=out, why=error.strerror)) from None
    console = Console()
    with Signals() as signals, Bars(console, steps) as bars:
        runner = _Runner(workers, steps, seed, out, signals, bars)
        gloo = runner.train("gloo", None)
        with Session(JobOptions(field=field, name="demo")) as session:
            wiresum = runner.train("wiresum", session)
    result = as_json(gloo, wiresum, workers=workers, steps=steps, field=field, seed=seed)
    if json_file is not None:
        write_json(json_file, result)
    plot = plot_file or out / "demo.png"
    write_plot(plot, gloo, wiresum, field)
    console.print(table(gloo, wiresum, field))
    console.print(NOTES, highlight=False, soft_wrap=True)
    verify(wiresum, workers, steps)
    console.print(
        f"{wiresum.parameters:,} parameters, {workers} workers, {steps} steps in each training.\n"
        f"The switch's counters account for every chunk. Loss curves: {plot}",
        highlight=False,
        soft_wrap=True,
    )


class _Runner:
    """Runs one training after the other with the same arguments."""

    def __init__(
        self, workers: int, steps: int, seed: int, out: Path, signals: Signals, bars: Bars
    ) -> None:
        self._workers = workers
        self._steps = steps
        self._seed = seed
        self._out = out
        self._signals = signals
        self._bars = bars

    def train(self, backend: str, session: Session | None) -> Training:
        """One torchrun of all workers; over the switch if there is a session."""
        log = self._out / f"demo-{backend}.log"
        with PrivateFolder("demo") as private, log.open("wb") as output:
            folder = private.path
            started = time.monotonic()
            status = execute(
                session,
                self._signals,
                self._command(backend, folder),
                process.ProcessOptions(
                    env=_environment(session),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                ),
                tick=self._bars.follow(backend, folder / "progress0.jsonl"),
            )
            seconds = time.monotonic() - started
            if status != 0:
                raise DemoError(
                    lines.TRAINING_FAILED.of(
                        backend=backend, status=status, reason=_reason(log), log=log
                    )
                )
            events = dict(session.describe().events) if session is not None else {}
            return read(backend, folder, self._workers, seconds, events)

    def _command(self, backend: str, folder: Path) -> list[str]:
        launcher = [*process.module("torch.distributed.run"), "--standalone"]
        worker = ["-m", "wiresum.measure.demo.train", "--backend", backend]
        return [
            *launcher,
            f"--nproc-per-node={self._workers}",
            *worker,
            f"--steps={self._steps}",
            f"--seed={self._seed}",
            f"--report={folder}",
        ]


def _environment(session: Session | None) -> Mapping[str, str]:
    if session is not None:
        env = session.variables()
    else:
        env = {k: v for k, v in os.environ.items() if not k.startswith("WIRESUM_")}
    env.pop("WIRESUM_AS_DEFAULT", None)
    env.pop("TORCH_DEVICE_BACKEND_AUTOLOAD", None)
    env["PYTHONSAFEPATH"] = "1"  # torchrun starts modules with -m alone
    cores = os.cpu_count() or 1
    return {"OMP_NUM_THREADS": "1", **env} if cores < 16 else env


def _reason(log: Path) -> str:
    """The first line in a worker's output that names an error."""
    for line in log.read_text(errors="replace").splitlines():
        text = line.split("]: ", 1)[-1].strip()
        if "Error: " in text or "wiresum.host_agent.errors." in text:
            return f": {text}"
    return ""
