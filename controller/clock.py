"""Time as the controller sees it; tests bring their own."""

import time
from typing import Protocol

from wiresum.common.patience import LATE_S


class Clock(Protocol):
    """A source of time."""

    def now(self) -> float:
        """Seconds since 1970; never runs backwards while the process lives."""
        ...


class SystemClock:
    """The machine's clock, read once and carried on by the monotonic one.

    A wall clock that is set while jobs run must not make every lease expire. Nor must time in which
    the process stood still: where :meth:`tick` is called, it does not count.
    """

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()
        self._last: float | None = None

    def now(self) -> float:
        """Seconds since 1970, without the time in which the process stood still."""
        ticks = time.monotonic()
        if self._last is not None:
            ticks = min(ticks, self._last + LATE_S)
        return self._offset + ticks

    def tick(self) -> None:
        """The process runs. Once called, it has to be called again several times a second."""
        ticks = time.monotonic()
        if self._last is not None:
            self._offset -= max(0.0, ticks - self._last - LATE_S)
        self._last = ticks
