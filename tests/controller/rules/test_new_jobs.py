"""New jobs: the choice of a switch, refusals, names, attaching to a live job."""

import pytest
from controller_rig import ADMIN, Clock, StillOffice, with_switches

from wiresum.controller.errors import ControllerError
from wiresum.controller.state.model import JobState
from wiresum.controller.state.sqlite import SqliteStore
from wiresum.controller.tokens import hashed


def test_a_refusal_names_the_jobs_on_a_full_switch(store: SqliteStore) -> None:
    clock = Clock()
    with_switches(store, clock, "s1")
    office = StillOffice(store, clock)
    first = office.create(name="first", slots_wanted=2048).job
    office.create(name="second", slots_wanted=1024)
    with pytest.raises(ControllerError) as caught:
        office.create(slots_wanted=1500)
    assert caught.value.code == "RESOURCE_EXHAUSTED"
    assert f"first ({first.id}) holds 0-2047, second" in str(caught.value)
    assert "no room for 2048 slots in one range" in str(caught.value)
    assert "1024 of 4096 slots free, at most 1024 in a row" in str(caught.value)
    with pytest.raises(ControllerError, match="5000 slots are more than any switch has"):
        office.create(slots_wanted=5000)


def test_switches_that_are_up_and_empty_come_first() -> None:
    clock = Clock()
    store = SqliteStore(":memory:")
    with_switches(store, clock, "s1", "s2", "s3")
    office = StillOffice(store, clock, usable=lambda name: name != "s1")
    chosen = [office.create().job.lease.switch for _ in range(3)]
    assert chosen == ["s2", "s3", "s2"]
    # One that is down is no place to run; but whoever names it, or has no other, waits for it.
    for name in ("s2", "s3"):
        office.create(switch=name, slots_wanted=2048)
    with pytest.raises(
        ControllerError, match=r"no room for 2048 .*switch s1 is down; switch s2 has"
    ):
        office.create(slots_wanted=2048)
    assert office.create(slots_wanted=2048, switch="s1").job.lease.switch == "s1"
    office.queue.usable = lambda _name: False
    assert office.create(slots_wanted=1024).job.lease.switch == "s1"
    with pytest.raises(ControllerError, match="no switch 's9'"):
        office.create(switch="s9")


@pytest.mark.parametrize("name", ["a b", "-x", "x" * 65, "j-0123456789ab", "a\nb", "é"])
def test_names_that_would_confuse(name: str) -> None:
    store = SqliteStore(":memory:")
    with_switches(store, Clock(), "s1")
    with pytest.raises(ControllerError) as caught:
        StillOffice(store, Clock()).create(name=name)
    assert caught.value.code == "INVALID_ARGUMENT"
    assert "\n" not in str(caught.value)


def test_attaching_to_a_live_job(store: SqliteStore) -> None:
    clock = Clock()
    with_switches(store, clock, "s1", "s2")
    office = StillOffice(store, clock)
    made = office.create(name="demo", switch="s1")
    first = made.job
    assert not made.attached
    again = office.create(name="demo", slots_wanted=64)
    assert (again.job, again.attached) == (first, True)
    # Each has a token of its own, and both are good.
    assert made.token != again.token
    for token in (made.token, again.token):
        assert store.job_of_token(hashed(token)) == first.id
    with pytest.raises(ControllerError, match="is live on switch s1, not s2"):
        office.create(name="demo", switch="s2")
    office.jobs.end(first, JobState.RELEASED, "released")
    third = office.create(name="demo", switch="s2")
    assert not third.attached
    assert third.job.id != first.id
    assert office.jobs.shown("demo", ADMIN) == third.job
    with pytest.raises(ControllerError, match="no tenant 'acme'"):
        office.create(tenant="acme")
