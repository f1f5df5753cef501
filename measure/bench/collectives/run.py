"""Runs the benchmark of collectives for the command line: progress, JSON, table."""

from pathlib import Path

from rich.console import Console

from wiresum.measure.bench.collectives.bench import KIND, Bench
from wiresum.measure.bench.collectives.options import Options
from wiresum.measure.bench.collectives.results import lines_of
from wiresum.measure.bench.collectives.show import table
from wiresum.measure.bench.record import head, write
from wiresum.testbed.errors import RackError
from wiresum.testbed.interrupts import Interrupts


def measure(options: Options, json_file: Path | None, quiet: bool) -> None:
    """Measure, write the JSON after each round, print the table.

    Raises ``WiresumError``; :class:`RackError` at the end, too, if a result was wrong.
    """
    above = head(KIND, options)

    def save() -> None:
        if json_file is not None:
            write(json_file, above | {"cases": bench.cases})

    console = Console(stderr=True)
    bench = Bench(options, (lambda _line: None) if quiet else console.print, save)
    with Interrupts():
        bench.run()
    out = Console()
    found = [line for entry in bench.cases for line in lines_of(entry, options.mtu)]
    Console(width=max(out.width, 240)).print(table(found))
    if bench.wrong is not None:
        raise RackError(bench.wrong)
