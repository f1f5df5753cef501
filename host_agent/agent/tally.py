"""The totals of this process's collectives, in a small file that its launcher reads.

A process writes it anew at each collective, or soon after while many follow one another, so the
launcher has the last state, or nearly so, however the process ends. Without a launcher there is no
file.
"""

import contextlib
import json
import os
import secrets
from pathlib import Path
from typing import NamedTuple

LONGEST_WHY = 160
"""Characters of a reason."""


class Totals(NamedTuple):
    """Collectives by path, with their bytes, of one process. It is made at each of them."""

    rank: int = 0
    """The rank of the process in the default group."""
    size: int = 0
    """How many ranks its largest group has."""
    switch: int = 0
    switch_bytes: int = 0
    ranks: int = 0
    ranks_bytes: int = 0
    ranks_why: str = ""
    """The first reason why the ranks summed."""
    fallback: int = 0
    fallback_bytes: int = 0
    fallback_why: str = ""
    """The first reason for the fallback; that of an all-reduce, if there is any."""
    tuned: str = ""
    """The fields that the ranks have chosen; empty where nobody has asked for that."""


class Tally:
    """The file of this process."""

    def __init__(self, folder: str) -> None:
        """In ``folder``, which the launcher has made. Raises OSError."""
        path = Path(folder) / secrets.token_hex(8)
        self._process = os.getpid()
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)

    @property
    def mine(self) -> bool:
        """Whether it is this process's, and not that of the one that has forked it."""
        return os.getpid() == self._process

    def write(self, totals: Totals) -> None:
        """Replace what the file says; a write that fails is left out, the next one has it all."""
        if not self.mine:
            return
        # What a longer text before has left follows the line break.
        with contextlib.suppress(OSError):
            os.pwrite(self._file, f"{json.dumps(totals)}\n".encode(), 0)


def read_all(folder: Path) -> list[Totals]:
    """The totals of all processes that have written any; those with the lowest ranks first."""
    found = []
    for path in folder.iterdir():
        with contextlib.suppress(OSError, ValueError, TypeError):
            found.append(Totals(*json.loads(path.read_text().partition("\n")[0])))
    return sorted(found, key=lambda totals: totals.rank)
