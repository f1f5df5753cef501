"""The embedded switch against BMv2, on the same program and links.

Two racks stand side by side, alike but for the switch and the frames that it takes: the embedded
switch's links pass trains of frames whole, as hosts with offloads do; BMv2, which would take a
train for one frame, gets the same frames one by one. Workers with the same engine reduce across one
and the other in turn; a chunk counts when every worker has its sum, and every sum is checked. What
the embedded switch reaches is a lower bound, since the workers share its cores.
"""

import importlib.util
import json
import math
import os
import statistics
import subprocess
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from wiresum.common.children import process
from wiresum.controller.client.requests import SlotRequest
from wiresum.host_agent.launcher.options import JobOptions
from wiresum.host_agent.launcher.session import Session
from wiresum.measure import lines
from wiresum.testbed import find_bmv2, find_mininet
from wiresum.testbed.errors import RackError
from wiresum.testbed.namespaces import enter
from wiresum.testbed.options import RackOptions
from wiresum.testbed.rack import Rack

OTHERS = {"bmv2": "BMv2", "soft": "softswitch again"}
FIRST_CHUNKS = 2_000  # of the all-reduce by which its size is found
MOST_CHUNKS = 1_000_000
LIMIT_S = 60.0
SLOTS = 2048  # so that no switch waits for the window


@dataclass(frozen=True)
class Rates:
    """Chunks per second of one switch: each round's, and their size."""

    chunks: int
    rounds: list[float]

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.rounds)


class Measured:
    """One rack and the job on it."""

    def __init__(self, rack: Rack, stack: ExitStack) -> None:
        self.rack = rack
        self.session = stack.enter_context(
            Session(
                JobOptions(
                    controller=rack.controller,
                    name="bench",
                    slots=SlotRequest(SLOTS),
                    token=rack.token,
                )
            )
        )
        self._attempt = 0

    def seconds(self, chunks: int) -> float:
        """How long an all-reduce of ``chunks`` data chunks takes: the slowest worker's time."""
        self._attempt += 1
        workers = self.rack.options.workers
        running = [
            process.start(
                [
                    *enter(self.rack.record.nodes[worker].namespace),
                    *process.module("wiresum.measure.bench.reduce"),
                    *["--rank", str(rank), "--workers", str(workers)],
                    *["--count", str(chunks * self.rack.options.lanes)],
                    *["--attempt", str(self._attempt), "--limit", str(LIMIT_S)],
                ],
                supervised=False,
                options=process.ProcessOptions(
                    env={**self.rack.variables(worker), **self.session.environment.variables()},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                ),
            )
            for rank, worker in enumerate(self.rack.workers)
        ]
        try:
            said = [child.communicate(timeout=3 * LIMIT_S) for child in running]
        except subprocess.TimeoutExpired:
            raise RackError(lines.WORKER_RUNS_ON.of(limit_s=3 * LIMIT_S)) from None
        finally:
            for child in running:
                process.end(child)
        for rank, (child, (_, errors)) in enumerate(zip(running, said, strict=True)):
            if child.returncode != 0:
                words = errors.decode(errors="replace").strip().splitlines() or ["no reason given"]
                raise RackError(lines.WORKER_FAILED.of(rank=rank, why=words[-1]))
        return max(float(json.loads(out)["seconds"]) for out, _ in said)


def bench(
    against: str, lanes: int, workers: int, repeat: int, seconds: float, console: Console
) -> Mapping[str, Rates]:
    """Measure and print the table; the rates by switch.

    Each of ``repeat`` rounds takes about ``seconds`` on each switch. Raises ``WiresumError``.
    """
    if importlib.util.find_spec("numpy") is None:
        raise RackError(lines.NEEDS_NUMPY.of())
    switches = {"softswitch": "soft", OTHERS[against]: against}
    with ExitStack() as stack:
        racks = {}
        for number, (label, kind) in enumerate(switches.items()):
            options = RackOptions(
                switch=kind, workers=workers, lanes=lanes, name=f"bench{number}-{os.getpid()}",
                offloads=kind == "soft",
            ).check()  # fmt: skip
            racks[label] = Measured(stack.enter_context(Rack(options)), stack)
        sizes = {}
        for label, rack in racks.items():
            rate = FIRST_CHUNKS / rack.seconds(FIRST_CHUNKS)
            sizes[label] = min(MOST_CHUNKS, max(FIRST_CHUNKS, math.ceil(rate * seconds)))
        rounds: dict[str, list[float]] = {label: [] for label in switches}
        for number in range(repeat):
            for label, rack in racks.items():
                rounds[label].append(sizes[label] / rack.seconds(sizes[label]))
            console.print(f"round {number + 1} of {repeat}", style="dim")
    rates = {label: Rates(sizes[label], rounds[label]) for label in switches}
    console.print(_table(rates, lanes, workers))
    return rates


def _ratios(rates: Mapping[str, Rates]) -> list[float]:
    (_, first), (_, second) = rates.items()
    return [a / b for a, b in zip(first.rounds, second.rounds, strict=True)]


def _table(rates: Mapping[str, Rates], lanes: int, workers: int) -> Table:
    ratios = _ratios(rates)
    other = list(rates)[1]
    table = Table(title=f"Chunks per second, {lanes} lanes, {workers} workers, same links")
    for heading in ("switch", "chunks a round", "median", "lowest", "highest"):
        table.add_column(heading, justify="left" if heading == "switch" else "right")
    for label, rate in rates.items():
        cells = (rate.median, min(rate.rounds), max(rate.rounds))
        table.add_row(label, f"{rate.chunks:,}", *(f"{cell:,.0f}" for cell in cells))
    table.add_section()
    cells = (statistics.median(ratios), min(ratios), max(ratios))
    table.add_row(f"ratio to {other}", "", *(f"{cell:,.1f} ×" for cell in cells))
    return table


def plain(rates: Mapping[str, Rates]) -> dict[str, Any]:
    """For the JSON."""
    switches = {label: asdict(rate) for label, rate in rates.items()}
    return {"switches": switches, "ratios": _ratios(rates)}


def why_not(against: str) -> str | None:
    """Why the switches cannot be compared here; None if they can."""
    return find_mininet.why_not() or (find_bmv2.why_not() if against == "bmv2" else None)
