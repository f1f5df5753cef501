"""Links fitted to timed messages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wiresum.measure.probe.links import HEADERS, Links, Pair, fit, fitted

SIZES = [1 << power for power in range(16, 21)]


@given(alpha_us=st.floats(0.5, 1e5), gbit=st.floats(0.001, 800), mss=st.sampled_from([1448, 8948]))
def test_a_link_that_is_as_the_model_says_is_found_as_it_is(alpha_us, gbit, mss):
    payload = gbit * 1e9 / 8 * mss / (mss + HEADERS)
    samples = [(size, 2e-6 * alpha_us + size / payload) for size in SIZES]
    found = fit(2e-6 * alpha_us, samples, mss)
    assert found == (pytest.approx(alpha_us), pytest.approx(gbit, rel=1e-3))


@given(
    rtt=st.floats(-1, 1), samples=st.lists(st.tuples(st.floats(0, 1e9), st.floats(0, 10))),
    mss=st.floats(-1, 9000),
)  # fmt: skip
def test_whatever_was_timed_gives_a_link_or_none(rtt, samples, mss):
    found = fit(rtt, samples, mss)
    assert found is None or (found[0] > 0 and found[1] > 0)


def test_the_slowest_link_and_unequal_directions_are_named():
    links = Links(
        (Pair(0, 1, 50, 10.0), Pair(0, 2, 50, 2.0), Pair(1, 0, 50, 9.0), Pair(2, 0, 50, 9.5)), ""
    )
    assert links.slowest == Pair(0, 2, 50, 2.0)
    assert links.unequal() == [(Pair(0, 2, 50, 2.0), Pair(2, 0, 50, 9.5))]
    assert Links((), "why").slowest is None


def test_what_several_ranks_tell_counts_once_and_nonsense_is_refused():
    timed = {"from": 1, "to": 0, "rtt_s": 1e-4, "samples": [[1 << 20, 0.1]], "mss": 1448}
    assert len(fitted([timed, dict(timed)], "").pairs) == 1
    for name, wrong in (("rtt_s", "now"), ("samples", 3), ("mss", float("nan")), ("from", None)):
        with pytest.raises((TypeError, ValueError)):
            fitted([timed | {name: wrong}], "")
