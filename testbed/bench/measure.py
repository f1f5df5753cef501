"""Runs the all-reduce benchmark for the command line: progress, JSON, table."""

import importlib.util
import json
import os
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from wiresum.common.version import package_version
from wiresum.testbed.bench.allreduce import Bench
from wiresum.testbed.bench.cases import Options
from wiresum.testbed.bench.results import lines
from wiresum.testbed.bench.show import table
from wiresum.testbed.errors import RackError
from wiresum.testbed.interrupts import Interrupts

KIND = "allreduce"


def machine() -> dict[str, Any]:
    """On what it was measured."""
    model = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "cores": len(os.sched_getaffinity(0)),
        "model": model,
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def write(path: Path, content: dict[str, Any]) -> None:
    """Write the JSON. Raises :class:`RackError` in one line."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1) + "\n")
    except OSError as error:
        raise RackError(f"cannot write {path}: {error.strerror}") from None


def measure(options: Options, json_file: Path | None, quiet: bool) -> None:
    """Measure, write the JSON after each round, print the table. Raises ``WiresumError``."""
    needed = ["numpy", "torch"] if options.tcp else ["numpy"]
    if any(importlib.util.find_spec(name) is None for name in needed):
        raise RackError(f"the benchmark needs {' and '.join(needed)}: pip install 'wiresum[torch]'")

    def save() -> None:
        if json_file is not None:
            head = {"kind": KIND, "version": package_version(), "machine": machine()}
            write(json_file, {**head, "options": asdict(options), "cases": bench.cases})

    console = Console(stderr=True)
    bench = Bench(options, (lambda _line: None) if quiet else console.print, save)
    with Interrupts():
        bench.run()
    out = Console()
    found = [line for entry in bench.cases for line in lines(entry, options.mtu)]
    wide = Console(width=max(out.width, 200))
    wide.print(table(found))
