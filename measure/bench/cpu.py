"""CPU seconds of processes and of the machine."""

import contextlib
import os
import time
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def of_process(pid: int) -> float:
    """CPU seconds that the live threads of a process have used (the scheduler's own count)."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):  # a thread that has just ended
            total += int((task / "schedstat").read_text().split()[0])
    return total * 1e-9


def of_machine() -> float:
    """CPU seconds that all cores were busy, interrupts included, since boot."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _idle, _wait, irq, softirq, *_ = map(int, fields)
    return (user + nice + system + irq + softirq) / _TICKS


def of_this_thread() -> float:
    """CPU seconds of the calling thread."""
    return time.thread_time()
