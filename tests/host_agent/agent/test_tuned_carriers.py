"""The carrier that is chosen while a job trains: what it is chosen by, and all ranks alike."""

import itertools
import logging
import random
from collections.abc import Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from support.tuned_job import Job
from wiresum.host_agent.agent.tuning.ballot import EVERY
from wiresum.host_agent.agent.tuning.carrier import (
    FIRST_REST,
    LONGEST_REST,
    NOT_READY,
    SHORTEST_TRY,
    WARM,
    CarrierPolicy,
    Decision,
    Time,
    Why,
)

STEPS = 5
SWITCH, RANKS = CARRIERS = ("switch", "ranks")


def trains(
    policy: CarrierPolicy,
    times: dict[str, float],
    steps: int,
    exposed: float = 0.5,
    field: int = 32,
) -> list[Decision]:
    """Steps of a job of one rank, with a word after each; what was decided.

    ``times``: of a step over each carrier. The carrier wanted carries at once.
    """
    decided = []
    for number in range(steps):
        took = times[policy.wanted] * (1.0 + 0.01 * (number % 2))
        policy.step(took, exposed * took, policy.wanted, field)
        if (decision := policy.agreed(policy.words())) is not None:
            decided.append(decision)
    return decided


def names(decided: Sequence[Decision]) -> list[tuple[str, Why]]:
    return [(each.carrier, each.why) for each in decided]


def test_the_other_carrier_is_tried_and_taken_if_its_steps_are_shorter():
    policy = CarrierPolicy(CARRIERS, STEPS)
    decided = trains(policy, {SWITCH: 0.2, RANKS: 0.1}, 30)
    assert names(decided) == [(RANKS, Why.TRY), (RANKS, Why.FASTER)]
    assert policy.home == policy.wanted == RANKS
    times = dict(decided[-1].times)
    assert 200_000 <= times[SWITCH].mean <= 202_000
    assert 100_000 <= times[RANKS].mean <= 101_000


def test_the_switch_stays_where_the_ranks_are_slower_or_no_faster_beyond_noise():
    for ranks in (0.3, 0.2, 0.198):
        policy = CarrierPolicy(CARRIERS, STEPS)
        decided = trains(policy, {SWITCH: 0.2, RANKS: ranks}, 40)
        assert names(decided) == [(RANKS, Why.TRY), (SWITCH, Why.NOT_FASTER)]
    for switch, ranks in ((Time(100, 2), Time(90, 5)), (Time(100, 60), Time(10, 1))):
        policy = CarrierPolicy(CARRIERS, STEPS)
        policy.agreed(switch)
        decision = policy.agreed(ranks)
        assert decision is not None
        assert (decision.carrier, decision.why) == (SWITCH, Why.NOT_FASTER)


def test_the_ranks_give_way_to_a_switch_that_is_as_fast():
    policy = CarrierPolicy(CARRIERS, STEPS)
    trains(policy, {SWITCH: 0.2, RANKS: 0.1}, 30)
    steps = (FIRST_REST + 4) * STEPS
    decided = trains(policy, {SWITCH: 0.1, RANKS: 0.1}, steps)
    assert names(decided) == [(SWITCH, Why.TRY), (SWITCH, Why.FASTER)]


def test_nothing_is_tried_where_communication_hides_or_the_field_has_not_settled():
    policy = CarrierPolicy(CARRIERS, STEPS)
    assert trains(policy, {SWITCH: 0.2}, 100, exposed=0.04) == []
    for field in (32, 16, 8) * 3:
        policy.field_changed(field)
        assert trains(policy, {SWITCH: 0.2}, 2 * STEPS, field=field) == []
    assert CarrierPolicy((), STEPS).words() == (NOT_READY, 0)


def test_a_try_of_a_carrier_that_takes_twice_as_long_is_short():
    policy = CarrierPolicy(CARRIERS, 50)
    trains(policy, {SWITCH: 0.1, RANKS: 0.3}, 2 * 50 + WARM + 1)
    assert policy.tried == RANKS
    decided = trains(policy, {RANKS: 0.3, SWITCH: 0.1}, WARM + SHORTEST_TRY + 1)
    assert names(decided) == [(SWITCH, Why.NOT_FASTER)]


def test_a_field_that_changes_ends_a_try_and_asks_for_another_one():
    policy = CarrierPolicy(CARRIERS, STEPS)
    times = {SWITCH: 0.2, RANKS: 0.1}
    trains(policy, times, 2 * STEPS + WARM + 1)
    assert policy.tried == RANKS
    decision = policy.field_changed(16)
    assert decision is not None
    assert (decision.carrier, decision.why) == (SWITCH, Why.FIELD)
    assert policy.field_changed(8) is None
    assert names(trains(policy, times, 30, field=8)) == [(RANKS, Why.TRY), (RANKS, Why.FASTER)]


def test_comparisons_become_rare_while_nothing_new_comes_of_them():
    policy = CarrierPolicy(CARRIERS, STEPS)
    at, tries = 0, []
    while len(tries) < 8:
        at += 1
        decided = trains(policy, {SWITCH: 0.1, RANKS: 0.3}, 1)
        tries += [at for each in decided if each.why is Why.TRY]
    gaps = [later - earlier for earlier, later in itertools.pairwise(tries)]
    rests = [each / STEPS for each in gaps]
    assert all(FIRST_REST <= each < FIRST_REST + 4 for each in rests[:1])
    assert all(1.6 < b / a < 2.1 for a, b in itertools.pairwise(rests[:4]))
    assert rests[-1] < LONGEST_REST + 4


def test_steps_that_take_much_longer_are_a_reason_to_compare_at_once():
    policy = CarrierPolicy(CARRIERS, STEPS)
    trains(policy, {SWITCH: 0.1, RANKS: 0.3}, 40)
    decided = trains(policy, {SWITCH: 0.5, RANKS: 0.3}, 3 * STEPS + 2 * WARM)
    assert names(decided) == [(RANKS, Why.TRY), (RANKS, Why.FASTER)]


def test_steps_that_another_carrier_has_carried_count_for_nothing():
    """As while the switch is lost, or a way back to it takes its time."""
    policy = CarrierPolicy(CARRIERS, STEPS)
    for _ in range(50):
        policy.step(0.1, 0.05, RANKS, 32)
    assert policy.words() == (NOT_READY, 0)


# ---- all ranks alike


@settings(max_examples=8, deadline=None)
@given(st.integers(2, 4), st.integers(0, 2**32 - 1))
def test_ranks_that_measure_differently_choose_the_same_carriers_at_the_same_collectives(
    ranks, seed
):
    draw = random.Random(seed)
    job = Job(ranks)
    heard: list[list[tuple[int, str]]] = [[] for _ in range(ranks)]
    carries = [SWITCH] * ranks
    for rank, tuning in enumerate(job.tunings):

        def prefer(decision: Decision, rank: int = rank) -> None:
            carries[rank] = decision.carrier
            heard[rank].append((job.ticket, decision.carrier))

        tuning.carriers(
            CARRIERS, carrier=lambda rank=rank: carries[rank], prefer=prefer, is_free=lambda: True
        )
    tensors = [np.full(2000, 0.5, np.float32) for _ in range(ranks)]
    slow = draw.choice(CARRIERS)
    try:
        for _ in range(100):
            job.sum(tensors)
            assert len(set(carries)) == 1
            for tuning, carrier in zip(job.tunings, carries, strict=True):
                took = (2.0 if carrier == slow else 1.0) * draw.uniform(0.95, 1.05)
                tuning.step(took, took * draw.choice([0.3, 0.6]))
        assert len({tuple(each) for each in heard}) == 1
        chosen = [
            [(each.collective, each.carrier, each.reason) for each in tuning.carrier_choices]
            for tuning in job.tunings
        ]
        assert all(each == chosen[0] for each in chosen)
        assert {reason for _, _, reason in chosen[0]} >= {Why.TRY.words}
        assert carries[0] == ({SWITCH: RANKS, RANKS: SWITCH}[slow])
    finally:
        job.close()


def test_a_choice_is_logged_once_with_its_reason_and_stands_in_the_summary(caplog):
    job = Job(2)
    carries = {}
    for rank, tuning in enumerate(job.tunings):
        carries[rank] = SWITCH
        tuning.carriers(
            CARRIERS,
            carrier=lambda rank=rank: carries[rank],
            prefer=lambda decision, rank=rank: carries.update({rank: decision.carrier}),
            is_free=lambda rank=rank: rank == 0 or len(job.sums) > 40,
        )
    tensors = [np.full(2000, 0.5, np.float32) for _ in range(2)]
    try:
        with caplog.at_level(logging.INFO, logger="wiresum"):
            for _ in range(20 * EVERY):
                job.sum(tensors)
                if len(job.sums) == 40:
                    assert not job.tunings[0].carrier_choices  # one rank is not free
                for rank, tuning in enumerate(job.tunings):
                    took = 2.0 if carries[rank] == SWITCH else 1.0
                    tuning.step(took, took / 2)
    finally:
        job.close()
    said = [each for each in (r.getMessage() for r in caplog.records) if "shall sum" in each]
    assert len(said) == 2
    assert "wiresum: the ranks shall sum from collective" in said[0]
    assert "its steps are timed" in said[0]
    assert "its steps are shorter (a step takes 2000 ms ± 0 over the switch, " in said[1]
    (line,) = {tuning.summary() for tuning in job.tunings}
    assert "; the switch first, the ranks from collective " in line
    described = job.tunings[1].describe()
    assert (described["carrier"], described["tried"]) == (RANKS, None)
    assert [each["carrier"] for each in described["carrier_choices"]] == [RANKS, RANKS]
