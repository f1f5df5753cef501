"""Runs a command that must not outlive the launcher: ``guard.py PARENT LIMIT COMMAND…``.

A script of its own, run with ``python -I -S``. It starts the command in a process group of its own,
passes signals on to that group, and adopts whatever the command leaves behind. When the command
has ended, the launcher has died, or SIGUSR2 comes, it ends everything below it: SIGTERM, and after
LIMIT seconds SIGKILL. Its exit status is the command's, 128 + signal if a signal ended it.

With ``--exec`` before COMMAND it becomes the command, which then gets SIGTERM if the launcher dies:
for commands that start no processes of their own.
"""

import contextlib
import ctypes
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LOOK_S = 0.05

END = signal.SIGUSR2
"""Tells a guard to end the command and everything below it."""

PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1)


class Ended(Exception):
    """The launcher has died, or wants an end."""


def main(arguments: list[str]) -> int:
    """Run the command; the exit status."""
    parent, limit, *command = arguments
    become = command[0] == "--exec"
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM if become else END)
    # Python ignores SIGPIPE (and SIGXFSZ); the command shall start with the defaults.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    if become:
        if os.getppid() != int(parent):  # it died before the call above
            return 128 + signal.SIGTERM
        return _exec(command[1:])
    return _supervise(int(parent), float(limit), command)


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl failed")


def _exec(command: list[str]) -> int:
    try:
        os.execvp(command[0], command)
    except OSError as error:
        print(f"wiresum: cannot run {command[0]!r}: {error.strerror}", file=sys.stderr)
        return 127 if isinstance(error, FileNotFoundError) else 126


def _supervise(parent: int, limit_s: float, command: list[str]) -> int:
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    handled = {*PASSED_ON, END}
    signal.pthread_sigmask(signal.SIG_BLOCK, handled)  # until there is a child to pass them on to
    child = os.fork()  # this process has one thread
    if child == 0:
        os.setpgid(0, 0)
        _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, handled)
        os._exit(_exec(command))
    with contextlib.suppress(OSError):
        os.setpgid(child, child)  # both do it: whoever comes first

    def pass_on(number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, number)

    def end(_number: int, _frame: FrameType | None) -> None:
        raise Ended

    for number in PASSED_ON:
        signal.signal(number, pass_on)
    signal.signal(END, end)
    status = 128 + signal.SIGTERM
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, handled)
        if os.getppid() == parent:
            status = _wait(child)
    except Ended:
        pass
    signal.pthread_sigmask(signal.SIG_BLOCK, handled)
    ended = end_children(limit_s)
    return ended.get(child, status)


def _wait(child: int) -> int:
    while True:
        pid, status = os.wait()  # collects adopted processes too
        if pid == child:
            return _as_shell(status)


def _as_shell(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def end_children(limit_s: float) -> dict[int, int]:
    """End all children of this process, and those it adopts meanwhile: pid to exit status."""
    kill_at = time.monotonic() + limit_s
    told: set[int] = set()
    ended: dict[int, int] = {}
    while True:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return ended
            if pid == 0:
                break
            ended[pid] = _as_shell(status)
        kill = time.monotonic() > kill_at
        for pid in children():
            if kill or pid not in told:
                told.add(pid)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL if kill else signal.SIGTERM)
        time.sleep(_LOOK_S)


def children() -> list[int]:
    """The pids of this process's children."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            found += [int(pid) for pid in (task / "children").read_text().split()]
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
