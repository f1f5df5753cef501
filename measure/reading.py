"""Reads files that others have made, and says what is in them, within limits."""

import reprlib
from pathlib import Path
from typing import Any

MOST_BYTES = 64 << 20
"""Of a report, or of a file of jobs."""

_short = reprlib.Repr()
_short.maxlevel, _short.maxstring, _short.maxother, _short.maxlong = 1, 60, 60, 60


def read_at_most(path: Path, most: int = MOST_BYTES) -> bytes:
    """All of a file. Raises ``OSError``, and ``ValueError`` if it has more than ``most`` bytes.

    A device or a pipe has no size, so that the size is found by reading.
    """
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"it is larger than {most >> 20} MiB")
    return content


def shown(value: Any) -> str:
    """A value for an error line, in one short line whatever it holds."""
    return _short.repr(value)
