"""How the ranks carry one collective by themselves: a head, exponents in stages, lanes in segments.

The head is a maximum of words over all ranks, which says that all carry the same. It has the first
exponents, too, or all bytes of small copies: such a collective takes one message. While the data of
one stage travel, the exponents of the next do. What is started when follows from the collective
alone, so it is the same on all ranks.
"""

import ctypes
import struct
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol
from zlib import crc32

from wiresum.host_agent import lines
from wiresum.host_agent.agent.ballot import Ballot
from wiresum.host_agent.agent.face import ONLY, Call
from wiresum.host_agent.agent.face import Unit as Calls
from wiresum.host_agent.agent.sums import Copy, Pending, Sums, Words
from wiresum.host_agent.engine import Packed
from wiresum.host_agent.errors import CollectiveMismatch

SEGMENT = 1 << 19
"""Lanes that travel together: enough that the time of a round trip does not matter, and few enough
that one segment is quantized while another one travels."""

HEAD, STAGE = 1024, 4096
"""Blocks whose exponents travel together: the first ones, and the others. All tensors of up to
1,024 elements, or blocks, have but one message. Copies of so many words travel in the head."""

FLYING = 3
"""Segments that are between quantizing and decoding: one is quantized or decoded, the others
travel."""

_LEAST = -(1 << 31)
_WORD = 4


class Stage(NamedTuple):
    """Blocks of one tensor: the first one, and how many."""

    first: int
    blocks: int


class Sum:
    """Tensors whose blocks and lanes travel in step.

    That is one tensor, whose sum all ranks get (and that only its readers write), or one for each
    rank, in their order, whose sum that rank alone gets.
    """

    def __init__(self, packed: Sequence[Packed], mine: int = 0) -> None:
        """``mine``: which of several tensors is this rank's."""
        self.packed = packed
        self.mine = mine
        self.stages = list(_stages([each.blocks for each in packed]))
        self._done = [0] * len(packed)  # lanes, those on their way among them

    def exponents(self, stage: int, words: Words) -> int:
        """Write those of a stage; how many they are."""
        at = 0
        for packed, (first, count) in zip(self.packed, self.stages[stage], strict=True):
            packed.exponents(first, count, words.address + _WORD * at)
            at += count
        return at

    def agree(self, stage: int, words: Words) -> None:
        """Take the largest of a stage over all ranks."""
        at = 0
        for packed, (_, count) in zip(self.packed, self.stages[stage], strict=True):
            packed.agree(count, words.address + _WORD * at)
            at += count

    def encode(self, words: Words) -> tuple[list[int], Callable[[Words], None]] | None:
        """Quantize the next lanes of each tensor: how many, and what decodes their sums.

        None: all that is agreed so far is on its way.
        """
        most = SEGMENT // len(self.packed)
        firsts = list(self._done)
        counts = [
            min(most, packed.lanes - first)
            for packed, first in zip(self.packed, firsts, strict=True)
        ]
        if not any(counts):
            return None
        at = 0
        for place, (packed, count) in enumerate(zip(self.packed, counts, strict=True)):
            packed.encode(firsts[place], count, words.address + _WORD * at)
            self._done[place] += count
            at += count
        mine, first, count = self.packed[self.mine], firsts[self.mine], counts[self.mine]
        return counts, lambda sums: mine.decode(first, count, sums.address)


def _stages(blocks: Sequence[int]) -> Iterator[list[Stage]]:
    """The blocks of each tensor in each stage."""
    done = [0] * len(blocks)
    size = max(1, HEAD // max(1, len(blocks)))
    while any(left := [total - first for total, first in zip(blocks, done, strict=True)]):
        stage = [Stage(first, min(size, rest)) for first, rest in zip(done, left, strict=True)]
        yield stage
        done = [each.first + each.blocks for each in stage]
        size = max(1, STAGE // len(blocks))


class Left(Protocol):
    """A piece, or what another carrier has left of one: see ``_engine.Rest``."""

    @property
    def ticket(self) -> int:
        """Its ticket."""

    @property
    def packed(self) -> Packed:
        """Its lanes."""


class Unit:
    """A collective to carry: all of it, or a piece alone.

    Pieces go alone from the collectives that another carrier has begun on some rank, since ranks
    that had issued fewer of them have to carry the same.
    """

    def __init__(
        self,
        tickets: Sequence[int],
        calls: Calls | None,
        packed: dict[int, Packed],
        copies: Sequence[Copy],
        sums: Sequence[Sum],
        kind: object,
        *,
        alone: bool = False,
    ) -> None:
        """Use the class methods."""
        self.is_alone = alone
        self.tickets = tickets
        self.calls = calls
        """Its pieces, if no part of it is done yet."""
        self.packed = packed
        """Of its sums, by ticket."""
        self.copies = copies
        self.sums = sums
        self.kind = kind
        """The same on all ranks."""

    @classmethod
    def of(cls, calls: Calls, sums: Sums, workers: int, field: int) -> "Unit":
        """A whole collective. Raises ``CodecError`` for sums of other dtypes."""
        packed = {
            call.ticket: _pack(call, sums.rank, workers, field) for call in calls if call.source < 0
        }
        # Empty ones end at once: on a rank, maybe, over the carrier before.
        copies = [_copy(call, workers) for call in calls if call.source >= 0 and call.count]
        inside = [call for call in calls if call.source < 0]
        found = []
        at = 0
        while at < len(inside):
            row = inside[at : at + workers]
            in_step = 1 < workers <= HEAD and [(each.readers, each.reader) for each in row] == [
                (ONLY, rank) for rank in range(workers)
            ]
            taken = row if in_step else row[:1]
            found.append(Sum([packed[each.ticket] for each in taken], sums.rank if in_step else 0))
            at += len(taken)
        kinds = [
            packed[call.ticket].kind + call[5:] if call.source < 0 else (call.count, *call[5:])
            for call in calls
        ]
        tickets = [call.ticket for call in calls]
        return cls(tickets, calls, packed, copies, found, kinds)

    @classmethod
    def alone(cls, rest: Left, calls: Calls | None = None) -> "Unit":
        """A piece, or the rest of one, by its lanes alone: also that of a copy."""
        packed = rest.packed
        inside = {rest.ticket: packed}
        return cls([rest.ticket], calls, inside, (), [Sum([packed])], packed.kind, alone=True)

    @property
    def is_filled(self) -> bool:
        """Whether a piece of it that goes by its lanes has elements: no rest is without."""
        return any(packed.count for packed in self.packed.values())

    @property
    def elements(self) -> int:
        """Of its sums, if no part of it is done yet."""
        return sum(call.count for call in self.calls or () if call.source < 0)

    @property
    def copied_bytes(self) -> int:
        """Of its copies, if no part of it is done yet."""
        return sum(call.count for call in self.calls or () if call.source >= 0)


class Piece(NamedTuple):
    """A piece of which nothing is done: :class:`Left`."""

    ticket: int
    packed: Packed


def pieces(calls: Calls, rank: int, workers: int, field: int) -> list[Unit]:
    """The pieces of a collective, each alone."""
    return [
        Unit.alone(Piece(call.ticket, _pack(call, rank, workers, field)), [call]) for call in calls
    ]


def _pack(call: Call, rank: int, workers: int, field: int) -> Packed:
    data, count, dtype, average, _, source, readers, reader, its_own = call
    return Packed(
        *(data, count, dtype, average, workers, its_own or field),
        rank=rank,
        source=source,
        readers=readers,
        reader=reader,
    )


def _copy(call: Call, workers: int) -> Copy:
    readers = tuple(r for r in range(workers) if r != call.source and call.read_by(r))
    return Copy(call.data, call.count, call.source, readers)


class _Flight(NamedTuple):
    pending: Pending
    land: Callable[[], None]


class Carrying:
    """Carries one collective after the other, on one thread."""

    def __init__(self, sums: Sums, workers: int, ballot: Ballot) -> None:
        self._sums = sums
        self._workers = workers
        self._ballot = ballot
        self._head = sums.words(HEAD + 2 + ballot.size)
        self._buffers = [sums.words(STAGE), sums.words(STAGE)]
        self._free: list[Words] = []
        self._flights: deque[_Flight] = deque()

    def carry(self, unit: Unit) -> bool:
        """Carry it; whether the ballot says that it is the last one.

        A collective without exponents and without copies is not voted on.
        """
        stages = [(each, number) for each in unit.sums for number in range(len(each.stages))]
        last = False
        if stages or unit.copies:
            last = self._begin(unit, stages)
        words = self._head
        codes: Pending | None = None
        for at, (each, number) in enumerate(stages):
            if codes is not None:
                codes.wait()
            each.agree(number, words)
            if at + 1 < len(stages):
                following, next_number = stages[at + 1]
                words = self._buffers[at % 2]
                codes = words.maximum(following.exponents(next_number, words))
            self._send(each)
        for each in unit.sums:
            self._send(each)  # of which all exponents had been agreed before
        while self._flights:
            self._land()
        return last

    def _begin(self, unit: Unit, stages: Sequence[tuple[Sum, int]]) -> bool:
        """Agree on the head. Returns what the ballot says.

        Always so many words: a rank with another collective finds that out, and gets no wrong size.
        """
        head, copies = self._head, unit.copies
        small = not stages and sum(map(_words_of, copies)) <= HEAD
        if stages:
            first, number = stages[0]
            first.exponents(number, head)
        elif small:
            self._write(copies)
        mark = crc32(repr(unit.kind).encode()) >> 1
        head.put(HEAD, (mark, -mark, *self._ballot.words()))
        head.maximum(len(head)).wait()
        most, least, *said = head.get(HEAD, len(head) - HEAD)
        if most != -least:
            raise CollectiveMismatch(lines.NOT_TOGETHER.of())
        if small:
            self._read(copies)
        elif copies:
            self._flights.append(_Flight(self._sums.copy(copies), lambda: None))
        return self._ballot.counted(said)

    def _write(self, copies: Sequence[Copy]) -> None:
        """Put copies into the head: their sources the bytes, the others less than any word."""
        at = self._head.address
        for each in copies:
            room = _WORD * _words_of(each)
            if each.source == self._sums.rank:
                ctypes.memset(at, 0, room)
                ctypes.memmove(at, each.address, each.size)
            else:
                ctypes.memmove(at, _leasts(room), room)
            at += room

    def _read(self, copies: Sequence[Copy]) -> None:
        at = self._head.address
        for each in copies:
            if self._sums.rank in each.readers:
                ctypes.memmove(each.address, at, each.size)
            at += _WORD * _words_of(each)

    def _send(self, each: Sum) -> None:
        """Quantize what is agreed and not sent yet, and let it travel."""
        while True:
            if len(self._flights) == FLYING:
                self._land()
            words = self._words()
            encoded = each.encode(words)
            if encoded is None:
                self._free.append(words)
                return
            counts, decode = encoded
            if len(counts) == 1:
                self._fly(words.total(counts[0]), decode, words)
            else:
                got = self._words()
                self._fly(words.scattered(counts, got), decode, got, words)

    def _fly(self, pending: Pending, decode: Callable[[Words], None], *words: Words) -> None:
        def land() -> None:
            decode(words[0])
            self._free += words

        self._flights.append(_Flight(pending, land))

    def _words(self) -> Words:
        return self._free.pop() if self._free else self._sums.words(SEGMENT)

    def _land(self) -> None:
        flight = self._flights.popleft()
        flight.pending.wait()
        flight.land()


def _words_of(copy: Copy) -> int:
    return -(-copy.size // _WORD)


def _leasts(size: int, _all: bytes = struct.pack("=i", _LEAST) * HEAD) -> bytes:
    return _all[:size]
