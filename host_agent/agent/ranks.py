"""The ranks as a carrier: an engine that sums the packed lanes of each tensor over the ranks.

Codec, blocks and fields are those of the engine over the switch, and integer sums do not depend on
who adds: both give the same bits. Collectives are carried one after the other, in the order of
their tickets, which is the same on all ranks.
"""

import logging
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple
from zlib import crc32

from wiresum.common.logs import one_line
from wiresum.host_agent import lines
from wiresum.host_agent.agent.face import Call, Ended
from wiresum.host_agent.agent.sums import Pending, Sums, Words
from wiresum.host_agent.engine import Packed, Rest
from wiresum.host_agent.errors import CollectiveMismatch, EngineClosed, EngineError, PeerLost

log = logging.getLogger("wiresum")

SEGMENT = 1 << 19
"""Lanes that travel together: enough that the time of a round trip does not matter, and few enough
that one segment is quantized while another one travels."""

HEAD, STAGE = 1024, 4096
"""Blocks whose exponents travel together: the first ones, and the others. All tensors of up to
1,024 elements, or blocks, have but one message."""

FLYING = 3
"""Segments that are between quantizing and decoding: one is quantized or decoded, the others
travel."""

_BLOCKS = ("blocks_sent", "blocks_zero", "blocks_nonfinite")

VERDICT_S = 5.0
"""How long the link between the ranks may take to say who is gone, when a sum has failed."""


class Ballot:
    """What the ranks agree on with each collective, beside its exponents. Here: nothing.

    ``words`` are this rank's; ``counted`` gets the maximum of each over all ranks. When it returns
    true, on all ranks alike, this collective is the last that the ranks carry.
    """

    size = 0
    """How many words; the same on all ranks."""

    @property
    def field(self) -> int | None:
        """Bits of an element, for the collective that begins; the same on all ranks.

        None: as the engine was told.
        """
        return None

    def looks_at(self, call: Call) -> None:
        """A collective begins, and its tensor is still this rank's own."""

    def words(self) -> Sequence[int]:
        """This rank's words, for the collective that begins."""
        return ()

    def counted(self, largest: Sequence[int]) -> bool:
        """The result: whether the ranks stop carrying after this collective."""
        return False

    def stopped(self) -> None:
        """The last collective has ended: nothing is carried any more."""


@dataclass
class _Carried:
    ticket: int
    packed: Packed
    call: Call | None = None
    """The collective, if no part of it is done yet."""


class _Flight(NamedTuple):
    first: int
    lanes: int
    words: Words
    pending: Pending


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
        ballot: Ballot | None = None,
    ) -> None:
        """Start the thread. ``rests`` come first: what another carrier has left, in order.

        ``field``: bits of a quantized element. Raises ``CodecError`` for a field that has no
        budget for so many workers.
        """
        Packed(0, 0, "float32", False, workers, field)
        self._sums = sums
        self._workers = workers
        self._field = field
        self._ballot = ballot or Ballot()
        self._queue = deque(_Carried(rest.ticket, rest.packed) for rest in rests)
        self._started = len(self._queue)
        self._ended: list[Ended] = []
        self._failure: tuple[str, str] | None = None
        self._closed = False
        self._stopping = False
        self._stats = dict.fromkeys(("collectives", "elements", "ranks_collectives", *_BLOCKS), 0)
        self._head = sums.words(HEAD + 3 + self._ballot.size)
        self._buffers = [sums.words(STAGE), sums.words(STAGE)]
        self._free: list[Words] = []
        self._flights: deque[_Flight] = deque()
        self._lanes_done = 0  # of the present collective: those on their way, too
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="wiresum-ranks", daemon=True)
        self._thread.start()

    # -- see face.EngineFace ------------------------------------------------------------------

    def all_reduce(self, data: int, count: int, dtype: str, average: bool, ticket: int) -> None:
        """Queue an all-reduce."""
        packed = Packed(data, count, dtype, average, self._workers, self._field)
        with self._changed:
            if self._failure is not None:
                raise EngineClosed(lines.NO_MORE_WORK_SINCE.of(why=self._failure[1]))
            call = (data, count, dtype, average, ticket)
            self._queue.append(_Carried(ticket, packed, call))
            self._started += 1
            self._changed.notify_all()

    @property
    def started(self) -> int:
        """How many collectives it has taken, those that were left to it among them."""
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
            done, left = self._stats["ranks_collectives"], len(self._queue)
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

    def give_back(self) -> Sequence[Call]:
        """Once the ranks have agreed to stop: the collectives that have not begun, in order.

        They are not this engine's any more.
        """
        with self._changed:
            assert self._stopping
            calls = [each.call for each in self._queue if each.call is not None]
            assert len(calls) == len(self._queue)
            self._queue.clear()
            self._started -= len(calls)
            return calls

    # -- the thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._failure is not None)
                if self._failure is not None:
                    break
                carried = self._queue[0]
            try:
                self._choose_field(carried)
                last = self._carry(carried.packed)
            except Exception as error:
                self._broken(error)
                break
            with self._changed:
                if self._failure is not None:
                    break
                self._queue.popleft()
                self._stopping = last
                self._count(carried)
                self._end(carried.ticket, None, carried.packed.nonfinite)
            if last:
                self._ballot.stopped()
                with self._changed:  # until it is closed
                    self._changed.wait_for(lambda: self._failure is not None)
                break
        with self._changed:
            assert self._failure is not None
            for carried in self._queue:
                self._end(carried.ticket, self._failure)
            self._queue.clear()

    def _choose_field(self, carried: _Carried) -> None:
        """Pack the tensor of ``carried`` in fields that the ranks have agreed on meanwhile."""
        if carried.call is None:  # its codes may be agreed
            return
        self._ballot.looks_at(carried.call)
        field = self._ballot.field
        if field is not None and field != self._field:
            data, count, dtype, average, _ = carried.call
            carried.packed = Packed(data, count, dtype, average, self._workers, field)

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

    def _end(self, ticket: int, failure: tuple[str, str] | None, nonfinite: Any = ()) -> None:
        kind, line = failure or (None, None)
        self._ended.append(Ended(ticket, line, kind, nonfinite))
        self._changed.notify_all()

    def _count(self, carried: _Carried) -> None:
        packed, stats = carried.packed, self._stats
        stats["ranks_collectives"] += 1
        if carried.call is not None:  # else the carrier before has counted it
            stats["collectives"] += 1
            stats["elements"] += packed.count
        for name, count in zip(_BLOCKS, packed.agreed, strict=True):
            stats[name] += count

    # -- one collective -----------------------------------------------------------------------

    def _carry(self, packed: Packed) -> bool:
        """Sum one tensor in place; whether it is the last one.

        In stages: while the data of one travel, the exponents of the next do. What is started
        when follows from the tensor alone, so it is the same on all ranks.
        """
        stages = _stages(packed.blocks)
        codes = self._first_codes(packed) if stages else None
        last = False
        self._lanes_done = 0
        for number, (_, count) in enumerate(stages):
            assert codes is not None
            words, pending = codes
            pending.wait()
            if number == 0:
                last = self._said(words)
            packed.agree(count, words.address)
            if number + 1 < len(stages):
                codes = self._codes(packed, *stages[number + 1], self._buffers[number % 2])
            self._send(packed)
        self._send(packed)
        while self._flights:
            self._land(packed)
        return last

    def _first_codes(self, packed: Packed) -> tuple[Words, Pending]:
        """Send the first exponents, and what all ranks must know of this collective.

        Always so many words: a rank with another tensor finds that out, and gets no wrong size.
        """
        mark = crc32(repr(packed.kind).encode()) >> 1
        count = min(packed.blocks, HEAD)
        packed.exponents(0, count, self._head.address)
        with self._changed:
            more_rests = len(self._queue) > 1 and self._queue[1].call is None
        self._head.put(HEAD, (mark, -mark, int(more_rests), *self._ballot.words()))
        return self._head, self._head.maximum(len(self._head))

    def _said(self, head: Words) -> bool:
        most, least, more_rests, *said = head.get(HEAD, len(head) - HEAD)
        if most != -least:
            raise CollectiveMismatch(lines.NOT_TOGETHER.of())
        # What another carrier has begun cannot be given back. One rank may have more of it than
        # another, which had not issued so many collectives then.
        return self._ballot.counted(said) and not more_rests

    def _codes(self, packed: Packed, first: int, count: int, words: Words) -> tuple[Words, Pending]:
        packed.exponents(first, count, words.address)
        return words, words.maximum(count)

    def _send(self, packed: Packed) -> None:
        """Quantize what is agreed and not sent yet, and let it travel."""
        while self._lanes_done < packed.lanes:
            if len(self._flights) == FLYING:
                self._land(packed)
            words = self._free.pop() if self._free else self._sums.words(SEGMENT)
            count = min(SEGMENT, packed.lanes - self._lanes_done)
            packed.encode(self._lanes_done, count, words.address)
            self._flights.append(_Flight(self._lanes_done, count, words, words.total(count)))
            self._lanes_done += count

    def _land(self, packed: Packed) -> None:
        flight = self._flights.popleft()
        flight.pending.wait()
        packed.decode(flight.first, flight.lanes, flight.words.address)
        self._free.append(flight.words)


def _stages(blocks: int) -> list[tuple[int, int]]:
    """(First block, blocks) of each stage."""
    sizes = [min(blocks, HEAD)] if blocks else []
    while (left := blocks - sum(sizes)) > 0:
        sizes.append(min(left, STAGE))
    return list(zip(accumulate([0, *sizes]), sizes, strict=False))
