"""The device as torch's CUDA (or ROCm, which torch calls the same)."""

import functools
import importlib.util
import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch.futures import Future

from wiresum.host_agent.backend.cuda.device import Event, Stream
from wiresum.host_agent.backend.cuda.kernels import Kernels, TorchKernels

log = logging.getLogger("wiresum")

CAPTURED = "a CUDA graph is being captured, and it has no operations of the host"


class TorchEvent:
    """An event that keeps no time."""

    def __init__(self, stream: torch.cuda.Stream) -> None:
        self.event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self.event.record(stream)

    def done(self) -> bool:
        """Whether the stream has come past it."""
        return bool(self.event.query())  # type: ignore[no-untyped-call]


class TorchStream:
    """A stream of torch."""

    def __init__(self, stream: torch.cuda.Stream) -> None:
        self.stream = stream

    def using(self) -> AbstractContextManager[object]:
        """Make it the current one."""
        return torch.cuda.stream(self.stream)

    def record(self) -> Event:
        """The point after all that it has got."""
        return TorchEvent(self.stream)

    def wait(self, event: Event) -> None:
        """Go on after ``event``."""
        assert isinstance(event, TorchEvent)
        self.stream.wait_event(event.event)

    def keep(self, tensor: torch.Tensor) -> None:
        """Tell the caching allocator that this stream uses the memory, too."""
        tensor.record_stream(self.stream)


class TorchDevice:
    """One GPU."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def current(self) -> Stream:
        """The current stream of this thread."""
        return TorchStream(torch.cuda.current_stream(self.device))

    def stream(self) -> Stream:
        """A stream beside the others, of their priority."""
        return TorchStream(torch.cuda.Stream(self.device))  # type: ignore[no-untyped-call]

    def pinned(self, size: int) -> torch.Tensor:
        """Pinned memory, from torch's cache of it."""
        return torch.empty(size, dtype=torch.uint8, device="cpu", pin_memory=True)

    def copy(self, target: torch.Tensor, source: torch.Tensor) -> None:
        """Copy on the current stream."""
        target.copy_(source, non_blocking=True)

    def future(self) -> Any:
        """A future with this device's events."""
        return Future(devices=[self.device])

    def kernels(self) -> Kernels:
        """Triton's where it is installed."""
        return kernels_for(self.device)


class TorchDevices:
    """All GPUs of this process."""

    def __init__(self) -> None:
        self._known: dict[torch.device, TorchDevice] = {}

    def of(self, tensors: Sequence[torch.Tensor]) -> TorchDevice | None:
        """The GPU of these tensors."""
        device = next((each.device for each in tensors if each.device.type != "cpu"), None)
        if device is None:
            return None
        return self._known.setdefault(device, TorchDevice(device))

    def why_not(self, tensors: Sequence[torch.Tensor]) -> str | None:
        """They cannot while a CUDA graph is captured."""
        if self.of(tensors) is not None and torch.cuda.is_current_stream_capturing():
            return CAPTURED
        return None


@functools.cache
def kernels_for(device: torch.device) -> Kernels:
    """The fastest kernels for that device that this environment has."""
    if importlib.util.find_spec("triton") is None:
        log.warning(
            "wiresum: %s quantizes with operations of torch, as triton is not installed: "
            "pip install 'wiresum[cuda]' makes it faster, with the same bits", device,
        )  # fmt: skip
        return TorchKernels()
    from wiresum.host_agent.backend.cuda.triton_kernels import TritonKernels

    return TritonKernels()
