"""Units that the ranks carry: every rank gets what it reads, and nothing else is written."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.examples import examples
from support.thread_sums import thread_sums
from wiresum.host_agent.agent import carrying
from wiresum.host_agent.agent.ballot import Ballot
from wiresum.host_agent.agent.carrying import HEAD
from wiresum.host_agent.agent.face import ALL, ALL_BUT, BYTES, ONLY, Call
from wiresum.host_agent.agent.ranks import RanksEngine

LIMIT_S = 60.0


@contextmanager
def ranks(count: int, field: int = 32) -> Iterator[list[RanksEngine]]:
    engines = [RanksEngine(sums, count, field) for sums in thread_sums(count)]
    try:
        yield engines
    finally:
        for engine in engines:
            engine.close()


class Piece:
    """One piece of a unit on all ranks: what each has before, and shall have after."""

    def __init__(
        self, before: list[np.ndarray], dtype: str, source: int, readers: int, reader: int
    ) -> None:
        self.before, self.dtype = before, dtype
        self.kind = source, readers, reader
        self.memory = [each.copy() for each in before]

    def call(self, rank: int, ticket: int) -> Call:
        data = self.memory[rank]
        return Call(data.ctypes.data, data.size, self.dtype, False, ticket, *self.kind)

    def check(self, sum_: Any) -> None:
        source = self.kind[0]
        result = self.before[source] if source >= 0 else sum_(self)
        for rank, found in enumerate(self.memory):
            reads = self.call(rank, 0).read_by(rank)
            expected = result if reads else self.before[rank]
            assert found.tobytes() == expected.tobytes(), (self.kind, self.dtype, rank)


def carried(engines: list[RanksEngine], units: list[list[Piece]]) -> None:
    """Carry the units on all ranks, and wait for their ends."""
    tickets = 0
    for unit in units:
        for rank, engine in enumerate(engines):
            engine.collect([each.call(rank, tickets + at) for at, each in enumerate(unit)])
        tickets += len(unit)
    for engine in engines:
        left = tickets
        while left:
            ended = engine.poll(LIMIT_S)
            assert ended
            assert [each.error for each in ended] == [None] * len(ended)
            left -= len(ended)


def exact(piece: Piece) -> np.ndarray:
    total = np.sum(piece.before, axis=0, dtype=np.int64)
    return total.astype(piece.before[0].dtype)


def pieces(draw: np.random.Generator, workers: int, kind: str, count: int) -> list[Piece]:
    """The pieces of a collective; sums are exact, as those of small integers are at 32 bits."""

    def made(dtype: str, source: int, readers: int, reader: int) -> Piece:
        if dtype == BYTES:
            before = [draw.integers(0, 256, count, np.uint8) for _ in range(workers)]
        elif dtype == "int32":
            before = [draw.integers(-(2**31), 2**31, count, np.int32) for _ in range(workers)]
        else:
            before = [draw.integers(-9, 9, count).astype(np.float32) for _ in range(workers)]
        return Piece(before, dtype, source, readers, reader)

    everybody, root = range(workers), int(draw.integers(workers))
    return {
        "broadcast": lambda: [made(BYTES, root, ALL_BUT, root)],
        "all_gather": lambda: [made(BYTES, rank, ALL_BUT, rank) for rank in everybody],
        "gather": lambda: [made(BYTES, rank, ONLY, root) for rank in everybody if rank != root],
        "scatter": lambda: [made(BYTES, root, ONLY, rank) for rank in everybody if rank != root],
        "reduce": lambda: [made("float32", -1, ONLY, root)],
        "reduce_scatter": lambda: [made("float32", -1, ONLY, rank) for rank in everybody],
        "words": lambda: [made("int32", -1, ONLY, rank) for rank in everybody],
        "all_reduce": lambda: [made("float32", -1, ALL, -1), made("int32", -1, ALL, -1)],
    }[kind]()


KINDS = (
    "broadcast", "all_gather", "gather", "scatter", "reduce", "reduce_scatter", "words",
    "all_reduce",
)  # fmt: skip


@settings(max_examples=examples(40))
@given(
    workers=st.sampled_from([2, 3, 4]),
    units=st.lists(
        st.tuples(
            st.lists(st.sampled_from(KINDS), min_size=1, max_size=2),
            st.one_of(st.integers(0, 40), st.sampled_from([1025, 4 * HEAD, 4 * HEAD + 1, 70_001])),
        ),
        min_size=1,
        max_size=4,
    ),
    segment=st.sampled_from([1 << 19, 4096, 1000]),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_rank_gets_what_it_reads_and_keeps_the_rest(
    workers: int, units: list[tuple[list[str], int]], segment: int, seed: int
) -> None:
    draw = np.random.default_rng(seed)
    made = [
        [piece for kind in kinds for piece in pieces(draw, workers, kind, count)]
        for kinds, count in units
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(carrying, "SEGMENT", segment)
        with ranks(workers) as engines:
            carried(engines, made)
    for unit in made:
        for piece in unit:
            piece.check(exact)


@pytest.mark.parametrize("field", [32, 16, 8])
def test_a_reduce_scatter_has_the_bits_of_an_all_reduce(field: int) -> None:
    draw = np.random.default_rng(field)
    workers = 3
    values = [draw.standard_normal(workers * 3000).astype(np.float32) for _ in range(workers)]
    for each in values:
        each[3100:3400] = 0.0
    with ranks(workers, field) as engines:
        parts = [[each[3000 * r :][:3000] for each in values] for r in range(workers)]
        whole = [Piece(part, "float32", -1, ALL, -1) for part in parts]
        scattered = [Piece(part, "float32", -1, ONLY, r) for r, part in enumerate(parts)]
        carried(engines, [whole])
        carried(engines, [scattered])
    for rank, (everywhere, here) in enumerate(zip(whole, scattered, strict=True)):
        here.check(lambda _, everywhere=everywhere, rank=rank: everywhere.memory[rank])
        assert len({memory.tobytes() for memory in everywhere.memory}) == 1


class Counting(Ballot):
    """Counts what it is asked."""

    def __init__(self) -> None:
        self.heads = 0

    def counted(self, largest: object) -> bool:
        self.heads += 1
        return False


def test_a_unit_has_one_head_however_many_pieces_it_has() -> None:
    ballots = [Counting() for _ in range(3)]
    engines = [
        RanksEngine(sums, 3, 32, ballot=ballot)
        for sums, ballot in zip(thread_sums(3), ballots, strict=True)
    ]
    draw = np.random.default_rng(1)
    made = [pieces(draw, 3, kind, 5000) for kind in KINDS]
    carried(engines, made)
    assert [ballot.heads for ballot in ballots] == [len(KINDS)] * 3
    for engine in engines:
        engine.close()


def test_ranks_with_other_roots_or_sizes_get_an_error_and_no_result() -> None:
    for differ in ((0, ALL_BUT, 0), (1, ALL_BUT, 1)), ((0, ALL_BUT, 0), (0, ONLY, 1)):
        with ranks(2) as engines:
            data = [np.full(64, rank, np.uint8) for rank in range(2)]
            for engine, kind, each in zip(engines, differ, data, strict=True):
                engine.collect([Call(each.ctypes.data, each.size, BYTES, False, 1, *kind)])
            for engine in engines:
                (ended,) = engine.poll(LIMIT_S)
                assert ended.kind == "CollectiveMismatch"
        assert [set(each.tolist()) for each in data] == [{0}, {1}]
