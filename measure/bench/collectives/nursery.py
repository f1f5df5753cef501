"""Forks the ranks of the benchmark from one process that has imported torch.

A benchmark has a group of ranks for each side. An order is a line of JSON on stdin; each rank
connects to the crew's socket and takes its own orders from there. Started by ``crew.py``; not run
by hand.
"""

import functools
import json
import signal
import sys

from wiresum.measure.bench.forks import fork


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
            serve = functools.partial(rank.serve, place)
            fork(place["namespace"], place["env"], place["log"], serve)


if __name__ == "__main__":
    main()
