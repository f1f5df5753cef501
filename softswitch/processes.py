"""Ending with the parent, and ending one's own children."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path

_INITS = frozenset(
    {"catatonit", "docker-init", "dumb-init", "init", "s6-svscan", "systemd", "tini"}
)


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def watch_parent(loop: asyncio.AbstractEventLoop, ended: Callable[[], None]) -> None:
    """Call ``ended`` when the process that started this one is gone.

    PR_SET_PDEATHSIG would fire already when the *thread* that started us ends, and a launcher may
    well start us from a thread pool; a pidfd stands for the whole process.
    """
    parent = os.getppid()
    try:
        descriptor = os.pidfd_open(parent)
    except OSError:  # it ended right now, and someone else inherited us
        loop.call_soon(ended)
        return

    def readable() -> None:
        loop.remove_reader(descriptor)
        os.close(descriptor)
        ended()

    loop.add_reader(descriptor, readable)
    # It may have ended before we asked. An init process does not start a switch by itself with an
    # option that only makes sense for a parent that ends.
    if os.getppid() != parent or _command(parent) in _INITS:
        loop.call_soon(ended)


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                found += map(int, (task / "children").read_text().split())
    return found


def end_children() -> None:
    """Kill what this process has started and what that has started."""
    pending = _children(os.getpid())
    while pending:
        pid = pending.pop()
        pending += _children(pid)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
