"""Child processes that never outlive the launcher."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from wiresum.host_agent.launcher import guard

_PR_SET_CHILD_SUBREAPER = 36
TERMINATE_S = 10.0  # from SIGTERM to SIGKILL


def start(
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    stdin: int | None = None,
    stdout: int | IO[bytes] | None = None,
    stderr: int | IO[bytes] | None = None,
) -> "subprocess.Popen[bytes]":
    """Start a command in a process group of its own; it gets SIGTERM if this process dies.

    Call it from the main thread: Linux sends that signal when the *thread* that forked ends.
    """
    wrapper = [sys.executable, "-I", "-S", str(Path(guard.__file__))]
    return subprocess.Popen(
        [*wrapper, str(os.getpid()), str(int(signal.SIGTERM)), *command],
        env=env,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        process_group=0,
    )


def signal_group(process: "subprocess.Popen[bytes]", number: int) -> None:
    """Send a signal to a child's whole process group, if there is still one."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def end(process: "subprocess.Popen[bytes]", limit_s: float = TERMINATE_S) -> int:
    """SIGTERM, and after ``limit_s`` SIGKILL, to a child's group; returns its status."""
    if process.poll() is None:
        signal_group(process, signal.SIGTERM)
        try:
            process.wait(limit_s)
        except subprocess.TimeoutExpired:
            signal_group(process, signal.SIGKILL)
    return process.wait()


def exit_status(returncode: int) -> int:
    """What a shell would report: 128 + signal for a child that a signal ended."""
    return returncode if returncode >= 0 else 128 - returncode


def adopt_orphans() -> None:
    """Become the parent of whatever the children leave behind (PR_SET_CHILD_SUBREAPER)."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_orphans(keep: Sequence[int], limit_s: float = TERMINATE_S) -> int:
    """End all children of this process but ``keep``, and theirs; returns how many there were.

    torchrun gives each worker a session of its own: a signal to its process group misses them.
    """
    deadline = time.monotonic() + limit_s
    ended: set[int] = set()
    while True:
        left = [pid for pid in _children() if pid not in keep]
        if not left:
            return len(ended)
        kill = time.monotonic() > deadline
        for pid in left:
            if pid not in ended or kill:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL if kill else signal.SIGTERM)
                ended.add(pid)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        if kill and time.monotonic() > deadline + limit_s:
            return len(ended)
        time.sleep(0.05)


def _children() -> list[int]:
    found = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            found += [int(pid) for pid in (task / "children").read_text().split()]
    return found
