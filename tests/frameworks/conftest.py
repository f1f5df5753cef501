"""The rows of the table in docs/frameworks.md, beside what these tests have measured."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "frameworks.md"
_seen: list[str] = []


def documented(name: str) -> list[str]:
    """A framework's row: name and version, what, over the switch, loss, gloo's loss."""
    table = PAGE.read_text().partition("## What was run")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()]
    (found,) = [cells for cells in rows if cells[0].lower().startswith(f"{name} ")]
    return found


@pytest.fixture
def check_row() -> Callable[[str, dict[str, Any], float], None]:
    """Fail unless the row of a framework has these outcomes: over the switch, and gloo's loss."""

    def check(name: str, ours: dict[str, Any], gloo: float) -> None:
        title, what, *figures = documented(name)
        measured = [ours["switch"], round(ours["loss"], 6), round(gloo, 6)]
        cells = (f"{title.split()[0]} {ours['version']}", what, *map(str, measured))
        _seen.append(f"| {' | '.join(cells)} |")
        assert title == cells[0]
        # The last digits depend on the processor.
        assert list(map(float, figures)) == pytest.approx(measured, rel=1e-4)

    return check


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the rows as they should be."""
    for row in _seen:
        terminalreporter.write_line(row)
