"""Jobs come, are joined, restart, end and go silent, and the controller restarts, in any order."""

import contextlib
import random
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest
from controller_rig import ADMIN, Clock, StillOffice, with_switches
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    rule,
    run_state_machine_as_test,
)

from support import postgres
from support.examples import examples
from wiresum.controller.errors import ControllerError
from wiresum.controller.office.queue import Queued
from wiresum.controller.rules import relocation
from wiresum.controller.rules.changes import Agreed, Vote
from wiresum.controller.rules.limits import Limits
from wiresum.controller.scheduling.slots import disjoint
from wiresum.controller.southbound.desired import MEMBERSHIP, desired
from wiresum.controller.state.model import Job, JobState
from wiresum.controller.state.sqlite import SqliteStore
from wiresum.controller.v1 import controller_pb2 as pb
from wiresum.p4 import packet

_R = TypeVar("_R")


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
        self.used: dict[tuple[str, int], int] = {}
        """The last epoch under which a slot was used."""
        self.open()
        with_switches(self.store, self.clock, "s1", "s2")
        for priority, name in enumerate(("low", "middle", "high")):
            self.office.add_tenant(pb.AddTenantRequest(name=name, priority=priority))

    def open(self) -> None:
        self.store: SqliteStore = SqliteStore(Path(self.directory.name) / "store.sqlite")
        self.office = StillOffice(self.store, self.clock, self.limits)
        self.jobs = self.office.jobs

    def teardown(self) -> None:
        self.store.close()
        self.directory.cleanup()

    @rule(
        target=jobs_made,
        name=st.sampled_from(["", "a", "b"]),
        slots=st.sampled_from([0, 16, 100, 1024, 4096]),
        tenant=st.sampled_from(["low", "middle", "high"]),
    )
    def create(self, name: str, slots: int, tenant: str) -> str:
        live = self.store.job_not_over(tenant, name)
        answer = answer_of(lambda: self.office.create(name=name, slots_wanted=slots, tenant=tenant))
        if isinstance(answer, ControllerError):
            assert answer.code == "RESOURCE_EXHAUSTED"
            assert live is None
            # Jobs in the queue keep their places, also while their callers are away.
            assert self.store.jobs(live_only=True) or self.store.queue()
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
        if before is None or before.state is JobState.QUEUED:
            return
        after = answer_of(lambda: self.office.join(before, rank, workers, attempt))
        if isinstance(after, ControllerError):
            assert self.store.job(job_id) == before
            if after.code == "ABORTED":
                assert before.attempt is not None
                assert attempt < before.attempt or (attempt == before.attempt and before.change)
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
            assert (after.change, after.pending) == (0, None)
        else:
            assert (before.attempt, before.workers) == (attempt, workers)

    @rule(
        target=jobs_made,
        tenant=st.sampled_from(["low", "middle", "high"]),
        slots=st.sampled_from([512, 2048, 4096]),
        workers=st.integers(1, 3),
    )
    def run(self, tenant: str, slots: int, workers: int) -> str:
        """A job that fits is created and joined in one go."""
        answer = answer_of(lambda: self.office.create(slots_wanted=slots, tenant=tenant))
        if isinstance(answer, ControllerError):
            return ""
        for rank in range(workers):
            job = self.office.join(self.jobs.get(answer.job.id), rank, workers, 0)
        self.epochs.append(job.epoch)
        assert job.state is JobState.READY
        return job.id

    @rule(
        target=jobs_made,
        job_id=jobs_made,
        slots=st.sampled_from([0, 16, 256, 1024]),
        on_full=st.sampled_from([pb.ON_FULL_FAIL, pb.ON_FULL_SMALLER]),
    )
    def create_a_part(self, job_id: str, slots: int, on_full: pb.OnFull) -> str:
        whole = self.store.job(job_id)
        if whole is None or whole.state is JobState.QUEUED:
            return ""
        answer = answer_of(
            lambda: self.office.create(slots_wanted=slots, on_full=on_full, parent=job_id)
        )
        if isinstance(answer, ControllerError):
            over = "RESOURCE_EXHAUSTED" if whole.state.live else "FAILED_PRECONDITION"
            assert answer.code == over
            return ""
        assert answer.job.parent == (whole.parent or whole.id)
        return answer.job.id

    @rule(target=jobs_made, job_id=jobs_made, slots=st.sampled_from([16, 256]))
    def wait_for_a_part(self, job_id: str, slots: int) -> str:
        whole = self.store.job(job_id)
        if whole is None or not whole.state.live:
            return ""
        request = pb.CreateJobRequest(slots_wanted=slots, on_full=pb.ON_FULL_WAIT, parent=job_id)
        queued = answer_of(lambda: self.office.queue.request(request, ADMIN))
        return queued.job.id if isinstance(queued, Queued) else ""

    @rule(job_id=jobs_made, unpark=st.booleans())
    def park(self, job_id: str, unpark: bool) -> None:
        before = self.store.job(job_id)
        if before is None:
            return
        after = answer_of(lambda: self.jobs.park(before, unpark=unpark))
        if isinstance(after, ControllerError):
            assert (after.code, before.state.live) == ("FAILED_PRECONDITION", False)
            return
        assert after.parked is not unpark
        assert (after.lease, after.pending, after.epoch) == (
            before.lease,
            before.pending,
            before.epoch,
        )

    def changing(self, number: int) -> Job | None:
        """One of the jobs whose lease is about to change, if there are any."""
        jobs = self.store.changing_jobs()
        return jobs[number % len(jobs)] if jobs else None

    @rule(number=st.integers(0, 9), started=st.lists(st.integers(0, 9), min_size=3, max_size=3))
    def agree_on_a_change(self, number: int, started: list[int]) -> None:
        job = self.changing(number)
        if job is None:
            return
        assert job.pending is not None
        had = job.pending.boundary
        votes = [
            Vote(rank, job.epoch, job.pending.number, started[rank]) for rank in range(job.workers)
        ]
        with contextlib.ExitStack() as calls:
            for position, vote in enumerate(votes):
                calls.enter_context(self.office.changes.voting(job, vote))
                now = self.jobs.get(job.id)
                outcome = answer_of(partial(self.office.changes.outcome, now, vote))
                if had is not None:
                    late = vote.started > had
                    assert isinstance(outcome, ControllerError) if late else outcome == Agreed(had)
                elif position + 1 < len(votes):
                    assert outcome is None
                else:
                    assert outcome == Agreed(max(started[: job.workers]))

    @rule(number=st.integers(0, 9), rank=st.integers(0, 2))
    def join_a_change(self, number: int, rank: int) -> None:
        before = self.changing(number)
        if before is None or rank >= before.workers:
            return
        assert before.pending is not None
        pending, attempt = before.pending, before.attempt or 0
        after = answer_of(
            lambda: self.office.join(before, rank, before.workers, attempt, pending.number)
        )
        if isinstance(after, ControllerError):
            assert (after.code, pending.boundary) == ("FAILED_PRECONDITION", None)
            return
        assert after.state is JobState.READY
        if after.pending is None:
            assert (after.epoch, after.key) == (pending.epoch, pending.key)
            assert (after.change, after.lease.range) == (pending.number, pending.range)
            assert after.joined == list(range(before.workers))
            assert after.epoch > before.epoch
        else:
            assert (after.epoch, after.members) == (before.epoch, before.members)

    @rule(started=st.lists(st.integers(0, 9), min_size=3, max_size=3))
    def everybody_follows(self, started: list[int]) -> None:
        """Whatever is wanted is agreed upon and done; then those who have waited get their due."""
        for _ in range(3):
            for number in range(len(self.store.changing_jobs())):
                job = self.changing(0)
                assert job is not None
                if job.pending is not None and job.pending.boundary is None:
                    self.agree_on_a_change(0, started)
                for rank in range(job.workers):
                    self.join_a_change(0, rank)
                assert self.jobs.get(job.id).pending is None, number
            self.what_is_free_goes_to_whom_it_is_due()

    @rule(number=st.integers(0, 9), rank=st.integers(0, 2))
    def give_up_a_change(self, number: int, rank: int) -> None:
        job = self.changing(number)
        if job is not None and job.pending is not None:
            request = pb.JoinJobRequest(
                job_id=job.id, attempt=job.attempt or 0, rank=rank, change=job.pending.number
            )
            self.office.jobs.withdraw(request)
            after = self.jobs.get(job.id)
            assert (after.members, after.epoch) == (job.members, job.epoch)

    @rule(
        target=jobs_made,
        tenant=st.sampled_from(["low", "middle", "high"]),
        slots=st.sampled_from([512, 2048, 4096]),
    )
    def wait(self, tenant: str, slots: int) -> str:
        request = pb.CreateJobRequest(slots_wanted=slots, tenant=tenant, on_full=pb.ON_FULL_WAIT)
        queued = self.office.queue.request(request, ADMIN)
        assert isinstance(queued, Queued)
        return queued.job.id

    @rule()
    def what_is_free_goes_to_whom_it_is_due(self) -> None:
        for waiter in self.store.queue():
            self.office.queue.present(waiter.id)
        before = {waiter.id for waiter in self.store.queue()}
        decided = self.office.queue.decide()
        assert set(decided.granted) <= before
        after = {waiter.id for waiter in self.store.queue()}
        assert before - after == set(decided.granted)

    @rule(job_id=jobs_made)
    def lose_its_switch(self, job_id: str) -> None:
        before = self.store.job(job_id)
        if before is None:
            return
        up = set(self.store.switch_names()) - {before.lease.switch}
        plan = relocation.relocate(self.store, before, up, self.clock.now())
        self.store.commit(plan)
        after = self.jobs.get(job_id)
        if not plan:
            assert after == before
            return
        assert before.state.live
        assert after.lease.switch in up
        assert before.min_slots <= after.lease.range.slots <= before.lease.range.slots
        assert (after.state, after.members, after.pending) == (JobState.WAITING, (), None)

    @rule(job_id=jobs_made, rank=st.integers(0, 2), attempt=st.integers(0, 4))
    def give_up(self, job_id: str, rank: int, attempt: int) -> None:
        before = self.store.job(job_id)
        request = pb.JoinJobRequest(job_id=job_id, attempt=attempt, rank=rank)
        self.office.jobs.withdraw(request)
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
        if job is not None and job.state is not JobState.QUEUED:
            first = self.jobs.end(job, JobState.RELEASED, "released")
            assert not first.state.live
            assert self.jobs.end(job, JobState.EVICTED, "again") == first

    @rule(seconds=st.sampled_from([1.0, 20.0, 31.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.time += seconds
        for job in self.jobs.silent():
            assert self.jobs.silence(job) > self.limits.expiry_s
            assert self.jobs.expire(job.id).state is JobState.EXPIRED
        for job in self.store.jobs(live_only=True):
            assert self.jobs.silence(job) <= self.limits.expiry_s
        for job in self.office.changes.cancel_late():
            assert self.jobs.get(job.id).pending is None

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
            if was.pending is not None:
                assert job.pending is not None
                assert job.pending.boundary == was.pending.boundary
                # Who waited for the others waits no longer, and asks again.
                assert job.pending.members == ()
            if job.state.live:
                assert self.jobs.silence(job) == 0.0
        assert before == {}

    @invariant()
    def nothing_is_shared(self) -> None:
        for switch in self.store.switches():
            live = self.store.jobs_on(switch.name)
            numbers = [job.lease.number for job in live]
            assert len(set(numbers)) == len(numbers)
            assert all(0 < number < packet.JOBS for number in numbers)
            end = 0
            for held in sorted(each for job in live for each in disjoint(job.ranges)):
                assert held.base >= end
                end = held.end
            assert end <= switch.slots
            for job in live:
                assert job.state.live
                assert job.min_slots <= job.lease.range.slots <= job.target
        assert len(self.store.jobs(live_only=True)) == sum(
            len(self.store.jobs_on(name)) for name in ("s1", "s2")
        )

    @invariant()
    def parts_share_what_their_job_was_admitted_with(self) -> None:
        for whole in self.store.jobs():
            parts = [part for part in self.store.parts(whole.id) if part.state.live]
            assert whole.state.live or not self.store.parts(whole.id)
            held = sum(max(each.slots for each in job.ranges) for job in [whole, *parts])
            assert held <= whole.target or not parts
            for part in parts:
                assert (part.tenant, part.lease.switch) == (whole.tenant, whole.lease.switch)
                assert not self.store.parts(part.id)
        live = [job for job in self.store.jobs(live_only=True) if not job.parent]
        for name, usage in self.store.usage().items():
            own = [job for job in live if job.tenant == name]
            assert (usage.jobs, usage.slots) == (len(own), sum(job.target for job in own))

    @invariant()
    def who_has_all_slots_is_owed_none(self) -> None:
        for job in self.store.jobs(live_only=True):
            assert not job.lent or job.parked or job.lease.range.slots < job.target

    @invariant()
    def epochs_are_never_used_twice(self) -> None:
        assert self.epochs == sorted(set(self.epochs))
        assert 0 not in self.epochs
        pending = [job.pending.epoch for job in self.store.jobs() if job.pending is not None]
        assert len(set(pending)) == len(pending)
        used = [job.epoch for job in self.store.jobs() if job.epoch]
        assert len(set(used)) == len(used)

    @invariant()
    def slots_only_see_growing_epochs(self) -> None:
        """A switch takes packets of an older epoch than a slot's last for late ones."""
        for job in self.store.jobs(live_only=True):
            if job.state is JobState.READY:
                for base in range(job.lease.range.base, job.lease.range.end, 16):
                    slot = job.lease.switch, base
                    assert job.epoch >= self.used.get(slot, 0)
                    self.used[slot] = job.epoch

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
TestLifecycle.settings = settings(max_examples=examples(25), stateful_step_count=30)


def over_postgres(server: postgres.Postgres) -> type[Lifecycle]:
    """The same with a store in PostgreSQL: a restart finds there all that was in memory."""

    class OverPostgres(Lifecycle):
        def __init__(self) -> None:
            self.url = server.empty()
            super().__init__()

        def open(self) -> None:
            self.store = postgres.lead(self.url)
            self.loaded = postgres.rows(self.store)
            self.office = StillOffice(self.store, self.clock, self.limits)
            self.jobs = self.office.jobs

        @rule()
        def controller_restarts(self) -> None:
            before = postgres.rows(self.store)
            super().controller_restarts()
            assert self.loaded == before

    return OverPostgres


def test_lifecycle_over_postgres(postgres_server: postgres.Postgres) -> None:
    run_state_machine_as_test(
        over_postgres(postgres_server), settings=settings(max_examples=3, stateful_step_count=30)
    )


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(more, marks=pytest.mark.slow) for more in (1, 2))]
)
def test_a_long_walk(seed: int) -> None:
    a_long_walk(Lifecycle(), seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_a_long_walk_over_postgres(postgres_server: postgres.Postgres, seed: int) -> None:
    a_long_walk(over_postgres(postgres_server)(), seed)


def a_long_walk(walk: Lifecycle, seed: int) -> None:
    """The same rules, with the weights of a crowded switch, on which leases change all the time."""
    chance = random.Random(seed)
    made: list[str] = []
    changes = 0

    def some_job() -> str:
        return chance.choice(made) if made else ""

    def step() -> None:
        tenant = chance.choice(["low", "low", "middle", "high"])
        slots = chance.choice([256, 512, 1024, 2048, 4096])
        started = [chance.randrange(9) for _ in range(3)]
        number, rank = chance.randrange(10), chance.randrange(3)
        what = chance.randrange(120)
        if what >= 110:
            walk.park(some_job(), chance.random() < 0.5)
        elif what >= 106:
            made.append(walk.wait_for_a_part(some_job(), 256))
        elif what >= 100:
            made.append(walk.create_a_part(some_job(), chance.choice([0, 64]), pb.ON_FULL_SMALLER))
        elif what < 12:
            made.append(walk.run(tenant, slots, chance.randrange(1, 4)))
        elif what < 24:
            made.append(walk.wait(tenant, slots))
        elif what < 40:
            walk.agree_on_a_change(number, started)
        elif what < 65:
            walk.join_a_change(number, rank)
        elif what < 68:
            walk.give_up_a_change(number, rank)
        elif what < 78:
            walk.everybody_follows(started)
        elif what < 84:
            job_id = some_job()
            job = walk.store.job(job_id)
            if job is not None:
                walk.join(job_id, max(1, job.workers), rank, (job.attempt or 0) + (rank == 0))
        elif what < 94:
            walk.release(some_job())
        elif what < 96:
            walk.time_passes(chance.choice([1.0, 20.0]))
        elif what < 97:
            walk.controller_restarts()
        else:
            walk.what_is_free_goes_to_whom_it_is_due()

    try:
        for _ in range(400):
            step()
            for job in walk.store.jobs(live_only=True):
                changes += job.change > 0
                walk.jobs.touch(job)
            walk.nothing_is_shared()
            walk.parts_share_what_their_job_was_admitted_with()
            walk.who_has_all_slots_is_owed_none()
            walk.epochs_are_never_used_twice()
            walk.slots_only_see_growing_epochs()
            walk.only_ready_jobs_are_on_the_switch()
    finally:
        walk.teardown()
    assert changes > 100


@postgres.SLOW
def test_a_thousand_deaths_leak_nothing(store: SqliteStore) -> None:
    clock = Clock()
    with_switches(store, clock, "s1")
    office = StillOffice(store, clock)
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
        store = SqliteStore(":memory:")
        with_switches(store, clock, "s1")
        office = StillOffice(store, clock)
        job = office.create().job
        epochs.append(office.join(job, 0, 1, 0).epoch)
        clock.time += 60
    assert epochs[0] < epochs[1]
