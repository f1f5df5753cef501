"""Signals that end a foreground command end it through its clean-up."""

import signal
from types import FrameType
from typing import Self

from wiresum.common.signals import TABLE, name_of, server_takes
from wiresum.testbed import lines
from wiresum.testbed.errors import RackError


class Interrupted(RackError):
    """A signal asked for the end."""

    def __init__(self, number: int) -> None:
        super().__init__(lines.INTERRUPTED.of(signal=name_of(number)))
        self.number = number
        self.exit_code = 128 + number


class Interrupts:
    """While active, signals that end a server raise :class:`Interrupted` in the main thread."""

    def __init__(self) -> None:
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        for number in server_takes():
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    @staticmethod
    def _handle(number: int, _frame: FrameType | None) -> None:
        if TABLE[number].ends_server:
            raise Interrupted(number)
