"""Forks the ranks of the benchmark from one process that has imported torch.

Importing torch takes seconds of a core in each process, and a benchmark has a group of ranks for
each side. An order is a line of JSON on stdin; each rank connects to the crew's socket and takes
its own orders from there. Started by ``crew.py``; not run by hand.
"""

import ctypes
import json
import os
import signal
import sys
import traceback
from typing import Any

from wiresum.testbed.namespaces import go_into

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serve orders until stdin ends."""
    import torch.distributed.fsdp

    from wiresum.measure.bench.collectives import rank

    assert torch.distributed.is_available()
    # Nobody waits for the ranks: their sockets tell of their end.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        for place in json.loads(line):
            if os.fork() == 0:
                _become(place, rank)


def _become(place: dict[str, Any], rank: Any) -> None:
    """In the child: go to the rank's place and serve there. Does not return."""
    status = 1
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        log = os.open(place["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        go_into(place["namespace"])
        os.environ.clear()
        os.environ.update(place["env"])
        rank.serve(place)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    main()
