"""Child processes that never outlive the launcher."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from wiresum.host_agent.launcher import guard

TERMINATE_S = 10.0  # from SIGTERM to SIGKILL


def start(
    command: Sequence[str],
    *,
    supervised: bool,
    env: Mapping[str, str] | None = None,
    stdin: int | None = None,
    stdout: int | IO[bytes] | None = None,
    stderr: int | IO[bytes] | None = None,
    limit_s: float = TERMINATE_S,
) -> "subprocess.Popen[bytes]":
    """Start a command under a guard, which ends it if this process dies.

    ``supervised``: the command may start processes of its own, which are ended with it; signals
    to the guard reach its process group. Call it from the main thread: Linux tells the guard when
    the *thread* that started it ends.
    """
    wrapper = [sys.executable, "-I", "-S", str(Path(guard.__file__))]
    mode = [] if supervised else ["--exec"]
    return subprocess.Popen(
        [*wrapper, str(os.getpid()), str(limit_s), *mode, *command],
        env=env,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        process_group=0,
    )


def pass_on(process: "subprocess.Popen[bytes]", number: int) -> None:
    """Send a signal to a command, if it is still there."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)


def end(process: "subprocess.Popen[bytes]", limit_s: float = TERMINATE_S) -> int:
    """SIGTERM, and after ``limit_s`` SIGKILL; returns the status. For what is not supervised."""
    return _end(process, signal.SIGTERM, limit_s)


def end_supervised(process: "subprocess.Popen[bytes]") -> int:
    """Let the guard end the command and everything below it; returns the status."""
    return _end(process, guard.END, 3 * TERMINATE_S)


def _end(process: "subprocess.Popen[bytes]", number: int, limit_s: float) -> int:
    if process.poll() is None:
        pass_on(process, number)
        try:
            process.wait(limit_s)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()


def exit_status(returncode: int) -> int:
    """What a shell would report: 128 + signal for a child that a signal ended."""
    return returncode if returncode >= 0 else 128 - returncode
