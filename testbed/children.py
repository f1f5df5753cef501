"""Programs that a rack runs: a log file each, on record, ended with the rack."""

import json
import os
import select
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wiresum.host_agent.launcher import process
from wiresum.testbed.errors import RackError
from wiresum.testbed.processes import Mark, mark

START_S = 60.0
_TAIL = 65536


class Child:
    """One running program; ``mark`` is its pid and start time."""

    def __init__(
        self,
        what: str,
        command: Sequence[str],
        log: Path,
        *,
        env: Mapping[str, str] | None = None,
        announces: bool = False,
    ) -> None:
        """Start it. Its output goes to ``log``, but for stdout if it ``announces`` there that it
        is :meth:`ready`.
        """
        self.what = what
        self.log = log
        with log.open("ab") as output:
            self.process = process.start(
                command,
                supervised=False,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if announces else output,
                stderr=output,
            )
        found = mark(self.process.pid)
        self.mark = found if found is not None else Mark(self.process.pid, 0)

    def ready(self, limit_s: float = START_S) -> dict[str, Any]:
        """Wait for its first line of output, one JSON object. Raises :class:`RackError`."""
        assert self.process.stdout is not None
        descriptor = self.process.stdout.fileno()
        deadline = time.monotonic() + limit_s
        line = b""
        while not line.endswith(b"\n"):
            left = max(0.0, deadline - time.monotonic())
            if not select.select([descriptor], [], [], left)[0]:
                raise RackError(f"{self.what} did not start within {limit_s:g} s{self.said()}")
            data = os.read(descriptor, _TAIL)
            if not data:
                self.process.wait()
                raise RackError(self.obituary("did not start"))
            line += data
        try:
            return dict(json.loads(line))
        except ValueError:
            raise RackError(f"{self.what} said {line[:200]!r} instead of being ready") from None

    def serves(self, path: Path, limit_s: float = START_S) -> None:
        """Wait until it listens on a Unix socket. Raises :class:`RackError`."""
        deadline = time.monotonic() + limit_s
        while True:
            with socket.socket(socket.AF_UNIX) as probe:
                if probe.connect_ex(str(path)) == 0:
                    return
            if self.process.poll() is not None:
                raise RackError(self.obituary("did not start"))
            if time.monotonic() > deadline:
                raise RackError(f"{self.what} did not start within {limit_s:g} s{self.said()}")
            time.sleep(0.02)

    def obituary(self, verb: str = "has ended") -> str:
        """One line that says how it ended, and its last words."""
        status = process.exit_status(self.process.wait())
        return f"{self.what} {verb} (status {status}){self.said()}"

    def said(self) -> str:
        """Its last words."""
        try:
            with self.log.open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - _TAIL))
                lines = log.read().decode(errors="replace").split("\n")
        except OSError:
            return ""
        said = [line.strip() for line in lines if line.strip()]
        return f": {said[-1]}" if said else ""

    def end(self) -> None:
        """Stop it."""
        process.end(self.process)
        if self.process.stdout is not None:
            self.process.stdout.close()
