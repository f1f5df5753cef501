"""Random schedules against the compiled program: no wrong sum, and every packet accounted for.

``WIRESUM_SCHEDULES`` sets how many run on the softswitch (default 1000; 100000 takes some minutes).
"""

import itertools
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.examples import examples
from support.schedule import Schedule, Values, draw

SCHEDULES = int(os.environ.get("WIRESUM_SCHEDULES", "1000"))
EPOCHS = itertools.count(1_000_000)
TABLES: dict[int, Values] = {}


def run(switch, parameters, steps):
    values = TABLES.setdefault(switch.lanes, Values(switch.lanes))
    Schedule(switch, values, EPOCHS, **parameters).run(steps)


def test_random_schedules(switch):
    # A schedule holds some hundred packets; each costs BMv2 two probes more.
    slow = type(switch).__name__ == "Bmv2"
    count = max(5, SCHEDULES // 400) if slow else SCHEDULES
    for seed in range(count):
        try:
            run(switch, draw(seed), steps=150)
        except AssertionError as error:
            pytest.fail(f"schedule {seed}: {error}")


@settings(max_examples=examples(30))
@given(
    parameters=st.fixed_dictionaries(
        {
            "seed": st.integers(0, 2**32),
            "jobs": st.integers(1, 2),
            "workers": st.integers(1, 4),
            "slots": st.sampled_from([2, 4, 6, 8]),
            "chunks": st.integers(1, 24),
            "loss": st.floats(0, 0.8),
            "attacks": st.booleans(),
            "restarts": st.booleans(),
        }
    ),
    steps=st.integers(0, 400),
)
def test_schedules_from_hypothesis(soft_switch, parameters, steps):
    run(soft_switch, parameters, steps)
