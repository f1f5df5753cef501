"""Processes by pid and start time: a pid alone may belong to another process by now."""

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

TERMINATE_S = 5.0


@dataclass(frozen=True)
class Mark:
    """One process; ``started`` is its start time in the kernel's ticks since boot."""

    pid: int
    started: int

    def alive(self) -> bool:
        """Whether it is this very process that has the pid now."""
        return mark(self.pid) == self

    def send(self, number: int) -> None:
        """Send a signal to it, and to no other process."""
        with contextlib.suppress(OSError):
            descriptor = os.pidfd_open(self.pid)
            try:
                # From here on the pid cannot change hands without our seeing it.
                if self.alive():
                    signal.pidfd_send_signal(descriptor, number)
            finally:
                os.close(descriptor)

    def wait(self, limit_s: float) -> bool:
        """Wait for its end, at most ``limit_s``; whether it has ended."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except OSError:
            return True
        try:
            if self.alive():
                select.select([descriptor], [], [], limit_s)
            return not self.alive()
        finally:
            os.close(descriptor)


def mark(pid: int) -> Mark | None:
    """The live process with this pid; None if there is none, or only its remains."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The command's name comes in parentheses and may hold anything.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else Mark(pid, int(fields[19]))


def end(marks: Iterable[Mark], limit_s: float = TERMINATE_S) -> int:
    """SIGTERM, and after ``limit_s`` SIGKILL; returns how many there were to end."""
    living = [each for each in marks if each.alive()]
    for each in living:
        each.send(signal.SIGTERM)
    deadline = time.monotonic() + limit_s
    for each in living:
        if not each.wait(max(0.0, deadline - time.monotonic())):
            each.send(signal.SIGKILL)
            each.wait(limit_s)
    return len(living)
