"""Integers, MAX and MIN as words: the maps keep order, and come back bit for bit."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wiresum.host_agent.backend.words import INTEGERS, from_words, to_words

FLOATS = (torch.float32, torch.float16, torch.bfloat16)
any_float = st.floats(width=32) | st.sampled_from([0.0, -0.0, math.inf, -math.inf, math.nan])


def of(value: float, dtype: torch.dtype) -> torch.Tensor:
    return torch.tensor([value], dtype=torch.float32).to(dtype)


def unsigned(words: torch.Tensor) -> int:
    return int(words) & 0xFFFFFFFF


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("op", ["MAX", "MIN"])
@given(a=any_float, b=any_float)
def test_the_larger_word_is_the_floats_maximum_or_minimum(
    dtype: torch.dtype, op: str, a: float, b: float
) -> None:
    values = [of(a, dtype), of(b, dtype)]
    words = max((to_words(each, op) for each in values), key=unsigned)
    (found,) = from_words(words, op, dtype)
    if any(each.isnan() for each in values):
        assert found.isnan()
        return
    extreme = torch.maximum if op == "MAX" else torch.minimum
    assert found == extreme(*values)[0]
    if values[0] == 0 == values[1] and values[0].signbit() != values[1].signbit():
        assert bool(found.signbit()) == (op == "MIN")


@pytest.mark.parametrize("dtype", sorted(INTEGERS, key=str))
@given(data=st.data())
def test_integers_keep_their_order_and_wrap_as_their_dtype_does(
    dtype: torch.dtype, data: st.DataObject
) -> None:
    limits = torch.iinfo(dtype)
    numbers = st.integers(limits.min, limits.max)
    a, b = (torch.tensor([data.draw(numbers)], dtype=dtype) for _ in range(2))
    for op, extreme in (("MAX", torch.maximum), ("MIN", torch.minimum)):
        words = max((to_words(each, op) for each in (a, b)), key=unsigned)
        assert from_words(words, op, dtype) == extreme(a, b)
    total = to_words(a, "SUM") + to_words(b, "SUM")
    assert from_words(total, "SUM", dtype) == a + b


def test_what_is_not_contiguous_is_taken_in_its_order() -> None:
    grid = torch.arange(6, dtype=torch.int16).view(2, 3).t()
    for op in ("SUM", "MAX", "MIN"):
        words = to_words(grid, op)
        assert words.is_contiguous()
        assert torch.equal(from_words(words, op, torch.int16), grid)
