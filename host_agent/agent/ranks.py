"""The ranks as a carrier: an engine that carries each collective over the ranks.

Codec, blocks and fields are those of the engine over the switch, and integer sums do not depend on
who adds: both give the same bits. Collectives are carried one after the other, in the order of
their tickets, which is the same on all ranks; :mod:`.carrying` carries one of them.
"""

import logging
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wiresum.common.logs import one_line
from wiresum.host_agent import lines
from wiresum.host_agent.agent import carrying
from wiresum.host_agent.agent.ballot import Ballot
from wiresum.host_agent.agent.carrying import Carrying, Unit
from wiresum.host_agent.agent.face import Ended
from wiresum.host_agent.agent.face import Unit as Calls
from wiresum.host_agent.agent.sums import Sums
from wiresum.host_agent.engine import Packed, Rest
from wiresum.host_agent.errors import EngineClosed, EngineError, PeerLost

log = logging.getLogger("wiresum")

_BLOCKS = ("blocks_sent", "blocks_zero", "blocks_nonfinite")
_COUNTED = ("collectives", "elements", "copied_bytes", "ranks_collectives", *_BLOCKS)

VERDICT_S = 5.0
"""How long the link between the ranks may take to say who is gone, when a sum has failed."""


@dataclass(frozen=True)
class _Position:
    """See ``peers.judge.StreamPosition``."""

    oldest: int
    next: int
    wait: tuple[int, int] | None
    wait_s: float = 0.0


class RanksEngine:
    """Has the engine's methods (``face.EngineFace``); sums through ``sums``."""

    suspended = None

    def __init__(
        self,
        sums: Sums,
        workers: int,
        field: int,
        *,
        rests: Sequence[Rest] = (),
        most_rests: int | None = None,
        ballot: Ballot | None = None,
    ) -> None:
        """Start the thread. ``rests`` come first: what another carrier has left, in order.

        ``most_rests``: how many of them the rank has that has most, if that is another one: so
        many pieces are carried alone. ``field``: bits of a quantized element. Raises ``CodecError``
        for a field that has no budget for so many workers.
        """
        Packed(0, 0, "float32", False, workers, field)
        self._sums = sums
        self._workers = workers
        self._field = field
        self._ballot = ballot or Ballot()
        self._queue = deque(map(Unit.alone, rests))
        self._started = len(self._queue)
        self._alone = self._started if most_rests is None else most_rests
        self._ended: list[Ended] = []
        self._failure: tuple[str, str] | None = None
        self._closed = False
        self._stopping = False
        self._stats = dict.fromkeys(_COUNTED, 0)
        self._carrying = Carrying(sums, workers, self._ballot)
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="wiresum-ranks", daemon=True)
        self._thread.start()

    # -- see face.EngineFace ------------------------------------------------------------------

    def collect(self, pieces: Calls) -> None:
        """Queue a collective."""
        unit = Unit.of(pieces, self._sums, self._workers, self._field)
        with self._changed:
            if self._failure is not None:
                raise EngineClosed(lines.NO_MORE_WORK_SINCE.of(why=self._failure[1]))
            self._queue.append(unit)
            self._started += len(pieces)
            self._changed.notify_all()

    @property
    def started(self) -> int:
        """How many pieces it has taken, those that were left to it among them."""
        return self._started

    def poll(self, timeout_s: float) -> Sequence[Ended]:
        """Wait until a ticket ends; empty on timeout or close."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._closed, timeout_s)
            ended, self._ended = self._ended, []
            return ended

    def stats(self) -> dict[str, int | float]:
        """Counters, by the names of the engine over the switch where they mean the same."""
        with self._changed:
            return dict(self._stats)

    def positions(self) -> Mapping[str, Any]:
        """One stream of collectives; while one of them is carried, it may wait for any rank."""
        with self._changed:
            done = self._stats["ranks_collectives"]
            left = sum(len(unit.tickets) for unit in self._queue)
            everybody = (1 << self._workers) - 1
            return {"ranks": _Position(done, done + left, (done, everybody) if left else None)}

    def fail(self, kind: str, line: str) -> None:
        """End everything in flight, and all that comes, with an error of that kind."""
        with self._changed:
            if self._failure is not None:
                return
            self._failure = (kind, line)
            self._changed.notify_all()
        self._sums.sever()

    def close(self) -> None:
        """End the thread; unfinished tickets end with an error. May be called twice."""
        with self._changed:
            if self._closed:
                return
            idle = not self._queue
            if self._failure is None:
                self._failure = (EngineClosed.__name__, lines.CLOSED_BY_OWNER.of())
            self._changed.notify_all()
        if not idle:
            self._sums.sever()
        if threading.current_thread() is not self._thread:
            self._thread.join()
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def closed(self) -> bool:
        """Whether it has been closed."""
        return self._closed

    def give_back(self) -> Sequence[Calls]:
        """Once the ranks have agreed to stop: the collectives that have not begun, in order.

        They are not this engine's any more.
        """
        with self._changed:
            assert self._stopping
            units = [unit.calls for unit in self._queue if unit.calls is not None]
            assert len(units) == len(self._queue)
            self._queue.clear()
            self._started -= sum(map(len, units))
            return units

    # -- the thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._failure is not None)
                if self._failure is not None:
                    break
            try:
                with self._changed:
                    unit = self._next()
                last = self._carrying.carry(unit)
            except Exception as error:
                self._broken(error)
                break
            with self._changed:
                if self._failure is not None:
                    break
                self._queue.popleft()
                # A piece without elements has ended at once where it was issued: it is no rest.
                self._alone -= bool(self._alone and unit.is_filled)
                # What another carrier has begun cannot be given back.
                self._stopping = last = last and not self._alone
                self._end(unit)
            if last:
                self._ballot.stopped()
                with self._changed:  # until it is closed
                    self._changed.wait_for(lambda: self._failure is not None)
                break
        with self._changed:
            assert self._failure is not None
            kind, line = self._failure
            for unit in self._queue:
                self._ended += (Ended(ticket, line, kind) for ticket in unit.tickets)
            self._queue.clear()
            self._changed.notify_all()

    def _next(self) -> Unit:
        """The first unit of the queue; its first piece, if that goes alone."""
        unit = self._queue[0]
        if self._alone and unit.calls is not None and not unit.is_alone:
            alone = carrying.pieces(unit.calls, self._sums.rank, self._workers, self._field)
            self._queue.popleft()
            self._queue.extendleft(reversed(alone))
        return self._queue[0]

    def _broken(self, error: Exception) -> None:
        """A sum has failed, mostly because a rank is gone: the ranks' link can name it."""
        with self._changed:
            if isinstance(error, EngineError):
                self._failure = self._failure or (type(error).__name__, str(error))
            if self._changed.wait_for(lambda: self._failure is not None, VERDICT_S):
                return
            line = one_line(str(error)) or type(error).__name__
            self._failure = (PeerLost.__name__, lines.RANKS_CANNOT_SUM.of(why=line))
        log.debug("wiresum: a sum over the ranks has failed", exc_info=error)

    def _end(self, unit: Unit) -> None:
        """It has been carried."""
        stats = self._stats
        stats["ranks_collectives"] += len(unit.tickets)
        if unit.calls is not None:  # else the carrier before has counted it
            stats["collectives"] += len(unit.tickets)
            stats["elements"] += unit.elements
            stats["copied_bytes"] += unit.copied_bytes
        for ticket in unit.tickets:
            packed = unit.packed.get(ticket)
            if packed is not None:
                for name, count in zip(_BLOCKS, packed.agreed, strict=True):
                    stats[name] += count
            self._ended.append(
                Ended(ticket, None, None, () if packed is None else packed.nonfinite)
            )
        self._changed.notify_all()
