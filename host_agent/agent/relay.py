"""One engine to its user, and one engine after the other underneath: for changes of lease.

A paused relay holds collectives, in order, for the next engine; collectives below its limit still
go to the present engine. The sum of a collective does not depend on the engine that made it. The
caller makes sure that all ranks change engines after the same collective.
"""

import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wiresum.common.errors import WiresumError
from wiresum.host_agent.agent.face import EngineFace, Finished
from wiresum.host_agent.errors import EngineClosed

GAUGES = frozenset({"window", "exponent_window", "rtt_us", "rto_us", "gso", "gro"})
"""Statistics that describe the present: only those of the last engine are reported."""


@dataclass(frozen=True)
class EndedWhileHeld:
    """The end of a collective that never reached an engine: see ``face.Finished``."""

    ticket: int
    error: str | None
    kind: str | None
    nonfinite: Sequence[tuple[int, int]] = ()


_Call = tuple[int, int, str, bool, int]
"""Arguments of ``all_reduce``; the last one is the ticket."""


class Relay:
    """Hands collectives to the present engine. Has the engine's own methods; thread-safe.

    The backend calls :meth:`all_reduce`, and :meth:`poll` from one thread. A change of lease calls
    ``pause``, ``let``, ``drained`` and then ``replace``, or ``resume``.
    """

    def __init__(self, engine: EngineFace) -> None:
        self._engine = engine
        self._before = 0  # collectives that earlier engines have taken
        self._polled = 0  # how many of this engine's have been handed back
        self._limit: int | None = None
        self._held: deque[_Call] = deque()
        self._ended: list[EndedWhileHeld] = []  # those that never reached an engine
        self._failed = False
        self._closed = False
        self._completed = 0
        self._all_ended = 0
        self._never_taken = 0
        self._past: dict[str, int | float] = {}
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)

    # -- for the user -------------------------------------------------------------------------

    def all_reduce(self, data: int, count: int, dtype: str, average: bool, ticket: int) -> None:
        """Start an in-place all-reduce, or hold it, under the caller's ``ticket``.

        The caller counts its tickets up. Arguments and errors are the engine's. The error of one
        that was held is in its completion. An interrupt (``KeyboardInterrupt``) in here leaves
        everything consistent: what has been started is what the engine says, whoever heard of it.
        """
        call = (data, count, dtype, average, ticket)
        with self._lock:
            if self._limit is None or self._engine.started < self._limit or self._closed:
                self._engine.all_reduce(*call)
            else:
                self._held.append(call)

    def poll(self, timeout_s: float) -> Sequence[Finished]:
        """Wait until a ticket ends; empty on timeout and whenever the engine has changed."""
        with self._lock:
            if self._ended:
                ended, self._ended = self._ended, []
                self._count(ended)
                return ended
            engine = self._engine
        batch = engine.poll(timeout_s)
        with self._lock:
            if not batch:
                if engine.closed and engine is self._engine:
                    # It answers at once, and would again and again.
                    self._changed.wait(timeout_s)
                return []
            self._polled += len(batch)
            self._count(batch)
            self._failed = self._failed or any(each.error is not None for each in batch)
            self._changed.notify_all()
        return batch

    @property
    def started(self) -> int:
        """How many collectives all engines together have taken."""
        with self._lock:
            return self._before + self._engine.started

    def stats(self) -> dict[str, int | float]:
        """Counters over all engines so far; the gauges are those of the last one."""
        with self._lock:
            engine, past = self._engine, dict(self._past)
        return _sum(past, engine.stats())

    def close(self) -> None:
        """Close the engine; what is in flight or held ends with an error. May be called twice."""
        with self._lock:
            self._closed = True
            engine = self._engine
            why = "the engine was closed while this all-reduce was held for a change of lease"
            self._end_held(EngineClosed.__name__, why)
        engine.close()

    # -- for the other ranks: see peers.member.Engine ------------------------------------------

    def fail(self, kind: str, line: str) -> None:
        """End what is in flight or held, and all that comes, with an error of that kind."""
        with self._lock:
            self._failed = True
            engine = self._engine
            self._end_held(kind, line)
        engine.fail(kind, line)

    def positions(self) -> Mapping[str, Any]:
        """How far the streams of the present engine are: see ``_engine.pyi``."""
        return self._engine.positions()

    @property
    def asked(self) -> int:
        """How many collectives this relay was given."""
        with self._lock:
            taken = self._before + self._engine.started
            return taken + len(self._held) + self._never_taken

    @property
    def ended(self) -> int:
        """How many of these have ended, and were handed back by :meth:`poll`."""
        return self._all_ended

    @property
    def completed(self) -> int:
        """How many of these have ended well."""
        return self._completed

    @property
    def closed(self) -> bool:
        """Whether it has been closed."""
        return self._closed

    # -- for a change of the lease ------------------------------------------------------------

    @property
    def done(self) -> int:
        """How many collectives all engines together have been handed: the same on every rank
        once :meth:`drained` says so."""
        return self.started

    @property
    def held(self) -> int:
        """How many collectives wait for another engine, or for this one's limit to move."""
        return len(self._held)

    def pause(self) -> int:
        """Hold all further collectives; how many this engine has been handed."""
        with self._lock:
            self._limit = self._engine.started
            return self._limit

    def let(self, boundary: int) -> None:
        """Move the limit up to ``boundary`` and let through what is held below it."""
        with self._lock:
            assert self._limit is not None
            assert boundary >= self._limit
            self._limit = boundary
            self._release()

    def drained(self, timeout_s: float) -> bool:
        """Wait until all collectives up to the limit have been started and have ended.

        False if it takes longer. Raises ``EngineClosed`` if the engine has failed or was closed.
        """
        deadline = time.monotonic() + timeout_s
        with self._lock:
            while True:
                if self._failed or self._closed:
                    raise EngineClosed("the engine takes no more work")
                assert self._limit is not None
                if self._engine.started >= self._limit and self._quiet():
                    return True
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(left)

    def resume(self) -> None:
        """Carry on with the same engine: everything goes to it, first what is held."""
        with self._lock:
            self._limit = None
            self._release()

    def replace(self, engine: EngineFace) -> None:
        """Carry on with another engine, which gets everything that is held; close the old one.

        Only once :meth:`drained` has said so.
        """
        with self._lock:
            assert self._quiet()
            old, self._engine = self._engine, engine
            self._past = _sum(self._past, old.stats(), gauges=False)
            self._before += old.started
            self._polled, self._limit, self._failed = 0, None, False
            if self._closed:
                old = engine  # closed meanwhile, and the old one with it
            else:
                self._release()
            self._changed.notify_all()
        old.close()

    # ----

    def _count(self, ended: Sequence[Finished]) -> None:
        self._all_ended += len(ended)
        self._completed += sum(each.error is None for each in ended)

    def _end_held(self, kind: str, why: str) -> None:
        for *_, ticket in self._held:
            self._end_unheard(ticket, kind, why)
        self._held.clear()
        self._changed.notify_all()

    def _end_unheard(self, ticket: int, kind: str, why: str) -> None:
        """End a collective that no engine has taken."""
        self._ended.append(EndedWhileHeld(ticket, why, kind))
        self._never_taken += 1

    def _quiet(self) -> bool:
        return self._engine.started == self._polled

    def _release(self) -> None:
        while self._held and (self._limit is None or self._engine.started < self._limit):
            call = self._held.popleft()
            try:
                self._engine.all_reduce(*call)
            except WiresumError as error:
                self._end_unheard(call[-1], type(error).__name__, str(error))


def _sum(
    past: Mapping[str, int | float], stats: Mapping[str, int | float], *, gauges: bool = True
) -> dict[str, Any]:
    total = dict(past)
    for name, value in stats.items():
        if name in GAUGES:
            if gauges:
                total[name] = value
        else:
            total[name] = total.get(name, 0) + value
    return total
