"""Time without the time in which the controller itself stood still.

A controller can stand still: SIGSTOP, a frozen container, a disk that takes its time, a suspended
machine. Meanwhile it reads no calls; afterwards the clocks have run on, and the calls of workers
that were alive all the time are still unread. So the time in which it stood still does not count.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType

from wiresum.common.patience import LATE_S
from wiresum.controller.clock import Clock, SystemClock

log = logging.getLogger(__name__)

Limiting = Callable[[float], AbstractAsyncContextManager[asyncio.Timeout]]
"""``asyncio.timeout``, or a patient one."""

_TICK_S = 0.2


class Patience:
    """Watches the event loop, and makes up for the time in which it did not run.

    ``stood_still(seconds)`` is called after each such time, before anything that was due in it.
    """

    def __init__(self, clock: Clock, stood_still: Callable[[float], None]) -> None:
        self._clock = clock
        self._stood_still = stood_still
        self._limits: set[asyncio.Timeout] = set()
        self._handle: asyncio.TimerHandle | None = None
        self._last = _ticks()

    def start(self) -> None:
        """Begin to watch the running event loop."""
        self._last = _ticks()
        self._next(asyncio.get_running_loop())

    def stop(self) -> None:
        """Watch no more."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def limit(self, seconds: float) -> "Limit":
        """Like ``asyncio.timeout``, but the time in which the loop stood still does not count."""
        return Limit(seconds, self._limits)

    # ----

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        # A timer and no task: of all timers that are due after a pause, the one that was due first
        # runs first, and that is this one; a task would have to wait for the next round.
        self._handle = loop.call_later(_TICK_S, self._tick, loop)
        if isinstance(self._clock, SystemClock):
            self._clock.tick()

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        before, self._last = self._last, _ticks()
        late_by = (now - then - _TICK_S for now, then in zip(self._last, before, strict=True))
        awake, asleep = late_by
        self._next(loop)
        late = max(awake, asleep)
        if late < LATE_S:
            return
        log.warning("the controller stood still for %.1f s: that time counts for nobody", late)
        for timeout in self._limits:
            when = timeout.when()
            if when is not None and not timeout.expired():
                timeout.reschedule(when + awake)
        self._stood_still(late)


class Limit(AbstractAsyncContextManager[asyncio.Timeout]):
    """An ``asyncio.timeout`` that is put off for as long as the event loop stands still."""

    def __init__(self, seconds: float, limits: set[asyncio.Timeout]) -> None:
        self._timeout = asyncio.timeout(seconds)
        self._limits = limits

    async def __aenter__(self) -> asyncio.Timeout:
        await self._timeout.__aenter__()
        self._limits.add(self._timeout)
        return self._timeout

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._limits.discard(self._timeout)
        await self._timeout.__aexit__(kind, error, traceback)


def _ticks() -> tuple[float, float]:
    """The event loop's clock, and one that runs on while the whole machine sleeps."""
    return time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME)
