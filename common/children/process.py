"""Child processes that never outlive the launcher."""

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from wiresum.common.children import guard
from wiresum.common.patience import Patience

TERMINATE_S = 10.0  # from SIGTERM to SIGKILL
_LOOK_S = 0.5
_SETTLED_S = 2.0


@dataclass(frozen=True)
class ProcessOptions:
    """How a command starts: its environment and streams, as :class:`subprocess.Popen` takes them.

    The other fields are for supervised commands: ``limit_s`` is the time from SIGTERM to SIGKILL,
    seconds; ``group`` is the process group of this process, if the command must belong to it, and
    0 for a group of its own; the signals in ``mask`` are blocked when it starts; ``keep`` are
    descriptors that it inherits beside the first three.
    """

    env: Mapping[str, str] | None = None
    stdin: int | None = None
    stdout: int | IO[bytes] | None = None
    stderr: int | IO[bytes] | None = None
    limit_s: float = TERMINATE_S
    group: int = 0
    mask: Iterable[int] = ()
    keep: Sequence[int] = ()


class Supervised(subprocess.Popen[bytes]):
    """A guard that runs a command; the launcher controls it through ``control``."""

    control: socket.socket

    def pass_on(self, number: int) -> None:
        """Tell the guard that a signal came to this process: the command gets it exactly once."""
        with contextlib.suppress(OSError):
            self.control.send(bytes([number]))

    def stops(self) -> None:
        """Wait until the command has got a SIGTSTP that was passed on."""
        with contextlib.suppress(OSError):
            if select.select([self.control], [], [], _SETTLED_S)[0]:
                self.control.recv(256)

    def let_go(self) -> None:
        """Tell the guard to end the command."""
        with contextlib.suppress(OSError):
            self.control.shutdown(socket.SHUT_WR)


def module(name: str) -> list[str]:
    """The command that runs a module of ours, or torch's, from any working directory.

    ``-m`` alone would import from there: a project's own ``queue.py`` instead of Python's.
    """
    return [sys.executable, "-P", "-m", name]


def start(
    command: Sequence[str],
    *,
    supervised: bool,
    options: ProcessOptions = ProcessOptions(),
) -> "subprocess.Popen[bytes]":
    """Start a command under a guard, which ends it if this process dies.

    ``supervised``: the command may start processes of its own, which are ended with it, and
    signals that are :func:`pass_on`-ed reach its process group.
    A command that is not supervised must be started from the main thread: it is ended when the
    *thread* that started it ends.
    """
    wrapper = [sys.executable, "-I", "-S", str(Path(guard.__file__))]
    where: dict[str, Any] = {
        "env": options.env,
        "stdin": options.stdin,
        "stdout": options.stdout,
        "stderr": options.stderr,
    }
    if not supervised:
        become = [*wrapper, "--exec", str(os.getpid()), *command]
        return subprocess.Popen(become, **where, process_group=0)
    if not options.group:
        where["process_group"] = 0
    ours, theirs = socket.socketpair()
    with theirs:
        blocked = ",".join(str(int(number)) for number in options.mask)
        facts = [str(theirs.fileno()), str(options.group), blocked, str(options.limit_s)]
        # Until the guard blocks them itself: it may be in a terminal's foreground.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            made = Supervised(
                [*wrapper, *facts, *command], **where, pass_fds=[theirs.fileno(), *options.keep]
            )
        except BaseException:
            ours.close()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    ours.setblocking(False)  # a guard that does not read must not block a signal's handler
    made.control = ours
    return made


def pass_on(process: "subprocess.Popen[bytes]", number: int) -> None:
    """Send a signal to a command, if it is still there."""
    if isinstance(process, Supervised):
        process.pass_on(number)
        return
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)


def end(process: "subprocess.Popen[bytes]", limit_s: float = TERMINATE_S) -> int:
    """SIGTERM, and after ``limit_s`` SIGKILL; returns the status. For what is not supervised."""
    pass_on(process, signal.SIGTERM)
    return _wait(process, limit_s)


def end_supervised(process: "subprocess.Popen[bytes]") -> int:
    """Let the guard end the command and everything below it; returns the status."""
    assert isinstance(process, Supervised)
    process.let_go()
    status = _wait(process, 3 * TERMINATE_S)
    process.control.close()
    return status


def _wait(process: "subprocess.Popen[bytes]", limit_s: float) -> int:
    patience = Patience(limit_s)
    while process.poll() is None and patience.step(_LOOK_S) > 0:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_LOOK_S)
    if process.poll() is None:
        process.kill()
    return process.wait()


def exit_status(returncode: int) -> int:
    """The status that a shell reports: 128 + signal for a child that a signal ended."""
    return returncode if returncode >= 0 else 128 - returncode
