"""A rack that a process of its own holds, as users have it."""

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.processes import Commands

LIMIT_S = 60.0


@dataclass
class Up:
    """A rack that ``wiresum testbed up`` holds; ``facts`` is its ready line."""

    cli: Commands
    name: str
    process: subprocess.Popen[str]
    facts: dict[str, Any]

    def enter(self, node: str) -> list[str]:
        """The prefix that runs a command on a node."""
        return [*self.cli.wiresum, "testbed", "exec", "--name", self.name, node, "--"]

    def on(self, node: str, *command: str, limit_s: float = LIMIT_S) -> str:
        """The output of a command on a node; the command must succeed."""
        done = subprocess.run(
            [*self.enter(node), *command], env=self.cli.env, cwd=self.cli.directory,
            capture_output=True, text=True, timeout=limit_s,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self, node: str, *command: str) -> subprocess.Popen[str]:
        """Start a command on a node."""
        return self.cli.popen([*self.enter(node), *command])

    def record(self) -> dict[str, Any]:
        """Its record as it is now."""
        path = Path(self.facts["logs"]) / "rack.json"
        return dict(json.loads(path.read_text()))

    def switch(self) -> dict[str, Any]:
        """The switch as the controller sees it."""
        (only,) = json.loads(self.on("w0", "wiresum", "switch", "list", "--json"))
        return dict(only)


def namespaces(name: str) -> list[str]:
    """The named network namespaces of a rack."""
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
    return [line for line in listed.stdout.splitlines() if line.startswith(f"wiresum-{name}-")]


def wait_for(condition: Callable[[], bool], what: str, limit_s: float = LIMIT_S) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(0.05)
