"""What all benchmarks need, and put into their JSON. Without numpy or torch."""

import importlib.util
import json
import os
import platform
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wiresum.common.version import package_version
from wiresum.measure import lines
from wiresum.testbed.errors import RackError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def need(*modules: str) -> None:
    """Raise :class:`RackError` unless these can be imported: before what imports them."""
    if any(importlib.util.find_spec(name) is None for name in modules):
        raise RackError(lines.NEEDS_MODULES.of(modules=" and ".join(modules)))


def head(kind: str, options: "DataclassInstance") -> dict[str, Any]:
    """What stands above the numbers, as in the file: lists instead of tuples."""
    said = json.loads(json.dumps(asdict(options)))
    return {"kind": kind, "version": package_version(), "machine": machine(), "options": said}


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
