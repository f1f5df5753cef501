"""The result of a trial as a table."""

import math
import shlex

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from wiresum.measure.remedies import PLAIN
from wiresum.measure.traces.show import NOTHING, size_text
from wiresum.measure.trial.outcome import Spread
from wiresum.measure.trial.report import Report, Row

HEADINGS = ("remedy", "bytes per step", "ms per step", "loss", "outcome", "why")


def page(report: Report) -> RenderableType:
    """All that the terminal gets."""
    table = Table(title=f"{report.world} ranks; target: {report.target}")
    for index, heading in enumerate(HEADINGS):
        table.add_column(heading, justify="left" if index in (0, 4, 5) else "right")
    for row in report.rows:
        style = "bold" if row.remedy.name == report.least else ""
        table.add_row(*cells(row, report), style=style)
    parts: list[RenderableType] = [table, Text(report.conclusion, style="bold")]
    if command := how_to(report):
        parts.append(Text(command))
    parts.append(Text(""))
    parts.extend(Text(note) for note in report.notes)
    return Group(*parts)


def cells(row: Row, report: Report) -> list[str]:
    """One line of the table."""
    outcome = row.verdict.outcome
    if row.remedy.name == report.least:
        outcome = "least volume"
    return [
        row.remedy.name,
        size_text(row.bytes_per_step),
        _spread(row.step_ms, "3"),
        _spread(row.loss, "4"),
        outcome,
        row.verdict.why,
    ]


def how_to(report: Report) -> str:
    """The command line of the remedy that is named; empty if that is plain gloo, or none."""
    if report.least in (None, PLAIN):
        return ""
    row = next(row for row in report.rows if row.remedy.name == report.least)
    command = shlex.join(report.command)
    if row.options:
        return f"wiresum run {shlex.join(row.options)} -- {command}"
    variables = [f"{name}={value}" for name, value in row.remedy.environment.items()]
    return " ".join([*variables, command])


def _spread(spread: Spread | None, digits: str) -> str:
    """``12.3 (11.9–14)``."""
    if spread is None:
        return NOTHING
    if not math.isfinite(spread.median):
        return "not finite"
    shown = [f"{value:.{digits}g}" for value in spread]
    return f"{shown[0]} ({shown[1]}–{shown[2]})" if shown[1] != shown[2] else shown[0]
