"""Forks the ranks of a benchmark from a process that has imported torch.

Importing torch takes seconds of a core in each process.
"""

import ctypes
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

from wiresum.testbed.namespaces import go_into

_PR_SET_PDEATHSIG = 1


def fork(namespace: str, env: Mapping[str, str], log: Path | str, work: Callable[[], None]) -> int:
    """Do ``work`` in a child, in a rank's network; its process id.

    The child has this environment and writes to this log. It ends with status 0 after ``work``, 1
    after an exception, and with the process that has forked it.
    """
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it has ended before that
            os._exit(status)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        written = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(written, 1)
        os.dup2(written, 2)
        go_into(namespace)
        os.environ.clear()
        os.environ.update(env)
        work()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
