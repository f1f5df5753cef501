"""H that is chosen while a job trains: from the figures of all ranks, one step at a time."""

import math

from hypothesis import given
from hypothesis import strategies as st

from wiresum.host_agent.agent.tuning.interval import Figures, IntervalPolicy, Why
from wiresum.host_agent.agent.tuning.policy import FIRST_REST


def busy(loss: float = 2.0, exposed: float = 0.4, settled: float = 1.0) -> Figures:
    return Figures(exposed, settled, 10.0, loss, 0.001)


def policy(most: int = 8, least: int = 1) -> IntervalPolicy:
    return IntervalPolicy(least, most, least, drift=0.02, within=0.01)


def goes(made: IntervalPolicy, *windows: list[Figures], drift: float = 0.001) -> list[int]:
    hs = []
    for window in windows:
        made.window(window, drift)
        hs.append(made.h)
    return hs


def test_h_doubles_up_to_what_the_user_allows():
    assert goes(policy(), *[[busy(), busy()]] * 5) == [2, 4, 8, 8, 8]
    assert goes(policy(most=6), *[[busy()]] * 4) == [2, 4, 6, 6]
    assert goes(policy(most=4, least=3), [busy()], [busy()]) == [4, 4]


def test_one_rank_that_does_not_wait_or_reports_no_loss_or_has_a_new_field_keeps_h():
    silent = Figures(0.4, 1.0, 0.0, 0.0, 0.0)
    for other in (busy(exposed=0.04), silent, busy(settled=0.0)):
        assert goes(policy(), *[[busy(), other]] * 3) == [1] * 3


def test_ranks_that_drift_keep_h_and_ranks_that_drift_far_go_back():
    made = policy()
    assert goes(made, [busy()], [busy()]) == [2, 4]
    assert goes(made, [busy()], drift=0.015) == [4]
    assert made.window([busy()], 0.03) is Why.DRIFT
    assert made.h == 2
    assert goes(made, *[[busy()]] * FIRST_REST) == [2] * (FIRST_REST - 1) + [4]


def test_a_loss_that_rises_on_one_rank_leads_back_and_h_rests_twice_as_long_each_time():
    made = policy(most=2)
    assert goes(made, [busy(), busy()]) == [2]
    assert made.window([busy(), busy(loss=2.5)], 0.001) is Why.LOSS
    assert made.h == 1
    low = [busy(), busy()]
    assert goes(made, *[low] * FIRST_REST) == [1] * (FIRST_REST - 1) + [2]
    assert goes(made, [busy(), busy(loss=2.5)]) == [1]
    assert goes(made, *[low] * (2 * FIRST_REST)) == [1] * (2 * FIRST_REST - 1) + [2]


def test_a_loss_or_drift_that_is_no_number_leads_to_the_least_at_once():
    for window, drift in (([busy(loss=math.nan)], 0.001), ([busy()], math.nan)):
        made = policy()
        assert goes(made, [busy()], [busy()], [busy()]) == [2, 4, 8]
        made.window(window, drift)
        assert made.h == 1


def test_a_rise_within_the_tolerance_or_the_noise_changes_nothing():
    made = policy(most=2)
    noisy = Figures(0.4, 1.0, 10.0, 3.0, 0.6)
    assert goes(made, [busy()], [busy(loss=2.01)], [noisy]) == [2, 2, 2]


@given(
    st.integers(1, 4),
    st.integers(1, 64),
    st.lists(st.tuples(st.floats(0, 1), st.floats(), st.floats(0, 0.1)), max_size=30),
)
def test_h_stays_within_its_bounds_and_doubles_at_most(least, more, windows):
    made = policy(least + more, least)
    for exposed, loss, drift in windows:
        before = made.h
        made.window([Figures(exposed, 1.0, 3.0, loss, 0.0)], drift)
        assert least <= made.h <= min(2 * before, least + more)
