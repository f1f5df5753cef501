"""Looks like one engine to its user, and uses one engine after the other.

A paused relay holds collectives, in order, for the next engine; collectives below its limit still
go to the present engine. The result of a collective does not depend on the engine that made it. The
caller makes sure that all ranks change engines after the same collective, or that the next engine
takes over what the one before has left.

A collective is a unit of pieces, which is held and handed over whole. Everything is counted in
pieces: all ranks have the same units, so a limit that one rank has taken from its count never lies
within a unit of another.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from wiresum.common.errors import WiresumError
from wiresum.host_agent import lines
from wiresum.host_agent.agent.face import Ended, EngineFace, Finished, Unit
from wiresum.host_agent.agent.gate import Gate
from wiresum.host_agent.errors import EngineClosed

GAUGES = frozenset({"window", "exponent_window", "copy_window", "rtt_us", "rto_us", "gso", "gro"})
"""Statistics that describe the present: only those of the last engine are reported."""


_LOOK_S = 0.02
_CLOSED = "the engine was closed while this collective was held"


class Relay:
    """Hands collectives to the present engine. Has the engine's own methods; thread-safe.

    The backend calls :meth:`collect`, and :meth:`poll` from one thread. A change of lease calls
    ``pause``, ``let``, ``drained`` and then ``replace``, or ``resume``. A change of carrier calls
    ``stand`` and then ``take_over``, or ``go_on``; it makes a change of lease under way void.
    """

    def __init__(self, engine: EngineFace | None = None, gate: Gate | None = None) -> None:
        """Without an ``engine``, everything is held until :meth:`replace` brings one.

        ``gate``: what each collective passes on its way to an engine.
        """
        self._gate = gate or Gate()
        self._renames = gate is not None
        self._engine: EngineFace = engine or _NoEngine()
        self.on_suspended: Callable[[EngineFace, str], None] = lambda _engine, _why: None
        """Called once, by the thread that polls, with the engine that stands still, and why."""
        self._suspended: EngineFace | None = None
        self._before = 0  # pieces that earlier engines have taken, and not left to the next
        self._polled = 0  # pieces taken by any engine that have been handed back
        self._limit: int | None = None  # of all pieces, while the lease changes
        self._void = False  # a change of lease has been overtaken by one of carrier
        self._standing = engine is None
        self._held: deque[Unit] = deque()
        self._ended: list[Finished] = []  # that no engine reports any more
        self._failed = False
        self._closed = False
        self._completed = 0
        self._all_ended = 0
        self._never_taken = 0
        self._past: dict[str, int | float] = {}
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)

    # -- for the user -------------------------------------------------------------------------

    def collect(self, pieces: Unit) -> None:
        """Start a collective, or hold it, under the tickets of its pieces.

        The caller counts its tickets up. Errors are the engine's. The error of one that was held
        is in the completions of its pieces. An interrupt (``KeyboardInterrupt``) in here leaves
        everything consistent: the engine knows what has been started.
        """
        with self._lock:
            # Those that the gate holds come first.
            if self._closed or (not self._held and self._lets(pieces)):
                self._give(pieces)
            else:
                self._held.append(pieces)

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
                    # It answers at once, each time.
                    self._changed.wait(timeout_s)
                why = None if engine is self._suspended else engine.suspended
            else:
                self._note(batch)
                batch = self._of_the_caller(batch)
                self._count(batch)
                self._release()
                why = None
        if why is not None:
            self._suspended = engine
            self.on_suspended(engine, why)
        return batch

    def await_end(self, first: int, count: int, timeout_s: float, leave: bool) -> bool:
        """Wait a little for pieces by their tickets; whether all have their results.

        False also where the engine cannot tell. :meth:`poll` reports them all the same; later, with
        ``leave``, unless there is a :meth:`flush`. Cannot be interrupted: see ``_engine.pyi``.
        """
        wait = getattr(self._engine, "await_end", None)
        if wait is None or self._renames:
            return False
        return bool(wait(first, count, timeout_s, leave))

    def flush(self) -> None:
        """Let :meth:`poll` report what has ended."""
        flush = getattr(self._engine, "flush", None)
        if flush is not None:
            flush()

    @property
    def started(self) -> int:
        """How many pieces all engines together have taken."""
        with self._lock:
            return self.taken

    @property
    def taken(self) -> int:
        """As :attr:`started`, for the gate, which has the lock."""
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
            self._end_held(EngineClosed.__name__, _CLOSED)
        engine.close()

    @property
    def suspended(self) -> str | None:
        """Why the present engine stands still; None while it works."""
        return self._engine.suspended

    @property
    def has_engine(self) -> bool:
        """Whether it has had one yet."""
        return not isinstance(self._engine, _NoEngine)

    @property
    def engine(self) -> EngineFace:
        """The present engine."""
        return self._engine

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
        """How many pieces this relay was given."""
        with self._lock:
            return self.taken + sum(map(len, self._held)) + self._never_taken

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
        """How many pieces all engines together have been handed: the same on every rank
        once :meth:`drained` says so."""
        return self.started

    @property
    def held(self) -> int:
        """How many collectives wait for another engine, or for this one's limit to move."""
        return len(self._held)

    def pause(self) -> int:
        """Hold all further collectives; how many pieces all engines together have been handed."""
        with self._lock:
            self._void = False
            self._limit = self.taken
            return self.taken

    def let(self, boundary: int) -> None:
        """Move the limit up to ``boundary`` and let through what is held below it."""
        with self._lock:
            self._check_change()
            assert self._limit is not None
            assert boundary >= self._limit
            self._limit = boundary
            self._release()

    def drained(self, timeout_s: float) -> bool:
        """Wait until all collectives up to the limit have been started and have ended.

        False if it takes longer. Raises ``EngineClosed`` if the engine has failed or was closed, or
        if the carrier has changed meanwhile.
        """
        deadline = time.monotonic() + timeout_s
        with self._lock:
            while True:
                if self._failed or self._closed:
                    raise EngineClosed(lines.NO_MORE_WORK.of())
                self._check_change()
                assert self._limit is not None
                if self.taken >= self._limit and self._quiet():
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

        Only once :meth:`drained` has said so. Raises ``EngineClosed`` if the carrier has changed
        since; the engine then stays the caller's.
        """
        with self._lock:
            self._check_change()
            assert self._quiet()
            self._limit = None
            old = self._exchange(engine, moved=0)
        old.close()

    # -- for a change of the carrier ----------------------------------------------------------

    def stand(self) -> EngineFace:
        """Hold all further collectives; the present engine. A change of lease is void from now."""
        with self._lock:
            self._standing = True
            self._void = self._void or self._limit is not None
            self._limit = None
            self._changed.notify_all()
            return self._engine

    def go_on(self) -> None:
        """Carry on with the same engine after :meth:`stand`."""
        with self._lock:
            self._standing = False
            self._release()

    def take_over(self, engine: EngineFace, *, moved: int = 0, again: Sequence[Unit] = ()) -> None:
        """Carry on with another engine after :meth:`stand`; close the old one.

        ``moved``: how many of the old engine's pieces the other one has got already.
        ``again``: those that the old one has given back; the other one gets them, then what is
        held.
        """
        with self._lock:
            self._standing = False
            if self._closed:
                for unit in again:
                    self._end_unheard(unit, EngineClosed.__name__, _CLOSED)
            else:
                self._held.extendleft(reversed(again))
            old = self._exchange(engine, moved=moved)
        old.close()

    # ----

    def _count(self, ended: Sequence[Finished]) -> None:
        self._all_ended += len(ended)
        self._completed += sum(each.error is None for each in ended)

    def _end_held(self, kind: str, why: str) -> None:
        for unit in self._held:
            self._end_unheard(unit, kind, why)
        self._held.clear()
        self._changed.notify_all()

    def _end_unheard(self, unit: Unit, kind: str, why: str) -> None:
        """End a collective that no engine has taken."""
        asked = self._gate.asked(unit)
        self._ended += (Ended(piece.ticket, why, kind) for piece in asked)
        self._never_taken += len(asked)

    def _lets(self, unit: Unit) -> bool:
        """Whether the engine may have it now, if it is the next."""
        return (
            not self._standing
            and not self._gate.holds(unit)
            and (self._limit is None or self.taken < self._limit)
        )

    def _check_change(self) -> None:
        if self._void:
            raise EngineClosed(lines.CARRIER_CHANGED.of())

    def _exchange(self, engine: EngineFace, moved: int) -> EngineFace:
        """Put ``engine`` in the place of the present one; the one to close."""
        old = self._engine
        late = old.poll(0.0)
        self._note(late)
        self._ended += self._of_the_caller(late)
        self._before += old.started - moved
        self._engine = engine
        self._past = _sum(self._past, old.stats(), gauges=False)
        self._failed = False
        if self._closed:
            return engine  # closed meanwhile, and the old one with it
        self._release()
        self._changed.notify_all()
        return old

    def _note(self, batch: Sequence[Finished]) -> None:
        """These have ended in an engine."""
        self._polled += len(batch)
        self._failed = self._failed or any(each.error is not None for each in batch)
        self._changed.notify_all()

    def _quiet(self) -> bool:
        return self.taken == self._polled

    def _release(self) -> None:
        while self._held and self._lets(self._held[0]):
            unit = self._held.popleft()
            try:
                self._give(unit)
            except WiresumError as error:
                self._end_unheard(unit, type(error).__name__, str(error))

    def _give(self, unit: Unit) -> None:
        """Hand a collective to the engine, through the gate."""
        before = self._engine.started
        passed = self._gate.passing(unit)
        try:
            self._engine.collect(passed)
        except BaseException:
            if self._engine.started == before:  # an interrupt may come after it has taken it
                self._gate.refused(passed)
            raise

    def _of_the_caller(self, batch: Sequence[Finished]) -> Sequence[Finished]:
        """Those that the caller has asked for; the gate's own are handed back here."""
        ended = self._gate.ended(batch)
        self._count(ended.own)
        return ended.callers


class RefusingEngine:
    """Takes the place of an engine that could not be made: everything ends with the reason."""

    started = 0
    closed = False
    suspended = None

    def __init__(self, error: WiresumError) -> None:
        self._error = error
        self._closed = threading.Event()

    def collect(self, _pieces: Unit) -> None:
        """Raise the reason."""
        raise type(self._error)(str(self._error))

    def poll(self, timeout_s: float) -> Sequence[Finished]:
        """Nothing ends."""
        if self._closed.wait(timeout_s):
            self.closed = True
        return ()

    def stats(self) -> dict[str, int | float]:
        """Nothing is counted."""
        return {}

    def positions(self) -> Mapping[str, Any]:
        """Nothing is in flight."""
        return {}

    def fail(self, kind: str, line: str) -> None:
        """It has failed already."""

    def close(self) -> None:
        """Wake who polls."""
        self.closed = True
        self._closed.set()


class _NoEngine:
    """Stands in until there is an engine: takes nothing."""

    started = 0
    closed = False
    suspended = None

    def collect(self, _pieces: Unit) -> None:
        raise EngineClosed(lines.CLOSED_BY_OWNER.of())

    def poll(self, timeout_s: float) -> Sequence[Finished]:
        time.sleep(min(timeout_s, _LOOK_S))
        return ()

    def stats(self) -> dict[str, int | float]:
        return {}

    def positions(self) -> Mapping[str, Any]:
        return {}

    def fail(self, kind: str, line: str) -> None:
        return

    def close(self) -> None:
        return


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
