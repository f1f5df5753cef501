"""Sets of moments: compared with sets of integers."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from wiresum.measure.traces.intervals import clip, length, subtract, union

spans = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=12)


def moments(intervals) -> set[int]:
    return {moment for start, end in intervals for moment in range(start, end)}


def is_tidy(intervals) -> bool:
    return all(a < b for a, b in intervals) and all(x[1] < y[0] for x, y in pairwise(intervals))


@given(spans)
def test_a_union_has_every_moment_once(given_spans):
    made = union(given_spans)
    assert is_tidy(made)
    assert moments(made) == moments(given_spans)
    assert length(made) == len(moments(given_spans))


@given(spans, spans)
def test_a_difference_has_the_moments_of_the_first_alone(ones, others):
    made = subtract(union(ones), union(others))
    assert is_tidy(made)
    assert moments(made) == moments(ones) - moments(others)


@given(spans, st.integers(0, 60), st.integers(0, 60))
def test_clipping_keeps_what_lies_between(given_spans, start, end):
    made = clip(union(given_spans), start, end)
    assert is_tidy(made)
    assert moments(made) == moments(given_spans) & set(range(start, end))
