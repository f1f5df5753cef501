"""A shell with job control in a pseudo terminal, for tests of keyboard input."""

import os
import pty
import select
import signal
import subprocess
import time
from collections.abc import Mapping
from typing import Self

LIMIT_S = 120.0
PROMPT = "ready$ "
CTRL_C, CTRL_Z, CTRL_BACKSLASH = "\x03", "\x1a", "\x1c"

# The first terminal that the leader of a session opens becomes the session's own.
SHELL = """
exec <"$0" >"$0" 2>&1
exec env PS1="$1" bash --norc --noprofile --noediting -i
"""


class Terminal:
    """An interactive bash. Use as a context manager."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._said = b""
        # Not pty.fork(): gRPC's threads in the test's process do not survive a fork of Python's.
        self._fd, terminal = pty.openpty()
        try:
            self._process = subprocess.Popen(
                ["sh", "-c", SHELL, os.ttyname(terminal), PROMPT],
                env={**env, "TERM": "dumb", "HISTFILE": ""},
                start_new_session=True,
            )
            self.wait_for(PROMPT)  # until then, nobody else may have opened it
        finally:
            os.close(terminal)
        self.line("stty -echo")
        self.wait_for(PROMPT)

    def line(self, text: str) -> None:
        """Type a line."""
        self.keys(f"{text}\n")

    def keys(self, text: str) -> None:
        """Type."""
        os.write(self._fd, text.encode())

    def interrupt(self, text: str) -> None:
        """Type Ctrl-C until ``text`` is on the screen.

        A Python that is about to read has seen no signal yet, and sees it after the next one.
        """
        deadline = time.monotonic() + LIMIT_S
        while True:
            self.keys(CTRL_C)
            try:
                self.wait_for(text, 5.0)
                return
            except AssertionError:
                if time.monotonic() > deadline:
                    raise

    def wait_for(self, text: str, limit_s: float = LIMIT_S) -> str:
        """Wait for ``text`` on the screen; remove and return the screen up to it."""
        deadline = time.monotonic() + limit_s
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
        return self._process.pid

    def hang_up(self) -> None:
        """Take the line away, as a closed window does."""
        os.close(self._fd)
        self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # Jobs of this shell are in sessions' process groups of their own: a hang-up ends them all.
        self._process.send_signal(signal.SIGHUP)
        if self._fd >= 0:
            self.hang_up()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
