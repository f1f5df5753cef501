"""Threads that end collectives: one asks the engine, a few complete futures.

The poller blocks in the engine without the GIL. It wakes waiters itself, but hands futures to the
pool: their callbacks run inline, may be slow and may wait for other collectives.
"""

import functools
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from wiresum.host_agent import lines
from wiresum.host_agent.agent.counters import COUNTERS
from wiresum.host_agent.agent.face import EngineFace, Finished
from wiresum.host_agent.backend.work import Prompt, SwitchWork
from wiresum.host_agent.errors import EngineClosed

log = logging.getLogger("wiresum")

POLL_S = 0.5  # how soon the poller notices that it should stop if close() does not wake it
SETTLE_S = 1.0  # how long the counts are waited for, of works that have their results
IDLE_S = 30.0  # how long a spare completion thread lives
CLOSE_S = 5.0  # how long closing waits for callbacks that are still running
MAX_THREADS = 1024  # a backstop: this many callbacks blocked at once


class CompletionPool:
    """Runs jobs on daemon threads, one more whenever all others are busy.

    A fixed number would hang as soon as that many callbacks wait for other collectives.
    """

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads: set[threading.Thread] = set()
        self._busy = 0
        self._closed = False

    def submit(self, job: Callable[[], None]) -> None:
        """Run ``job`` soon on another thread, also after the pool was closed."""
        with self._lock:
            self._busy += 1  # counted until it has run, so that a blocked job never starves this
            run: Callable[[], None] = self._run
            late = self._closed
            if late:  # the threads go without looking at what comes now
                run = functools.partial(self._do, job)
            thread = None
            if late or len(self._threads) < min(self._busy, MAX_THREADS):
                thread = threading.Thread(target=run, name="wiresum-complete", daemon=True)
            if not late:
                self._jobs.put(job)
                if thread is not None:
                    self._threads.add(thread)
        if thread is not None:
            thread.start()

    def _run(self) -> None:
        while True:
            try:
                job = self._jobs.get(timeout=IDLE_S)
            except queue.Empty:
                with self._lock:
                    if len(self._threads) <= self._busy:
                        continue  # a job was queued for this very thread meanwhile
                    self._threads.discard(threading.current_thread())
                return
            if job is None:
                with self._lock:
                    self._threads.discard(threading.current_thread())
                return
            self._do(job)

    def _do(self, job: Callable[[], None]) -> None:
        try:
            job()
        except Exception:
            # An exception of a callback becomes the future's, in torch: this one is our own.
            log.exception("wiresum: completing a future failed")
        finally:
            with self._lock:
                self._busy -= 1

    def close(self) -> None:
        """Let the threads go once they have run what is queued; waits for them, within a limit.

        A thread that is still inside torch when the interpreter ends brings down the process.
        """
        with self._lock:
            self._closed = True
            threads = list(self._threads)
            for _ in threads:
                self._jobs.put(None)
        deadline = time.monotonic() + CLOSE_S
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))


class Waiting(Protocol):
    """What tickets of the engine end."""

    def expect(self, tickets: Sequence[int]) -> None:
        """Set the tickets, before any of them is reported."""

    def ticket_ended(
        self, ticket: int, error: BaseException | None, nonfinite: Sequence[tuple[int, int]]
    ) -> None:
        """Note the end of one, on the thread that polls the engine."""


class Poller:
    """Asks the engine for ended tickets and ends the works that wait for them."""

    def __init__(self, engine: EngineFace, error_of: Callable[[Finished], BaseException]) -> None:
        self._engine = engine
        self._prompt = engine if isinstance(engine, Prompt) else None
        self._error_of = error_of
        self._works: dict[int, Waiting] = {}
        self._ending: Waiting | None = None  # which the thread has taken out of these
        self._next = 0
        self._lock = threading.Lock()
        self._stop = False
        self._broken: BaseException | None = None
        self._thread: threading.Thread | None = None  # from the first collective on

    def expect(self, work: Waiting, count: int) -> Sequence[int]:
        """Tickets for ``count`` tensors of ``work``; the caller hands these to the engine next.

        From now on the work, and so the memory that the engine gets to see, is kept until all
        tickets have ended: an interrupt may come after the engine has taken a tensor and before the
        caller knows it. Raises ``EngineClosed`` once the poller has ended.
        """
        with self._lock:
            if self._stop:
                raise EngineClosed(lines.SHUT_DOWN.of())
            first = self._next
            self._next += count
            tickets = range(first, self._next)
            for ticket in tickets:
                self._works[ticket] = work
            # An interrupt may have come before the thread was started.
            if self._thread is None or self._thread.ident is None:
                self._thread = threading.Thread(target=self._run, name="wiresum-poll", daemon=True)
                self._thread.start()
        if isinstance(work, SwitchWork):
            work.prompt = self._prompt
        work.expect(tickets)
        return tickets

    def settle(self) -> None:
        """Wait, for a moment, until the thread has ended the works that have been waited for."""
        if self._prompt is not None:
            self._prompt.flush()
        deadline = time.monotonic() + SETTLE_S
        with self._lock:
            works = {id(work): work for work in (*self._works.values(), self._ending)}
        for work in works.values():
            if isinstance(work, SwitchWork) and work.is_completed():
                work.settle(max(0.0, deadline - time.monotonic()))
        COUNTERS.flush()

    def forget(self, tickets: Sequence[int]) -> None:
        """Drop tickets that the engine has not taken."""
        with self._lock:
            for ticket in tickets:
                self._works.pop(ticket, None)

    def pending(self) -> list[int]:
        """Tickets that have not ended."""
        with self._lock:
            return sorted(self._works)

    def _run(self) -> None:
        try:
            while not self._stop:
                batch = self._engine.poll(POLL_S)
                if not batch:
                    COUNTERS.flush()
                for finished in batch:
                    with self._lock:
                        self._ending = work = self._works.pop(finished.ticket, None)
                    if work is not None:
                        self._end(work, finished)
                self._ending = work = None
        except Exception as error:
            if not self._stop:
                log.debug("wiresum: the engine's poll failed", exc_info=True)
                self._broken = error
        self._abandon()

    def _end(self, work: Waiting, finished: Finished) -> None:
        error = None
        if finished.error is not None:
            COUNTERS.count_failed(finished.kind or "unknown")
            error = self._error_of(finished)
        work.ticket_ended(finished.ticket, error, finished.nonfinite)

    def _abandon(self) -> None:
        with self._lock:
            self._stop = True
            left = list(self._works.items())
            self._works.clear()
        for ticket, work in left:
            work.ticket_ended(ticket, self._broken or self._error_of(_Lost(ticket)), ())

    def close(self) -> None:
        """End the thread; the engine has been closed already."""
        with self._lock:
            self._stop = True
            thread = self._thread
        if thread is None or thread.ident is None or threading.current_thread() is thread:
            return
        thread.join(timeout=4 * POLL_S)


class _Lost:
    """A ticket that the engine will not report any more."""

    kind: str | None = EngineClosed.__name__
    error: str | None = "the process group was shut down while this collective was in flight"
    nonfinite: Sequence[tuple[int, int]] = ()

    def __init__(self, ticket: int) -> None:
        self.ticket = ticket
