"""A device whose streams run by themselves, as this package needs it.

:mod:`.torch_device` is torch's CUDA; tests have one whose streams are threads that take their time.
An operation goes to the *current* stream of the thread that calls it, and happens later; operations
of one stream happen in their order. What else must come first is said with events.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch


class Event(Protocol):
    """A point of a stream."""

    def done(self) -> bool:
        """Whether the stream has come past it. Returns at once."""


class Stream(Protocol):
    """Operations one after the other."""

    def using(self) -> AbstractContextManager[object]:
        """While it is entered, this stream is the current one of the thread."""

    def record(self) -> Event:
        """The point after all operations that the stream has got so far."""

    def wait(self, event: Event) -> None:
        """What the stream gets from now on happens after ``event``. Returns at once."""

    def keep(self, tensor: torch.Tensor) -> None:
        """Give the memory of ``tensor`` to nobody before the stream has come past this point."""


class Device(Protocol):
    """One device."""

    def current(self) -> Stream:
        """The current stream of this thread."""

    def stream(self) -> Stream:
        """A stream of its own."""

    def pinned(self, size: int) -> torch.Tensor:
        """Bytes of the host's memory that the device copies to and from by itself."""

    def copy(self, target: torch.Tensor, source: torch.Tensor) -> None:
        """Copy between the host's pinned memory and the device. Returns at once.

        Both are contiguous, and have the same elements.
        """

    def future(self) -> Any:
        """A ``torch.futures.Future`` of tensors on this device.

        Its callbacks, and streams that wait for it, come after what the current stream has got when
        it is completed.
        """

    def kernels(self) -> Any:
        """The kernels of the codec for this device: see :mod:`.kernels`."""


class Devices(Protocol):
    """The devices of this process."""

    def of(self, tensors: Sequence[torch.Tensor]) -> Device | None:
        """The device of these tensors, all of which are on one; None for the host's memory."""

    def why_not(self, tensors: Sequence[torch.Tensor]) -> str | None:
        """Why their elements cannot pass through the host's memory now; None if they can."""
