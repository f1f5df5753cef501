"""Ending with the process that started this one."""

import asyncio
import os
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
    """Call ``ended`` when the process that started this one has ended.

    PR_SET_PDEATHSIG would signal when the *thread* that started this process ends, and a launcher
    may start it from a thread pool; a pidfd stands for the whole process.
    """
    parent = os.getppid()
    try:
        descriptor = os.pidfd_open(parent)
    except OSError:  # it ended just now, and this process has another parent
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
