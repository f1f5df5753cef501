"""The codec against integers and wide floats, for every number of workers that a field admits."""

import numpy as np
import pytest
from codec_reference import (
    NONFINITE,
    block_slices,
    codes_of,
    dequantize,
    is_sent,
    level,
    magnitude,
    quantize_32,
    switch_sum,
    unpack,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from support.examples import examples
from wiresum.host_agent import _engine
from wiresum.host_agent.errors import CodecError

Floats = NDArray[np.float32]
FIELDS = (32, 16, 8)
WORKERS = range(1, 65)
SIZES = (0, 1, 2, 3, 5, 63, 64, 65, 255, 256, 257, 511, 512, 513, 1023, 1024, 1025)


def all_reduce(
    ranks: list[Floats], field: int, *, average: bool = False
) -> tuple[Floats, NDArray[np.uint32], NDArray[np.uint32]]:
    """Codec and switch arithmetic without a network: (result, agreed codes, summed lanes)."""
    codes = np.maximum.reduce([_engine.exponents(each, "float32") for each in ranks])
    lanes = [_engine.encode(each, "float32", codes, len(ranks), field) for each in ranks]
    total = switch_sum(lanes)
    result = np.full_like(ranks[0], 77)
    _engine.decode(total, result, "float32", codes, len(ranks), field, average)
    return result, codes, total


def random_ranks(workers: int, count: int, seed: int, spread: int = 8) -> list[Floats]:
    """Values whose magnitudes differ within blocks and far more between blocks."""
    random = np.random.default_rng(seed)
    ranks = []
    for _ in range(workers):
        values = random.standard_normal(count) * 2.0 ** random.integers(-spread, spread, count)
        for block in block_slices(count):
            values[block] *= 2.0 ** random.integers(-100, 100)
        ranks.append(values.astype(np.float32))
    return ranks


@pytest.mark.parametrize("count", SIZES)
def test_exponent_codes(count: int) -> None:
    values = random_ranks(1, count, seed=count)[0]
    if count > 300:
        values[256:] = 0
        values[256] = -0.0
    if count > 600:
        values[600] = np.inf
    if count > 1024:
        values[1024] = np.nan
    np.testing.assert_array_equal(_engine.exponents(values, "float32"), codes_of(values))


@pytest.mark.parametrize("workers", WORKERS)
def test_field_32_to_the_last_bit(workers: int) -> None:
    for count in (1, 5, 257, 700):
        ranks = random_ranks(workers, count, seed=workers * 1000 + count)
        codes = np.maximum.reduce([codes_of(each) for each in ranks])
        for average in (False, True):
            result, agreed, _ = all_reduce(ranks, 32, average=average)
            np.testing.assert_array_equal(agreed, codes)
            for index, block in enumerate(block_slices(count)):
                code = int(codes[index])
                total = sum(quantize_32(each[block], code, workers) for each in ranks)
                assert isinstance(total, np.ndarray)
                assert int(np.abs(total).max()) <= workers * level(workers, 32) < 2**31
                expected = dequantize(total, code, workers, 32, average)
                np.testing.assert_array_equal(
                    result[block].view(np.uint32), expected.view(np.uint32)
                )


@pytest.mark.parametrize("field", [16, 8])
@pytest.mark.parametrize("workers", WORKERS)
def test_narrow_fields_within_their_budget(workers: int, field: int) -> None:
    budget = level(workers, field)
    count = 1500
    ranks = random_ranks(workers, count, seed=workers * 100 + field, spread=2)
    for values in ranks:
        values[::7] = 0
        values[256:512] = 0  # a block that nobody sends
    result, codes, total = all_reduce(ranks, field)
    sums = unpack(total, field)
    at = 0
    for index, block in enumerate(block_slices(count)):
        code = int(codes[index])
        if not is_sent(code):
            assert not result[block].view(np.uint32).any()
            continue
        size = block.stop - block.start
        q_sum = sums[at : at + size] - workers * budget
        at += -(-size // (32 // field)) * (32 // field)
        assert int(np.abs(q_sum).max()) <= workers * budget
        expected = dequantize(q_sum, code, workers, field, average=False)
        np.testing.assert_array_equal(result[block].view(np.uint32), expected.view(np.uint32))

        step = np.float64(magnitude(code)[0]) / budget
        exact = np.sum([each[block].astype(np.float64) for each in ranks], axis=0)
        error = np.abs(result[block].astype(np.float64) - exact)
        # Half a step for each rank; the quantizer's two float products move a tie by L * 2^-22.
        bound = workers * step * (0.5 + budget * 2.0**-22) + np.abs(exact) * 2.0**-24
        assert (error <= bound).all()
    assert at == len(sums)


@pytest.mark.parametrize("field", FIELDS)
def test_ones_sum_to_exactly_n(field: int) -> None:
    for workers in WORKERS:
        ranks = [np.ones(300, np.float32) for _ in range(workers)]
        assert (all_reduce(ranks, field)[0] == workers).all()
        assert (all_reduce(ranks, field, average=True)[0] == 1).all()


@pytest.mark.parametrize("field", FIELDS)
@settings(max_examples=examples(60), deadline=None)
@given(
    value=st.floats(width=32, allow_nan=False, allow_infinity=False),
    workers=st.sampled_from(WORKERS),
)
def test_equal_values_sum_to_the_nearest_float(field: int, value: float, workers: int) -> None:
    ranks = [np.full(3, value, np.float32) for _ in range(workers)]
    with np.errstate(over="ignore"):
        expected = np.float32(np.float64(value) * workers)
    sent = np.float32(value)
    result = all_reduce(ranks, field)[0]
    if value == 0:
        assert not result.view(np.uint32).any()
    else:
        exact = np.float64(value) * workers
        # In narrow fields the closest calls may go to the other neighbour.
        call = 0.5 if field == 32 else 0.5 + 2.0**-6
        assert (
            (result == expected) | (np.abs(result - exact) <= call * np.spacing(np.abs(expected)))
        ).all()
        assert (all_reduce(ranks, field, average=True)[0] == sent).all()


@settings(max_examples=examples(60), deadline=None)
@given(
    workers=st.sampled_from(WORKERS),
    count=st.sampled_from(SIZES),
    bits=st.integers(1, 20),
    seed=st.integers(0, 2**32 - 1),
)
def test_sums_of_small_integers_are_exact(workers: int, count: int, bits: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    whole = [random.integers(-(2**bits), 2**bits, count) for _ in range(workers)]
    result = all_reduce([each.astype(np.float32) for each in whole], 32)[0]
    exact = np.sum(whole, axis=0)
    np.testing.assert_array_equal(result, exact.astype(np.float32))


def any_float32() -> st.SearchStrategy[float]:
    return st.one_of(
        st.floats(width=32),
        st.sampled_from(
            [0.0, -0.0, 1e-45, -1e-45, 1.1754942e-38, 3.4028235e38, -3.4028235e38, 1.0]
        ),
    )


@settings(max_examples=examples(200), deadline=None)
@given(
    ranks=st.integers(1, 6).flatmap(
        lambda n: st.lists(st.lists(any_float32(), min_size=9, max_size=9), min_size=n, max_size=n)
    ),
    field=st.sampled_from(FIELDS),
    average=st.booleans(),
)
def test_any_floats(ranks: list[list[float]], field: int, average: bool) -> None:
    arrays = [np.array(each, np.float32) for each in ranks]
    workers = len(arrays)
    result, codes, total = all_reduce(arrays, field, average=average)
    largest = np.abs(np.stack(arrays)).max()
    if not np.isfinite(np.stack(arrays)).all():
        assert codes[0] == NONFINITE
        assert (result.view(np.uint32) == 0x7FC00000).all()
        assert len(total) == 0
        return
    if largest == 0:
        assert codes[0] == 0
        assert not result.view(np.uint32).any()
        return
    budget = level(workers, field)
    steps = 2 ** (budget.bit_length() - 1) / 2 if field == 32 else budget
    exact = np.sum([each.astype(np.float64) for each in arrays], axis=0)
    share = workers if average else 1
    step = np.float64(largest) / steps / share
    nearest = np.clip(exact / share, -3.4e38, 3.4e38).astype(np.float32)
    rounding = np.abs(np.spacing(nearest).astype(np.float64))
    finite = np.isfinite(result)
    error = np.abs(result[finite].astype(np.float64) - (exact / share)[finite])
    narrow = 0 if field == 32 else budget * 2.0**-22
    assert (error <= workers * step * (0.5 + narrow) + rounding[finite]).all()
    # Only a sum that float32 cannot hold may be infinite, and then with the right sign.
    huge = (np.abs(exact / share) >= 3.4e38) & (np.sign(exact) == np.sign(result))
    assert (finite | huge).all()


@pytest.mark.parametrize("field", FIELDS)
def test_tail_encodes_zero(field: int) -> None:
    per_lane = 32 // field
    budget = level(3, field)
    for count in range(1, 3 * per_lane + 1):
        values = np.full(count, -2.0, np.float32)
        fields = unpack(
            _engine.encode(values, "float32", _engine.exponents(values, "float32"), 3, field), field
        )
        assert len(fields) == -(-count // per_lane) * per_lane
        # F = 32 has 2^b >= M for its scale's power of two: -2 is half of 2^e.
        lowest = budget - (2 ** (budget.bit_length() - 2) if field == 32 else budget)
        assert (fields[:count] == lowest).all()
        assert (fields[count:] == budget).all()


@pytest.mark.parametrize("field", FIELDS)
def test_values_above_the_agreed_maximum_do_not_wrap(field: int) -> None:
    """A tensor that is written to while it is reduced gives a wrong number, not another rank's."""
    values = np.array([1e30, -1e30, np.inf, -np.inf, np.nan, 1.0], np.float32)
    code = np.array([np.float32(1.0).view(np.uint32)], np.uint32)
    budget = level(2, field)
    top = 2 ** (budget.bit_length() - 1) if field == 32 else budget
    fields = unpack(_engine.encode(values, "float32", code, 2, field), field)[:5] - budget
    assert list(fields[:4]) == [top, -top, top, -top]
    assert abs(int(fields[4])) <= top


@pytest.mark.parametrize(
    ("workers", "field", "works"), [(128, 8, 16), (40000, 16, 32), (40000, 8, 32)]
)
def test_no_budget_is_refused(workers: int, field: int, works: int) -> None:
    with pytest.raises(CodecError, match=rf"{workers} workers.*field that works is {works}"):
        _engine.budget(workers, field)


def test_budgets() -> None:
    for field in FIELDS:
        for workers in WORKERS:
            assert _engine.budget(workers, field) == level(workers, field)
            assert 2 * workers * level(workers, field) <= 2**field - 1


def test_bad_arguments() -> None:
    values = np.ones(300, np.float32)
    codes = _engine.exponents(values, "float32")
    with pytest.raises(CodecError, match="float64"):
        _engine.exponents(np.ones(3), "float64")
    with pytest.raises(CodecError, match="bytes"):
        _engine.exponents(np.ones(3), "float32")
    with pytest.raises(CodecError, match="field 12"):
        _engine.encode(values, "float32", codes, 2, 12)
    with pytest.raises(CodecError, match="exponent codes"):
        _engine.encode(values, "float32", codes[:1], 2, 32)
    with pytest.raises(CodecError, match="fewer"):
        _engine.decode(np.zeros(3, np.uint32), values, "float32", codes, 2, 32)
