"""Two hosts and a switch in network namespaces of their own, joined by veth pairs."""

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

LIMIT_S = 30
MACS = {1: bytes.fromhex("020000000001"), 2: bytes.fromhex("020000000002")}


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=LIMIT_S)


def why_not() -> str | None:
    """Why this machine cannot make namespaces."""
    if os.geteuid() != 0:
        return "needs root to make network namespaces"
    if not shutil.which("ip"):
        return "needs the command ip"
    probe = f"wiresum-probe-{os.getpid()}"
    try:
        ip("netns", "add", probe)
        ip("netns", "del", probe)
    except subprocess.CalledProcessError as error:
        return f"cannot make network namespaces: {error.stderr.decode().strip()}"
    return None


class Lab:
    """Namespaces: a switch between host 1 (10.0.0.1) and host 2 (10.0.0.2)."""

    def __init__(self, folder: Path) -> None:
        self.tag = f"wsr{os.getpid()}"
        self.folder = folder
        self.namespaces = [f"{self.tag}-{name}" for name in ("sw", "1", "2")]

    def build(self) -> None:
        for name in self.namespaces:
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        switch = self.namespaces[0]
        for number in (1, 2):
            host = self.namespaces[number]
            ip("-n", switch, "link", "add", f"s{number}", "type", "veth", "peer", "name", "eth0",
               "netns", host)  # fmt: skip
            mac = ":".join(f"{byte:02x}" for byte in MACS[number])
            ip("-n", host, "link", "set", "eth0", "address", mac)
            ip("-n", host, "addr", "add", f"10.0.0.{number}/24", "dev", "eth0")
            ip("-n", host, "link", "set", "eth0", "up")
            ip("-n", switch, "link", "set", f"s{number}", "up")

    def remove(self) -> None:
        for name in self.namespaces:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, timeout=LIMIT_S)

    def enter(self, number: int) -> tuple[str, ...]:
        """The prefix that runs a command on host 1 or 2, or on the switch (0)."""
        return ("ip", "netns", "exec", self.namespaces[number])

    def start(self, number: int, script: str) -> subprocess.Popen[str]:
        """Start a Python script on a host."""
        command = [*self.enter(number), sys.executable, "-c", textwrap.dedent(script)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def exchange(self, receiver: str, sender: str) -> str:
        """Run ``receiver`` on host 2; when it has printed a line, ``sender`` on host 1.

        Returns the receiver's output after that line.
        """
        with self.start(2, receiver) as second:
            assert second.stdout is not None
            try:
                assert second.stdout.readline() == "ready\n"
                with self.start(1, sender) as first:
                    first.communicate(timeout=LIMIT_S)
                assert first.returncode == 0
                out, _ = second.communicate(timeout=LIMIT_S)
            finally:
                second.kill()
        assert second.returncode == 0
        return out
