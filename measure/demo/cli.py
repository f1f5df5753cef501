"""The commands ``wiresum demo`` and ``wiresum testbed train``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from wiresum.common.command_line import Option
from wiresum.measure import lines
from wiresum.p4 import FIELDS
from wiresum.testbed.cli import Name, RackArguments
from wiresum.testbed.errors import RackUsageError

OUT = Path("out")


def _check_field(field: int) -> None:
    if field not in FIELDS:
        raise RackUsageError(lines.UNKNOWN_FIELD.of(field=field))


def demo(
    workers: Annotated[int, Option(min=2, max=64, help="Workers of each training.")] = 4,
    steps: Annotated[int, Option(min=5, help="Steps of each training.")] = 150,
    field: Annotated[
        int, Option(metavar="32|16|8", help="Bits of a quantized gradient element.")
    ] = 32,
    seed: Annotated[int, Option(min=0, help="Seed of both trainings.")] = 1,
    out: Annotated[Path, Option(help="Folder for the logs and the plot.")] = OUT,
    json_file: Annotated[
        Path | None, Option("--json", metavar="FILE", help="Write the numbers as JSON.")
    ] = None,
    plot_file: Annotated[
        Path | None,
        Option("--plot", metavar="FILE", help="Where to put the loss plot (PNG)."),
    ] = None,
) -> None:
    """Train a small transformer over gloo and over the switch, and compare."""
    from wiresum.measure.demo.main import demo as show

    _check_field(field)
    show(
        workers=workers,
        steps=steps,
        field=field,
        seed=seed,
        out=out,
        json_file=json_file,
        plot_file=plot_file,
    )


@dataclass(frozen=True)
class TrainingRack(RackArguments):
    """The rack of a training."""

    name: Name = "train"


def train(
    rack: TrainingRack,
    steps: Annotated[int | None, Option(min=5, help="Steps  [default: 60, on BMv2 10]")] = None,
    field: Annotated[
        int, Option(metavar="32|16|8", help="Bits of a quantized gradient element.")
    ] = 32,
    seed: Annotated[int, Option(min=0, help="Seed of the training.")] = 1,
    timeout: Annotated[
        float, Option(min=1, help="Limit in seconds for joining and for a collective.")
    ] = 60.0,
    out: Annotated[Path, Option(help="Folder for the workers' logs.")] = OUT,
    json_file: Annotated[
        Path | None, Option("--json", metavar="FILE", help="Write the numbers as JSON.")
    ] = None,
) -> None:
    """Train across a rack of its own; fails unless the switch's counters account for it all."""
    from wiresum.measure.demo.rack_train import TrainOptions
    from wiresum.measure.demo.rack_train import train as run

    if rack.workers < 2:
        raise RackUsageError(lines.TOO_FEW_WORKERS.of())
    _check_field(field)
    run(
        rack.options(),
        TrainOptions(
            steps=steps or (10 if rack.switch == "bmv2" else 60),
            field=field,
            seed=seed,
            timeout_s=timeout,
            out=out,
            json_file=json_file,
        ),
    )
