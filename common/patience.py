"""Limits that hold only for time in which this process ran.

A process may be stopped (Ctrl-Z, a suspended machine, a batch system that makes room). When it runs
again, the clock says that all other processes were silent for that time. It does not count here.
"""

import threading
import time
from collections.abc import Callable

LATE_S = 1.0
"""How much longer than expected a step may take and still count; seconds. A step that takes longer
means that the process stood still."""


class Patience:
    """A limit in seconds, spent in steps of known length; time beyond a step is not counted."""

    def __init__(self, limit_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit_s = limit_s
        self._clock = clock
        self.restart()

    def restart(self) -> None:
        """Begin again with the whole limit."""
        self.spent_s = 0.0
        """Seconds that count."""
        self._last = self._clock()

    def step(self, expected_s: float = 0.0) -> float:
        """Note the end of a step that should last ``expected_s``; returns the seconds left."""
        now = self._clock()
        self.spent_s += min(now - self._last, expected_s + LATE_S)
        self._last = now
        return self.limit_s - self.spent_s


def wait_for(event: threading.Event, limit_s: float, step_s: float = 5.0) -> bool:
    """Wait for an event for ``limit_s`` seconds in which this process runs; whether it is set."""
    patience = Patience(limit_s)
    left = limit_s
    while left > 0:
        step = min(left, step_s)
        if event.wait(step):
            return True
        left = patience.step(step)
    return event.is_set()
