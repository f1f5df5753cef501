"""A collective of tensors on a device, on its way through the host's memory."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from wiresum.common.patience import wait_for
from wiresum.host_agent import lines
from wiresum.host_agent._engine import BLOCK, SMALL
from wiresum.host_agent.backend.cuda.cutting import Part, rounds
from wiresum.host_agent.backend.cuda.device import Device, Event, Stream
from wiresum.host_agent.backend.cuda.kernels import NONFINITE, Fields, Kernels, Scales
from wiresum.host_agent.backend.cuda.pool import Buffer, Pool
from wiresum.host_agent.backend.cuda.work import StagedWork
from wiresum.host_agent.backend.plans import Piece
from wiresum.host_agent.backend.tensors import Copies
from wiresum.host_agent.backend.work import Ranges, Repair, Span
from wiresum.host_agent.errors import CollectiveTimeout

FLOATS = frozenset({"float32", "float16", "bfloat16"})
ALIGNED = 256
"""Parts of a round begin at multiples of so many bytes."""


class Lane:
    """What one device has for all of its collectives."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.down = device.stream()
        """From the device to the host."""
        self.up = device.stream()
        self.pool = Pool(device.pinned)
        self._kernels: Kernels | None = None

    @property
    def streams(self) -> tuple[Stream, Stream]:
        """Both."""
        return self.down, self.up

    @property
    def kernels(self) -> Kernels:
        """Of the codec."""
        if self._kernels is None:
            self._kernels = self.device.kernels()
        return self._kernels


@dataclass
class Coded:
    """A sum that crosses as codes and lanes."""

    values: torch.Tensor
    """Its elements on the device, flat."""
    average: bool
    first: int
    """Its first block among those of all such sums of the collective."""
    scales: Scales | None = None
    """Once the codes are agreed."""

    @property
    def blocks(self) -> int:
        """The last one may be short."""
        return -(-self.values.numel() // BLOCK)


@dataclass
class Codes:
    """Those of all such sums, on the device and on the host."""

    device: torch.Tensor
    host: torch.Tensor


@dataclass
class Fixed:
    """A span of the device that holds Inf or NaN, and its elements on the host."""

    piece: int
    first: int
    target: torch.Tensor
    span: Span


@dataclass
class Job:
    """One collective."""

    work: StagedWork
    lane: Lane
    rank: int
    fields: Fields
    pieces: Sequence[Piece]
    """On the device."""
    copies: Copies
    """What to copy there in the end."""
    repair: Repair
    limit_s: float
    coded: dict[int, Coded] = field(default_factory=dict)
    codes: Codes | None = None
    planned: Event | None = None
    """After it, the pieces hold this rank's elements, and the results may be written."""
    fixed: list[Fixed] = field(default_factory=list)
    error: BaseException | None = None
    left: int = 0
    """Rounds that have not landed."""

    def find_coded(self) -> int:
        """Choose the sums that cross as codes and lanes; the blocks of all of them."""
        blocks = 0
        if self.fields.bits == 32:
            return blocks
        for index, piece in enumerate(self.pieces):
            if piece.dtype in FLOATS and piece.count > SMALL:
                found = Coded(flat(piece), piece.average, blocks)
                self.coded[index] = found
                blocks += found.blocks
        return blocks

    def rounds(self) -> list[list[Part]]:
        """How it is cut; the same on all ranks."""
        counts = [piece.count for piece in self.pieces]
        return list(rounds(counts, [self.bytes_of(i, n) for i, n in enumerate(counts)]))

    def bytes_of(self, index: int, count: int) -> int:
        """Of the host's memory for so many elements of a piece."""
        if index in self.coded:
            return 4 * -(-count // self.fields.per_lane)
        return count * _ITEM[self.pieces[index].dtype]

    def gives(self, piece: Piece) -> bool:
        """Whether this rank's elements go into a piece."""
        return piece.source in (-1, self.rank)


_ITEM = {"float32": 4, "float16": 2, "bfloat16": 2, "int32": 4, "max_uint32": 4, "bytes": 1}


class Taken:
    """Tickets of the engine that end together: ``completion.Waiting``."""

    def __init__(self, ended: Callable[[], None]) -> None:
        """``ended`` is called on the thread that polls the engine."""
        self._ended = ended
        self._lock = threading.Lock()
        self._first = self._left = 0
        self.error: BaseException | None = None
        self.nonfinite: dict[int, Ranges] = {}
        """By the number of the piece."""

    def expect(self, tickets: Sequence[int]) -> None:
        """Set the tickets, before any of them is reported."""
        self._first, self._left = (tickets[0] if tickets else 0), len(tickets)

    def ticket_ended(self, ticket: int, error: BaseException | None, nonfinite: Ranges) -> None:
        """Note the end of one ticket."""
        with self._lock:
            self.error = self.error or error
            if nonfinite:
                self.nonfinite[ticket - self._first] = nonfinite
            self._left -= 1
            last = self._left == 0
        if last:
            self._ended()


@dataclass
class Flight:
    """A round of a collective on its way to the host, in the engine, or back."""

    job: Job
    parts: Sequence[Part]
    buffer: Buffer
    hosts: Sequence[torch.Tensor | None]
    """Where the parts lie on the host."""
    copied: Event
    """When they do."""
    taken: Taken | None = None

    def calls(self) -> list[Piece]:
        """The parts as pieces for the engine."""
        return [self._call(*each) for each in zip(self.parts, self.hosts, strict=True)]

    def _call(self, part: Part, host: torch.Tensor | None) -> Piece:
        piece = self.job.pieces[part.piece]
        count, dtype, average = part.count, piece.dtype, piece.average
        if part.piece in self.job.coded:
            assert host is not None
            count, dtype, average = host.numel(), "int32", False
        named = piece.source, piece.readers, piece.reader, piece.reads
        return Piece(host, count, dtype, average, *named)


class Agreed:
    """The codes in the engine."""

    def __init__(self, piece: Piece) -> None:
        self._done = threading.Event()
        self._piece: Piece | None = piece
        self.taken = Taken(self._ended)

    def _ended(self) -> None:
        self._piece = None  # its memory has to be there until now, also after a wait that is over
        self._done.set()

    def wait(self, limit_s: float) -> None:
        """Wait for the largest codes. Raises the error of the engine, or ``CollectiveTimeout``."""
        if not wait_for(self._done, limit_s):
            raise CollectiveTimeout(lines.DEVICE_LATE.of(what="the exponents", seconds=limit_s))
        if self.taken.error is not None:
            raise self.taken.error


def flat(piece: Piece) -> torch.Tensor:
    """A piece's memory in one dimension: elements, or bytes of a copy."""
    assert piece.memory is not None
    memory = piece.memory.reshape(-1)
    return memory.view(torch.uint8) if piece.dtype == "bytes" else memory


def nonfinite(codes: torch.Tensor, count: int) -> list[tuple[int, int]]:
    """Ranges (first element, count) of the blocks with that code; ``codes`` on the host."""
    found: list[tuple[int, int]] = []
    for block in (codes == NONFINITE).nonzero().view(-1).tolist():
        first, size = block * BLOCK, min(BLOCK, count - block * BLOCK)
        if found and sum(found[-1]) == first:
            first, size = found[-1][0], found.pop()[1] + size
        found.append((first, size))
    return found
