"""The file that lists the jobs of a plan: JSON, TOML, or YAML where PyYAML is there."""

import json
import re
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

from wiresum.measure import lines
from wiresum.measure.plan import sources
from wiresum.measure.plan.errors import PlanError
from wiresum.measure.plan.spec import MOST_JOBS, MOST_WORKERS, JobSpec
from wiresum.measure.reading import read_at_most, shown
from wiresum.measure.remedies import REMEDIES


def read_jobs(path: Path) -> list[JobSpec]:
    """The jobs of a file, each as often as its ``count`` says. Raises :class:`PlanError`."""
    content = _content(path)
    rows = content.get("jobs") if isinstance(content, dict) else None
    if not isinstance(rows, list) or not rows:
        raise PlanError(lines.NO_JOBS.of(path=path))
    found: list[JobSpec] = []
    for at, row in enumerate(rows):
        found += _jobs(row, at, path)
        if len(found) > MOST_JOBS:
            raise PlanError(lines.TOO_MANY_JOBS.of(path=path, most=MOST_JOBS))
    names = [each.name for each in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise PlanError(lines.JOB_TWICE.of(path=path, name=twice))
    return found


def _content(path: Path) -> Any:
    try:
        text = read_at_most(path).decode()
    except OSError as error:
        raise PlanError(lines.CANNOT_READ.of(path=path, why=error.strerror)) from None
    except UnicodeDecodeError:
        raise PlanError(lines.JOBS_UNREADABLE.of(path=path, why="it is not UTF-8")) from None
    except ValueError as error:
        raise PlanError(lines.JOBS_UNREADABLE.of(path=path, why=error)) from None
    try:
        if path.suffix in (".yaml", ".yml"):
            return _yaml(text, path)
        if path.suffix == ".toml":
            return tomllib.loads(text)
        return json.loads(text)
    except RecursionError:
        raise PlanError(lines.JOBS_UNREADABLE.of(path=path, why="it nests too deeply")) from None
    except ValueError as error:
        why = str(error).splitlines()[0]
        raise PlanError(lines.JOBS_UNREADABLE.of(path=path, why=why)) from None


def _yaml(text: str, path: Path) -> Any:
    import importlib

    try:
        yaml = importlib.import_module("yaml")
    except ImportError:
        # JSON is YAML, too: a file that keeps to it needs nothing more.
        try:
            return json.loads(text)
        except ValueError:
            raise PlanError(lines.NEEDS_YAML.of(path=path)) from None
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        why = str(error).splitlines()[0]
        raise PlanError(lines.JOBS_UNREADABLE.of(path=path, why=why)) from None


_NUMBERS = {
    # name: (lowest, highest, default); None: it must be there
    "workers": (1, MOST_WORKERS, None),
    "compute_ms": (0, 1e9, None),
    "gradient_mb": (0, 1e9, None),
    "buckets": (1, 1e6, 1),
    "hidden_ms": (0, 1e9, 0),
    "slots": (0, 1e6, 0),
    "count": (1, MOST_JOBS, 1),
}
_WHOLE = ("workers", "buckets", "slots", "count")
_SOURCES = ("report", "chakra")
_NAME = re.compile(r"[^/.][^/]{0,99}")
"""It is a folder's name where traces are written."""


def _jobs(row: Any, at: int, path: Path) -> list[JobSpec]:
    if not isinstance(row, dict):
        raise PlanError(lines.JOB_WRONG.of(path=path, at=at, why="it is no table"))
    unknown = set(row) - {"name", "remedy", *_NUMBERS, *_SOURCES}
    if unknown:
        why = f"it has {shown(min(map(str, unknown)))}, which no job has"
        raise PlanError(lines.JOB_WRONG.of(path=path, at=at, why=why))
    filled = _from_source(row, at, path)
    values = {name: _number(filled, name, at, path) for name in _NUMBERS}
    remedy = row.get("remedy", "switch-32")
    if remedy not in list(REMEDIES):
        why = f"its remedy {shown(remedy)} is none of {', '.join(REMEDIES)}"
        raise PlanError(lines.JOB_WRONG.of(path=path, at=at, why=why))
    count = int(values.pop("count"))
    name = row.get("name", f"job{at}")
    if not isinstance(name, str) or not _NAME.fullmatch(name) or not name.isprintable():
        why = f"its name is {shown(name)}: it must be 1 to 100 characters, no / and no dot first"
        raise PlanError(lines.JOB_WRONG.of(path=path, at=at, why=why))
    one = JobSpec(
        name=name,
        workers=int(values["workers"]),
        compute_ms=values["compute_ms"],
        gradient_mb=values["gradient_mb"],
        buckets=int(values["buckets"]),
        hidden_ms=values["hidden_ms"],
        remedy=remedy,
        slots=int(values["slots"]),
    )
    return [replace(one, name=f"{name}-{k}") for k in range(count)] if count > 1 else [one]


def _number(row: dict[str, Any], name: str, at: int, path: Path) -> float:
    low, high, default = _NUMBERS[name]
    value = row.get(name, default)
    if value is None:
        raise PlanError(lines.JOB_WRONG.of(path=path, at=at, why=f"it has no {name}"))
    fits = isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
    if not fits or (name in _WHOLE and value != int(value)):
        whole = "a whole number" if name in _WHOLE else "a number"
        why = f"its {name} is {shown(value)}: it must be {whole} from {low:g} to {high:g}"
        raise PlanError(lines.JOB_WRONG.of(path=path, at=at, why=why))
    return float(value)


def _from_source(row: dict[str, Any], at: int, path: Path) -> dict[str, Any]:
    """The row, with what a report or a trace says of the job; the row itself comes first."""
    given = [name for name in _SOURCES if name in row]
    if not given:
        return row
    if len(given) > 1 or not isinstance(row[given[0]], str):
        why = "it must have one path of a report or of a trace"
        raise PlanError(lines.JOB_WRONG.of(path=path, at=at, why=why))
    source = path.parent / row[given[0]]
    found = sources.of_report(source) if given[0] == "report" else sources.of_chakra(source)
    return found | row
