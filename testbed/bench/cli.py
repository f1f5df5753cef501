"""The benchmarks' commands; the root command mounts them as ``wiresum bench …``."""

from pathlib import Path
from typing import Annotated

import typer

from wiresum.testbed.errors import RackUsageError


def switch(
    against: Annotated[
        str,
        typer.Option(
            metavar="bmv2|soft",
            help="The other switch; soft is a control, whose ratio must be near 1.",
        ),
    ] = "bmv2",
    lanes: Annotated[int, typer.Option(help="Lanes of the switch program.")] = 64,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Workers on each rack.")] = 2,
    repeat: Annotated[int, typer.Option(min=1, help="Rounds; the switches take turns.")] = 5,
    seconds: Annotated[
        float, typer.Option(min=0.1, max=60, help="Of one round on one switch, about.")
    ] = 2.0,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the numbers as JSON.")
    ] = None,
) -> None:
    """Chunks per second of the embedded switch and of BMv2, on the same program and links."""
    from wiresum.testbed.bench.switch import OTHERS, bench

    if against not in OTHERS:
        raise RackUsageError(f"--against {against}: it must be bmv2 or soft")
    bench(against, lanes, workers, repeat, seconds, json_file)
