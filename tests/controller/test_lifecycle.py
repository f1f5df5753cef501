"""Jobs come, are joined, restart, end and go silent, and the controller restarts, in any order."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
from controller_rig import ADMIN, Clock, Office
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from wiresum.controller.client import add_switch_request
from wiresum.controller.desired import MEMBERSHIP, desired
from wiresum.controller.errors import ControllerError
from wiresum.controller.jobs import Limits
from wiresum.controller.model import JobState
from wiresum.controller.store import Store
from wiresum.controller.switches import Switches
from wiresum.controller.tokens import hashed
from wiresum.controller.v1 import controller_pb2 as pb
from wiresum.p4 import LANE_COUNTS, packet, program

_R = TypeVar("_R")


def with_switches(store: Store, clock: Clock, *names: str) -> None:
    for name in names:
        Switches(store, clock, program, LANE_COUNTS).add(
            add_switch_request(
                name,
                p4runtime=f"unix:/{name}",
                ip="127.0.0.1",
                udp_port=5555,
                hosts=[("0.0.0.0/0", 1)],
            )
        )


def answer_of(call: Callable[[], _R]) -> _R | ControllerError:
    try:
        return call()
    except ControllerError as error:
        return error


class Lifecycle(RuleBasedStateMachine):
    jobs_made = Bundle("jobs_made")

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.clock = Clock()
        self.limits = Limits(expiry_s=30.0)
        self.epochs: list[int] = []
        self.open()
        with_switches(self.store, self.clock, "s1", "s2")

    def open(self) -> None:
        self.store = Store(Path(self.directory.name) / "store.sqlite")
        self.office = Office(self.store, self.clock, self.limits)
        self.jobs = self.office.jobs

    def teardown(self) -> None:
        self.store.close()
        self.directory.cleanup()

    @rule(
        target=jobs_made,
        name=st.sampled_from(["", "a", "b"]),
        slots=st.sampled_from([0, 16, 100, 1024, 4096]),
    )
    def create(self, name: str, slots: int) -> str:
        live = self.store.live_job_named("default", name)
        answer = answer_of(lambda: self.office.create(name=name, slots_wanted=slots))
        if isinstance(answer, ControllerError):
            assert answer.code == "RESOURCE_EXHAUSTED"
            assert live is None
            assert self.store.jobs(live_only=True)
            return ""
        job, attached = answer.job, answer.attached
        assert attached == (live is not None)
        assert not attached or job == live
        assert attached or job.lease.range.slots >= slots
        return job.id

    @rule(
        job_id=jobs_made,
        workers=st.integers(1, 3),
        rank=st.integers(0, 2),
        attempt=st.integers(0, 4),
    )
    def join(self, job_id: str, workers: int, rank: int, attempt: int) -> None:
        before = self.store.job(job_id)
        if before is None:
            return
        after = answer_of(lambda: self.office.join(before, rank, workers, attempt))
        if isinstance(after, ControllerError):
            assert self.store.job(job_id) == before
            if after.code == "ABORTED":
                assert before.attempt is not None
                assert attempt < before.attempt
            elif after.code == "FAILED_PRECONDITION":
                assert not before.state.live
            else:
                assert after.code == "INVALID_ARGUMENT"
                assert rank >= workers or workers != before.workers
            return
        assert after.attempt == attempt
        assert rank in after.joined
        assert (after.state is JobState.READY) == (after.missing == [])
        if after.epoch != before.epoch:
            assert after.epoch > max(self.epochs, default=0)
            self.epochs.append(after.epoch)
        else:
            assert (before.attempt, before.workers) == (attempt, workers)

    @rule(job_id=jobs_made, rank=st.integers(0, 2), attempt=st.integers(0, 4))
    def give_up(self, job_id: str, rank: int, attempt: int) -> None:
        before = self.store.job(job_id)
        request = pb.JoinJobRequest(job_id=job_id, attempt=attempt, rank=rank)
        self.office.joining.withdraw(request)
        if before is not None and before.state is JobState.READY:
            assert self.store.job(job_id) == before

    @rule(job_id=jobs_made)
    def heartbeat(self, job_id: str) -> None:
        job = self.store.job(job_id)
        if job is not None:
            self.jobs.touch(job)
            assert self.jobs.get(job_id).state == job.state

    @rule(job_id=consumes(jobs_made))
    def release(self, job_id: str) -> None:
        job = self.store.job(job_id)
        if job is not None:
            first = self.jobs.end(job, JobState.RELEASED, "released")
            assert not first.state.live
            assert self.jobs.end(job, JobState.EVICTED, "again") == first

    @rule(seconds=st.sampled_from([1.0, 20.0, 31.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.time += seconds
        for job in self.jobs.silent():
            assert self.clock.time - job.heartbeat > self.limits.expiry_s
            assert self.jobs.expire(job.id).state is JobState.EXPIRED
        for job in self.store.jobs(live_only=True):
            assert self.clock.time - job.heartbeat <= self.limits.expiry_s

    @rule()
    def controller_restarts(self) -> None:
        before = {job.id: job for job in self.store.jobs()}
        self.store.close()
        self.open()
        for job in self.store.jobs():
            was = before.pop(job.id)
            assert (job.state, job.epoch, job.key, job.lease) == (
                was.state,
                was.epoch,
                was.key,
                was.lease,
            )
            if job.state is JobState.READY:
                assert job.members == was.members
            if job.state.live:
                assert job.heartbeat == self.clock.time
        assert before == {}

    @invariant()
    def nothing_is_shared(self) -> None:
        for switch in self.store.switches():
            live = self.store.jobs_on(switch.name)
            numbers = [job.lease.number for job in live]
            assert len(set(numbers)) == len(numbers)
            assert all(0 < number < packet.JOBS for number in numbers)
            end = 0
            for job in live:
                assert job.state.live
                assert job.lease.range.base >= end
                end = job.lease.range.end
            assert end <= switch.slots
        assert len(self.store.jobs(live_only=True)) == sum(
            len(self.store.jobs_on(name)) for name in ("s1", "s2")
        )

    @invariant()
    def epochs_are_never_used_twice(self) -> None:
        assert self.epochs == sorted(set(self.epochs))
        assert 0 not in self.epochs
        used = [job.epoch for job in self.store.jobs() if job.epoch]
        assert len(set(used)) == len(used)

    @invariant()
    def only_ready_jobs_are_on_the_switch(self) -> None:
        for switch in self.store.switches():
            jobs = self.store.jobs_on(switch.name)
            entries = desired(switch, jobs).entries
            epochs = [dict(key.match)["epoch"] for key in entries if key.table == MEMBERSHIP]
            ready = [job for job in jobs if job.state is JobState.READY]
            assert sorted(epochs) == sorted(job.epoch for job in ready for _ in job.members)
            assert all(job.missing == [] for job in ready)


TestLifecycle = Lifecycle.TestCase
TestLifecycle.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)


def test_a_thousand_deaths_leak_nothing() -> None:
    clock = Clock()
    store = Store(":memory:")
    with_switches(store, clock, "s1")
    office = Office(store, clock)
    for number in range(1000):
        job = office.create(name=f"job-{number % 7}", slots_wanted=4096).job
        office.join(job, 0, 1 + number % 2, 0)
        clock.time += 31.0
        assert [silent.id for silent in office.jobs.silent()] == [job.id]
        office.jobs.expire(job.id)
        office.jobs.forget_old()
    assert store.jobs_on("s1") == []
    assert store.jobs(live_only=True) == []
    switch = store.switches()[0]
    assert {key.table for key in desired(switch, store.jobs()).entries} == {"addresses"}


def test_a_new_store_does_not_repeat_the_epochs_of_a_lost_one() -> None:
    clock = Clock()
    epochs = []
    for _ in range(2):
        store = Store(":memory:")
        with_switches(store, clock, "s1")
        office = Office(store, clock)
        job = office.create().job
        epochs.append(office.join(job, 0, 1, 0).epoch)
        clock.time += 60
    assert epochs[0] < epochs[1]


def test_a_full_switch_says_who_holds_what() -> None:
    clock = Clock()
    store = Store(":memory:")
    with_switches(store, clock, "s1")
    office = Office(store, clock)
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
    store = Store(":memory:")
    with_switches(store, clock, "s1", "s2", "s3")
    office = Office(store, clock, usable=lambda name: name != "s1")
    chosen = [office.create().job.lease.switch for _ in range(3)]
    assert chosen == ["s2", "s3", "s2"]
    # One that is down may come up again; the job waits for it if there is no other room.
    for name in ("s2", "s3"):
        office.create(switch=name, slots_wanted=2048)
    assert office.create(slots_wanted=2048).job.lease.switch == "s1"
    with pytest.raises(ControllerError, match="no switch 's9'"):
        office.create(switch="s9")


@pytest.mark.parametrize("name", ["a b", "-x", "x" * 65, "j-0123456789ab", "a\nb", "é"])
def test_names_that_would_confuse(name: str) -> None:
    store = Store(":memory:")
    with_switches(store, Clock(), "s1")
    with pytest.raises(ControllerError) as caught:
        Office(store, Clock()).create(name=name)
    assert caught.value.code == "INVALID_ARGUMENT"
    assert "\n" not in str(caught.value)


def test_attaching_to_a_live_job() -> None:
    store, clock = Store(":memory:"), Clock()
    with_switches(store, clock, "s1", "s2")
    office = Office(store, clock)
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
