"""The losses of a run: from the script's reports, else from its output."""

import re
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from wiresum.common.logs import one_line
from wiresum.measure.trial.options import TAIL

LONGEST = 4096
"""Bytes of a line in which losses are looked for, its last ones: a pattern may take a time that
grows with the square of them."""

_LAST = 8192


def tail_mean(losses: Sequence[float]) -> float:
    """The mean over the last fifth; NaN where one of these is. ``losses`` must not be empty."""
    return fmean(losses[-max(1, round(TAIL * len(losses))) :])


class Output:
    """A growing file of a command's output, and the losses that a pattern finds in it."""

    def __init__(self, path: Path, pattern: str) -> None:
        self._path = path
        self._pattern = re.compile(pattern)
        self._offset = 0
        self._rest = b""
        self.losses: list[float] = []

    def read(self) -> None:
        """Look at what has come since."""
        with self._path.open("rb") as file:
            file.seek(self._offset)
            new = file.read()
        self._offset += len(new)
        *whole, rest = re.split(rb"[\r\n]", self._rest + new)
        self._rest = rest[-LONGEST:]
        for line in whole:
            for found in self._pattern.finditer(line[-LONGEST:].decode(errors="replace")):
                try:
                    self.losses.append(float(found[1]))
                except ValueError:  # the user's pattern has found a word
                    continue

    def last_line(self) -> str:
        """The last line that is not empty, as it may be printed in an error line."""
        with self._path.open("rb") as file:
            file.seek(max(0, self._path.stat().st_size - _LAST))
            text = file.read().decode(errors="replace")
        said = [one_line(line) for line in text.splitlines() if line.strip()]
        return next((line for line in reversed(said) if _telling(line)), said[-1] if said else "")


def _telling(line: str) -> bool:
    """Whether a line is the message of an exception, which torchrun's own report comes after."""
    return bool(re.match(r"(\[rank\d+\]: *)?[\w.]*(Error|Exception|Interrupt)\b", line)) and (
        "ChildFailedError" not in line
    )
