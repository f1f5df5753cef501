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
from wiresum.measure import lines
from wiresum.measure.bench.allreduce import KIND, Bench
from wiresum.measure.bench.cases import Options
from wiresum.measure.bench.results import lines_of
from wiresum.measure.bench.show import table
from wiresum.testbed.errors import RackError
from wiresum.testbed.interrupts import Interrupts


def machine() -> dict[str, Any]:
    """The machine on which it was measured."""
    model = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "cores": len(os.sched_getaffinity(0)),
        "model": model,
        "kernel": ".".join(platform.release().split(".")[:2]),
        "python": platform.python_version(),
    }


def _rounded(value: Any) -> Any:
    """Six digits are more than the precision of any number here."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    return [_rounded(each) for each in value] if isinstance(value, list | tuple) else value


def _text(content: dict[str, Any]) -> str:
    """JSON with a line for each entry of its lists of objects, so that changes can be read."""
    parts = []
    for key, value in _rounded(content).items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            inside = ",\n".join(f"  {json.dumps(each)}" for each in value)
            parts.append(f" {json.dumps(key)}: [\n{inside}\n ]")
        else:
            parts.append(f" {json.dumps(key)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def write(path: Path, content: dict[str, Any]) -> None:
    """Write the JSON, whole or not at all. Raises :class:`RackError` in one line."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(_text(content))
        temporary.replace(path)
    except OSError as error:
        raise RackError(lines.CANNOT_WRITE.of(path=path, why=error.strerror)) from None


def measure(options: Options, json_file: Path | None, append: bool, quiet: bool) -> None:
    """Measure, write the JSON after each round, print the table. Raises ``WiresumError``.

    ``append``: the rounds come to those that the file has.
    """
    torch = options.tcp or options.ranks_sides
    needed = ["numpy", "torch"] if torch else ["numpy"]
    if any(importlib.util.find_spec(name) is None for name in needed):
        raise RackError(lines.NEEDS_MODULES.of(modules=" and ".join(needed)))
    head = {"kind": KIND, "version": package_version(), "machine": machine()}
    # As in the file: lists instead of tuples.
    head["options"] = json.loads(json.dumps(asdict(options)))
    earlier = _earlier(json_file, head) if append and json_file is not None else None

    def save() -> None:
        if json_file is not None:
            write(json_file, head | {"cases": bench.cases})

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


def _earlier(path: Path, head: dict[str, Any]) -> list[dict[str, Any]] | None:
    """The cases of an earlier run, if there is one; it must have been the same but for its rounds.

    Raises :class:`RackError`.
    """

    def setting(content: dict[str, Any]) -> dict[str, Any]:
        options = {k: v for k, v in content["options"].items() if k not in ("repeat", "name")}
        return {"kind": content["kind"], "machine": content["machine"], "options": options}

    try:
        content = json.loads(path.read_text())
        if setting(content) != setting(head):
            raise RackError(lines.OTHER_RUN.of(path=path))
        return list(content["cases"])
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RackError(lines.CANNOT_READ.of(path=path, why=error.strerror)) from None
    except (ValueError, KeyError, TypeError):
        raise RackError(lines.NOT_FROM_ALLREDUCE.of(path=path)) from None
