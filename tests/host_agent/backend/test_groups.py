"""Groups of some of the ranks: each has a carrier of its own, and waits for no other group."""

import re
from pathlib import Path

import pytest
from test_backend_torchrun import SCENARIOS, passed

from support.torchruns import clean_environment, finish, fresh_session, spawn
from support.training import spawned

WORKERS = 4
BEREAVED = Path(__file__).with_name("bereaved.py")
ALL = (
    "groups_in_any_order",
    "groups_of_several_threads",
    "groups_that_are_never_used",
    "backends_of_dimensions",
    "hsdp",
    "tensor_parallel",
    "ddp_over_a_dimension",
    "post_local_sgd",
    "same_bits",
)


@pytest.mark.parametrize("field", [32, pytest.param(16, marks=pytest.mark.slow)])
def test_groups_of_some_of_the_ranks_are_carried_by_their_ranks(field: int) -> None:
    env = clean_environment() | {"WIRESUM_CARRIER": "ranks", "WIRESUM_FIELD": str(field)}
    ended = spawn(SCENARIOS, "+".join(ALL), workers=WORKERS, env=env)
    for scenario in ALL:
        passed(ended, scenario, WORKERS)


def test_groups_of_some_of_the_ranks_are_carried_by_the_switch() -> None:
    scenarios = (*ALL, "powersgd")
    with fresh_session(timeout_s=60.0) as session:
        env = session.variables() | {"ON_SWITCH": "1"}
        ended = spawn(SCENARIOS, "+".join(scenarios), workers=WORKERS, env=env)
    for scenario in scenarios:
        passed(ended, scenario, WORKERS)


def test_a_rank_that_dies_ends_its_groups_and_no_others() -> None:
    env = clean_environment() | {"WIRESUM_CARRIER": "ranks"}
    ended = finish([*spawned(WORKERS, "last"), str(BEREAVED)], env)
    (begun,) = re.findall(r"^rank 2 in a group that has begun: (.*)$", ended.output, re.M)
    assert begun.startswith("PeerLost: rank 1 on "), ended.output
    assert "ranks 0, 1 of this group are ranks 2, 3 of the run" in begun
    (fresh,) = re.findall(r"^rank 1 in a group that has not: (.*)$", ended.output, re.M)
    assert fresh.startswith("PeerLost: rank 3 on "), ended.output
    assert "the group of ranks 1, 3 cannot begin" in fresh
    assert re.findall(r"^rank 1 after that: PeerLost: rank 3 on ", ended.output, re.M)
    living = re.findall(r"^rank (\d) among the living: (\S+)$", ended.output, re.M)
    assert sorted(living) == [("0", "2.0"), ("1", "2.0"), ("1", "2.0"), ("2", "2.0")], ended.output
