"""Runs ``wiresum switch serve`` as a process of its own, for tests of ports and P4Runtime."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any, Self

LIMIT_S = 60.0
SERVE = (sys.executable, "-m", "wiresum.softswitch")


class SwitchProcess:
    """A switch that serves; ``facts`` is its ready line. Ends with the ``with`` block.

    ``prefix``: a command that the switch is run by (``ip netns exec NAME``).
    """

    def __init__(self, *options: str, prefix: Sequence[str] = ()) -> None:
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - lives as long as the switch
        self.process = subprocess.Popen(
            [*prefix, *SERVE, "--exit-with-parent", *options],
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.close()
            raise AssertionError(f"the switch did not start: {self.log()}")
        self.facts: dict[str, Any] = json.loads(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def p4runtime(self) -> str:
        address = self.facts["p4runtime"]
        assert isinstance(address, str)
        return address

    def udp(self, number: int) -> tuple[str, int]:
        """Where a udp port is."""
        _, host, port = self.facts["ports"][str(number)].split(":")
        return host, int(port)

    def log(self) -> str:
        """The stderr of the switch."""
        return os.pread(self._log.fileno(), 1 << 20, 0).decode()

    def stats(self) -> dict[str, dict[str, int]]:
        """The ports' counters: the switch writes them to its log when it is asked to."""
        before = len(self._stats_lines())
        self.process.send_signal(signal.SIGUSR1)
        limit = time.monotonic() + LIMIT_S
        while len(lines := self._stats_lines()) == before:
            assert time.monotonic() < limit, "no statistics"
            assert self.process.poll() is None, self.log()
            time.sleep(0.005)
        stats: dict[str, dict[str, int]] = json.loads(lines[-1])
        return stats

    def _stats_lines(self) -> list[str]:
        return re.findall(r"^\S+ \S+ wiresum\.switch: (\{.*\})\n", self.log(), re.M)

    def close(self) -> None:
        """End the switch; it must end by itself when asked."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            if self.process.stdout is not None:
                self.process.stdout.close()
