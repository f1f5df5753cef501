"""The losses that a script reports, for those in this process who listen. It needs no torch."""

from collections.abc import Callable
from typing import Any

Listener = Callable[[float], None]

_listeners: list[Listener] = []


def report(loss: Any) -> None:
    """See :func:`wiresum.report`."""
    if not _listeners:
        return
    value = float(loss.detach() if hasattr(loss, "detach") else loss)
    for listener in _listeners:
        listener(value)


def listen(listener: Listener) -> None:
    """Call ``listener`` with each loss from now on, in the thread that reports it."""
    _listeners.append(listener)
