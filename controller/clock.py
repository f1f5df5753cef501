"""Time as the controller sees it; tests bring their own."""

import time
from typing import Protocol


class Clock(Protocol):
    """A source of time."""

    def now(self) -> float:
        """Seconds since 1970; never runs backwards while the process lives."""
        ...


class SystemClock:
    """The machine's clock, read once and carried on by the monotonic one.

    A wall clock that is set while jobs run must not make every lease expire.
    """

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def now(self) -> float:
        """Seconds since 1970."""
        return self._offset + time.monotonic()
