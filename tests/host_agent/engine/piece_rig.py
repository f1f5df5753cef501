"""Collectives as lists of pieces: random ones, this process's memory, and the results."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from engine_rig import LIMIT_S, codec_alone, words
from numpy.typing import NDArray

from wiresum.host_agent.engine import Completion, Engine, Packed
from wiresum.p4.packet import Readers

FLOATS = {"float32": np.float32, "float16": np.float16}
WORDS = {"int32": np.int32, "max_uint32": np.uint32}
MARGIN = 16
"""Bytes before and behind the memory of a copy, which nobody may touch."""


@dataclass(frozen=True)
class Piece:
    """A piece without the memory and the ticket, which each rank has of its own."""

    count: int
    dtype: str = "bytes"
    average: bool = False
    source: int = -1
    readers: int = Readers.ALL
    reader: int = -1
    field: int = 0

    @property
    def copies(self) -> bool:
        return self.source >= 0

    def read_by(self, rank: int) -> bool:
        return self.readers == Readers.ALL or (
            (rank == self.reader) == (self.readers == Readers.ONLY)
        )


def broadcast(count: int, root: int) -> Piece:
    return Piece(count, source=root, readers=Readers.ALL_BUT, reader=root)


def all_gather(count: int, workers: int) -> list[Piece]:
    """Each rank gives ``count`` bytes to all others."""
    return [broadcast(count, rank) for rank in range(workers)]


def reduce_scatter(count: int, workers: int, dtype: str = "float32") -> list[Piece]:
    """Each rank gets the sum of one part, of ``count`` elements."""
    return [Piece(count, dtype, readers=Readers.ONLY, reader=r) for r in range(workers)]


def some(rng: np.random.Generator, workers: int, sizes: Sequence[int]) -> Piece:
    """Any piece."""
    readers = Readers(int(rng.integers(3)))
    reader = -1 if readers == Readers.ALL else int(rng.integers(workers))
    count = int(rng.choice(sizes))
    if rng.random() < 0.5:
        return Piece(count, source=int(rng.integers(workers)), readers=readers, reader=reader)
    dtype = str(rng.choice([*FLOATS, *WORDS]))
    average = dtype in FLOATS and rng.random() < 0.3
    field = int(rng.choice([0, 0, 32, 16, 8]))
    return Piece(count, dtype, average, -1, readers, reader, field)


class Memory:
    """What the ranks have of one piece, and what each must have when it has ended."""

    def __init__(
        self,
        piece: Piece,
        workers: int,
        field: int,
        rng: np.random.Generator,
        zeros: float = 0.3,
    ) -> None:
        """``zeros``: how many blocks of a sum are zero on all ranks."""
        self.piece = piece
        if piece.copies:
            size = piece.count + 2 * MARGIN
            self.kept = [rng.integers(0, 256, size, np.uint8) for _ in range(workers)]
            first = MARGIN + int(rng.integers(-3, 4))  # at any alignment
            part = slice(first, first + piece.count)
            self.arrays: list[NDArray[Any]] = [each[part] for each in self.kept]
            self._must = [each.copy() for each in self.kept]
            for rank in self._readers(workers):
                self._must[rank][part] = self.arrays[piece.source]
            return
        self.arrays = self.kept = numbers(rng, workers, piece.count, piece.dtype, zeros)
        total = codec_alone(self.arrays, piece.field or field, piece.dtype, piece.average)
        self._must = [each.copy() for each in self.arrays]
        for rank in self._readers(workers):
            self._must[rank] = np.frombuffer(total, self.arrays[rank].dtype)

    def _readers(self, workers: int) -> list[int]:
        return [rank for rank in range(workers) if self.piece.read_by(rank)]

    def address(self, rank: int) -> int:
        """0 where a rank has nothing to do with a copy."""
        piece = self.piece
        if piece.copies and rank != piece.source and not piece.read_by(rank):
            return 0
        return int(self.arrays[rank].ctypes.data)

    def check(self) -> None:
        """Every rank has exactly what it must have, and nothing else was touched."""
        for rank, (kept, must) in enumerate(zip(self.kept, self._must, strict=True)):
            assert kept.tobytes() == must.tobytes(), f"{self.piece} on rank {rank}"

    def packed(self, rank: int, workers: int, field: int) -> Packed:
        """The whole piece for another carrier."""
        piece = self.piece
        return Packed(
            self.address(rank), piece.count, piece.dtype, piece.average, workers,
            piece.field or field, rank=rank,
            source=piece.source, readers=piece.readers, reader=piece.reader,
        )  # fmt: skip


def numbers(
    rng: np.random.Generator, workers: int, count: int, dtype: str, zeros: float
) -> list[NDArray[Any]]:
    """One tensor per rank; some blocks are zero on all ranks, and some elements on one."""
    if dtype in WORDS:
        return words(rng, workers, count, WORDS[dtype])
    made = []
    for _ in range(workers):
        each = (rng.standard_normal(count) * 10.0 ** rng.integers(-3, 3)).astype(FLOATS[dtype])
        each[rng.random(count) < 0.1] = 0
        made.append(each)
    for block in range(0, count, 256):
        if rng.random() < zeros:
            for each in made:
                each[block : block + 256] = 0
    return made


def collect(
    engines: Sequence[Engine | Any], memory: Sequence[Memory], first_ticket: int = 0
) -> None:
    """Queue the pieces as one collective on these engines, which are those of the first ranks."""
    for rank, engine in enumerate(engines):
        engine.collect(arguments(memory, rank, first_ticket))


def arguments(memory: Sequence[Memory], rank: int, first_ticket: int = 0) -> list[Any]:
    """Of ``Engine.collect``, for one rank."""
    return [
        (each.address(rank), p.count, p.dtype, p.average, first_ticket + i, p.source, p.readers,
         p.reader, p.field)
        for i, each in enumerate(memory) for p in (each.piece,)
    ]  # fmt: skip


def completions(engines: Sequence[Engine], ticket: int) -> list[Completion]:
    """Wait for a ticket on all ranks."""
    done = [engine.wait(ticket, LIMIT_S) for engine in engines]
    assert None not in done, "an engine neither finished nor gave up"
    return [each for each in done if each is not None]


def finish(engines: Sequence[Engine], memory: Sequence[Memory], first_ticket: int = 0) -> None:
    """Wait for all pieces of one collective, and check them."""
    for ticket, each in enumerate(memory, first_ticket):
        assert [done.error for done in completions(engines, ticket)] == [None] * len(engines)
        each.check()
