"""A controller as a process of its own, and the command line as processes."""

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from wiresum.controller.client import ControllerClient
from wiresum.controller.client.requests import JoiningRank
from wiresum.controller.v1 import controller_pb2 as pb

LIMIT_S = 30.0
ADMIN_TOKEN = "the-admin-of-the-tests"
_COMMAND = [sys.executable, "-m", "wiresum.controller"]


def run_cli(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [*_COMMAND, *arguments],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        env=os.environ | {"WIRESUM_TOKEN": ADMIN_TOKEN} | environment,
        check=False,
    )


class Serving:
    """``controller serve`` as a child process; ``listen`` is where it serves.

    Without TLS, and with :data:`ADMIN_TOKEN`, unless the arguments say otherwise.
    """

    def __init__(
        self, *arguments: str, plaintext: bool = True, environment: Mapping[str, str] | None = None
    ) -> None:
        command = [*_COMMAND, "controller", "serve", "--listen", "127.0.0.1:0"]
        self.process = subprocess.Popen(
            [*command, *(["--plaintext"] if plaintext else []), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ
            | ({"WIRESUM_ADMIN_TOKEN": ADMIN_TOKEN} if environment is None else dict(environment)),
        )
        try:
            self.ready = first_line(self.process)
            self.listen = str(self.ready["listen"])
            self.address = str(self.ready["address"])
        except BaseException:
            self.end()
            raise

    def client(self) -> ControllerClient:
        """The admin's."""
        return ControllerClient(self.address, token=ADMIN_TOKEN)

    def end(self) -> None:
        """Make sure that it is gone."""
        self.process.kill()
        self.process.communicate(timeout=LIMIT_S)


@contextlib.contextmanager
def serving(
    *arguments: str, plaintext: bool = True, environment: Mapping[str, str] | None = None
) -> Iterator[Serving]:
    """A running controller that is gone afterwards."""
    child = Serving(*arguments, plaintext=plaintext, environment=environment)
    try:
        yield child
    finally:
        child.end()


def first_line(process: "subprocess.Popen[str]") -> dict[str, Any]:
    """The JSON in the first line of its output; fails if it does not come in time."""
    lines: queue.Queue[str] = queue.Queue()
    assert process.stdout is not None
    threading.Thread(target=lambda: lines.put(process.stdout.readline()), daemon=True).start()  # type: ignore[union-attr]
    line = lines.get(timeout=LIMIT_S)
    if not line:
        assert process.stderr is not None
        raise AssertionError(f"it ended: {process.stderr.read()}")
    return dict(json.loads(line))


def switch_spec(p4runtime: str, name: str = "s1") -> str:
    """A ``--switch`` for a fake switch."""
    return f"name={name},p4runtime={p4runtime},address=127.0.0.1:5555,host=127.0.0.0/8=1,lanes=64"


def store_argument(directory: Path) -> list[str]:
    """A store that outlives the process."""
    return ["--store", str(directory / "store.sqlite")]


def until(condition: Callable[[], Any]) -> None:
    """Wait until the condition holds."""
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def join(address: str, job: pb.Job, rank: int, timeout_s: float) -> pb.Lease:
    """Join a job of two workers as ``rank``; returns when both have, or raises."""
    with ControllerClient(address, token=job.token) as client:
        return client.join_job(
            job.id,
            job.token,
            JoiningRank(
                rank=rank, workers=2, attempt=0, ip="127.0.0.1", udp_port=4000 + rank, field=32
            ),
            timeout_s=timeout_s,
        )
