"""``wiresum bench report``: a page and a plot from the JSON of the benchmarks."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wiresum.measure import lines
from wiresum.measure.bench import allreduce, engine, switch
from wiresum.measure.bench.cases import Case
from wiresum.measure.bench.collectives import bench as collectives
from wiresum.measure.bench.collectives import fsdp
from wiresum.measure.bench.collectives import results as collective_results
from wiresum.measure.bench.results import Line, case_of, lines_of
from wiresum.measure.report.collectives import training
from wiresum.testbed.errors import RackError


@dataclass
class Measured:
    """All measurements in the files of one report."""

    allreduce: list[list[Line]] = field(default_factory=list)
    """By case, all sides of it."""
    collectives: list[list[collective_results.Line]] = field(default_factory=list)
    """By case, all sides of it."""
    fsdp: list[str] = field(default_factory=list)
    """Their sections."""
    switches: list[dict[str, Any]] = field(default_factory=list)
    engines: list[dict[str, Any]] = field(default_factory=list)
    machines: list[dict[str, Any]] = field(default_factory=list)
    """Each different one."""
    rounds: set[int] = field(default_factory=set)
    """Of the cases of all-reduces and of collectives."""
    tcp: set[str] = field(default_factory=set)
    """Ways of TCP's that gloo was measured with."""

    def case(self, case: Case) -> list[Line]:
        """The sides of a case; none if it was not measured."""
        return next((found for found in self.allreduce if found[0].case == case), [])


def load(paths: Sequence[Path]) -> Measured:
    """Read the files. Raises :class:`RackError` in one line."""
    measured = Measured()
    seen: dict[Case, Path] = {}
    for path in paths:
        try:
            content = json.loads(path.read_text())
            _add(measured, content, path, seen)
        except OSError as error:
            raise RackError(lines.CANNOT_READ.of(path=path, why=error.strerror)) from None
        except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
            raise RackError(lines.NOT_A_RESULT.of(path=path, why=error)) from None
    measured.allreduce.sort(key=lambda found: _order(found[0].case))
    return measured


def _order(case: Case) -> tuple[bool, float, float, int, int]:
    loss = -1.0 if case.loss is None else case.loss
    return (case.rate_mbit is None, case.rate_mbit or 0, loss, case.workers, case.size)


def _add(measured: Measured, content: dict[str, Any], path: Path, seen: dict[Case, Path]) -> None:
    if content["machine"] not in measured.machines:
        measured.machines.append(content["machine"])
    kind = content["kind"]
    if kind == switch.KIND:
        measured.switches.append(content)
    elif kind == engine.KIND:
        measured.engines.append(content)
    elif kind == allreduce.KIND:
        for entry in content["cases"]:
            case = case_of(entry)
            if case in seen:
                raise RackError(lines.CASE_TWICE.of(case=case, first=seen[case], path=path))
            seen[case] = path
            measured.tcp |= set(content["options"]["tcp"])
            measured.rounds |= {len(samples) for samples in entry["samples"].values()}
            measured.allreduce.append(lines_of(entry, content["options"]["mtu"]))
    elif kind == fsdp.KIND:
        measured.fsdp.append(training(content))
    elif kind == collectives.KIND:
        measured.tcp |= set(content["options"]["tcp"])
        for entry in content["cases"]:
            measured.rounds |= {len(samples) for samples in entry["samples"].values()}
            found = collective_results.lines_of(entry, content["options"]["mtu"])
            measured.collectives += [found] if found else []
    else:
        raise ValueError(f"kind {kind!r}")
