"""Pinned memory for what is on its way between a device and the engine; a bounded amount.

Pinning memory is slow, so it is used again: after the device has done the copy that used it last.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from wiresum.common.patience import Patience
from wiresum.host_agent import lines
from wiresum.host_agent.backend.cuda.device import Event
from wiresum.host_agent.errors import CollectiveTimeout

MOST_BYTES = 64 << 20
"""Of all memory that is lent at a time, but for a single larger piece."""

_LEAST_BYTES = 1 << 16
_LOOKS_S = (2e-5, 5e-4)
"""How soon to look again at a device: at first, and after some time."""


def wait_until(reached: Callable[[], bool], limit_s: float, what: str) -> None:
    """Wait until a device has come to a point. Raises ``CollectiveTimeout`` after ``limit_s``."""
    patience = Patience(limit_s)
    look = _LOOKS_S[0]
    while not reached():
        time.sleep(look)
        if patience.step(look) <= 0:
            raise CollectiveTimeout(lines.DEVICE_LATE.of(what=what, seconds=limit_s))
        look = min(1.5 * look, _LOOKS_S[1])


@dataclass(eq=False)
class Buffer:
    """Memory that is lent until :meth:`Pool.give_back`."""

    memory: torch.Tensor
    after: Event | None = None
    """When the device has done with it."""

    @property
    def idle(self) -> bool:
        """Whether nothing uses it any more."""
        return self.after is None or self.after.done()


class Pool:
    """Lends buffers. Any thread may call the methods."""

    def __init__(self, make: Callable[[int], torch.Tensor], most_bytes: int = MOST_BYTES) -> None:
        """``make`` makes pinned memory of so many bytes."""
        self._make = make
        self._most = most_bytes
        self._free: list[Buffer] = []
        self._lent = 0
        self._lock = threading.Lock()

    def take(self, size: int) -> Buffer | None:
        """Memory of at least ``size`` bytes; None while there is no room."""
        whole = max(_LEAST_BYTES, 1 << (size - 1).bit_length()) if size else _LEAST_BYTES
        with self._lock:
            for buffer in self._free:
                if len(buffer.memory) == whole and buffer.idle:
                    self._free.remove(buffer)
                    self._lent += whole
                    return buffer
            while self._held + whole > self._most:
                old = next((each for each in self._free if each.idle), None)
                if old is None:
                    break
                self._free.remove(old)
            if self._held and self._held + whole > self._most:
                return None
            made = Buffer(self._make(whole))
            self._lent += whole
            return made

    def give_back(self, buffer: Buffer, after: Event | None = None) -> None:
        """Lend it again once the device has come past ``after``."""
        buffer.after = after
        with self._lock:
            self._lent -= len(buffer.memory)
            self._free.append(buffer)

    @property
    def _held(self) -> int:
        return self._lent + sum(len(each.memory) for each in self._free)

    @property
    def held(self) -> int:
        """Bytes, lent or kept."""
        with self._lock:
            return self._held
