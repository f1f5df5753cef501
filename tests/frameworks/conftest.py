"""The rows of the table in docs/frameworks.md, as these tests have measured them."""

from collections.abc import Callable
from typing import Any

import pytest

_rows: list[str] = []


@pytest.fixture
def record_row() -> Callable[[str, dict[str, Any], float], None]:
    """Note a row: the framework, the outcome over the switch, the loss over gloo."""

    def record(name: str, ours: dict[str, Any], gloo: float) -> None:
        _rows.append(
            f"| {name} | {ours['version']} | {ours['switch']} | {ours['loss']:.6f} | {gloo:.6f} |"
        )

    return record


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the rows."""
    for row in _rows:
        terminalreporter.write_line(row)
