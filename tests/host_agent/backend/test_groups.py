"""Groups of some of the ranks: each has a carrier of its own, and waits for no other group."""

import pytest
from test_backend_torchrun import SCENARIOS, passed

from support.torchruns import clean_environment, spawn

WORKERS = 4
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
