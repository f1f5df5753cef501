"""A job is owed the slots that it lent, until it has them back."""

import pytest
from controller_rig import Clock, StillOffice, with_switches

from wiresum.controller.rules import relocation
from wiresum.controller.state.model import Job, JobState
from wiresum.controller.state.sqlite import SqliteStore


@pytest.fixture
def office(store: SqliteStore) -> StillOffice:
    clock = Clock()
    with_switches(store, clock, "s1", "s2")
    return StillOffice(store, clock)


def full_switch(office: StillOffice) -> tuple[Job, Job]:
    """A job that has lent half of a switch, and the one that has them; no rank has joined."""
    host = office.create(slots_wanted=4096, switch="s1", min_slots=16).job
    office.jobs.park(host, unpark=False)
    office.clock.time += 1
    guest = office.create(slots_wanted=2048, switch="s1", min_slots=16).job
    host = office.jobs.get(host.id)
    assert (host.lease.range.slots, guest.lease.range.slots) == (2048, 2048)
    return host, guest


def test_a_job_that_nobody_asked_for_its_slots_is_owed_none(office: StillOffice) -> None:
    job = office.create(slots_wanted=512).job
    assert office.jobs.park(job, unpark=False).lent == office.clock.time
    assert office.jobs.park(job, unpark=True).lent == 0


@pytest.mark.parametrize("joined", [False, True])
def test_a_job_that_has_its_slots_back_is_owed_none(office: StillOffice, joined: bool) -> None:
    host, guest = full_switch(office)
    since = host.lent
    host = office.join(host, 0, 1) if joined else office.jobs.park(host, unpark=True)
    assert (host.parked, host.lent) == (False, since), "its first attempt begins unparked"
    office.jobs.end(guest, JobState.RELEASED, "released")
    office.queue.decide()
    if joined:
        host = office.jobs.get(host.id)
        assert host.pending is not None
        assert host.lent == since
        office.join(host, 0, 1, attempt=1)
    host = office.jobs.get(host.id)
    assert (host.lease.range.slots, host.lent) == (4096, 0)


def test_a_job_that_goes_to_another_switch_is_owed_nothing_there(office: StillOffice) -> None:
    job = office.create(slots_wanted=4096).job
    assert job.lease.switch == "s1"
    office.jobs.park(job, unpark=False)
    guest = office.create(slots_wanted=2048, switch="s1").job
    job = office.jobs.get(job.id)
    assert (job.lease.range.slots, guest.lease.switch) == (2048, "s1")
    office.desk.commit(relocation.relocate(office.state, job, {"s2"}, office.desk.now()))
    job = office.jobs.get(job.id)
    assert (job.lease.switch, job.lent) == ("s2", 0)
