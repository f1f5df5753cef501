"""Programs that a rack runs: a log file each, on record, ended with the rack."""

from pathlib import Path
from typing import Any

from wiresum.common.children import child
from wiresum.testbed.processes import Mark, mark


class Child(child.Child):
    """One running program; ``mark`` is its pid and start time."""

    def __init__(self, what: str, command: list[str], log: Path, **options: Any) -> None:
        super().__init__(what, command, log, **options)
        self.mark = mark_of(self)


def mark_of(running: child.Child) -> Mark:
    """The pid and start time of a program that was started just now."""
    found = mark(running.process.pid)
    return found if found is not None else Mark(running.process.pid, 0)
