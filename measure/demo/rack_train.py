"""``wiresum testbed train``: the demo's training across a rack, one torchrun on every worker."""

import importlib.util
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from wiresum.common.children import process
from wiresum.common.temporary import PrivateFolder
from wiresum.host_agent.launcher.options import JobOptions
from wiresum.host_agent.launcher.session import Session
from wiresum.measure import lines
from wiresum.measure.demo.rack_table import Outcome, table
from wiresum.measure.demo.results import Training, read
from wiresum.measure.demo.show import Bars, write_json
from wiresum.testbed.errors import RackError
from wiresum.testbed.interrupts import Interrupts
from wiresum.testbed.namespaces import enter
from wiresum.testbed.options import RackOptions
from wiresum.testbed.rack import Rack, worker_ip

MASTER_PORT = 29500
_LOOK_S = 0.1
_OTHERS_S = 20.0  # from the first failed worker to the end of those that have not noticed


@dataclass(frozen=True)
class TrainOptions:
    """One training. ``timeout_s`` limits joining and every collective."""

    steps: int
    field: int = 32
    seed: int = 1
    timeout_s: float = 60.0
    out: Path = Path("out")
    json_file: Path | None = None


def train(rack_options: RackOptions, options: TrainOptions) -> None:
    """Build a rack, train across it, check the switch's counters, show them.

    Raises ``WiresumError``, also when the counters do not account for every chunk.
    """
    if importlib.util.find_spec("torch") is None:
        raise RackError(lines.NEEDS_TORCH.of())
    rack_options.check()
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RackError(lines.NO_FOLDER.of(folder=options.out, why=error.strerror)) from None
    console = Console()
    with Interrupts(), Rack(rack_options) as rack:
        outcome = train_across(rack, options, console)
    if options.json_file is not None:
        write_json(options.json_file, outcome.as_json())
    console.print(table(outcome))
    outcome.verify()
    console.print(
        f"{outcome.training.parameters:,} parameters, {rack_options.workers} workers, "
        f"{options.steps} steps. The switch's counters account for every chunk."
    )


def train_across(rack: Rack, options: TrainOptions, console: Console) -> Outcome:
    """Train on a rack that is up; return the outcome. Raises ``WiresumError``."""
    with (
        Bars(console, options.steps) as bars,
        Session(
            JobOptions(
                controller=rack.controller,
                token=rack.token,
                field=options.field,
                name="train",
                timeout_s=options.timeout_s,
            )
        ) as session,
        PrivateFolder("testbed") as private,
    ):
        folder = private.path
        tick = bars.follow("wiresum", folder / "progress0.jsonl")
        started = time.monotonic()
        _run(rack, session, options, folder, console, tick)
        seconds = time.monotonic() - started
        events = dict(session.describe().events)
        training: Training = read("wiresum", folder, rack.options.workers, seconds, events)
    return Outcome(
        options=rack.options,
        steps=options.steps,
        field=options.field,
        training=training,
        drops={reason: count for reason, count in rack.state().drops.items() if count},
        lost_frames=rack.cable.lost() if rack.cable is not None else None,
    )


def _run(
    rack: Rack,
    session: Session,
    options: TrainOptions,
    folder: Path,
    console: Console,
    tick: Callable[[], None],
) -> None:
    """One torchrun on each worker until all have ended. Raises ``WiresumError`` if one failed."""
    running: list[subprocess.Popen[bytes]] = []
    logs = [options.out / f"testbed-{worker}.log" for worker in rack.workers]
    try:
        for number, worker in enumerate(rack.workers):
            with logs[number].open("wb") as output:
                running.append(
                    process.start(
                        [
                            *enter(rack.record.nodes[worker].namespace),
                            *_command(rack, options, number, folder),
                        ],
                        supervised=True,
                        options=process.ProcessOptions(
                            env=_environment(rack, session, worker),
                            stdin=subprocess.DEVNULL,
                            stdout=output,
                            stderr=output,
                        ),
                    )
                )
        _wait(rack, session, running, console, tick)
    finally:
        for child in running:
            if child.poll() is None:
                process.end_supervised(child)
    for worker, child, log in zip(rack.workers, running, logs, strict=True):
        if child.returncode != 0:
            status = process.exit_status(child.returncode)
            raise RackError(
                lines.WORKER_ENDED.of(rank=worker, status=status, reason=_reason(logs), log=log)
            )


def _wait(
    rack: Rack,
    session: Session,
    running: list["subprocess.Popen[bytes]"],
    console: Console,
    tick: Callable[[], None],
) -> None:
    """Until all have ended, or one has failed and the others had time to notice."""
    failed_at: float | None = None
    while any(child.poll() is None for child in running):
        session.check()
        news = rack.check()
        if news is not None:
            console.print(news, style="yellow", highlight=False)
        tick()
        if failed_at is None and any(child.poll() for child in running):
            failed_at = time.monotonic()
        if failed_at is not None and time.monotonic() > failed_at + _OTHERS_S:
            return
        time.sleep(_LOOK_S)
    tick()


def _command(rack: Rack, options: TrainOptions, number: int, folder: Path) -> list[str]:
    return [
        *process.module("torch.distributed.run"),
        *["--nnodes", str(rack.options.workers), "--node-rank", str(number)],
        *["--nproc-per-node", "1", "--max-restarts", "0", "--local-addr", worker_ip(number)],
        *["--master-addr", worker_ip(0), "--master-port", str(MASTER_PORT)],
        *["-m", "wiresum.measure.demo.train", "--backend", "wiresum"],
        *["--steps", str(options.steps), "--seed", str(options.seed), "--report", str(folder)],
    ]


def _environment(rack: Rack, session: Session, worker: str) -> Mapping[str, str]:
    env = {**rack.variables(worker), **session.environment.variables()}
    env.pop("TORCH_DEVICE_BACKEND_AUTOLOAD", None)
    # The rack's workers share this machine's cores.
    # torchrun starts modules with -m alone: not from the working directory.
    return {"OMP_NUM_THREADS": "1", **env, "PYTHONSAFEPATH": "1"}


def _reason(logs: list[Path]) -> str:
    """The first line in any worker's output that names an error."""
    for log in logs:
        for line in log.read_text(errors="replace").splitlines():
            text = line.split("]: ", 1)[-1].strip()
            if "Error: " in text or text.startswith("wiresum."):
                # How torch wraps what is raised inside its hooks.
                return f": {text.rpartition('when running the callback: ')[2]}"
    return ""
