"""The handle of a collective of tensors on a device."""

import contextlib
import threading
import time
from collections.abc import Callable
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.futures import Future

from wiresum.common.errors import WiresumError
from wiresum.common.patience import wait_for
from wiresum.host_agent.agent.counters import COUNTERS
from wiresum.host_agent.backend import callbacks, exposed
from wiresum.host_agent.backend.cuda.device import Device, Event, Stream

Tensors = list[torch.Tensor]


class StagedWork(dist.Work):
    """A ``dist.Work`` that ends when the results are on their way to the device.

    ``wait()`` blocks the thread until then, and makes its current stream wait for the copies, which
    is what gloo's works of CUDA tensors do. A future does the same for its callbacks.
    """

    def __init__(
        self,
        name: str,
        outputs: Tensors,
        device: Device,
        limit_s: float,
        late: Callable[[float], WiresumError],
        complete_later: Callable[[Callable[[], None]], None],
    ) -> None:
        """See ``backend.work.SwitchWork``."""
        super().__init__()
        self.name = name
        self._outputs = outputs
        self._device = device
        self._limit_s = limit_s
        self._late = late
        self._complete_later = complete_later
        self._error: BaseException | None = None
        self._stream: Stream | None = None
        self._ready: Event | None = None
        self._done = threading.Event()
        self._began = time.monotonic()
        self.ended_at: float | None = None
        """``time.monotonic()`` of its end."""
        self.when_ended: Callable[[], None] | None = None
        """Called at its end, on the thread that ends it."""
        self._lock = threading.Lock()
        self._raw: Future[Tensors] | None = None
        self._future: Future[Tensors] | None = None

    def end(self, outcome: Stream | BaseException) -> None:
        """End it with an error, or with the stream that has got all of its copies."""
        if isinstance(outcome, BaseException):
            self._error = outcome
        else:
            self._stream, self._ready = outcome, outcome.record()
        self.ended_at = time.monotonic()
        COUNTERS.count_ended(self.ended_at - self._began)
        if self.when_ended is not None:
            self.when_ended()
        with self._lock:
            self._done.set()
            raw = self._raw
        if raw is not None:
            self._complete_later(lambda: self._complete(raw))

    def _complete(self, raw: "Future[Tensors]") -> None:
        if self._stream is None:
            raw.set_result(self._outputs)
            return
        with self._stream.using():  # the future takes its events from here
            raw.set_result(self._outputs)

    def wait(self, timeout: timedelta | None = None) -> bool:
        """Wait until the current stream can wait for the result, and let it.

        ``timeout`` of zero or less means the group's own limit.
        """
        seconds = timeout.total_seconds() if timeout is not None else 0.0
        if seconds <= 0:
            seconds = self._limit_s
        if not self._done.is_set():
            began = time.monotonic()
            ended = wait_for(self._done, seconds)
            exposed.add_wait(time.monotonic() - began)
            if not ended:
                raise self._late(seconds)
        future = self._future
        if future is not None and not future.done():
            with contextlib.suppress(Exception):  # callers take its value now
                future.wait()
        if self._error is not None:
            raise self._error
        if self._ready is not None:
            self._device.current().wait(self._ready)
        return True

    def get_future(self) -> "Future[Tensors]":
        """A future of the list of tensors; it carries the error if there is one."""
        with self._lock:
            if self._future is not None:
                return self._future
            raw: Future[Tensors] = self._device.future()
            # As in SwitchWork: an exception that a callback raises reaches backward().
            self._future = callbacks.chain(raw, self._value)
            callbacks.name_future(self._future, self.name)
            self._raw = raw
            ended, future = self._done.is_set(), self._future
        if ended:
            self._complete(raw)
        return future

    def _value(self, raw: "Future[Tensors]") -> Tensors:
        if self._error is not None:
            raise self._error
        return raw.value()

    def is_completed(self) -> bool:
        """Whether it has ended, well or not: ``wait()`` does not block the thread then."""
        return self._done.is_set()

    def is_success(self) -> bool:
        """Whether it has ended well."""
        return self._done.is_set() and self._error is None

    def exception(self) -> BaseException | None:
        """The error with which it ended, or None."""
        return self._error

    def result(self) -> Tensors:
        """The tensors."""
        return self._outputs

    def synchronize(self) -> None:
        """Same as ``wait()``."""
        self.wait()

    def block_current_stream(self) -> None:
        """Same as ``wait()``: what the stream has to wait for is not on the device before."""
        self.wait()

    def source_rank(self) -> int:
        """Of a receive; meaningless here."""
        return -1
