"""Tensors of up to 1,024 elements: an exponent of its own for each element, against fractions."""

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from codec_reference import NONFINITE, available, level
from engine_rig import Rig, eventually
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from reference_switch import Faults
from support.examples import examples
from wiresum.host_agent import _engine
from wiresum.host_agent.errors import CodecError

Floats = NDArray[np.float32]
SMALL = 1024
NAN_BITS = 0x7FC00000


@pytest.fixture(autouse=True)
def restore_isa() -> Iterator[None]:
    best = _engine.isa()
    yield
    _engine.set_isa(best)


# -- the reference: integers and fractions, one element at a time


def half_even(value: Fraction) -> int:
    """The nearest integer, the even one of two."""
    return round(value)  # what Python does for fractions


def nearest_float32(value: Fraction) -> float:
    """The nearest float32, ties to even, as IEEE 754 has it."""
    if value == 0:
        return 0.0
    size = abs(value)
    exponent = math.floor(math.log2(size.numerator) - math.log2(size.denominator))
    while Fraction(2) ** exponent > size:
        exponent -= 1
    while Fraction(2) ** (exponent + 1) <= size:
        exponent += 1
    unit = Fraction(2) ** (max(exponent, -126) - 23)
    rounded = half_even(size / unit) * unit
    result = math.inf if rounded >= Fraction(2) ** 128 else float(rounded)
    return math.copysign(result, value)


def sum_of(values: list[float], average: bool = False) -> float:
    """One element over all ranks; NaN if one of them is not finite."""
    if not all(map(math.isfinite, values)):
        return math.nan
    largest = max(map(abs, values))
    if largest == 0:
        return 0.0
    workers = len(values)
    step = Fraction(2) ** (math.frexp(largest)[1] - (level(workers, 32).bit_length() - 1))
    total = sum(half_even(Fraction(each) / step) for each in values)
    return nearest_float32(total * step / (workers if average else 1))


def expected(ranks: list[Floats], average: bool = False) -> Floats:
    columns = zip(*(each.tolist() for each in ranks), strict=True)
    return np.array([sum_of(list(column), average) for column in columns], np.float32)


def bits(values: NDArray[Any]) -> NDArray[np.uint32]:
    """Bit patterns; every NaN is the one that the codec writes."""
    out: NDArray[np.uint32] = values.view(np.uint32).copy()
    out[np.isnan(values)] = NAN_BITS
    return out


# -- the codec alone


def over_the_codec(ranks: list[NDArray[Any]], dtype: str, average: bool) -> NDArray[Any]:
    workers = len(ranks)
    codes = np.maximum.reduce([_engine.exponents(each, dtype, block=1) for each in ranks])
    lanes = [_engine.encode(each, dtype, codes, workers, 32, block=1) for each in ranks]
    total = np.zeros_like(lanes[0])
    for each in lanes:
        total = total + each
    result = np.empty_like(ranks[0])
    _engine.decode(total, result, dtype, codes, workers, 32, average, block=1)
    return result


def any_float32() -> st.SearchStrategy[float]:
    return st.one_of(
        st.floats(width=32),
        st.sampled_from(
            [0.0, -0.0, 1e-45, -1e-45, 1.1754942e-38, 3.4028235e38, -3.4028235e38, 1.0, 3e9, 0.125]
        ).map(lambda x: float(np.float32(x))),
    )


@settings(max_examples=examples(150), deadline=None)
@given(
    ranks=st.integers(1, 64).flatmap(
        lambda n: st.lists(st.lists(any_float32(), min_size=3, max_size=3), min_size=n, max_size=n)
    ),
    average=st.booleans(),
)
def test_any_floats_in_every_instruction_set(ranks: list[list[float]], average: bool) -> None:
    # More elements than a register holds, of which the same three are looked at.
    arrays = [np.tile(np.array(each, np.float32), 15) for each in ranks]
    wanted = np.tile(bits(expected([each[:3] for each in arrays], average)), 15)
    for name in available():
        _engine.set_isa(name)
        made = over_the_codec(arrays, "float32", average)
        np.testing.assert_array_equal(made.view(np.uint32), wanted, name)


@settings(max_examples=examples(60), deadline=None)
@given(
    patterns=st.lists(
        st.lists(st.integers(0, 0xFFFF), min_size=20, max_size=20), min_size=1, max_size=5
    ),
    dtype=st.sampled_from(["float16", "bfloat16"]),
    average=st.booleans(),
)
def test_any_half_floats_in_every_instruction_set(
    patterns: list[list[int]], dtype: str, average: bool
) -> None:
    kind = getattr(torch, dtype)
    raw = [np.array(each, np.uint16).view(np.int16) for each in patterns]
    wide = [torch.from_numpy(each).view(kind).to(torch.float32).numpy() for each in raw]
    wanted = torch.from_numpy(expected(wide, average)).to(kind)
    for name in available():
        _engine.set_isa(name)
        made = torch.from_numpy(over_the_codec(raw, dtype, average)).view(kind)
        for ours, theirs in zip(made.tolist(), wanted.tolist(), strict=True):
            assert ours == theirs or (math.isnan(ours) and math.isnan(theirs))


@settings(max_examples=examples(150), deadline=None)
@given(
    ranks=st.integers(1, 64).flatmap(
        lambda n: st.lists(
            st.floats(-(2.0**120), 2.0**120, width=32),
            min_size=n, max_size=n,
        )
    )
)  # fmt: skip
def test_what_cancels_stays_within_the_bound_of_its_own_element(ranks: list[float]) -> None:
    """Each rank's element is rounded by at most n * 2^-30 * M, M of that element alone."""
    workers = len(ranks)
    beside = [np.array([each, 1e30, 1e-30], np.float32) for each in ranks]
    result = over_the_codec(beside, "float32", average=False)
    exact = sum((Fraction(float(each[0])) for each in beside), Fraction(0))
    largest = max(abs(Fraction(float(each[0]))) for each in beside)
    rounding = abs(Fraction(float(np.spacing(result[0])))) / 2
    bound = workers * workers * largest / 2**30 + rounding
    assert abs(Fraction(float(result[0])) - exact) <= bound
    assert result[1] == nearest_float32(workers * Fraction(float(np.float32(1e30))))


def test_one_large_value_among_the_ranks_is_as_right_as_in_float32() -> None:
    """What one rank alone has comes back to the last bit, for every number of workers."""
    random = np.random.default_rng(1)
    for workers in range(1, 65):
        alone = (random.standard_normal(200) * 2.0 ** random.integers(-120, 120, 200)).astype(
            np.float32
        )
        ranks = [np.zeros(200, np.float32) for _ in range(workers)]
        ranks[workers // 2][:] = alone
        np.testing.assert_array_equal(over_the_codec(ranks, "float32", False), alone)


def test_exponent_codes_of_elements() -> None:
    values = np.array([0, -0.0, 1e-45, -2.5, 3.4028235e38, np.inf, -np.inf, np.nan], np.float32)
    for name in available():
        _engine.set_isa(name)
        codes = _engine.exponents(values, "float32", block=1)
        assert codes.tolist() == [0, 0, 1, 0x40200000, 0x7F7FFFFF, *[NONFINITE] * 3]


def test_layout_depends_on_the_element_count_alone() -> None:
    assert _engine.SMALL == SMALL
    for field in (32, 16, 8):
        assert [_engine.layout(count, field) for count in (0, 1, SMALL)] == [(1, 32)] * 3
        assert _engine.layout(SMALL + 1, field) == (_engine.BLOCK, field)


def test_blocks_of_another_size_are_refused() -> None:
    values = np.ones(8, np.float32)
    codes = _engine.exponents(values, "float32", block=1)
    with pytest.raises(CodecError, match="blocks of 2 elements"):
        _engine.exponents(values, "float32", block=2)
    with pytest.raises(CodecError, match="32 bits, not 16"):
        _engine.encode(values, "float32", codes, 2, 16, block=1)
    with pytest.raises(CodecError, match="exponent codes"):
        _engine.encode(values, "float32", codes, 2, 32)
    with pytest.raises(CodecError, match="fewer"):
        _engine.decode(np.zeros(3, np.uint32), values, "float32", codes, 2, 32, block=1)


# -- through engines and a switch


def reduce(rig: Rig, ranks: list[Floats], average: bool = False) -> Floats:
    arrays = [each.copy() for each in ranks]
    rig.finish(rig.start(arrays, average=average))
    for other in arrays[1:]:
        assert other.tobytes() == arrays[0].tobytes()
    return arrays[0]


def mixed(workers: int, count: int, seed: int) -> list[Floats]:
    """Magnitudes from end to end, zeros on some or all ranks, denormals."""
    random = np.random.default_rng(seed)
    ranks = []
    everywhere = random.random(count) < 0.2
    for _ in range(workers):
        values = random.standard_normal(count) * 2.0 ** random.integers(-148, 120, count)
        values[random.random(count) < 0.3] = 0
        values[everywhere] = -0.0
        ranks.append(values.astype(np.float32))
    return ranks


@pytest.mark.parametrize("field", [32, 16, 8])
def test_metrics_of_any_size_side_by_side(field: int) -> None:
    """What scripts reduce: a count, a loss and a flag in one tensor, whatever the field."""
    with Rig(4, field=field) as rig:
        ranks = [np.array([3e9, 0.125, rank], np.float32) for rank in range(4)]
        assert reduce(rig, ranks).tolist() == [12e9, 0.5, 6.0]
        assert reduce(rig, ranks, average=True).tolist() == [3e9, 0.125, 1.5]


@pytest.mark.parametrize("field", [32, 16, 8])
@pytest.mark.parametrize("lanes", [64, 256])
def test_every_size_against_fractions(lanes: int, field: int) -> None:
    with Rig(3, lanes=lanes, field=field) as rig:
        for size in (1, 2, lanes - 1, lanes, lanes + 1, 255, 256, 257, SMALL - 1, SMALL):
            ranks = mixed(3, size, seed=size)
            for average in (False, True):
                made = reduce(rig, ranks, average)
                np.testing.assert_array_equal(bits(made), bits(expected(ranks, average)))


def test_one_more_element_makes_blocks_again() -> None:
    with Rig(2) as rig:
        for count, kept in ((SMALL, True), (SMALL + 1, False)):
            ranks = [np.full(count, 1e-6, np.float32) for _ in range(2)]
            for each in ranks:
                each[0] = 3e9
            made = reduce(rig, ranks)
            assert (made[1:256] == np.float32(2e-6)).all() == kept
            assert (made[1:256] == 0).all() != kept


@pytest.mark.parametrize(
    ("dtype", "kind"), [("float16", torch.float16), ("bfloat16", torch.bfloat16)]
)
def test_half_dtypes_against_fractions(dtype: str, kind: torch.dtype) -> None:
    with Rig(3, field=8) as rig:
        for size in (1, 255, 700):
            random = np.random.default_rng(size)
            floats = [
                random.standard_normal(size) * 2.0 ** random.integers(-20, 14, size)
                for _ in range(3)
            ]
            tensors = [torch.from_numpy(each).to(kind) for each in floats]
            wide = [each.to(torch.float32).numpy() for each in tensors]
            wanted = torch.from_numpy(expected(wide)).to(kind).view(torch.int16).numpy()
            arrays = [each.view(torch.int16).numpy().copy() for each in tensors]
            rig.finish(rig.start(arrays, dtype))
            for array in arrays:
                np.testing.assert_array_equal(array, wanted)


def test_an_element_that_is_not_finite_spoils_itself_alone() -> None:
    ranks = mixed(3, 500, seed=3)
    ranks[0][7], ranks[1][8], ranks[2][499] = np.inf, np.nan, -np.inf
    with Rig(3) as rig:
        made = reduce(rig, ranks)
    np.testing.assert_array_equal(bits(made), bits(expected(ranks)))
    assert np.flatnonzero(np.isnan(made)).tolist() == [7, 8, 499]


def test_faults_change_no_bit_of_small_tensors() -> None:
    for seed in range(3):
        faults = Faults(seed=seed, loss=0.05, duplication=0.1, reordering=0.2)
        with Rig(3, slots=32, faults=faults, rto_min_s=0.002) as rig:
            for size in (1, 300, SMALL):
                ranks = mixed(3, size, seed * 10 + size)
                np.testing.assert_array_equal(bits(reduce(rig, ranks)), bits(expected(ranks)))


def test_many_small_and_large_tensors_in_flight() -> None:
    sizes = [SMALL, 3, 70_000, 1, SMALL, SMALL, 0, 2000, *[SMALL] * 20, 40_000, 5]
    tensors = [mixed(2, size, seed=index) for index, size in enumerate(sizes)]
    with Rig(2, field=32) as rig:
        arrays = [[each.copy() for each in ranks] for ranks in tensors]
        tickets = [rig.start(each) for each in arrays]
        for each in tickets:
            rig.finish(each)
    for ranks, reduced in zip(tensors, arrays, strict=True):
        assert reduced[0].tobytes() == reduced[1].tobytes()
        if reduced[0].size <= SMALL:
            np.testing.assert_array_equal(bits(reduced[0]), bits(expected(ranks)))


def test_all_exponents_of_a_small_tensor_leave_at_once() -> None:
    """No round trip more than for a block of 256: what one answer allows is sent before any."""
    mute = Faults(intercept=lambda _data, _peer, direction: direction == "out")
    with Rig(2, lanes=64, slots=256, faults=mute) as rig:
        rig.start([np.ones(SMALL, np.float32) for _ in range(2)])
        eventually(
            lambda: rig.engines[0].stats()["exponent_contributions"] == SMALL // 64,
            "all of its exponents on their way",
        )
        assert rig.engines[0].stats()["results"] == 0


def test_small_tensors_behind_a_large_one_wait_for_no_result_of_it() -> None:
    held = {"hold": True}

    def hold_data(data: bytes, _peer: Any, direction: str) -> bool:
        return held["hold"] and direction == "in" and data[2] == 0  # op SUM

    with Rig(2, lanes=64, slots=256, faults=Faults(intercept=hold_data)) as rig:
        arrays = [[np.ones(size, np.float32) for _ in range(2)] for size in (5000, SMALL, SMALL)]
        tickets = [rig.start(each) for each in arrays]
        chunks = 1 + 2 * (SMALL // 64)
        eventually(lambda: rig.total("exponent_results") == 2 * chunks, "all exponents agreed")
        held["hold"] = False
        for each in tickets:
            rig.finish(each)
        for pair in arrays:
            assert (pair[0] == 2).all()


def test_ranks_whose_tensors_are_small_and_large_disagree() -> None:
    """Block size is part of the fingerprint: never a sum of other elements."""
    with Rig(2, timeout_s=1.0) as rig:
        arrays = [np.ones(SMALL, np.float32), np.ones(SMALL + 1, np.float32)]
        tickets = []
        for engine, array in zip(rig.engines, arrays, strict=True):
            tickets.append(engine.all_reduce(array.ctypes.data, array.size, "float32"))
        for completion in rig.completions(tickets):
            assert completion.kind == "CollectiveMismatch"
