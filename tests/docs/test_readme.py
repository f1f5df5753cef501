"""The README's table of gains repeats the measurements, and marks what is lost."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RATIO = re.compile(r"\*{0,2}(\d+\.\d\d) \([\d.–]+\)\*{0,2}")


def measured() -> set[tuple[str, ...]]:
    """Three ratios that stand side by side in a table of the performance documents."""
    found = set()
    for name in ("performance.md", "performance-ranks.md"):
        for line in (ROOT / "docs" / name).read_text().splitlines():
            cells = [RATIO.fullmatch(cell.strip()) for cell in line.strip("| ").split("|")]
            for first in range(len(cells) - 2):
                three = cells[first : first + 3]
                if all(three):
                    found.add(tuple(cell[1] for cell in three if cell))
    return found


def test_the_table_of_gains_has_measured_ratios_only_and_losses_are_bold() -> None:
    section = (ROOT / "README.md").read_text().split("## What it gains")[1].split("\n## ")[0]
    rows = [line.strip("| ").split("|") for line in section.splitlines() if "|" in line][2:]
    assert len(rows) >= 8
    known = measured()
    for row in rows:
        cells = [cell.strip() for cell in row[1:]]
        assert tuple(cell.strip("*") for cell in cells) in known, row
        for cell in cells:
            assert cell.startswith("**") == (float(cell.strip("*")) < 1), row
    assert any("**" in cell for row in rows for cell in row), "losses stand beside gains"
