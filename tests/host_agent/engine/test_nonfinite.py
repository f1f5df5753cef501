"""Blocks that hold Inf or NaN: left as they are and named, or NaN on all ranks."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from engine_rig import Rig
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from reference_switch import Faults
from support.examples import examples
from wiresum.host_agent import _engine

SMALL = _engine.SMALL


def left_alone(rig: Rig, ranks: list[NDArray[Any]], dtype: str = "") -> tuple[Any, list[Any]]:
    """One all-reduce: the ranges that every rank was told, and what each rank holds then."""
    arrays = [each.copy() for each in ranks]
    done = rig.completions(rig.start(arrays, dtype))
    assert [each.error for each in done] == [None] * len(ranks)
    ranges = [each.nonfinite for each in done]
    assert all(each == ranges[0] for each in ranges)
    covered = np.zeros(arrays[0].size, bool)
    end = -1
    for first, count in ranges[0]:
        assert first > end  # in order, and neighbours are merged
        assert count > 0
        covered[first : first + count] = True
        end = first + count
    for given_, array in zip(ranks, arrays, strict=True):
        assert array[covered].tobytes() == given_[covered].tobytes()  # as it was
        assert array[~covered].tobytes() == arrays[0][~covered].tobytes()
    return ranges[0], [array[~covered] for array in arrays]


def test_blocks_that_are_not_finite_are_left_and_named() -> None:
    count = 10 * 256 + 100
    ranks = [np.ones(count, np.float32) for _ in range(3)]
    ranks[0][5] = np.inf
    ranks[1][256 * 4] = np.nan
    ranks[2][256 * 5 + 255] = -np.inf
    ranks[2][count - 1] = np.inf
    with Rig(3, field=8, keep_nonfinite=True) as rig:
        ranges, rest = left_alone(rig, ranks)
        assert ranges == [(0, 256), (1024, 512), (2560, 100)]
        for each in rest:
            assert (each == 3).all()
        assert rig.engines[0].stats()["blocks_nonfinite"] == 4


def test_elements_that_are_not_finite_are_left_and_named_in_small_tensors() -> None:
    ranks = [np.ones(300, np.float32) for _ in range(2)]
    ranks[0][[0, 1, 299]] = np.inf
    ranks[1][[1, 2, 150]] = np.nan
    with Rig(2, keep_nonfinite=True) as rig:
        ranges, rest = left_alone(rig, ranks)
        assert ranges == [(0, 3), (150, 1), (299, 1)]
        assert all((each == 2).all() for each in rest)


@pytest.mark.parametrize("value", [np.inf, np.nan])
@pytest.mark.parametrize("count", [1, SMALL, SMALL + 1, 50_000])
def test_a_tensor_without_a_finite_value_is_one_range(count: int, value: float) -> None:
    with Rig(2, keep_nonfinite=True) as rig:
        ranks = [np.full(count, value, np.float32), np.ones(count, np.float32)]
        ranges, _ = left_alone(rig, ranks)
        assert ranges == [(0, count)]
        assert rig.engines[0].stats()["data_contributions"] == 0


def test_finite_tensors_name_no_ranges() -> None:
    with Rig(2, keep_nonfinite=True) as rig:
        for count in (0, 1, 5000):
            assert left_alone(rig, [np.ones(count, np.float32)] * 2)[0] == []


@settings(max_examples=examples(25), deadline=None)
@given(
    count=st.sampled_from([1, 7, 256, SMALL, SMALL + 1, 5000]),
    where=st.lists(st.tuples(st.integers(0, 2), st.floats(0, 1)), max_size=12),
    dtype=st.sampled_from(["float32", "float16", "bfloat16"]),
)
def test_ranges_cover_exactly_the_blocks_that_hold_something_not_finite(
    count: int, where: list[tuple[int, float]], dtype: str
) -> None:
    kind = getattr(torch, dtype)
    tensors = [torch.ones(count, dtype=kind) for _ in range(3)]
    block = _engine.layout(count, 16)[0]
    wanted = np.zeros(count, bool)
    for rank, share in where:
        at = min(int(share * count), count - 1)
        tensors[rank][at] = math.inf
        wanted[at // block * block : (at // block + 1) * block] = True
    raw = [
        each.numpy() if dtype == "float32" else each.view(torch.int16).numpy() for each in tensors
    ]
    with Rig(3, field=16, keep_nonfinite=True) as rig:
        ranges, _ = left_alone(rig, raw, dtype)
    told = np.zeros(count, bool)
    for first, length in ranges:
        told[first : first + length] = True
    np.testing.assert_array_equal(told, wanted)


def test_without_the_option_all_ranks_write_nan() -> None:
    with Rig(2) as rig:
        for count in (3, 3000):
            arrays = [np.ones(count, np.float32) for _ in range(2)]
            arrays[1][2] = np.inf
            for completion in rig.completions(rig.start(arrays)):
                assert completion.nonfinite == []
            for array in arrays:
                assert np.isnan(array[2])


def test_a_collective_that_fails_names_no_ranges() -> None:
    """Its exponents were agreed, but its data never come."""
    with Rig(
        2, keep_nonfinite=True, timeout_s=0.3,
        faults=Faults(intercept=lambda data, _peer, _direction: data[2] == 0),
    ) as rig:  # fmt: skip
        arrays = [np.ones(3000, np.float32) for _ in range(2)]
        arrays[0][0] = np.inf
        for completion in rig.completions(rig.start(arrays)):
            assert completion.kind == "CollectiveTimeout"
            assert completion.nonfinite == []
