"""A device on the host: its memory is the host's, its streams are threads that take their time.

What runs on a stream happens later, after a random time, and in the meantime its result holds
garbage. So what is read without having waited for the right event, written too early, or given
back while it is still in use comes out wrong. The default stream of a thread is the thread itself.
"""

import contextlib
import queue
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.futures import Future
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from wiresum.host_agent.backend.cuda.kernels import TorchKernels

LIMIT_S = 60.0
GARBAGE = 0x5A

_here = threading.local()


class SimulatedEvent:
    def __init__(self) -> None:
        self.reached = threading.Event()

    def done(self) -> bool:
        return self.reached.is_set()


class Inline:
    """The thread itself."""

    @contextlib.contextmanager
    def using(self) -> Iterator[None]:
        yield

    def record(self) -> SimulatedEvent:
        event = SimulatedEvent()
        event.reached.set()
        return event

    def wait(self, event: SimulatedEvent) -> None:
        assert event.reached.wait(LIMIT_S), "the event is never reached"

    def keep(self, tensor: torch.Tensor) -> None:
        pass


class SimulatedStream:
    def __init__(self, device: "SimulatedDevice", seed: int) -> None:
        self._device = device
        self._random = random.Random(seed)
        self._queue: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._kept: dict[int, Any] = {}
        self._used: dict[int, Any] = {}
        self.failed: list[BaseException] = []
        self.started = threading.Event()
        """Set when it does something for the first time."""
        self.hold: Callable[[], object] = lambda: None
        """Called before that."""
        self.late_s: float | None = None
        """How late each operation is; None: random."""
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while (job := self._queue.get()) is not None:
            try:
                job()
            except BaseException as error:
                self.failed.append(error)

    def put(self, operation: Callable[[], Any]) -> None:
        """Do it after some time."""
        delay = self.late_s
        if delay is None:
            delay = self._random.choice((0, 0, 0, 1, 3)) * self._device.delay_s

        def run() -> None:
            if not self.started.is_set():
                self.hold()
            time.sleep(delay)
            self.started.set()
            with torch.inference_mode(), torch.no_grad():
                operation()

        self._queue.put(run)

    @contextlib.contextmanager
    def using(self) -> Iterator[None]:
        before = getattr(_here, "stream", None)
        _here.stream = self
        try:
            with _Queued(self):
                yield
        finally:
            _here.stream = before

    def record(self) -> SimulatedEvent:
        event = SimulatedEvent()
        self._queue.put(event.reached.set)
        return event

    def wait(self, event: SimulatedEvent) -> None:
        self._queue.put(lambda: Inline().wait(event))

    def drain(self) -> None:
        """Wait for all that it has got."""
        Inline().wait(self.record())

    def keep(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        self._kept[storage.data_ptr()] = storage

    def own(self, tensor: torch.Tensor) -> None:
        """Memory that was made on this stream."""
        self.keep(tensor)

    def touch(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        self._used[storage.data_ptr()] = storage

    def strays(self) -> int:
        """How many memories of others it has used that nobody has kept for it."""
        strange = self._used.keys() - self._kept.keys() - self._device.on_host.keys()
        return len([each for each in strange if self._used[each].nbytes()])


class _Queued(TorchDispatchMode):
    """Operations go to a stream."""

    def __init__(self, stream: SimulatedStream) -> None:
        super().__init__()
        self._stream = stream

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # true would import Dynamo, for which nobody asks here

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        stream = self._stream
        schema = func._schema
        if func.namespace == "c10d":
            return func(*args, **kwargs)
        with self:  # under inference mode, operations that consist of others come whole
            parts = func.decompose(*args, **kwargs)
        if parts is not NotImplemented:
            return parts
        given = [each for each in tree_flatten((args, kwargs))[0] if isinstance(each, torch.Tensor)]
        returned = schema.returns
        if schema.is_mutable:
            for each in given:
                stream.touch(each)
            stream.put(lambda: func(*args, **kwargs))
            return kwargs["out"] if "out" in kwargs else args[0]
        if any(each.alias_info is not None for each in returned) or not returned:
            return func(*args, **kwargs)  # a view
        for each in given:
            stream.touch(each)
        if "Tensor" not in str(returned[0].type):
            stream.drain()  # a number of Python
            return func(*args, **kwargs)
        if "empty" in func.__name__ and not given:
            made = func(*args, **kwargs)
            stream.own(made)
            return made
        if func.__name__.split(".")[0] in ("nonzero", "repeat_interleave", "masked_select"):
            stream.drain()  # its size depends on the elements
        made = func(*args, **kwargs)
        assert isinstance(made, torch.Tensor), func
        stream.own(made)
        if "empty" not in func.__name__:
            made.view(-1)[:].view(torch.uint8).fill_(GARBAGE) if made.is_contiguous() else None
            stream.put(lambda: made.copy_(func(*args, **kwargs)))
        return made


class SimulatedDevice:
    """One device. Give all of its tensors' collectives to it: they look like any others."""

    def __init__(self, seed: int = 0, delay_s: float = 0.001) -> None:
        self._random = random.Random(seed)
        self.delay_s = delay_s
        self.late_s: Sequence[float | None] = ()
        """Of the streams, in the order in which they are made."""
        self.holds: Sequence[Callable[[], object]] = ()
        self.streams: list[SimulatedStream] = []
        self.on_host: dict[int, Any] = {}
        self.copied_bytes = 0

    def current(self) -> Any:
        return getattr(_here, "stream", None) or Inline()

    def stream(self) -> SimulatedStream:
        made = SimulatedStream(self, self._random.randrange(1 << 30))
        self.streams.append(made)
        if len(self.streams) <= len(self.late_s):
            made.late_s = self.late_s[len(self.streams) - 1]
        if len(self.streams) <= len(self.holds):
            made.hold = self.holds[len(self.streams) - 1]
        return made

    def pinned(self, size: int) -> torch.Tensor:
        made = torch.full((size,), GARBAGE, dtype=torch.uint8)
        storage = made.untyped_storage()
        self.on_host[storage.data_ptr()] = storage
        return made

    def copy(self, target: torch.Tensor, source: torch.Tensor) -> None:
        assert target.is_contiguous()
        assert source.is_contiguous()
        assert target.dtype == source.dtype
        assert target.shape == source.shape
        on_host = [e.untyped_storage().data_ptr() in self.on_host for e in (target, source)]
        assert sum(on_host) == 1 or not target.numel(), "one side is the host's pinned memory"
        self.copied_bytes += target.nbytes
        target.copy_(source)

    def future(self) -> Any:
        return Future()

    def kernels(self) -> Any:
        return TorchKernels()

    def check(self) -> None:
        """Nothing failed on a stream, and each has used only memory that is kept for it."""
        for stream in self.streams:
            stream.drain()
            if stream.failed:
                raise stream.failed[0]
            assert stream.strays() == 0, "memory is used on a stream that it is not kept for"

    def close(self) -> None:
        for stream in self.streams:
            stream._queue.put(None)


class SimulatedDevices:
    """All tensors are on one device."""

    def __init__(self, device: SimulatedDevice) -> None:
        self.device = device
        self.reason: str | None = None

    def of(self, tensors: Sequence[torch.Tensor]) -> SimulatedDevice | None:
        return self.device if tensors else None

    def why_not(self, tensors: Sequence[torch.Tensor]) -> str | None:
        return self.reason
