"""The field that is chosen while a job trains: all ranks choose alike, and why they choose."""

import logging
import math
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import wiresum
from support.tuned_job import Job
from wiresum.common.errors import WiresumError
from wiresum.host_agent.agent.face import Call, Ended, Finished, Unit
from wiresum.host_agent.agent.relay import Relay
from wiresum.host_agent.agent.tuning import ballot
from wiresum.host_agent.agent.tuning.ballot import EVERY, Tuning
from wiresum.host_agent.agent.tuning.error import errors
from wiresum.host_agent.agent.tuning.policy import FIRST_REST, Policy, Reason, Window
from wiresum.host_agent.agent.tuning.wish import Wish, parse
from wiresum.host_agent.environment import AgentError
from wiresum.host_agent.tune.steps import _Steps

BUSY = Window(0.4, (2.0, 2.1, 1.9))
SIZE = 2000


def policy(errors_of: tuple[float, float] = (0.0001, 0.02), **wish: float) -> Policy:
    made = Policy(Wish(**wish))  # type: ignore[arg-type]
    made.errors = dict(zip((16, 8), errors_of, strict=True))
    return made


def goes(made: Policy, *windows: Window) -> list[int]:
    """The fields of a job of one rank, after each of these windows."""
    fields = []
    for window in windows:
        made.window(window)
        if made.asks != made.field:
            made.agreed(made.asks, made.reason)
        fields.append(made.field)
    return fields


# ---- one rank's opinion


def test_a_run_starts_exact_and_loosens_one_step_at_a_time():
    made = policy()
    assert made.asks == 32
    assert goes(made, BUSY, BUSY, BUSY) == [16, 8, 8]
    assert made.reason is Reason.EXPOSED


def test_nothing_is_loosened_where_communication_hides_behind_computation():
    assert goes(policy(), *[Window(0.04, (1.0,))] * 5) == [32] * 5


def test_a_field_whose_error_is_above_the_limit_or_unknown_is_not_taken():
    assert goes(policy((0.001, 0.2)), BUSY, BUSY, BUSY) == [16, 16, 16]
    unknown = Policy(Wish())
    assert goes(unknown, BUSY, BUSY) == [32, 32]


def test_without_a_reported_loss_it_goes_no_narrower_than_16_bits():
    assert goes(policy(), *[Window(0.4)] * 4) == [16] * 4


def test_a_loss_that_rises_leads_back_and_the_field_rests_twice_as_long_each_time():
    made = policy()
    low, high = Window(0.4, (2.0, 2.0)), Window(0.4, (2.5, 2.5))
    assert goes(made, low, low, high) == [16, 8, 16]
    assert made.reason is Reason.LOSS
    assert goes(made, *[low] * FIRST_REST) == [16] * (FIRST_REST - 1) + [8]
    assert goes(made, low, high) == [8, 16]
    assert goes(made, *[low] * (2 * FIRST_REST)) == [16] * (2 * FIRST_REST - 1) + [8]


def test_a_rise_within_the_tolerance_or_within_the_noise_changes_nothing():
    assert goes(policy(within=0.3), BUSY, BUSY, Window(0.4, (2.5, 2.5))) == [16, 8, 8]
    noisy = Window(0.4, (0.1, 2.0, 4.5))
    assert goes(policy(), BUSY, BUSY, noisy) == [16, 8, 8]


def test_an_error_that_grows_leads_back():
    made = policy()
    assert goes(made, BUSY, BUSY) == [16, 8]
    made.errors = {16: 0.001, 8: 0.5}
    assert goes(made, BUSY) == [16]
    assert made.reason is Reason.ERROR


def test_a_loss_that_is_no_number_leads_to_exact_sums_at_once():
    made = policy()
    goes(made, BUSY, BUSY)
    made.loss(math.nan)
    assert (made.asks, made.reason) == (32, Reason.LOSS)
    made.window(Window(0.4, (2.0, math.nan)))  # before any collective has carried that
    assert made.asks == 32
    assert goes(made, *[Window(0.4, (math.nan,))] * (2 * FIRST_REST)) == [32] * (2 * FIRST_REST)


def test_a_wider_field_that_a_rank_asks_for_during_a_collective_is_not_forgotten():
    made = policy()
    made.window(BUSY)
    made.loss(math.nan)  # after the collective has taken its words
    made.agreed(16, Reason.EXPOSED)
    assert (made.field, made.asks, made.reason) == (16, 32, Reason.LOSS)


# ---- all ranks alike


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 4), st.integers(0, 2**32 - 1))
def test_ranks_of_different_opinions_choose_the_same_fields_and_get_the_same_bits(ranks, seed):
    draw, data = random.Random(seed), np.random.default_rng(seed)
    job, fixed = Job(ranks), {field: Job(ranks, field) for field in (32, 16, 8)}
    try:
        for _ in range(60):
            tensors = [data.standard_normal(SIZE).astype(np.float32) for _ in range(ranks)]
            sums = job.sum(tensors)
            (field,) = {tuning.field for tuning in job.tunings}
            assert set(sums) == set(fixed[field].sum(tensors))
            assert len(set(sums)) == 1
            for tuning in job.tunings:  # each rank measures something else
                tuning.loss(draw.uniform(1.0, 1.2))
                tuning.step(1.0, draw.choice([0.01, 0.2, 0.9]))
        assert len({tuple(tuning.choices) for tuning in job.tunings}) == 1
    finally:
        for each in (job, *fixed.values()):
            each.close()


def test_collectives_that_an_engine_gives_back_pass_while_the_next_word_waits_for_theirs() -> None:
    """As when the switch takes over again, of many that the ranks have not begun."""
    tuning = Tuning(Wish(steps=2), 0, 1)
    first, second = (_Engine() for _ in range(2))
    relay = Relay(first, tuning)
    memory = np.ones(SIZE, np.float32)
    asked = range(1, 2 * EVERY + 2)
    for ticket in asked:
        relay.collect([Call(memory.ctypes.data, SIZE, "float32", False, ticket)])
    assert len(first.units) == EVERY  # the others wait for the word that goes with the first
    relay.stand()
    again, first.units = first.units, []
    relay.take_over(second, again=again)
    ended: list[int] = []
    for _ in asked:
        ended += (each.ticket for each in relay.poll(0.0))
    assert ended == list(asked)


class _Engine:
    """Ends what it is given at each poll, but what it has not polled may be taken from it."""

    suspended = None
    closed = False

    def __init__(self) -> None:
        self.units: list[Unit] = []
        self._polled = 0

    @property
    def started(self) -> int:
        return self._polled + sum(map(len, self.units))

    def collect(self, pieces: Unit) -> None:
        self.units.append(pieces)

    def poll(self, _timeout_s: float) -> Sequence[Finished]:
        ended = [Ended(each.ticket, None, None) for unit in self.units for each in unit]
        self._polled, self.units = self._polled + len(ended), []
        return ended

    def stats(self) -> dict[str, int | float]:
        return {}

    def close(self) -> None:
        self.closed = True


def test_one_rank_that_does_not_wait_keeps_all_exact_and_one_that_sees_a_rise_leads_all_back(
    caplog,
):
    job = Job(3)
    tensors = [np.full(SIZE, 0.5, np.float32) for _ in range(3)]

    def steps(*exposed: float, losses: tuple[float, ...] = (1.0, 1.0, 1.0)) -> int:
        for _ in range(2):
            job.sum(tensors)
            for tuning, share, loss in zip(job.tunings, exposed, losses, strict=True):
                tuning.loss(loss)
                tuning.step(1.0, share)
        # One word carries what they ask for, and the next one makes it so.
        for _ in range(2 * EVERY):
            job.sum(tensors)
        return job.tunings[0].field

    try:
        with caplog.at_level(logging.WARNING, logger="wiresum"):
            assert steps(0.5, 0.5, 0.01) == 32
            assert steps(0.5, 0.5, 0.5) == 16
            assert steps(0.5, 0.5, 0.5) == 8
            assert steps(0.5, 0.5, 0.5, losses=(1.0, 1.0, 1.5)) == 16
        assert [each.describe()["field"] for each in job.tunings] == [16, 16, 16]
        said = [record.getMessage() for record in caplog.records]
        assert len(said) == 3
        assert "fields of 16 bits, 32 before" in said[0]
        assert "communication is exposed" in said[0]
        assert "fields of 16 bits, 8 before" in said[2]
        assert "the loss has risen" in said[2]
        assert job.tunings[0].summary().startswith("fields of 32 bits, 16 from ")
        assert Tuning(Wish(), 0, 3).field == 32  # a restart begins exact
    finally:
        job.close()


def test_the_steps_of_the_next_optimizer_count_when_the_first_is_gone():
    class Optimizer:
        pass

    tuning, follow = Tuning(Wish(steps=2), 0, 2), _Steps()
    ballot.begin(tuning)
    first, second = Optimizer(), Optimizer()
    for each in (first, second, second, second):
        follow.after(each)
    assert tuning.describe()["exposed_share"] is None
    del first, each
    for _ in range(2):
        follow.after(second)
    assert tuning.describe()["exposed_share"] is not None


# ---- the error, the wish


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_the_error_is_that_of_the_codec(workers):
    values = np.random.default_rng(1).standard_normal(100_000).astype(np.float32)
    found = errors(values.ctypes.data, values.size, workers)
    for field, error in found.items():
        level = (2**field - 1) // (2 * workers)
        # Rounding to a step of a block's largest value, some three sigma, over the level.
        assert 0.5 < error / (3 / level / math.sqrt(12)) < 1.5
    values[7] = np.inf
    assert errors(values.ctypes.data, values.size, workers) == {}
    assert errors(np.zeros(9, np.float32).ctypes.data, 9, 2) == {16: 0.0, 8: 0.0}


def test_the_error_is_that_of_the_largest_tensors():
    tuning = Tuning(Wish(), 0, 2)
    values = np.random.default_rng(1).standard_normal(4096).astype(np.float32)
    values[:1100] = 0.0
    seen = []
    kinds = ((1100, "float32"), (4096, "int32"), (4096, "float32"), (1500, "float32"))
    for ticket, (count, dtype) in enumerate(kinds):
        tuning.passing([Call(values.ctypes.data, count, dtype, False, ticket)])
        seen.append(tuning.describe()["errors"])
    assert seen[0] == seen[1] == {16: 0.0, 8: 0.0}
    assert seen[2] == seen[3] == errors(values.ctypes.data, values.size, 2)
    assert seen[2][8] > 0.0


def test_a_wish_is_read_back_as_it_is_written():
    assert parse("within=1%") == Wish()
    wish = Wish(0.005, 0.2, 7)
    assert parse(str(wish)) == wish
    assert parse(str(Wish(within=1e-6))) == Wish(within=1e-6)
    assert parse("steps=5, within=2 %") == Wish(within=0.02, steps=5)
    local = Wish(carrier="fixed", h="16", drift=0.05)
    assert parse("carrier=fixed,h=16,drift=5%") == local == parse(str(local))
    assert [parse(f"h={h}").largest_h(50) for h in ("own", "auto", "16")] == [None, 50, 16]
    wrongs = ("", "within", "within=2", "steps=1.5", "steps=0", "speed=1%", "h=0", "h=x")
    for wrong in (*wrongs, "carrier=gloo", "h=", "drift=3", "within=1%,within=2%"):
        with pytest.raises(AgentError, match="it must be like within=1%"):
            parse(wrong)


@pytest.mark.parametrize(
    "limits", [{"within": None}, {"drift": "much"}, {"steps": 2.5}, {"h": None}]
)
def test_a_script_that_gives_no_limits_to_tune_hears_what_they_are_like(
    limits: dict[str, Any],
) -> None:
    with pytest.raises(WiresumError, match="it must be like within=1%"):
        wiresum.tune(**limits)
