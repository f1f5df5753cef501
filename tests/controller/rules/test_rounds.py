"""Rules make plans: they write nothing, and a round of decisions is one commit."""

import pytest
from controller_rig import ADMIN, Clock, StillOffice, with_switches

from wiresum.controller.errors import StoreFailed
from wiresum.controller.office.queue import Queued
from wiresum.controller.rules import joining, switches
from wiresum.controller.scheduling.scheduling import Standing
from wiresum.controller.state.model import Job, JobState
from wiresum.controller.state.plan import AddMember, Grant, LeaveQueue, Plan, SetReady, StartAttempt
from wiresum.controller.state.sqlite import SqliteStore
from wiresum.controller.v1 import controller_pb2 as pb


@pytest.fixture
def office(store: SqliteStore) -> StillOffice:
    clock = Clock()
    with_switches(store, clock, "s1", "s2")
    return StillOffice(store, clock)


@pytest.fixture
def commits(office: StillOffice, monkeypatch: pytest.MonkeyPatch) -> list[Plan]:
    """The plans that are committed from now on."""
    plans: list[Plan] = []
    commit = office.store.commit

    def record(plan: Plan) -> None:
        commit(plan)
        if plan:
            plans.append(plan)

    monkeypatch.setattr(office.store, "commit", record)
    return plans


def enqueue(office: StillOffice, **request: object) -> Job:
    queued = office.queue.request(
        pb.CreateJobRequest(on_full=pb.ON_FULL_WAIT, **request),  # type: ignore[arg-type]
        ADMIN,
    )
    assert isinstance(queued, Queued)
    office.queue.present(queued.job.id)
    return queued.job


def test_a_round_is_one_commit(office: StillOffice, commits: list[Plan]) -> None:
    large, small, lost = (
        enqueue(office, slots_wanted=slots, switch=switch)
        for slots, switch in ((4096, "s1"), (16, "s2"), (16, "s2"))
    )
    office.desk.commit(Plan(1.0, (LeaveQueue(small.id),)))
    office.desk.commit(switches.remove(office.state, "s2", office.clock.now()))
    other = enqueue(office, slots_wanted=16)
    commits.clear()
    decided = office.queue.decide()
    (plan,) = commits
    assert [type(write) for write in plan.writes] == [LeaveQueue, Grant]
    assert decided.granted == (large.id,)
    ((job, why),) = decided.dismissed
    assert job.id == lost.id
    assert "there is no switch s2 any more" in str(why)
    assert office.queue.told(other.id) is Standing.FULL
    # The same question again is not even asked.
    assert not office.queue.decide().plan
    assert len(commits) == 1


def test_a_round_that_cannot_be_written_has_not_happened(
    office: StillOffice, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = enqueue(office, slots_wanted=4096)

    def fail(_plan: Plan) -> None:
        raise StoreFailed("UNAVAILABLE", "the disk is full", retry_after_s=1.0)

    with monkeypatch.context() as patch:
        patch.setattr(office.store, "commit", fail)
        for _ in range(2):
            with pytest.raises(StoreFailed):
                office.queue.decide()
        assert office.jobs.get(job.id).state is JobState.QUEUED
    assert office.queue.decide().granted == (job.id,)
    assert office.jobs.get(job.id).state is JobState.WAITING


def test_rules_write_nothing(office: StillOffice) -> None:
    job = office.create(slots_wanted=16).job
    version = office.store.version
    request = pb.JoinJobRequest(
        job_id=job.id, rank=0, workers=1, attempt=3, ip="127.0.0.1", udp_port=1, field=32
    )
    plan = joining.join(office.state, job, request, 7.0)
    assert office.store.version == version
    start, member, ready = plan.writes
    assert plan.now == 7.0
    assert start == StartAttempt(job.id, 3, 1, 32)
    assert isinstance(member, AddMember)
    assert ready == SetReady(job.id)
    # What is decided twice is written once.
    office.desk.commit(plan)
    assert not joining.join(office.state, office.jobs.get(job.id), request, 8.0)
