"""The handle of a collective in flight over the switch."""

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
import torch.distributed as dist
from torch.futures import Future

from wiresum.common.errors import WiresumError
from wiresum.common.patience import wait_for
from wiresum.host_agent.agent.counters import COUNTERS
from wiresum.host_agent.backend import callbacks, exposed
from wiresum.host_agent.backend.plans import Piece
from wiresum.host_agent.backend.tensors import Copies, copy_back, size_of

Tensors = list[torch.Tensor]
Ranges = Sequence[tuple[int, int]]


class Span(NamedTuple):
    """Elements of a piece."""

    memory: torch.Tensor
    reads: bool
    """Whether this rank gets their sum: else they stay as they are."""


@runtime_checkable
class Prompt(Protocol):
    """An engine in which the thread that needs a collective can wait for its end: see ``Relay``."""

    def await_end(self, first: int, count: int, timeout_s: float, leave: bool) -> bool:
        """Wait a little for pieces by their tickets; whether all have their results."""

    def flush(self) -> None:
        """Let ``poll`` report what has ended."""


FEW_BYTES = 1 << 16
"""Of memory that may be kept for a moment longer than it is needed."""

SOON_S = 0.02
"""How long a wait in the engine may be, which cannot be interrupted."""


Repair = Callable[[Sequence[Span], Callable[[BaseException | None], None]], None]
"""Sums these over the ranks, then calls the function with the outcome."""


class Owner(Protocol):
    """What works ask for: the router that carries them."""

    def late(self, seconds: float) -> WiresumError:
        """The error to raise after so many seconds."""

    def complete_later(self, job: Callable[[], None]) -> None:
        """Run a function on a thread on which user callbacks may block."""

    def repair(
        self,
        work: "SwitchWork",
        spans: Sequence[Span],
        done: Callable[[BaseException | None], None],
    ) -> None:
        """Sum what the engine left because of Inf or NaN, then call ``done`` with the outcome."""


class Limits(Protocol):
    """What knows the limit of a collective: the router of its group."""

    def limit_of(self, options: Any) -> float:
        """How long ``wait()`` waits for a collective of these options, seconds."""


class SwitchWork(dist.Work):
    """A ``dist.Work`` over one or more tickets of the engine.

    C++ sees ``wait`` and ``get_future`` only. Both report a failure: ``wait`` raises the typed
    error, the future carries it (DDP raises it from ``backward()``).
    """

    # What most works never change is not set for each.
    _first_ticket = 0
    _tickets = _tickets_left = 0
    _nonfinite: dict[int, Ranges] | None = None
    _error: BaseException | None = None
    _over = False
    _known = False  # to have its results, before `_finish` was called
    _done: threading.Event | None = None  # for a thread that waits, from then on
    _raw: "Future[Tensors] | None" = None
    _future: "Future[Tensors] | None" = None
    prompt: Prompt | None = None
    """The engine, if one can wait in it; set before :meth:`expect` is called."""
    ended_at: float | None = None
    """``time.monotonic()`` of its end."""
    when_ended: Callable[[], None] | None = None
    """Called at its end, on the thread that ends it; set before the engine starts."""

    def __init__(
        self,
        owner: Owner,
        limits: Limits,
        name: str,
        outputs: Tensors,
        pieces: Sequence[Piece],
        options: Any,
        *,
        average: bool = False,
        memory: torch.Tensor | None = None,
    ) -> None:
        """Made by the router before the engine starts.

        ``name`` is the same on all ranks. ``outputs``: the caller's tensors. ``pieces``: what the
        engine works on, a ticket each; ``memory``: where a piece without memory lies.
        ``options``: the caller's. ``average``: whether it makes means.
        """
        super().__init__()
        self._owner = owner
        self._limits = limits
        self.name = name
        self._outputs = outputs
        self._copies: Copies = []
        self._pieces = pieces
        self._options = options
        self.average = average
        self._memory = memory
        self._began = time.monotonic()
        self._lock = threading.Lock()

    def copy_in_the_end(self, copies: Copies) -> None:
        """What to copy once all pieces have ended."""
        self._copies = copies

    def expect(self, tickets: Sequence[int]) -> None:
        """Set the tickets that end this work, one a piece, before any of them is reported."""
        self._tickets_left = len(tickets)
        if self._copies or self.when_ended is not None:
            self.prompt = None  # more is to be done in the end, by the thread that ends works
        if tickets:
            self._first_ticket = tickets[0]
            self._tickets = len(tickets)  # last: another thread may be in `_ends_soon` by now
        else:
            self._finish(None)

    def ticket_ended(self, ticket: int, error: BaseException | None, nonfinite: Ranges) -> None:
        """Note the end of one ticket: with this error, or well except for these elements."""
        with self._lock:
            # What somebody has seen end well stays so, whatever ends the thread that tells of it.
            if error is not None and self._error is None and not self._known:
                self._error = error
            if nonfinite:
                if self._nonfinite is None:
                    self._nonfinite = {}
                self._nonfinite[ticket - self._first_ticket] = nonfinite
            self._tickets_left -= 1
            last = self._tickets_left == 0
        if not last:
            return
        if self._error is not None or not self._nonfinite:
            self._finish(self._error)
            return
        spans = []
        for index, ranges in sorted(self._nonfinite.items()):
            piece = self._pieces[index]
            memory = self._memory if piece.memory is None else piece.memory
            assert memory is not None
            flat = memory.view(-1)
            spans += [Span(flat[first : first + count], piece.reads) for first, count in ranges]
        try:
            self._owner.repair(self, spans, self._finish)
        except Exception as failure:
            self._finish(failure)

    def fail(self, error: BaseException) -> None:
        """End it: the engine has not taken it."""
        self._finish(error)

    def _finish(self, error: BaseException | None) -> None:
        self._error = error
        if error is None:
            try:
                copy_back(self._copies)
            except Exception as failure:
                self._error = failure
        self._copies = []
        self._pieces = ()
        self._memory = None
        self.ended_at = self.ended_at or time.monotonic()
        COUNTERS.count_ended(self.ended_at - self._began)
        if self.when_ended is not None:
            self.when_ended()
        with self._lock:
            self._over = True
            done, raw = self._done, self._raw
        if done is not None:
            done.set()
        if raw is not None:
            # Callbacks run inline in set_result and may block on other collectives: never on the
            # poller's thread.
            self._owner.complete_later(lambda: raw.set_result(self._outputs))

    def wait(self, timeout: timedelta | None = None) -> bool:
        """Wait for the end; ``timeout`` of zero or less means the group's own limit."""
        seconds = timeout.total_seconds() if timeout is not None else 0.0
        if seconds <= 0:
            seconds = self._limit_s()
        if not self._over and not self._known:
            began = time.monotonic()
            ended = self._ends_soon(seconds) or wait_for(self._event(), seconds)
            exposed.add_wait(time.monotonic() - began)
            if not ended:
                raise self._owner.late(seconds)
        future = self._future
        if future is not None and not future.done():
            # Callers take its value now. It does not wait for its callbacks.
            with contextlib.suppress(Exception):
                future.wait()
        if self._error is not None:
            raise self._error
        return True

    def _ends_soon(self, seconds: float) -> bool:
        """Wait in the engine, for a moment: whether it has its results now, and nothing is left.

        The thread that ends works hears of it, too, but a small collective would take half as long
        again if it had to wake that first.
        """
        if not self._tickets:
            return False
        prompt = self.prompt
        if prompt is None or self._future is not None:
            return False
        few = size_of(self._outputs) <= FEW_BYTES
        limit_s = min(seconds, SOON_S)
        if prompt.await_end(self._first_ticket, self._tickets, limit_s, few):
            self.ended_at = self.ended_at or time.monotonic()
            self._known = True
        return self._known

    def _limit_s(self) -> float:
        """How long ``wait()`` waits when it is given no timeout; asked for on the way."""
        return self._limits.limit_of(self._options)

    def settle(self, limit_s: float) -> None:
        """Wait until the thread that ends works has ended this one."""
        if self.prompt is not None:
            self.prompt.flush()
        self._event().wait(limit_s)

    def _event(self) -> threading.Event:
        """What is set when this has ended."""
        with self._lock:
            if self._done is None:
                self._done = threading.Event()
                if self._over:
                    self._done.set()
            return self._done

    def get_future(self) -> "Future[Tensors]":
        """A future of the list of tensors; it carries the error if there is one.

        It is complete once ``wait()`` has returned.
        """
        if self._known:
            self.settle(self._limit_s())
        with self._lock:
            if self._future is not None:
                return self._future
            raw: Future[Tensors] = Future()
            # Future.set_exception crashes DDP (torch 2.13 and 2.15); an exception raised in a
            # callback of the raw future surfaces from backward() as it should.
            self._future = callbacks.chain(raw, self._value)
            callbacks.name_future(self._future, self.name)
            self._raw = raw
            if self._over:
                raw.set_result(self._outputs)  # it has no callback yet
            return self._future

    def _value(self, raw: "Future[Tensors]") -> Tensors:
        if self._error is not None:
            raise self._error
        return raw.value()

    def is_completed(self) -> bool:
        """Whether it has ended, well or not."""
        return self._known or self._over

    def is_success(self) -> bool:
        """Whether it has ended well."""
        return self.is_completed() and self._error is None

    def exception(self) -> BaseException | None:
        """The error with which it ended, or None."""
        return self._error

    def result(self) -> Tensors:
        """The tensors."""
        return self._outputs

    def synchronize(self) -> None:
        """Same as ``wait()``: there is no stream to order."""
        self.wait()

    def source_rank(self) -> int:
        """Of a receive; meaningless here."""
        return -1
