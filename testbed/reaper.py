"""Removes a rack whose process was killed: a process of its own that waits for that.

Its standard input is a pipe from the rack's process, which ends with that process in any case. A
shell waits, because it is small: Python starts only if a rack is to be removed.
"""

import subprocess
import sys

from wiresum.common.children import process
from wiresum.testbed import state
from wiresum.testbed.processes import Mark

_WAIT = 'read -r _; exec "$@"'


class Reaper:
    """Waits for the end of the process that has made a rack."""

    def __init__(self, record: state.Record) -> None:
        """Start it, in a session of its own: a signal to this process's group does not reach it."""
        owner = record.owner
        what = [record.name, str(owner.pid), str(owner.started)]
        self._process = subprocess.Popen(
            ["sh", "-c", _WAIT, "sh", *process.module("wiresum.testbed.reaper"), *what],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def end(self) -> None:
        """End it: the rack is removed."""
        assert self._process.stdin is not None
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()


if __name__ == "__main__":
    _name, _pid, _started = sys.argv[1:]
    state.remove_left(_name, Mark(int(_pid), int(_started)))
