"""A process that sends every train of datagrams back to where it came from.

It measures how much the kernel moves without any other work: the comparison for the switch over
sockets. Started by the benchmark; prints its UDP port as a line of JSON and serves until SIGTERM.
"""

import json
import signal
import socket
import sys
from types import FrameType

from wiresum.measure.bench import _native


class _Over(Exception):
    pass


def _end(_number: int, _frame: FrameType | None) -> None:
    raise _Over


def main() -> None:
    """Entry point."""
    signal.signal(signal.SIGTERM, _end)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((sys.argv[1], 0))
        print(json.dumps({"udp_port": sock.getsockname()[1]}), flush=True)
        try:
            _native.reflect(sock.fileno())
        except _Over:
            return


if __name__ == "__main__":
    main()
