"""Groups of some of the ranks: each has a carrier of its own, and waits for no other group."""

import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from test_backend_torchrun import SCENARIOS, passed

from support.torchruns import Ended, clean_environment, finish, fresh_session
from support.training import spawned

WORKERS = 4
BEREAVED = Path(__file__).with_name("bereaved.py")
LIMIT_S = 240.0
pytestmark = pytest.mark.timeout(3 * LIMIT_S)

GROUPS = (
    "groups_in_any_order",
    "groups_of_several_threads",
    "groups_that_are_never_used",
    "backends_of_dimensions",
    "same_bits",
)
TRAININGS = ("hsdp", "tensor_parallel", "ddp_over_a_dimension", "post_local_sgd", "powersgd")


def bits_of(ended: Ended) -> str:
    (found,) = re.findall(r"^bits (\S+)$", ended.output, re.M)
    return str(found)


def run(scenarios: tuple[str, ...], env: Mapping[str, str]) -> Ended:
    command = [*spawned(WORKERS), str(SCENARIOS), "+".join(scenarios)]
    ended = finish(command, env, LIMIT_S)
    for scenario in scenarios:
        passed(ended, scenario, WORKERS)
    return ended


def over_ranks(field: int) -> dict[str, str]:
    return clean_environment() | {"WIRESUM_CARRIER": "ranks", "WIRESUM_FIELD": str(field)}


@pytest.mark.parametrize("field", [16, pytest.param(32, marks=pytest.mark.slow)])
def test_the_groups_of_a_mesh_train_over_the_switch_and_over_the_ranks(field: int) -> None:
    with fresh_session(timeout_s=60.0, field=field) as session:
        switch = run((*GROUPS, *TRAININGS), session.variables() | {"ON_SWITCH": "1"})
    assert bits_of(switch) == bits_of(run(GROUPS, over_ranks(field)))


@pytest.mark.slow
def test_the_groups_of_a_mesh_train_over_the_ranks_alone() -> None:
    run((*GROUPS, *TRAININGS), over_ranks(32))


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
