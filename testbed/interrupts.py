"""Signals that end a foreground command end it through its clean-up."""

import signal
from types import FrameType
from typing import Self

from wiresum.testbed.errors import RackError

HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(RackError):
    """A signal asked for the end."""

    def __init__(self, number: int) -> None:
        super().__init__(f"ended by {signal.Signals(number).name}")
        self.number = number
        self.exit_code = 128 + number


class Interrupts:
    """While active, these signals raise :class:`Interrupted` in the main thread."""

    def __init__(self) -> None:
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        for number in HANDLED:
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    @staticmethod
    def _handle(number: int, _frame: FrameType | None) -> None:
        raise Interrupted(number)
