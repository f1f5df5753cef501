"""Reads the tables of docs/operations.md."""

import re
from dataclasses import dataclass
from pathlib import Path

from error_lines import GAP

FILE = Path(__file__).parents[2] / "docs" / "operations.md"


@dataclass(frozen=True)
class Row:
    """A metric as the guide has it."""

    name: str
    labels: tuple[str, ...]
    meaning: str


def metrics() -> list[Row]:
    """All rows of the tables of metrics."""
    found = []
    for cells in _rows(FILE.read_text()):
        if len(cells) == 4 and re.fullmatch(r"`(wiresum|process)_\w+`", cells[0]):
            found.append(
                Row(cells[0].strip("`"), tuple(re.findall(r"`(\w+)`", cells[1])), cells[2])
            )
    return found


def runbook() -> list[str]:
    """The patterns of the runbook; ``…`` stands for anything."""
    _, _, text = FILE.read_text().partition("\n## Runbook\n")
    found = []
    for cells in _rows(text):
        if cells[0] != "line":
            match = re.fullmatch(r"(`+) ?(.*?) ?\1", cells[0])
            assert match is not None, cells[0]
            found.append(match[2])
    return found


def cures() -> dict[str, str]:
    """The cures, by pattern."""
    _, _, text = FILE.read_text().partition("\n## Runbook\n")
    rows = [cells for cells in _rows(text) if cells[0] != "line"]
    return {cells[0]: cells[2] for cells in rows}


def covers(pattern: str, line: str) -> bool:
    """Whether ``line``, a template or a real line, is one of the pattern's."""
    parts = [re.escape(part) for part in pattern.split(GAP)]
    return re.fullmatch(".*".join(parts), line, re.DOTALL) is not None


def _rows(text: str) -> list[list[str]]:
    found = []
    for line in text.splitlines():
        if line.startswith("| ") and not line.startswith("| ---"):
            found.append([cell.strip() for cell in line.removeprefix("|").split("|")[:-1]])
    return found
