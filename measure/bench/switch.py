"""``wiresum bench switch``: the embedded switch alone, and beside BMv2.

In memory, on one core; over sockets, beside a reflector; and, where BMv2 can run, on racks alike
but for the switch (``racks.py``). A chunk here is one contribution of one worker, summed and
answered.
"""

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from wiresum.common.version import package_version
from wiresum.measure.bench.memory import InMemory
from wiresum.measure.bench.record import machine, write
from wiresum.measure.bench.results import Spread
from wiresum.measure.bench.sockets import OverSockets

KIND = "switch"
SLOTS = 512  # what a job gets by default
LANE_BYTES = 4
_FIRST_CHUNKS = 20_000


def measure_alone(
    lanes: int, workers: int, repeat: int, seconds: float, say: Callable[[str], None]
) -> dict[str, Any]:
    """The softswitch in memory and over sockets; chunks per second. Raises ``WiresumError``."""
    memory = InMemory(lanes, workers, SLOTS)
    passes = max(1, math.ceil(seconds / memory.seconds(1)))
    in_memory: list[float] = []
    over: dict[str, list[dict[str, float]]] = {"switch": [], "kernel": []}
    with OverSockets(f"bench-{os.getpid()}", lanes, workers, SLOTS) as sockets:
        sizes = {}
        for target in over:
            rate = sockets.sample(target, _FIRST_CHUNKS).rate
            sizes[target] = max(_FIRST_CHUNKS, math.ceil(rate * seconds / workers))
        for number in range(repeat):
            in_memory.append(passes * memory.contributions / memory.seconds(passes))
            for target, found in over.items():
                found.append(sockets.sample(target, sizes[target]).plain())
            say(f"round {number + 1} of {repeat}: alone")
    return {"memory": in_memory, "sockets": over}


def show(console: Console, alone: dict[str, Any], lanes: int, workers: int) -> None:
    """Print what was measured of the switch alone."""
    Console(width=max(console.width, 100)).print(table(alone, lanes, workers))


def table(alone: dict[str, Any], lanes: int, workers: int) -> Table:
    """Chunks per second in memory and over sockets."""
    made = Table(title=f"Chunks per second, {lanes} lanes, {workers} workers")
    for heading in ("", "median", "lowest", "highest", "GB/s", "CPU µs each"):
        made.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    over = alone["sockets"]
    rows: list[tuple[str, list[float], str]] = [("in memory", alone["memory"], "")]
    for label, target in (("over sockets", "switch"), ("the kernel alone", "kernel")):
        used = Spread.of([each["cpu_target"] for each in over[target]]).median
        rows.append((label, [each["rate"] for each in over[target]], f"{used:.2f}"))
    for label, rates, used_us in rows:
        spread = Spread.of(rates)
        cells = [f"{value:,.0f}" for value in (spread.median, spread.low, spread.high)]
        lanes_per_s = spread.median * lanes * LANE_BYTES / 1e9
        made.add_row(label, *cells, f"{lanes_per_s:.2f}", used_us)
    made.add_section()
    share = kernel_share(alone)
    shown = [f"{100 * value:.0f} %" for value in (share.median, share.low, share.high)]
    made.add_row("switch / kernel alone", *shown)
    return made


def kernel_share(alone: dict[str, Any]) -> Spread:
    """The switch's rate over sockets, as a share of the kernel's rate without it."""
    over = alone["sockets"]
    rounds = [
        switch["rate"] / kernel["rate"]
        for switch, kernel in zip(over["switch"], over["kernel"], strict=True)
    ]
    return Spread.of(rounds)


def bench(
    against: str | None,
    lanes: int,
    workers: int,
    repeat: int,
    seconds: float,
    json_file: Path | None,
) -> None:
    """Measure, print the tables, write the JSON. ``against`` None: the switch alone.

    Each sample takes about ``seconds``. Raises ``WiresumError``.
    """
    from wiresum.measure.bench import racks
    from wiresum.testbed.interrupts import Interrupts

    console = Console()
    content: dict[str, Any] = {
        "kind": KIND,
        "version": package_version(),
        "machine": machine(),
        "lanes": lanes,
        "workers": workers,
    }
    with Interrupts():
        alone = measure_alone(
            lanes, workers, repeat, seconds, lambda line: console.print(line, style="dim")
        )
        show(console, alone, lanes, workers)
        content["alone"] = alone
        if against is not None:
            rates = racks.bench(against, lanes, workers, repeat, seconds, console)
            content["racks"] = racks.plain(rates)
    if json_file is not None:
        write(json_file, content)
