"""A program of ours: its log, the line that says that it is ready, and its last words."""

import json
import os
import select
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wiresum.common import lines
from wiresum.common.children import process
from wiresum.common.errors import LineText, WiresumError
from wiresum.common.patience import Patience

START_S = 60.0
_TAIL = 65536
_LOOK_S = 0.2


class ChildError(WiresumError):
    """A program that this process needs did not start, or has ended."""


class SlowStart(ChildError):
    """A program has not started within its limit."""


class Child:
    """One running program. ``what`` names it in errors, such as "the controller"."""

    def __init__(
        self,
        what: str,
        command: Sequence[str],
        log: Path,
        *,
        env: Mapping[str, str] | None = None,
        announces: bool = False,
    ) -> None:
        """Start it, from the main thread (see :func:`process.start`).

        Its output goes to the file ``log``; stdout does not if the program ``announces`` there that
        it is :meth:`ready`.
        """
        self.what = what
        self.log = log
        with log.open("ab") as output:
            self.process = process.start(
                command,
                supervised=False,
                options=process.ProcessOptions(
                    env=env,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE if announces else output,
                    stderr=output,
                ),
            )

    def ready(self, limit_s: float = START_S) -> dict[str, Any]:
        """Wait for its first line of output, one JSON object.

        Raises :class:`ChildError`; :class:`SlowStart` after ``limit_s`` seconds.
        """
        assert self.process.stdout is not None
        descriptor = self.process.stdout.fileno()
        patience = Patience(limit_s)
        line = b""
        while not line.endswith(b"\n"):
            if patience.step(_LOOK_S) <= 0:
                raise SlowStart(
                    lines.DID_NOT_START.of(what=self.what, limit_s=limit_s, said=self.said())
                )
            if not select.select([descriptor], [], [], _LOOK_S)[0]:
                continue
            data = os.read(descriptor, _TAIL)
            if not data:
                self.process.wait()
                raise ChildError(self.obituary("did not start"))
            line += data
        try:
            found = json.loads(line)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            text = line[:200].decode(errors="replace").strip()
            raise ChildError(lines.SAID_SOMETHING_ELSE.of(what=self.what, text=text))
        return found

    def serves(self, path: Path, limit_s: float = START_S) -> None:
        """Wait until it listens on a Unix socket. Raises as :meth:`ready` does."""
        patience = Patience(limit_s)
        while True:
            with socket.socket(socket.AF_UNIX) as probe:
                if probe.connect_ex(str(path)) == 0:
                    return
            if self.process.poll() is not None:
                raise ChildError(self.obituary("did not start"))
            if patience.step() <= 0:
                raise SlowStart(
                    lines.DID_NOT_START.of(what=self.what, limit_s=limit_s, said=self.said())
                )
            time.sleep(0.02)

    def check(self) -> None:
        """Raise :class:`ChildError` if it has ended."""
        if self.process.poll() is not None:
            raise ChildError(self.obituary())

    def obituary(self, verb: str = "has ended") -> LineText:
        """One line that says how it ended, and its last words. Waits for its end."""
        status = process.exit_status(self.process.wait())
        return lines.CHILD_ENDED.of(what=self.what, verb=verb, status=status, said=self.said())

    def said(self) -> str:
        """The telling line of its log, after a colon; empty if there is none."""
        try:
            with self.log.open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - _TAIL))
                tail = log.read().decode(errors="replace").split("\n")
        except OSError:
            return ""
        said = [line.strip() for line in tail if line.strip()]
        return f": {self.telling(said)}" if said else ""

    def telling(self, said: list[str]) -> str:
        """The line of its log that tells most of its end: the last."""
        return said[-1]

    def end(self) -> None:
        """Stop it."""
        process.end(self.process)
        if self.process.stdout is not None:
            self.process.stdout.close()
