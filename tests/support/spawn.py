"""Starts the workers of a job on this host: ``spawn.py WORKERS SCRIPT ARGUMENTS``.

As torchrun does, but without torch, whose import takes seconds: for tests to which it does not
matter who starts the workers. If one fails, the others are ended.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from types import FrameType

PATIENCE_S = 10.0


def free_port() -> int:
    """A free TCP port of this host."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert isinstance(port, int)
    return port


def run(workers: int, command: list[str]) -> int:
    """The exit status: 0, or 1 if a worker has failed."""
    common = {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(workers),
    }  # fmt: skip
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for rank in range(workers):
            mine = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            processes.append(
                subprocess.Popen([sys.executable, "-u", *command], env=os.environ | common | mine)
            )
        while None in (ended := [process.poll() for process in processes]) and not any(ended):
            time.sleep(0.02)
        return int(any(ended))
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            try:
                process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()


def end(number: int, _frame: FrameType | None) -> None:
    """A signal ends the workers, too."""
    sys.exit(128 + number)


if __name__ == "__main__":
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, end)
    sys.exit(run(int(sys.argv[1]), sys.argv[2:]))
