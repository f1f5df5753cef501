"""Runs the all-reduce benchmark for the command line: progress, JSON, table."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console

from wiresum.measure import lines
from wiresum.measure.bench.allreduce import KIND, Bench
from wiresum.measure.bench.cases import Options
from wiresum.measure.bench.record import head, write
from wiresum.measure.bench.results import lines_of
from wiresum.measure.bench.show import table
from wiresum.testbed.errors import RackError
from wiresum.testbed.interrupts import Interrupts


def measure(options: Options, json_file: Path | None, append: bool, quiet: bool) -> None:
    """Measure, write the JSON after each round, print the table. Raises ``WiresumError``.

    ``append``: the rounds come to those that the file has.
    """
    above = head(KIND, options)
    earlier = _earlier(json_file, above) if append and json_file is not None else None

    def save() -> None:
        if json_file is not None:
            write(json_file, above | {"cases": bench.cases})

    console = Console(stderr=True)
    bench = Bench(options, (lambda _line: None) if quiet else console.print, save)
    if earlier is not None:
        bench.cases = earlier
    with Interrupts():
        bench.run()
    out = Console()
    found = [line for entry in bench.cases for line in lines_of(entry, options.mtu)]
    wide = Console(width=max(out.width, 200))
    wide.print(table(found))


def _earlier(path: Path, above: dict[str, Any]) -> list[dict[str, Any]] | None:
    """The cases of an earlier run, if there is one; it must have been the same but for its rounds.

    Raises :class:`RackError`.
    """

    def setting(content: dict[str, Any]) -> dict[str, Any]:
        options = {k: v for k, v in content["options"].items() if k not in ("repeat", "name")}
        return {"kind": content["kind"], "machine": content["machine"], "options": options}

    try:
        content = json.loads(path.read_text())
        if setting(content) != setting(above):
            raise RackError(lines.OTHER_RUN.of(path=path))
        return list(content["cases"])
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RackError(lines.CANNOT_READ.of(path=path, why=error.strerror)) from None
    except (ValueError, KeyError, TypeError):
        raise RackError(lines.NOT_FROM_ALLREDUCE.of(path=path)) from None
