"""Engines around the reference switch: results to the last bit, pipelining, loss and disorder."""

import gc
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from codec_reference import block_slices, codes_of, dequantize, is_sent, quantize_32
from engine_rig import (
    JOB,
    LIMIT_S,
    InThread,
    Rig,
    codec_alone,
    engine_threads,
    eventually,
    name_of,
    normal,
    words,
)
from numpy.typing import NDArray

from reference_switch import Faults
from wiresum.host_agent.engine import raise_for
from wiresum.host_agent.errors import CodecError
from wiresum.p4.packet import Event

Floats = NDArray[np.float32]


def check(
    rig: Rig, ranks: list[NDArray[Any]], dtype: str = "float32", average: bool = False
) -> None:
    """One all-reduce; every rank must hold exactly the bits of the reference."""
    arrays = [each.copy() for each in ranks]
    rig.finish(rig.start(arrays, dtype, average))
    expected = codec_alone(ranks, rig.field, dtype, average)
    for array in arrays:
        assert array.tobytes() == expected


def boundary_sizes(lanes: int, field: int) -> list[int]:
    per_chunk = lanes * 32 // field
    sizes = {
        0,
        1,
        2,
        255,
        256,
        257,
        1023,
        1024,
        1025,
        1279,
        1280,
        1281,
        lanes * 256 - 1,
        lanes * 256,
        lanes * 256 + 1,
    }
    for chunks in (1, 2, 3):
        sizes |= {per_chunk * chunks - 1, per_chunk * chunks, per_chunk * chunks + 1}
    return sorted(sizes)


@pytest.mark.parametrize("field", [32, 16, 8])
@pytest.mark.parametrize("lanes", [64, 256])
def test_every_boundary(lanes: int, field: int) -> None:
    with Rig(2, lanes=lanes, field=field) as rig:
        for size in boundary_sizes(lanes, field):
            check(rig, normal(2, size, seed=size))


def test_against_integers() -> None:
    """Not through the engine's own codec functions: the reference's arithmetic alone."""
    workers, count = 3, 5000
    ranks = normal(workers, count, seed=1)
    arrays = [each.copy() for each in ranks]
    with Rig(workers) as rig:
        rig.finish(rig.start(arrays))
    codes = np.maximum.reduce([codes_of(each) for each in ranks])
    for index, block in enumerate(block_slices(count)):
        code = int(codes[index])
        expected = np.zeros(block.stop - block.start, np.float32)
        if is_sent(code):
            q_sum = np.sum([quantize_32(each[block], code, workers) for each in ranks], axis=0)
            expected = dequantize(q_sum, code, workers, 32, False)
        for array in arrays:
            assert array[block].tobytes() == expected.tobytes()


@pytest.mark.parametrize("workers", [1, 2, 5, 64])
@pytest.mark.parametrize("field", [32, 16, 8])
def test_ones(workers: int, field: int) -> None:
    with Rig(workers, field=field) as rig:
        for average in (False, True):
            arrays = [np.ones(1000, np.float32) for _ in range(workers)]
            rig.finish(rig.start(arrays, average=average))
            for array in arrays:
                assert (array == (1 if average else workers)).all()


@pytest.mark.parametrize(
    ("dtype", "kind"), [("float16", torch.float16), ("bfloat16", torch.bfloat16)]
)
def test_half_dtypes(dtype: str, kind: torch.dtype) -> None:
    with Rig(3, field=16) as rig:
        for size in (1, 255, 3001):
            floats = normal(3, size, seed=size)
            ranks = [torch.from_numpy(x).to(kind).view(torch.int16).numpy() for x in floats]
            check(rig, ranks, dtype)
            check(rig, ranks, dtype, average=True)


@pytest.mark.parametrize("dtype", [np.int32, np.uint32])
def test_integers_are_summed_exactly_and_the_largest_word_is_found(dtype: type[Any]) -> None:
    """Whatever the lease's field: these words have 32 bits."""
    random = np.random.default_rng(3)
    for workers, field in ((1, 32), (3, 8), (5, 16)):
        with Rig(workers, field=field) as rig:
            for size in (0, 1, 255, 1024, 1025, 20_011):
                ranks = words(random, workers, size, dtype)
                check(rig, ranks, name_of(ranks[0]))
            assert rig.total("blocks_nonfinite") == 0


def test_nan_and_infinity_are_numbers_like_others_to_words() -> None:
    pattern = np.array([0x7F800000, 0x7FC00000, 0xFFFFFFFF, 0, 1], np.uint32)
    with Rig(2, keep_nonfinite=True) as rig:
        check(rig, [pattern, pattern[::-1].copy()], "max_uint32")
        check(rig, [pattern.view(np.int32), np.zeros(5, np.int32)], "int32")


def test_words_have_no_mean_and_ranks_must_reduce_the_same_kind() -> None:
    array = np.ones(9, np.int32)
    with Rig(2) as rig:
        for name in ("int32", "max_uint32"):
            with pytest.raises(CodecError, match="only floats can be averaged"):
                rig.engines[0].all_reduce(array.ctypes.data, array.size, name, True)
        kinds = ("int32", "max_uint32")
        for engine, name in zip(rig.engines, kinds, strict=True):
            engine.all_reduce(array.ctypes.data, array.size, name, False)
        for engine in rig.engines:
            (ended,) = engine.poll(LIMIT_S)
            assert ended.kind == "CollectiveMismatch"


def test_special_blocks() -> None:
    ranks = normal(3, 6 * 256, seed=2)
    for each in ranks:
        each[:256] = -0.0
        each[256:512] = 1e-45
        each[512:768] = 3.4e38
    ranks[1][768] = np.inf
    ranks[2][1024] = np.nan
    arrays = [each.copy() for each in ranks]
    with Rig(3) as rig:
        rig.finish(rig.start(arrays))
        sent = int(rig.engines[0].stats()["data_contributions"])
    for array in arrays:
        assert not array[:256].view(np.uint32).any()
        assert (array[256:512].view(np.uint32) == 3).all()  # thrice the smallest denormal
        assert np.isposinf(array[512:768]).all()
        assert np.isnan(array[768:1280]).all()
        assert np.isfinite(array[1280:]).all()
    lanes_sent = sum(256 for code in (1, 1, codes_of(ranks[0])[5]) if code)
    assert sent == lanes_sent // 64  # neither zero nor non-finite blocks


def test_zero_blocks_are_never_sent() -> None:
    arrays = [np.zeros(100_000, np.float32) for _ in range(2)]
    arrays[0][70_000] = 2
    with Rig(2) as rig:
        rig.finish(rig.start(arrays))
        assert rig.total("data_contributions") == 2 * 256 // 64
    for array in arrays:
        assert array[70_000] == 2
        assert np.count_nonzero(array) == 1


def test_many_in_flight_complete_in_any_interleaving() -> None:
    """Tensors of all sizes queued at once, each rank in its own time."""
    sizes = [3, 70_000, 1, 0, 513, 4096, 256, 20_000, 9, 0, 1025]
    tensors = [normal(3, size, seed=size) for size in sizes]
    expected = [codec_alone(each, 16, "float32", False) for each in tensors]
    with Rig(3, field=16) as rig:

        def one_rank(rank: int) -> None:
            engine = rig.engines[rank]
            mine = [each[rank].copy() for each in tensors]
            waiting = {engine.all_reduce(x.ctypes.data, x.size, "float32"): x for x in mine}
            order = list(waiting)
            while waiting:
                completions = engine.poll(LIMIT_S)
                assert completions
                for completion in completions:
                    raise_for(completion)
                    index = order.index(completion.ticket)
                    assert waiting.pop(completion.ticket).tobytes() == expected[index]

        for thread in [InThread(partial(one_rank, rank)) for rank in range(3)]:
            thread.result()


def test_exponents_of_the_next_tensor_travel_while_data_are_in_flight() -> None:
    """Data of tensor 0 are held back; tensor 1's exponents are agreed nevertheless."""
    held = {"hold": True}

    def hold_data(data: bytes, _peer: Any, direction: str) -> bool:
        return held["hold"] and direction == "in" and data[2] == 0  # op SUM

    with Rig(2, faults=Faults(intercept=hold_data)) as rig:
        ranks = [normal(2, 3000, seed=5), normal(2, 3000, seed=6)]
        arrays = [[x.copy() for x in each] for each in ranks]
        tickets = [rig.start(each) for each in arrays]
        eventually(lambda: rig.total("exponent_results") == 4, "both tensors' exponents agreed")
        assert rig.total("data_results") == 0
        held["hold"] = False
        for tickets_of_one in tickets:
            rig.finish(tickets_of_one)
    for reduced, given in zip(arrays, ranks, strict=True):
        for array in reduced:
            assert array.tobytes() == codec_alone(given, 32, "float32", False)


@pytest.mark.parametrize(
    "faults",
    [
        Faults(loss=0.01),
        Faults(loss=0.10),
        Faults(loss=0.30),
        Faults(duplication=0.3),
        Faults(reordering=0.3),
        Faults(loss=0.05, duplication=0.1, reordering=0.2, delay_s=0.001),
    ],
    ids=["loss1", "loss10", "loss30", "duplication", "reordering", "everything"],
)
@pytest.mark.parametrize("field", [32, 8])
def test_faults_change_no_bit(faults: Faults, field: int) -> None:
    for seed in range(1 if faults.loss > 0.2 else 3):
        own = Faults(**{**faults.__dict__, "seed": seed})
        with Rig(3, field=field, slots=32, faults=own, rto_min_s=0.002) as rig:
            for size in (1, 700, 2000 if faults.loss > 0.2 else 20_000):
                check(rig, normal(3, size, seed=seed * 10 + size))
            stats = [engine.stats() for engine in rig.engines]
            events = rig.rules.events
        for each in stats:
            # Whatever happened to packets, every chunk was summed and applied exactly once.
            assert each["contributions"] == each["results"]
            assert each["results"] == stats[0]["results"]
        chunks = stats[0]["results"]
        assert events[JOB, Event.COMPLETED] == chunks
        assert events[JOB, Event.CLAIMED] == chunks
        assert events[JOB, Event.ADDED] == 2 * chunks


def test_runs_are_bitwise_equal() -> None:
    outcomes = set()
    for seed in (0, 1):
        with Rig(4, field=16, faults=Faults(seed=seed, loss=0.05, reordering=0.2)) as rig:
            arrays = [each.copy() for each in normal(4, 10_000, seed=9)]
            rig.finish(rig.start(arrays))
            outcomes |= {array.tobytes() for array in arrays}
    assert len(outcomes) == 1


@pytest.mark.parametrize("first", [2**32 - 5, 2**32 - 40, 2**31 - 5, 2**33 - 1])
def test_chunk_numbers_wrap(first: int) -> None:
    faults = Faults(seed=first % 97, loss=0.05, duplication=0.1, reordering=0.2)
    with Rig(3, slots=16, faults=faults, first_position=first) as rig:
        for size in (1, 3000, 5000):
            check(rig, normal(3, size, seed=size))


@pytest.mark.parametrize("slots", [6, 7, 9, 30, 257])
def test_odd_leases(slots: int) -> None:
    with Rig(2, slots=slots) as rig:
        check(rig, normal(2, 20_000, seed=slots))
        top = max(int(each.slot_count) for each in rig.rules.leases)
        assert top == slots
        assert not rig.rules.drops


def test_a_small_window_is_kept() -> None:
    seen: set[int] = set()

    def watch(data: bytes, peer: Any, direction: str) -> bool:
        if direction == "in" and data[2] == 0:
            seen.add(int.from_bytes(data[12:16], "big"))
        return direction == "out" and data[2] == 0  # no data result ever arrives

    with Rig(2, faults=Faults(intercept=watch), window=3, timeout_s=0.3) as rig:
        rig.completions(rig.start([each.copy() for each in normal(2, 20_000)]))
    assert seen == {0, 1, 2}


def test_plain_datagrams_where_trains_are_refused() -> None:
    with Rig(2, gso=False, gro=False) as rig:
        check(rig, normal(2, 30_000))
        stats = rig.engines[0].stats()
        assert stats["gso"] == stats["gro"] == 0


def test_large_tensor_over_a_bounded_ring() -> None:
    """More blocks than the engine keeps exponents for: they wait until there is room."""
    count = 20_000 * 256 + 17
    ranks = [np.zeros(count, np.float32) for _ in range(2)]
    for rank, each in enumerate(ranks):
        each[::256] = 1 + rank
    arrays = [each.copy() for each in ranks]
    with Rig(2, field=8, lanes=256, slots=1024) as rig:
        rig.finish(rig.start(arrays))
    expected = codec_alone(ranks, 8, "float32", False)
    for array in arrays:
        assert array.tobytes() == expected


def test_nothing_is_left_behind() -> None:
    gc.collect()  # what other tests have left
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    with Rig(3) as rig:
        check(rig, normal(3, 1000))
        assert engine_threads() == 3
    # A thread that was joined may be seen for a moment still.
    eventually(lambda: engine_threads() == 0, "the engines' threads gone")
    del rig
    gc.collect()
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors


def test_dropping_the_engine_closes_it() -> None:
    with Rig(2) as rig:
        array = np.ones(1000, np.float32)
        rig.engines[0].all_reduce(array.ctypes.data, 1000, "float32")
        assert engine_threads() == 2
        rig.engines.pop()
        rig.engines.pop()
        gc.collect()
        eventually(lambda: engine_threads() == 0, "the engines' threads gone")
