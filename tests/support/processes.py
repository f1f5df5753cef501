"""Starts wiresum's commands for tests, and makes sure that none of them stays behind."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MARK = "WIRESUM_TEST_MARK"
START_S = 60.0


def marked(mark: str) -> dict[int, str]:
    """Live processes whose environment carries ``mark``: pid → command line."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if f"{MARK}={mark}".encode() in (entry / "environ").read_bytes():
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                if state != "Z":
                    line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    found[int(entry.name)] = line
        except OSError:
            continue  # gone, or not ours
    return found


class Commands:
    """Runs ``wiresum`` with an environment by which everything it starts can be found again."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.mark = uuid.uuid4().hex
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("WIRESUM_")}
        self.env |= {
            MARK: self.mark,
            # Controllers that are started have this admin, and commands that talk to them are it.
            "WIRESUM_ADMIN_TOKEN": self.mark,
            "WIRESUM_TOKEN": self.mark,
            "OMP_NUM_THREADS": "1",
            "XDG_STATE_HOME": str(directory / "state"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        self._started: list[subprocess.Popen[str]] = []

    wiresum = (sys.executable, "-m", "wiresum.cli.main")
    """The command ``wiresum``."""

    def start(self, *arguments: str, **env: str) -> subprocess.Popen[str]:
        """Start ``wiresum ARGUMENTS`` in the background."""
        return self.popen([*self.wiresum, *arguments], **env)

    def popen(self, command: list[str], **env: str) -> subprocess.Popen[str]:
        """Start any command in the background."""
        process = subprocess.Popen(
            command, env=self.env | env, cwd=self.directory, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self._started.append(process)
        return process

    def serve(self, *arguments: str) -> tuple[subprocess.Popen[str], dict[str, Any]]:
        """Start a server; its process and its ready line."""
        process = self.start(*arguments)
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            assert process.stderr is not None
            raise AssertionError(f"{arguments} did not start: {process.stderr.read()}")
        return process, json.loads(line)

    def run(
        self, *arguments: str, limit_s: float = 120, **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Run ``wiresum ARGUMENTS`` to its end."""
        process = self.start(*arguments, **env)
        try:
            out, err = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            raise AssertionError(f"{arguments} hung; stderr: {err[-2000:]}") from None
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def left_behind(self, within_s: float = 10.0) -> dict[int, str]:
        """The started processes that still live after they had time to end."""
        deadline = time.monotonic() + within_s
        while (living := marked(self.mark)) and time.monotonic() < deadline:
            time.sleep(0.05)
        return living

    def close(self) -> None:
        """End everything."""
        for process in self._started:
            if process.poll() is None:
                process.terminate()
        deadline = time.monotonic() + 10
        for process in self._started:
            try:
                process.wait(timeout=max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
        for pid in marked(self.mark):
            os.kill(pid, signal.SIGKILL)


@contextmanager
def commands(directory: Path) -> Iterator[Commands]:
    """Commands that end with the block."""
    made = Commands(directory)
    try:
        yield made
    finally:
        made.close()
