"""Runs a command that gets a signal when its parent dies: ``guard.py PARENT SIGNAL COMMAND…``.

A script of its own, run with ``python -I -S``: setting this between fork and exec in the launcher
would run Python in a copy of a process that has threads.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> int:
    """Become the command; returns only if that fails."""
    parent, number, *command = arguments
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0) != 0:
        print("wiresum: prctl(PR_SET_PDEATHSIG) failed", file=sys.stderr)
        return 126
    if os.getppid() != int(parent):
        return 128 + int(number)  # it died before the call above
    # Python ignores SIGPIPE (and SIGXFSZ); the command shall start with the defaults.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        print(f"wiresum: cannot run {command[0]!r}: {error.strerror}", file=sys.stderr)
        return 127 if isinstance(error, FileNotFoundError) else 126


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
