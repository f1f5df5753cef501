"""Which process group has a job: the first, until its ranks are gone."""

import asyncio

import pytest
from controller_rig import Clock

from wiresum.controller.errors import ControllerError
from wiresum.controller.office.owners import Owners

HEARTBEAT_S, EXPIRY_S = 5.0, 30.0
JOB = "j-1"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def owners(clock: Clock) -> Owners:
    return Owners(clock, HEARTBEAT_S, EXPIRY_S)


def test_the_first_group_has_the_job_while_any_of_its_ranks_calls(
    owners: Owners, clock: Clock
) -> None:
    assert owners.claim(JOB, "a", "host-a", joined=False).granted
    with owners.call(JOB, "a", 1):
        clock.time += 10 * EXPIRY_S
        claim = owners.claim(JOB, "b", "host-b", joined=True)
        assert (claim.granted, claim.lives, claim.where) == (False, True, "host-a")


def test_a_group_that_is_made_anew_has_its_job_at_once(owners: Owners) -> None:
    assert owners.claim(JOB, "a", "host-a", joined=False).granted
    with owners.call(JOB, "a", 1):
        assert owners.claim(JOB, "a", "host-a", joined=True).granted


def test_the_job_is_free_once_all_ranks_have_left(owners: Owners) -> None:
    owners.claim(JOB, "a", "", joined=False)
    with owners.call(JOB, "a", 0), owners.call(JOB, "a", 1):
        owners.left(JOB, "a", 0)
        assert owners.claim(JOB, "b", "", joined=True).lives
        owners.left(JOB, "a", 1)
        # Their last calls may still end, and say nothing any more.
        assert owners.claim(JOB, "b", "", joined=True).granted
    assert owners.claim(JOB, "b", "", joined=True).granted
    assert owners.claim(JOB, "c", "", joined=True).granted is False


def test_ranks_that_died_are_gone_after_a_moment(owners: Owners, clock: Clock) -> None:
    owners.claim(JOB, "a", "", joined=False)
    for rank in (0, 1):
        with pytest.raises(asyncio.CancelledError), owners.call(JOB, "a", rank):
            raise asyncio.CancelledError
    claim = owners.claim(JOB, "b", "", joined=True)
    assert (claim.granted, claim.lives) == (False, False)  # they may have lost a connection only
    clock.time += 2.1
    assert owners.claim(JOB, "b", "", joined=True).granted


def test_a_rank_between_two_calls_is_expected_back_for_as_long_as_a_lease_lasts(
    owners: Owners, clock: Clock
) -> None:
    owners.claim(JOB, "a", "", joined=False)
    with owners.call(JOB, "a", 0):
        pass
    clock.time += EXPIRY_S - 0.1
    assert not owners.claim(JOB, "b", "", joined=True).granted
    clock.time += 0.2
    assert owners.claim(JOB, "b", "", joined=True).granted


def test_a_rank_of_a_group_that_has_lost_the_job_is_told_so(owners: Owners, clock: Clock) -> None:
    owners.claim(JOB, "a", "", joined=False)
    clock.time += 2 * EXPIRY_S
    assert owners.claim(JOB, "b", "host-b", joined=True).granted
    with pytest.raises(ControllerError) as caught, owners.call(JOB, "a", 0):
        raise AssertionError("it was let in")
    assert "another process group (rank 0 on host-b)" in str(caught.value)
    assert caught.value.code == "ABORTED"


def test_a_restarted_controller_waits_for_the_group_that_had_the_job(
    owners: Owners, clock: Clock
) -> None:
    claim = owners.claim(JOB, "b", "", joined=True)
    assert (claim.granted, claim.lives) == (False, False)
    with owners.call(JOB, "a", 1):
        clock.time += 3 * HEARTBEAT_S
        assert owners.claim(JOB, "b", "", joined=True).lives


def test_after_a_restart_a_job_without_calls_goes_to_the_next_group(
    owners: Owners, clock: Clock
) -> None:
    clock.time += 3 * HEARTBEAT_S
    assert owners.claim(JOB, "b", "", joined=True).granted


def test_jobs_are_apart_and_forgotten(owners: Owners) -> None:
    assert owners.claim(JOB, "a", "", joined=False).granted
    assert owners.claim("j-2", "b", "", joined=False).granted
    owners.forget(JOB)
    assert owners.claim(JOB, "b", "", joined=False).granted


@pytest.mark.parametrize("name", ["x" * 129, "line\nbreak", "\x00"])
def test_odd_names_are_refused(owners: Owners, name: str) -> None:
    for attempt in (
        lambda: owners.claim(JOB, name, "", joined=False),
        lambda: owners.claim(JOB, "a", name, joined=False),
        lambda: owners.call(JOB, name, 0).__enter__(),
    ):
        with pytest.raises(ControllerError, match="printable"):
            attempt()


def test_made_up_ranks_are_refused(owners: Owners) -> None:
    for rank in (64, 2**31):
        with pytest.raises(ControllerError, match="rank"), owners.call(JOB, "a", rank):
            raise AssertionError("it was let in")


def test_callers_without_an_owner_claim_nothing(owners: Owners) -> None:
    """Launchers, and workers that have made the job for themselves."""
    with owners.call(JOB, "", 0):
        assert owners.claim(JOB, "a", "", joined=False).granted
    with pytest.raises(ControllerError, match="needs an owner"):
        owners.claim(JOB, "", "", joined=False)
