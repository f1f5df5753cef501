"""Sums with readers, and copies, around the reference switch: bits, bytes on the wire, errors."""

import time
from typing import Any

import numpy as np
import pytest
from engine_rig import LIMIT_S, Rig, eventually
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from piece_rig import (
    Memory,
    Piece,
    all_gather,
    arguments,
    broadcast,
    collect,
    completions,
    finish,
    reduce_scatter,
    some,
)

from reference_switch import Faults
from support.examples import examples
from wiresum.controller.state.model import MIN_SLOTS
from wiresum.host_agent.engine import Packed
from wiresum.host_agent.errors import CodecError, EngineError
from wiresum.p4.packet import HEADER_BYTES, Kind, Readers

SIZES = (0, 1, 3, 63, 255, 256, 257, 1024, 1025, 4000, 9_001)
FAULTS = st.sampled_from(
    [
        {},
        {"loss": 0.05},
        {"duplication": 0.2, "reordering": 0.2},
        {"loss": 0.1, "duplication": 0.1, "reordering": 0.2, "delay_s": 0.001},
    ]
)


def memories(rig: Rig, pieces: list[Piece], rng: np.random.Generator) -> list[Memory]:
    return [Memory(piece, rig.workers, rig.field, rng) for piece in pieces]


@settings(max_examples=examples(50), deadline=None, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 2**32),
    workers=st.integers(1, 5),
    field=st.sampled_from([32, 16, 8]),
    lanes=st.sampled_from([64, 256]),
    slots=st.sampled_from([6, 16, 64]),
    faults=FAULTS,
)
def test_any_pieces_give_the_reference_bits_to_their_readers_and_touch_nothing_else(
    seed: int, workers: int, field: int, lanes: int, slots: int, faults: dict[str, float]
) -> None:
    rng = np.random.default_rng(seed)
    chosen = Faults(seed=seed, **faults)  # type: ignore[arg-type]
    options = {"lanes": lanes, "slots": slots, "field": field, "rto_min_s": 0.002}
    with Rig(workers, faults=chosen, **options) as rig:
        collectives = []
        ticket = 0
        for _ in range(int(rng.integers(1, 4))):
            pieces = [some(rng, workers, SIZES) for _ in range(int(rng.integers(1, 6)))]
            collectives.append((ticket, memories(rig, pieces, rng)))
            collect(rig.engines, collectives[-1][1], ticket)
            ticket += len(pieces)
        for first, memory in collectives:
            finish(rig.engines, memory, first)
        assert not rig.rules.drops or set(rig.rules.drops) == {10}  # stale: late duplicates
        for engine in rig.engines:
            stats = engine.stats()
            assert stats["contributions"] == stats["results"]
            assert stats["collectives"] == ticket


def test_a_reduce_scatter_and_an_all_gather_each_fill_one_direction_of_the_link() -> None:
    """Beside each other: 1 + 1/n tensors up and one down, of n ranks."""
    workers, lanes = 4, 64
    part = 64 * 256  # elements: 1/n of the tensor
    tensor = 4 * part * workers
    # In tensors: up, down. Bare packets and exponents add a little.
    costs = {"sums": (1, 1 / 4), "copies": (1 / 4, 3 / 4), "both": (5 / 4, 1)}
    patient = {"rto_initial_s": 5.0, "rto_min_s": 5.0, "rto_max_s": 9.0}  # nothing is sent twice
    with Rig(workers, lanes=lanes, slots=128, **patient) as rig:
        rng = np.random.default_rng(1)
        for name, (up, down) in costs.items():
            pieces = [] if name == "copies" else reduce_scatter(part, workers)
            pieces += [] if name == "sums" else all_gather(4 * part, workers)
            memory = [Memory(each, workers, 32, rng, zeros=0.0) for each in pieces]
            before = [engine.stats() for engine in rig.engines]
            collect(rig.engines, memory, int(before[0]["collectives"]))
            finish(rig.engines, memory, int(before[0]["collectives"]))
            for engine, then in zip(rig.engines, before, strict=True):
                now = engine.stats()
                sent = (now["bytes_sent"] - then["bytes_sent"]) / tensor
                received = (now["bytes_received"] - then["bytes_received"]) / tensor
                headers = (1 + (name == "both")) * HEADER_BYTES / (4 * lanes)
                assert up <= sent < up + headers + 0.05
                assert down <= received < down + headers + 0.05


def test_sums_and_copies_do_not_wait_for_each_other() -> None:
    held = {"stream": -1}

    def hold(data: bytes, _peer: Any, direction: str) -> bool:
        slot = int.from_bytes(data[6:8], "big")
        stream = 0 if slot < 8 else 1 if slot < 48 else 2  # of 64 slots
        return direction == "in" and stream == held["stream"]

    rng = np.random.default_rng(2)
    with Rig(3, slots=64, faults=Faults(intercept=hold)) as rig:
        for ticket, stream in ((0, 1), (20, 2)):
            held["stream"] = stream
            memory = memories(rig, [*reduce_scatter(2000, 3), *all_gather(9000, 3)], rng)
            collect(rig.engines, memory, ticket)
            done, waiting = (3, 0) if stream == 1 else (0, 3)
            for place in range(done, done + 3):
                assert [each.error for each in completions(rig.engines, ticket + place)] == [
                    None
                ] * 3
                memory[place].check()
            assert rig.engines[0].wait(ticket + waiting, 0.05) is None
            held["stream"] = -1
            for place in range(waiting, waiting + 3):
                completions(rig.engines, ticket + place)
                memory[place].check()


def test_pieces_of_one_collective_take_turns() -> None:
    """All sources of an all-gather send from the start; so all links are in use."""
    senders = set()

    def watch(data: bytes, peer: Any, direction: str) -> bool:
        if direction == "in" and len(data) > HEADER_BYTES:
            senders.add(peer)
        return direction == "out"  # nothing completes: only the first window is sent

    with Rig(4, slots=256, faults=Faults(intercept=watch), timeout_s=0.4) as rig:
        memory = memories(rig, all_gather(100_000, 4), np.random.default_rng(3))
        collect(rig.engines, memory)
        eventually(lambda: senders == set(rig.addresses), "lanes of all ranks")
        for each in completions(rig.engines, 0):
            assert each.kind in ("CollectiveTimeout", "SwitchUnreachable")


DISAGREEMENTS = {
    "root": (broadcast(5000, 0), broadcast(5000, 1)),
    "bytes": (broadcast(5000, 0), broadcast(5001, 0)),
    "readers of a copy": (broadcast(5000, 0), Piece(5000, source=0)),
    "reader of a sum": reduce_scatter(3000, 2),
    "readers of a sum": (Piece(3000, "float32"), Piece(3000, "float32", False, -1, 1, 0)),
    "field": (Piece(3000, "float32", field=16), Piece(3000, "float32", field=8)),
    "elements": (Piece(3000, "int32", False, -1, 1, 0), Piece(3001, "int32", False, -1, 1, 0)),
}


@pytest.mark.parametrize("what", DISAGREEMENTS)
def test_ranks_that_disagree_get_an_error_that_names_both_sides(what: str) -> None:
    rng = np.random.default_rng(4)
    with Rig(2) as rig:
        for rank, piece in enumerate(DISAGREEMENTS[what]):
            memory = Memory(piece, 2, 32, rng)
            rig._kept.append(memory.kept)
            rig.engines[rank].collect(arguments([memory], rank))
        lines = []
        for rank, done in enumerate(completions(rig.engines, 0)):
            assert done.kind == "CollectiveMismatch"
            assert done.error is not None
            assert f"of rank {rank} disagrees with rank {1 - rank} at" in done.error
            lines.append(done.error)
        for line, piece in zip(lines, DISAGREEMENTS[what], strict=True):
            name = "copy 0" if piece.copies else "reduce 0" if piece.readers else "all-reduce 0"
            assert line.startswith(name)


def test_ranks_that_divide_their_pieces_differently_disagree() -> None:
    """Their chunks would come in another order."""
    rng = np.random.default_rng(5)
    with Rig(2) as rig:
        memory = memories(rig, all_gather(5000, 2), rng)
        rig.engines[0].collect(arguments(memory, 0))
        for place in range(2):
            rig.engines[1].collect(arguments([memory[place]], 1, place))
        assert {each.kind for each in completions(rig.engines, 0)} == {"CollectiveMismatch"}


@pytest.mark.parametrize("kind", ["copy", "sum"])
def test_a_missing_rank_is_named_with_the_piece_and_the_stream(kind: str) -> None:
    """Rank 1 carries the other kind only; what it lacks ends, although all else makes progress."""
    rng = np.random.default_rng(6)
    other, missing = [Piece(900, "float32")], [broadcast(900, 0)]
    if kind == "sum":
        other, missing = missing, other
    with Rig(2, timeout_s=0.7) as rig:
        lost = Memory(missing[0], 2, 32, rng)
        rig.engines[0].collect(arguments([lost], 0, 1000))
        # Rank 1 has issued something else in its place: it gets no sum either.
        done = rig.engines[0].wait(1000, LIMIT_S)
        assert done is not None
        assert done.kind == "CollectiveTimeout"
        assert done.error is not None
        where = "copy chunk 0" if kind == "copy" else "exponent chunk 0"
        assert "still waiting for rank 1 of 2 at " + where in done.error
        described = "copy 0 (900 bytes of rank 0, for all but rank 0)"
        assert done.error.startswith(
            described if kind == "copy" else "all-reduce 0 (900 x float32)"
        )


def test_a_piece_is_not_late_while_one_before_it_makes_progress() -> None:
    """A rank may begin it only when those before have ended."""
    rng = np.random.default_rng(7)
    passed: dict[Any, float] = {}

    def slowly(data: bytes, peer: Any, direction: str) -> bool:
        """Each rank gets a result four times a second."""
        if direction == "in" or data[1] != Kind.RESULT:
            return False
        if time.monotonic() < passed.get(peer, 0.0) + 0.25:
            return True
        passed[peer] = time.monotonic()
        return False

    with Rig(2, slots=16, timeout_s=2.0, faults=Faults(intercept=slowly), rto_min_s=0.02) as rig:
        first = Memory(Piece(12 * 64, "int32"), 2, 32, rng)
        second = Memory(broadcast(100, 0), 2, 32, rng)
        for rank in range(2):
            rig.engines[rank].collect(arguments([first], rank, 0))
        rig.engines[0].collect(arguments([second], 0, 1))
        finish(rig.engines, [first])
        rig.engines[1].collect(arguments([second], 1, 1))
        finish(rig.engines, [second], 1)


def test_what_cannot_be_carried_is_refused_and_nothing_is_queued() -> None:
    data = np.zeros(64, np.uint8)
    at = data.ctypes.data
    good = (at, 8, "bytes", False, None, 0, 2, 0, 0)
    wrong: list[tuple[Any, type[Exception], str]] = [
        ((at, 8, "bytes", False, None, 2, 0, -1), EngineError, "source 2, readers 0, reader -1"),
        ((at, 8, "bytes", False, None, -2, 0, -1), EngineError, "source -2"),
        ((at, 8, "bytes", False, None, 0, 0, 0), EngineError, "readers 0, reader 0"),
        ((at, 8, "bytes", False, None, 0, 1, -1), EngineError, "readers 1, reader -1"),
        ((at, 8, "bytes", False, None, 0, 3, 1), EngineError, "readers 3, reader 1"),
        ((at, 8, "float32", False, None, -1, 1, 2), EngineError, "one of 2 ranks"),
        ((at, 8, "float32", False, None, 0, 2, 0), CodecError, "a copy .* is of bytes"),
        ((at, 8, "bytes", True, None, 0, 2, 0), CodecError, "a copy .* is of bytes"),
        ((at, 8, "bytes", False, None, -1, 0, -1), CodecError, "dtype bytes"),
        ((at, 8, "int32", True, None, -1, 1, 0), CodecError, "only floats"),
        ((0, 8, "bytes", False, None, 0, 2, 0), EngineError, "null address"),
        ((0, 8, "bytes", False, None, 1, 1, 0), EngineError, "null address"),
        ((0, 8, "float32", False, None, -1, 1, 1), EngineError, "null address"),
        ((at, 2**48 + 1, "bytes", False, None, 0, 2, 0), EngineError, "more than 2"),
    ]
    with Rig(2) as rig:
        engine = rig.engines[0]
        for piece, error, text in wrong:
            with pytest.raises(error, match=text):
                engine.collect([good, (*piece, 0)])
        with pytest.raises(CodecError, match="field 4: fields have 32, 16 or 8 bits"):
            engine.collect([good, (at, 8, "float32", False, None, -1, 0, -1, 4)])
        with pytest.raises(EngineError, match="not above those before it"):
            engine.collect([(*good[:4], 5, 0, 2, 0, 0), (*good[:4], 5, 0, 2, 0, 0)])
        assert engine.started == 0
        assert engine.collect([]) == []
        assert engine.collect([good, good]) == [0, 1]
        assert rig.engines[1].collect([good, good]) == [0, 1]
        # Where a rank has nothing to do with a copy, it needs no memory.
        assert engine.collect([(0, 8, "bytes", False, None, 1, 1, 1, 0)]) == [2]
        assert rig.engines[1].collect([(at, 8, "bytes", False, None, 1, 1, 1, 0)]) == [2]
        for ticket in range(3):
            assert [each.error for each in completions(rig.engines, ticket)] == [None, None]


def test_the_smallest_lease_has_two_slots_for_each_stream() -> None:
    """The controller's smallest one has more; the property test works with the engine's own."""
    with (
        pytest.raises(EngineError, match="5 slots: a lease has 6 to 65536 of them"),
        Rig(1, slots=5),
    ):
        raise AssertionError("there was an engine")
    assert MIN_SLOTS >= 6


def test_pieces_of_no_bytes_end_at_once_and_alone() -> None:
    with Rig(2, faults=Faults(intercept=lambda *_: True)) as rig:
        nothing = [broadcast(0, 1), *reduce_scatter(0, 2), *all_gather(0, 2)]
        memory = memories(rig, nothing, np.random.default_rng(8))
        rig.engines[0].collect(arguments(memory, 0))
        for ticket in range(len(memory)):
            done = rig.engines[0].wait(ticket, LIMIT_S)
            assert done is not None
            assert done.error is None


def test_elements_that_are_not_finite_are_named_on_all_ranks_and_left_or_spoiled_on_readers() -> (
    None
):
    count = 5 * 256
    for keep in (True, False):
        arrays = [np.ones(count, np.float32) for _ in range(3)]
        arrays[1][300] = np.inf
        given_ = [each.copy() for each in arrays]
        with Rig(3, keep_nonfinite=keep) as rig:
            for rank, engine in enumerate(rig.engines):
                at = arrays[rank].ctypes.data
                engine.collect([(at, count, "float32", False, 0, -1, Readers.ONLY, 2, 0)])
            done = completions(rig.engines, 0)
        assert [list(each.nonfinite) for each in done] == [[(256, 256)] if keep else []] * 3
        for rank in (0, 1):
            assert arrays[rank].tobytes() == given_[rank].tobytes()
        assert (arrays[2][:256] == 3).all()
        block = arrays[2][256:512]
        assert (block == 1).all() if keep else np.isnan(block).all()
        assert (arrays[2][512:] == 3).all()


@settings(max_examples=examples(60), deadline=None)
@given(seed=st.integers(0, 2**32), workers=st.integers(1, 5))
def test_packed_pieces_can_be_carried_by_hand(seed: int, workers: int) -> None:
    """As the ranks do it: exponents to all, lanes to the readers alone, in any division."""
    rng = np.random.default_rng(seed)
    memory = Memory(some(rng, workers, SIZES), workers, 16, rng)
    packed = [memory.packed(rank, workers, 16) for rank in range(workers)]
    piece = memory.piece
    assert len({each.kind for each in packed}) == 1
    for rank, each in enumerate(packed):
        assert (each.source, each.readers, each.reader) == (
            piece.source, piece.readers, piece.reader,
        )  # fmt: skip
        assert each.writes == (piece.read_by(rank) and rank != piece.source)
    blocks = packed[0].blocks
    codes = np.zeros((workers, blocks), np.int32)
    for each, row in zip(packed, codes, strict=True):
        each.exponents(0, blocks, row.ctypes.data)
    largest = codes.max(axis=0)
    for each in packed:
        each.agree(blocks, largest.ctypes.data)
    lanes = packed[0].lanes
    assert {each.lanes for each in packed} == {lanes}
    at = 0
    while at < lanes:
        n = min(int(rng.integers(1, 700)), lanes - at)
        parts = np.zeros((workers, n), np.uint32)
        for each, row in zip(packed, parts, strict=True):
            each.encode(at, n, row.ctypes.data)
        total = parts.sum(axis=0, dtype=np.uint32)
        for each in packed:
            each.decode(at, n, total.ctypes.data)
        at += n
    memory.check()


def test_a_packed_piece_must_know_its_rank() -> None:
    Packed(0, 0, "float32", False, 2, 32)
    for rank in (-1, 2):
        with pytest.raises(EngineError, match="say which rank this is"):
            Packed(0, 0, "bytes", False, 2, 32, rank=rank, source=0)
        with pytest.raises(EngineError, match="say which rank this is"):
            Packed(0, 0, "float32", False, 2, 32, rank=rank, readers=1, reader=0)
