"""No tenant can take all of anything, whether it has limits or not."""

import pytest
from controller_rig import Clock, Rig, StillOffice, grant, with_switches

from support import postgres
from wiresum.controller.errors import ControllerError
from wiresum.controller.office.queue import Queued
from wiresum.controller.rules.callers import Caller
from wiresum.controller.rules.joining import MEMBERS_PER_SWITCH
from wiresum.controller.state.model import Job, JobState
from wiresum.controller.state.plan import EndJob, Plan
from wiresum.controller.state.sqlite import SqliteStore
from wiresum.controller.v1 import controller_pb2 as pb

RED, BLUE, GREEN = (Caller(tenant=name) for name in ("red", "blue", "green"))


@pytest.fixture
def office(store: SqliteStore) -> StillOffice:
    clock = Clock()
    with_switches(store, clock, "s1")
    for caller in (RED, BLUE, GREEN):
        StillOffice(store, clock).add_tenant(pb.AddTenantRequest(name=caller.tenant))
    return StillOffice(store, clock)


def start(office: StillOffice, caller: Caller, workers: int) -> Job:
    """A job whose first rank has joined: the others' entries are spoken for."""
    return office.join(office.create(caller, slots_wanted=16).job, 0, workers)


def fill(office: StillOffice, caller: Caller, workers: int = 0) -> int:
    """Start the largest jobs until one is refused; how many workers it has, ``workers`` before."""
    while True:
        try:
            start(office, caller, 64)
        except ControllerError as error:
            refusal = error
            break
        workers += 64
    assert refusal.code == "RESOURCE_EXHAUSTED"
    assert f"tenant {caller.tenant} has {workers} there" in str(refusal)
    return workers


@postgres.SLOW
def test_a_tenant_leaves_as_many_entries_as_it_has(office: StillOffice) -> None:
    taken = 0
    for caller in (RED, BLUE, GREEN):
        workers = fill(office, caller)
        taken += workers
        assert 0 <= MEMBERS_PER_SWITCH - taken - workers < 2 * 64
    assert office.store.workers_on("s1", but="").total() == taken < MEMBERS_PER_SWITCH


@postgres.SLOW
def test_a_job_may_restart_with_the_workers_that_it_has(office: StillOffice) -> None:
    job = start(office, RED, 64)
    fill(office, RED, 64)
    fill(office, BLUE)
    for attempt in (1, 2):
        job = office.join(job, 0, 64, attempt)
    # With fewer, and then it is held to what is free now.
    job = office.join(job, 0, 8, 3)
    with pytest.raises(ControllerError, match="would leave less"):
        office.join(job, 0, 64, 4)


def test_the_queue_of_a_tenant_ends_somewhere(office: StillOffice) -> None:
    office.create(BLUE, slots_wanted=4096)

    def ask(caller: Caller) -> Queued:
        request = pb.CreateJobRequest(slots_wanted=4096, on_full=pb.ON_FULL_WAIT)
        found = office.queue.request(request, caller)
        assert isinstance(found, Queued)
        return found

    for _ in range(256):
        last = ask(RED)
    with pytest.raises(ControllerError, match="tenant red has 256 jobs in the queue") as caught:
        ask(RED)
    assert caught.value.code == "RESOURCE_EXHAUSTED"
    ask(GREEN)
    office.queue.leave(last.job.id)
    ask(RED)


def past(
    store: SqliteStore, tenant: str, number: int, ended: float, reason: str = "released"
) -> str:
    """A job that has been."""
    job = f"j-{tenant}-{number}"
    grant(store, job, tenant=tenant, created=0.0)
    store.commit(Plan(ended, (EndJob(job, JobState.RELEASED, reason),)))
    return job


@postgres.SLOW
def test_the_history_of_each_tenant_ends_somewhere(office: StillOffice) -> None:
    now = office.clock.now()
    kept = past(office.store, "blue", 0, now - 1000)
    jobs = [past(office.store, "red", number, now - 1000 + number / 2) for number in range(1100)]
    for number in range(3):
        office.jobs.end(start(office, RED, 1 + number), JobState.RELEASED, "released")
    left = {job.id for job in office.store.jobs(tenant="red")}
    assert len(left) == 1001  # the last and a thousand before it
    assert left.isdisjoint(jobs[:102])
    assert left > set(jobs[102:])
    assert [job.id for job in office.store.jobs(tenant="blue")] == [kept]
    # Nothing that is live is history.
    live = start(office, RED, 1)
    assert office.store.job(live.id) == live


async def test_a_tenant_that_is_gone_is_forgotten_with_its_jobs(office: StillOffice) -> None:
    past(office.store, "red", 0, office.clock.now())
    await office.remove_tenant("red")
    await office.remove_tenant("green")
    office.jobs.forget_old()
    assert [job.tenant for job in office.store.jobs()] == ["red (removed)"]
    office.clock.time += 8 * 24 * 3600
    office.jobs.forget_old()
    assert office.store.jobs() == []
    office.add_tenant(pb.AddTenantRequest(name="red"))
    rows = office.store._db.execute("SELECT name FROM tenants ORDER BY name").fetchall()
    assert [row["name"] for row in rows] == ["blue", "default", "red"]


@postgres.SLOW
async def test_a_long_history_can_be_listed(rig: Rig) -> None:
    for number in range(300):
        past(rig.office.store, "default", number, rig.clock.now(), reason="x" * 20_000)
    listed = await rig.call(lambda client: client.list_jobs())
    assert sum(job.ByteSize() for job in listed) > 5 << 20
