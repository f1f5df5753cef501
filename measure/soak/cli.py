"""The command ``wiresum testbed soak``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from wiresum.common.command_line import Option
from wiresum.measure import lines
from wiresum.testbed.cli import Name
from wiresum.testbed.errors import RackUsageError
from wiresum.testbed.options import RackOptions, check_name


@dataclass(frozen=True)
class SoakRack:
    """The rack of a soak."""

    switch: Annotated[
        str, Option(metavar="bmv2|soft", help="BMv2's simple_switch_grpc, or the embedded one.")
    ] = "soft"
    workers: Annotated[int, Option(min=1, max=64, help="Hosts, each on a link of its own.")] = 4
    name: Name = "soak"

    def options(self) -> RackOptions:
        """The rack that is asked for. Raises :class:`RackUsageError`."""
        return RackOptions(
            switch=self.switch, workers=self.workers, name=check_name(self.name)
        ).check()


def soak(
    rack: SoakRack,
    minutes: Annotated[float, Option(help="How long the jobs train while things fail.")] = 5.0,
    seed: Annotated[int, Option(min=0, help="What fails, when and where follows from it.")] = 1,
    jobs: Annotated[int, Option(min=1, max=16, help="Trainings at a time.")] = 3,
    limit: Annotated[
        float,
        Option(
            min=10,
            help="Limit in seconds of one step; twice as much for a start. More on a busy machine.",
        ),
    ] = 90.0,
    out: Annotated[Path, Option(help="Folder for the workers' logs.")] = Path("out"),
    json_file: Annotated[
        Path | None, Option("--json", metavar="FILE", help="Write what happened as JSON.")
    ] = None,
) -> None:
    """Train across a rack while random things fail; fails at the first wrong bit, hang or leak."""
    from wiresum.measure.soak.run import SoakOptions
    from wiresum.measure.soak.run import soak as run

    if rack.workers < 2:
        raise RackUsageError(lines.TOO_FEW_WORKERS.of())
    if not 0.1 <= minutes <= 10_000:
        raise RackUsageError(lines.NOT_MINUTES.of(minutes=minutes))
    run(rack.options(), SoakOptions(minutes, seed, jobs, limit, out, json_file))
