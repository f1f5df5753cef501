"""Reads the tables of docs/operations.md."""

import re
from dataclasses import dataclass
from pathlib import Path

from catalogues import GAP

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


@dataclass(frozen=True)
class Entry:
    """A row of the runbook. In ``pattern``, ``…`` stands for anything."""

    codes: tuple[str, ...]
    pattern: str
    cure: str


def runbook() -> list[Entry]:
    """All rows of the runbook."""
    _, _, text = FILE.read_text().partition("\n## Runbook\n")
    found = []
    for cells in _rows(text):
        if cells[0] != "code":
            assert len(cells) == 4, f"code, line, meaning, cure: {cells}"
            match = re.fullmatch(r"(`+) ?(.*?) ?\1", cells[1])
            assert match is not None, cells[1]
            found.append(Entry(tuple(cells[0].split()), match[2], cells[3]))
    return found


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
