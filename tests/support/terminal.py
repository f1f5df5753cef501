"""A shell with job control in a pseudo terminal, for tests of keyboard input."""

import contextlib
import os
import pty
import select
import signal
import time
from collections.abc import Mapping
from typing import Self

LIMIT_S = 120.0
PROMPT = "ready$ "
CTRL_C, CTRL_Z, CTRL_BACKSLASH = "\x03", "\x1a", "\x1c"


class Terminal:
    """An interactive bash. Use as a context manager."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._said = b""
        self._pid, self._fd = pty.fork()
        if self._pid == 0:
            shell = {**env, "PS1": PROMPT, "TERM": "dumb", "HISTFILE": ""}
            os.execvpe("bash", ["bash", "--norc", "--noprofile", "--noediting", "-i"], shell)
        self.wait_for(PROMPT)
        self.line("stty -echo")
        self.wait_for(PROMPT)

    def line(self, text: str) -> None:
        """Type a line."""
        self.keys(f"{text}\n")

    def keys(self, text: str) -> None:
        """Type."""
        os.write(self._fd, text.encode())

    def wait_for(self, text: str) -> str:
        """Wait for ``text`` on the screen; remove and return the screen up to it."""
        deadline = time.monotonic() + LIMIT_S
        while text.encode() not in self._said:
            left = deadline - time.monotonic()
            assert left > 0, f"no {text!r} on the screen: {self._said.decode(errors='replace')}"
            if select.select([self._fd], [], [], min(left, 1.0))[0]:
                try:
                    self._said += os.read(self._fd, 65536)
                except OSError:
                    raise AssertionError(
                        f"no {text!r}, the shell has gone: {self._said!r}"
                    ) from None
        before, _, self._said = self._said.partition(text.encode())
        return before.decode(errors="replace")

    @property
    def foreground(self) -> int:
        """The process group that the terminal belongs to now."""
        return os.tcgetpgrp(self._fd)

    @property
    def shell(self) -> int:
        """The shell's pid, which is its process group's, too."""
        return self._pid

    def hang_up(self) -> None:
        """Take the line away, as a closed window does."""
        os.close(self._fd)
        self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # Jobs of this shell are in sessions' process groups of their own: a hang-up ends them all.
        with contextlib.suppress(OSError):
            os.kill(self._pid, signal.SIGHUP)
        if self._fd >= 0:
            self.hang_up()
        deadline = time.monotonic() + 20
        while os.waitpid(self._pid, os.WNOHANG) == (0, 0):
            if time.monotonic() > deadline:
                os.kill(self._pid, signal.SIGKILL)
                deadline += 1000
            time.sleep(0.05)
