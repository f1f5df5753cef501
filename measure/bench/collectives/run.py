"""Runs the benchmark of collectives for the command line: progress, JSON, table."""

import importlib.util
import json
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from wiresum.common.version import package_version
from wiresum.measure import lines
from wiresum.measure.bench.collectives.bench import KIND, Bench
from wiresum.measure.bench.collectives.options import Options
from wiresum.measure.bench.collectives.results import lines_of
from wiresum.measure.bench.collectives.show import table
from wiresum.measure.bench.measure import machine, write
from wiresum.testbed.errors import RackError
from wiresum.testbed.interrupts import Interrupts


def measure(options: Options, json_file: Path | None, quiet: bool) -> None:
    """Measure, write the JSON after each round, print the table.

    Raises ``WiresumError``; :class:`RackError` at the end, too, if a result was wrong.
    """
    needed = ["numpy", "torch"]
    if any(importlib.util.find_spec(name) is None for name in needed):
        raise RackError(lines.NEEDS_MODULES.of(modules=" and ".join(needed)))
    head = {"kind": KIND, "version": package_version(), "machine": machine()}
    head["options"] = json.loads(json.dumps(asdict(options)))

    def save() -> None:
        if json_file is not None:
            write(json_file, head | {"cases": bench.cases})

    console = Console(stderr=True)
    bench = Bench(options, (lambda _line: None) if quiet else console.print, save)
    with Interrupts():
        bench.run()
    out = Console()
    found = [line for entry in bench.cases for line in lines_of(entry, options.mtu)]
    Console(width=max(out.width, 240)).print(table(found))
    if bench.wrong is not None:
        raise RackError(bench.wrong)
