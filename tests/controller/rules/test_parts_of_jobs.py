"""Parts of a job: who gets one, what it is called, when it ends."""

import pytest
from controller_rig import ADMIN, Clock, StillOffice, with_switches

from wiresum.controller.errors import ControllerError
from wiresum.controller.office.queue import Queued
from wiresum.controller.rules import admission, jobs, relocation, switches
from wiresum.controller.rules import parts as rules
from wiresum.controller.rules.callers import Caller
from wiresum.controller.rules.changes import Vote
from wiresum.controller.rules.jobs import Created
from wiresum.controller.scheduling.scheduling import Standing
from wiresum.controller.state.model import Job, JobState
from wiresum.controller.state.sqlite import SqliteStore
from wiresum.controller.v1 import controller_pb2 as pb


@pytest.fixture
def office(store: SqliteStore) -> StillOffice:
    clock = Clock()
    with_switches(store, clock, "s1", "s2")
    office = StillOffice(store, clock)
    for name in ("red", "blue"):
        office.add_tenant(pb.AddTenantRequest(name=name))
    return office


def run(office: StillOffice, slots: int = 512, **more: object) -> Job:
    return office.create(slots_wanted=slots, tenant="red", **more).job


def of(job: Job) -> Caller:
    """The holder of a token of the job."""
    return Caller(job=job.id, token=f"of {job.id}")


def part(office: StillOffice, job: Job, **more: object) -> Created:
    return office.create(of(job), parent=job.id, **more)


def follow(office: StillOffice) -> None:
    """Let every rank of a job of one rank follow the changes that its lease is asked for."""
    for job in office.state.changing_jobs():
        assert job.pending is not None
        vote = Vote(0, job.epoch, job.pending.number, 0)
        with office.changes.voting(job, vote):
            office.changes.outcome(job, vote)
        agreed = office.jobs.get(job.id)
        office.join(agreed, 0, 1, job.attempt or 0, job.pending.number)


def part_of_running(office: StillOffice, job: Job) -> Job:
    """A part of a job whose rank follows the changes of its lease."""
    request = pb.CreateJobRequest(parent=job.id, on_full=pb.ON_FULL_WAIT)
    queued = office.queue.request(request, of(job))
    office.queue.present(queued.job.id)
    while office.queue.decide().changing:
        follow(office)
    return office.jobs.get(queued.job.id)


def refused(office: StillOffice, caller: Caller, code: str, words: str, **request: object) -> None:
    with pytest.raises(ControllerError) as caught:
        office.create(caller, **request)
    assert (caught.value.code, "\n" in str(caught.value)) == (code, False)
    assert words in str(caught.value)


async def test_a_part_is_inside_its_jobs_slots_and_outside_its_tenants_limits(
    office: StillOffice,
) -> None:
    office.set_tenant(pb.SetTenantRequest(name="red", slot_quota=512, max_jobs=1))
    job = run(office)
    made = [part(office, job).job for _ in range(4)]
    assert [each.lease.range.slots for each in made[:3]] == [128, 128, 128]
    family = [office.jobs.get(each.id) for each in [job, *made]]
    assert sum(each.lease.range.slots for each in family) <= 512
    assert {each.tenant for each in family} == {"red"}
    assert len({each.lease.switch for each in family}) == 1
    assert len({each.lease.number for each in family}) == 5
    usage = office.state.usage()["red"]
    assert (usage.slots, usage.jobs, usage.queued) == (512, 1, 0)
    for each in made:
        office.jobs.end(each, JobState.RELEASED, "released")
    while office.queue.decide().changing:
        pass
    assert office.jobs.get(job.id).lease.range.slots == 512


def test_parts_in_the_queue_take_no_place_of_their_tenants_launchers(
    office: StillOffice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "_QUEUE_PER_TENANT", 2)
    job = run(office)
    waits = pb.CreateJobRequest(parent=job.id, on_full=pb.ON_FULL_WAIT)
    for _ in range(3):
        assert isinstance(office.queue.request(waits, of(job)), Queued)
    wish = pb.CreateJobRequest(tenant="red", slots_wanted=512, on_full=pb.ON_FULL_WAIT)
    for _ in range(2):
        assert isinstance(office.queue.request(wish, ADMIN), Queued)
    with pytest.raises(ControllerError, match="2 jobs in the queue"):
        office.queue.request(wish, ADMIN)
    assert isinstance(office.queue.request(waits, of(job)), Queued)


@pytest.mark.parametrize("how", ["released", "silent", "another attempt", "another switch"])
def test_parts_end_with_their_job_and_with_its_attempt(office: StillOffice, how: str) -> None:
    job = office.join(run(office), 0, 1)
    one = office.join(part_of_running(office, job), 0, 1)
    waiting = office.queue.request(
        pb.CreateJobRequest(parent=job.id, on_full=pb.ON_FULL_WAIT), of(job)
    )
    assert isinstance(waiting, Queued)
    other = run(office)
    if how == "released":
        office.jobs.end(job, JobState.RELEASED, "released")
        said = "its job ended: released"
    elif how == "silent":
        office.clock.time += 31
        office.jobs.touch(one)
        office.jobs.touch(other)
        assert [each.id for each in office.jobs.silent()] == [job.id]
        office.jobs.expire(job.id)
        said = "its job ended: no heartbeat for 30 s"
    elif how == "another attempt":
        office.join(job, 0, 1, attempt=1)
        said = "attempt 1 of its job began"
    else:
        office.desk.commit(relocation.relocate(office.state, job, {"s2"}, office.desk.now()))
        assert office.jobs.get(job.id).lease.switch == "s2"
        said = "its job went to switch s2"
    ended = office.jobs.get(one.id)
    assert (ended.state.live, ended.reason, ended.members) == (False, said, ())
    assert office.state.job(waiting.job.id) is None
    assert office.state.parts(job.id) == []
    live = {each.id for each in office.state.jobs(live_only=True)}
    assert live == {other.id} | ({job.id} if how.startswith("another") else set())
    if how == "another attempt":  # and its slots are the job's again
        assert office.state.shrunk_jobs()
        while office.queue.decide().changing:
            pass
        assert office.jobs.get(job.id).state.live


def test_joining_once_more_ends_no_part(office: StillOffice) -> None:
    job = office.join(run(office), 0, 1)
    one = part_of_running(office, job)
    office.join(job, 0, 1)
    assert office.jobs.get(one.id).state.live


def test_a_part_stays_where_its_job_is(office: StillOffice) -> None:
    job = run(office)
    one = office.join(part(office, job).job, 0, 1)
    assert not relocation.relocate(office.state, one, {"s2"}, office.desk.now())


def test_only_the_jobs_token_makes_parts_of_it(office: StillOffice) -> None:
    job, other = run(office), run(office)
    for caller in (of(other), Caller(tenant="red"), Caller(tenant="blue")):
        refused(office, caller, "PERMISSION_DENIED", "wrong token for job", parent=job.id)
    refused(office, ADMIN, "NOT_FOUND", "there is no job 'j-none'", parent="j-none")
    # A job's token makes nothing but parts.
    refused(office, of(job), "PERMISSION_DENIED", "for that job and its parts only")
    mine = {"parent": job.id}
    refused(office, of(job), "INVALID_ARGUMENT", "leave the tenant out", tenant="blue", **mine)
    elsewhere = "s2" if job.lease.switch == "s1" else "s1"
    refused(office, of(job), "INVALID_ARGUMENT", "leave the switch out", switch=elsewhere, **mine)
    office.jobs.end(job, JobState.RELEASED, "released")
    refused(office, of(job), "FAILED_PRECONDITION", "is over (released: released)", **mine)


def test_a_part_sees_itself_and_a_job_its_parts(office: StillOffice) -> None:
    job, other = run(office), run(office)
    one, two = part(office, job).job, part(office, job).job
    for caller, sees in ((of(job), {job, one, two}), (of(one), {one}), (of(other), {other})):
        for each in (job, one, two, other):
            assert caller.owns(each) == (each.id in {seen.id for seen in sees})


def test_a_part_of_a_part_is_a_part_of_the_same_job(office: StillOffice) -> None:
    job = run(office)
    one = part(office, job).job
    two = part(office, one).job
    assert two.parent == job.id
    office.jobs.end(one, JobState.RELEASED, "released")
    assert office.jobs.get(two.id).state.live


def test_asking_again_with_the_same_request_gives_the_same_part(office: StillOffice) -> None:
    job, other = run(office), run(office)
    one = part(office, job, request_id="r1")
    again = part(office, job, request_id="r1")
    assert (again.job.id, again.attached) == (one.job.id, False)
    assert again.token != one.token
    # Ids of requests are of one job each: no token of another job comes out of this.
    assert part(office, other, request_id="r1").job.id != one.job.id
    assert run(office, request_id="r1").id not in (one.job.id, other.id)
    office.jobs.end(one.job, JobState.RELEASED, "released")
    refused(
        office, of(job), "FAILED_PRECONDITION", "create a new one", parent=job.id, request_id="r1"
    )


def test_a_parts_name_is_its_own_among_the_parts_of_its_job(office: StillOffice) -> None:
    job, other = run(office, name="run"), run(office, name="fsdp")
    one = part(office, job, name="fsdp")
    assert (one.job.name, one.job.id != other.id) == ("run:fsdp", True)
    again = part(office, job, name="fsdp")
    assert (again.job.id, again.attached) == (one.job.id, True)
    assert part(office, other, name="fsdp").job.name == "fsdp:fsdp"
    refused(office, of(job), "INVALID_ARGUMENT", "is not a name", parent=job.id, name="a:b")


def test_a_job_without_slots_to_give_says_so(office: StillOffice) -> None:
    small = run(office, 16)
    never = "a part of 16 slots never fits into job"
    refused(office, of(small), "RESOURCE_EXHAUSTED", never, parent=small.id)
    job = run(office, 64)
    for _ in range(3):
        part(office, job, slots_wanted=16)
    words = f"job {job.id} has no 16 slots to give to another part: of its 64 it has 16 itself"
    refused(office, of(job), "RESOURCE_EXHAUSTED", words, parent=job.id, slots_wanted=16)
    # Who waits gets them when another part ends.
    request = pb.CreateJobRequest(parent=job.id, slots_wanted=16, on_full=pb.ON_FULL_WAIT)
    waiting = office.queue.request(request, of(job))
    office.queue.present(waiting.job.id)
    assert office.queue.decide().granted == ()
    office.jobs.end(office.state.parts(job.id)[0], JobState.RELEASED, "released")
    assert office.queue.decide().granted == (waiting.job.id,)


def test_a_job_has_so_many_parts_and_no_more(
    office: StillOffice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "MOST", 2)
    job = run(office)
    part(office, job)
    part(office, job)
    refused(office, of(job), "RESOURCE_EXHAUSTED", "has 2 parts", parent=job.id)


def test_parts_end_with_a_job_for_which_an_upgraded_switch_has_no_slots(
    office: StillOffice,
) -> None:
    """The job lies at the end of the switch, its part at the beginning."""
    filler = run(office, 256, switch="s1")
    job = run(office, 256, switch="s1")
    office.jobs.end(filler, JobState.RELEASED, "released")
    one = [part(office, job, slots_wanted=128).job for _ in range(2)][1]
    assert one.lease.range.end <= 256 <= office.jobs.get(job.id).lease.range.base
    other = run(office, 16, switch="s2")
    office.desk.commit(switches.recover(office.state, lambda _lanes: 256, office.desk.now()))
    assert [each.id for each in office.state.jobs(live_only=True)] == [other.id]
    assert office.state.jobs_on("s1") == []


async def test_a_tenant_is_removed_with_its_parts(office: StillOffice) -> None:
    job = run(office)
    part(office, job)
    await office.remove_tenant("red", evict=True)
    assert office.state.jobs(live_only=True) == []


async def test_a_request_that_is_given_up_with_the_jobs_token_releases_its_part(
    office: StillOffice,
) -> None:
    """The caller stopped waiting, and the part was granted before it could say so."""
    job = run(office)
    one = part(office, job).job
    office.jobs.another_token(one, request="r1")
    assert (await office.leave(one, of(job), "r1")).state.live, "another launcher has it, too"
    only = part_of_running(office, job)
    office.jobs.another_token(only, request="r2")
    assert (await office.leave(only, of(job), "r2")).state is JobState.RELEASED


def test_parts_displace_no_job_from_the_history(
    office: StillOffice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "_HISTORY_JOBS", 2)
    over = run(office)
    office.jobs.end(over, JobState.RELEASED, "released")
    job = run(office)
    for attempt in range(3):
        office.join(job, 0, 1, attempt)
        for _ in range(2):
            part_of_running(office, job)
    office.join(job, 0, 1, attempt=3)
    for _ in range(4):
        office.jobs.end(part(office, job).job, JobState.RELEASED, "released")
    ended = [each for each in office.state.jobs() if not each.state.live]
    assert [each.id for each in ended if not each.parent] == [over.id]
    assert len([each for each in ended if each.parent]) == 3, "the last one, and two others"


async def test_a_part_in_the_queue_needs_nobody_on_another_switch(office: StillOffice) -> None:
    office.set_tenant(pb.SetTenantRequest(name="blue", priority=1))
    beside = {name: run(office, 16, switch=name) for name in ("s1", "s2")}
    job = office.create(slots_wanted=512, tenant="blue", switch="s1").job
    office.join(job, 0, 1)
    waiting = office.queue.request(
        pb.CreateJobRequest(parent=job.id, on_full=pb.ON_FULL_WAIT), of(job)
    )
    office.queue.present(waiting.job.id)
    office.queue.decide()
    assert office.queue.standing(waiting.job.id) is Standing.COMING
    assert office.queue.needs(beside["s1"])
    assert not office.queue.needs(beside["s2"])


def test_parts_are_in_the_store_that_the_next_controller_opens(
    office: StillOffice, store: SqliteStore
) -> None:
    job = run(office)
    one = part(office, job).job
    waiting = office.queue.request(
        pb.CreateJobRequest(parent=job.id, on_full=pb.ON_FULL_WAIT), of(job)
    )
    later = StillOffice(store, office.clock)
    assert [each.id for each in later.state.parts(job.id)] == [one.id, waiting.job.id]
    assert later.jobs.get(one.id) == office.jobs.get(one.id)
    assert part(later, job, slots_wanted=16).job.parent == job.id


def test_no_job_can_be_called_like_a_part_of_another(store: SqliteStore) -> None:
    """The names and requests of parts have a colon, which those of jobs cannot have."""
    clock = Clock()
    with_switches(store, clock, "s1")
    office = StillOffice(store, clock)
    refused(office, ADMIN, "INVALID_ARGUMENT", "is not a name", name="run:fsdp")
    refused(office, ADMIN, "INVALID_ARGUMENT", "request id", request_id="j-1:r1")
