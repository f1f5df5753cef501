"""Ends the processes that this process has started."""

import contextlib
import os
import signal
from pathlib import Path


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                found += map(int, (task / "children").read_text().split())
    return found


def end_children() -> None:
    """Kill all processes below this one."""
    pending = _children(os.getpid())
    while pending:
        pid = pending.pop()
        pending += _children(pid)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
