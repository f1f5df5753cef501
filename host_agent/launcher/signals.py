"""Signals of a launcher: passed on to its command while it has one, else they end the launcher.

What each signal does is in :mod:`wiresum.common.signals`.
"""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from types import FrameType
from typing import Self

from wiresum.common.children.process import Supervised
from wiresum.common.errors import WiresumError
from wiresum.common.signals import TABLE, Kind, launcher_takes, name_of
from wiresum.host_agent import lines

_AGAIN_S = 5.0
_GRACE_S = 30.0


class Interrupted(WiresumError):
    """Raised for a signal that came while there was no child."""

    def __init__(self, number: int) -> None:
        super().__init__(lines.INTERRUPTED.of(signal=name_of(number)))
        self.exit_code = 128 + number


class Signals:
    """While active, signals go to the child; before there is one, they end the launcher.

    The first one that ends it raises :class:`Interrupted` in the main thread; those after it must
    not disturb the end.
    """

    def __init__(self) -> None:
        self.child: Supervised | None = None
        self.over = False
        """Set once further signals are too late to matter."""
        self._held: list[int] | None = None
        self._raised_at = -_AGAIN_S
        self._asked_at = -_GRACE_S
        self._before: dict[int, object] = {}
        self._mask: set[int | signal.Signals] = set()

    def __enter__(self) -> Self:
        if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
            # The parent may have set SIGCHLD to be ignored; we need our child's status.
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number in launcher_takes():
            self._before[number] = signal.signal(number, self._handle)
        self._mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, self._before)
        return self

    def __exit__(self, *_: object) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    @contextlib.contextmanager
    def starting(self) -> Iterator[set[int | signal.Signals]]:
        """While a child is started: signals wait for it. The mask that it shall begin with."""
        self._held = []
        try:
            yield self._mask
        finally:
            held, self._held = self._held, None
            for number in held:
                self._handle(number, None)

    @property
    def ending(self) -> bool:
        """Whether the command was asked to end a short time ago.

        A scheduler asks every process of a job at the same time: what is embedded may be gone
        before the command has saved its work.
        """
        return time.monotonic() - self._asked_at < _GRACE_S

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self._held is not None:
            self._held.append(number)
            return
        rule = TABLE[number]
        if self.child is not None:
            self.child.pass_on(number)
            if rule.kind is Kind.END:
                self._asked_at = time.monotonic()
        elif rule.ends_launcher and not self.over and self._raised_at + _AGAIN_S < time.monotonic():
            # Nothing may disturb the end. But Python drops exceptions of a __del__.
            self._raised_at = time.monotonic()
            raise Interrupted(number)
        if rule.kind is Kind.STOP:
            self._stop(number)

    def _stop(self, number: int) -> None:
        """Stop as if there were no handler: the kernel decides whether anything can continue us.

        The command has stopped already: a shell that sees this process stopped can continue both.
        """
        if self.child is not None:
            self.child.stops()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        signal.signal(number, self._handle)
