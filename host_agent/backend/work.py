"""The handle of an all-reduce in flight over the switch."""

import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.futures import Future

from wiresum.common.errors import WiresumError
from wiresum.host_agent.backend import exposed
from wiresum.host_agent.backend.counters import COUNTERS

Tensors = list[torch.Tensor]


class SwitchWork(dist.Work):
    """A ``dist.Work`` over one or more tickets of the engine.

    C++ sees ``wait`` and ``get_future`` only. Both report a failure: ``wait`` raises the typed
    error, the future carries it (DDP raises it from ``backward()``).
    """

    def __init__(
        self,
        outputs: Tensors,
        copies: Sequence[tuple[torch.Tensor, torch.Tensor]],
        limit_s: float,
        late: Callable[[float], WiresumError],
        complete_later: Callable[[Callable[[], None]], None],
    ) -> None:
        """Made by the core before the engine starts.

        ``outputs``: the caller's tensors. ``copies``: (where the engine works, where it belongs)
        for tensors that the engine cannot work on in place. ``limit_s``: how long ``wait()``
        waits when it is given no timeout. ``late``: the error to raise after so many seconds.
        ``complete_later``: runs a function on a thread on which user callbacks may block.
        """
        super().__init__()
        self._outputs = outputs
        self._copies = copies
        self._limit_s = limit_s
        self._late = late
        self._complete_later = complete_later
        self._buffers: Tensors = []
        self._tickets_left = 0
        self._error: BaseException | None = None
        self._done = threading.Event()
        self._began = time.monotonic()
        self.ended_at: float | None = None
        """``time.monotonic()`` of its end."""
        self._lock = threading.Lock()
        self._raw: Future[Tensors] | None = None
        self._future: Future[Tensors] | None = None

    def keep_alive(self, buffers: Tensors) -> None:
        """Memory that the engine works on until the last ticket has ended."""
        self._buffers = buffers

    def expect(self, tickets: int) -> None:
        """How many tickets end this work. Called once, before any of them is reported here."""
        self._tickets_left = tickets
        if tickets == 0:
            self._finish()

    def ticket_ended(self, error: BaseException | None) -> None:
        """One ticket ended, with this error or well."""
        with self._lock:
            if error is not None and self._error is None:
                self._error = error
            self._tickets_left -= 1
            last = self._tickets_left == 0
        if last:
            self._finish()

    def _finish(self) -> None:
        if self._error is None:
            try:
                for source, target in self._copies:
                    target.detach().copy_(source)
            except Exception as error:  # an overlapping target, for one
                self._error = error
        self._copies = ()
        self._buffers = []
        self.ended_at = time.monotonic()
        COUNTERS.count_ended(self.ended_at - self._began)
        with self._lock:
            self._done.set()
            raw = self._raw
        if raw is not None:
            self._complete(raw)

    def _complete(self, raw: "Future[Tensors]") -> None:
        # Callbacks run inline in set_result and may block on other collectives: never on the
        # poller's thread.
        self._complete_later(lambda: raw.set_result(self._outputs))

    def wait(self, timeout: timedelta | None = None) -> bool:
        """Wait for the sum; ``timeout`` of zero or less means the group's own limit."""
        seconds = timeout.total_seconds() if timeout is not None else 0.0
        if seconds <= 0:
            seconds = self._limit_s
        if not self._done.is_set():
            began = time.monotonic()
            ended = self._done.wait(min(seconds, threading.TIMEOUT_MAX))
            exposed.add_wait(time.monotonic() - began)
            if not ended:
                raise self._late(seconds)
        if self._error is not None:
            raise self._error
        return True

    def get_future(self) -> "Future[Tensors]":
        """A future of the list of tensors; it carries the error if there is one."""
        with self._lock:
            if self._future is None:
                raw: Future[Tensors] = Future()
                # Future.set_exception crashes DDP (torch 2.13 and 2.15); an exception raised in a
                # callback of the raw future surfaces from backward() as it should.
                self._future = raw.then(self._value)
                self._raw = raw
                ended = self._done.is_set()
            else:
                return self._future
        if ended:
            self._complete(raw)
        return self._future

    def _value(self, raw: "Future[Tensors]") -> Tensors:
        if self._error is not None:
            raise self._error
        return raw.value()

    def is_completed(self) -> bool:
        """Whether it has ended, well or not."""
        return self._done.is_set()

    def is_success(self) -> bool:
        """Whether it has ended well."""
        return self._done.is_set() and self._error is None

    def exception(self) -> BaseException | None:
        """What it ended with, if it ended badly."""
        return self._error

    def result(self) -> Tensors:
        """The tensors."""
        return self._outputs

    def synchronize(self) -> None:
        """Same as ``wait()``: there is no stream to order."""
        self.wait()

    def source_rank(self) -> int:
        """Meaningless for an all-reduce."""
        return -1
