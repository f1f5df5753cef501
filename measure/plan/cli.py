"""The command ``wiresum plan``."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from wiresum.common.command_line import Option
from wiresum.measure import lines
from wiresum.measure.plan.errors import PlanError, PlanUsageError

if TYPE_CHECKING:
    from wiresum.measure.plan.fabric import Fabric

_PIPE_WIDTH = 180
_MOST_RACKS = 10_000


@dataclass(frozen=True)
class FabricOptions:
    """The network of the plan."""

    racks: Annotated[
        int | None,
        Option(min=1, max=_MOST_RACKS, help="Racks.  [as many as hold all workers]"),
    ] = None
    hosts_per_rack: Annotated[int, Option(min=1, max=10_000, help="Hosts of a rack.")] = 32
    link: Annotated[str, Option(metavar="RATE", help="Of a host's link.")] = "10gbit"
    uplink: Annotated[str, Option(metavar="RATE", help="Of one uplink of a rack.")] = "100gbit"
    uplinks: Annotated[int, Option(min=1, max=1000, help="Uplinks of a rack.")] = 1
    round_trip_us: Annotated[
        float,
        Option(metavar="US", min=0, max=1e6, help="From a host to its switch and back, in µs."),
    ] = 50.0
    slots: Annotated[int, Option(min=2, max=1 << 24, help="Slots of a switch.")] = 4096
    lanes: Annotated[int, Option(min=1, max=2048, help="Lanes of a chunk.")] = 256
    mtu: Annotated[int, Option(min=576, max=65535, help="MTU of the links, in bytes.")] = 1500
    loss: Annotated[
        float, Option(metavar="SHARE", min=0, max=0.5, help="Frames that each link loses.")
    ] = 0.0
    jitter: Annotated[
        float,
        Option(
            metavar="SHARE",
            min=0,
            max=10,
            help="By how much of a step a worker is late, on average.",
        ),
    ] = 0.0
    stragglers: Annotated[
        float, Option(metavar="SHARE", min=0, max=1, help="Steps in which a worker is slow.")
    ] = 0.0
    straggler_factor: Annotated[
        float, Option(min=1, max=1000, help="How many times as long it takes then.")
    ] = 2.0

    def fabric(self, racks: int) -> "Fabric":
        """The fabric; ``racks``: how many, if the option does not say it."""
        from wiresum.measure.plan.fabric import Fabric

        return Fabric(
            racks=racks if self.racks is None else self.racks,
            hosts=self.hosts_per_rack,
            link_gbit=_gbit("--link", self.link),
            uplink_gbit=_gbit("--uplink", self.uplink),
            uplinks=self.uplinks,
            round_trip_us=self.round_trip_us,
            slots=self.slots,
            lanes=self.lanes,
            mtu=self.mtu,
            loss=self.loss,
            jitter=self.jitter,
            stragglers=self.stragglers,
            straggler_factor=self.straggler_factor,
        )


def _gbit(option: str, text: str) -> float:
    from wiresum.testbed.errors import RackError
    from wiresum.testbed.options import parse_rate

    try:
        gbit = (parse_rate(text) or 0.0) / 1000
    except RackError:
        gbit = 0.0
    if not 1e-4 <= gbit <= 1e5:
        raise PlanUsageError(lines.PLAN_RATE.of(option=option, text=text))
    return gbit


def plan(
    jobs: Annotated[
        Path, Option(metavar="FILE", help="The jobs, in JSON, TOML or YAML (docs/planning.md).")
    ],
    fabric: FabricOptions,
    steps: Annotated[int, Option(min=2, max=10_000, help="Steps that are simulated.")] = 30,
    seed: Annotated[int, Option(help="Of the simulation.")] = 0,
    chakra: Annotated[
        Path | None,
        Option(metavar="DIR", help="Write a step of each job as Chakra traces, one folder each."),
    ] = None,
    as_json: Annotated[bool, Option("--json", help="Print JSON.")] = False,
) -> None:
    """Racks, slots and uplinks for a set of jobs, and what collisions of their phases cost."""
    from wiresum.measure.plan import planning
    from wiresum.measure.plan.jobs import read_jobs
    from wiresum.measure.plan.placing import racks_needed

    specs = read_jobs(jobs)
    network = fabric.fabric(racks_needed(specs, fabric.hosts_per_rack))
    if network.racks > _MOST_RACKS:
        raise PlanError(lines.TOO_MANY_RACKS.of(racks=network.racks, most=_MOST_RACKS))
    made = planning.plan(specs, network, steps, seed)
    if chakra is not None:
        from wiresum.measure.plan.chakra.step import write_job

        for each in specs:
            write_job(each, chakra / each.name)
    if as_json:
        print(json.dumps(planning.as_json(made), indent=1, allow_nan=False))
        return

    from rich.console import Console

    from wiresum.measure.plan import show

    width = None if sys.stdout.isatty() else _PIPE_WIDTH
    console = Console(width=width, markup=False, emoji=False, highlight=False)
    console.print(show.page(made))
