"""Waiting for the end of processes that are nobody's children here."""

import time
from pathlib import Path

LIMIT_S = 20.0


def gone(pid: int) -> bool:
    """Whether a process has ended (or is a zombie that its new parent has not collected)."""
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return True


def wait_gone(*pids: int) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not all(gone(pid) for pid in pids):
        assert time.monotonic() < deadline, [pid for pid in pids if not gone(pid)]
        time.sleep(0.05)
