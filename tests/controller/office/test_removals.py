"""What happens to jobs in the queue when what they wait for goes away, or never comes."""

import asyncio
import threading
from dataclasses import replace
from typing import Any

import pytest
from controller_process import run_cli, serving
from controller_rig import Rig, until
from test_changes import join_next, say, stored
from test_queue import asks, queued, refused, release, tenant

from wiresum.controller.client import ControllerClient
from wiresum.controller.client.requests import SlotRequest
from wiresum.controller.errors import ControllerError
from wiresum.controller.on_full import OnFull
from wiresum.controller.v1 import controller_pb2 as pb


async def granted(rig: Rig) -> list[str]:
    jobs = await rig.call(lambda client: client.list_jobs())
    return [job.name for job in jobs if job.state != pb.JOB_STATE_QUEUED]


# ---- a tenant that is removed


@pytest.mark.parametrize("limit", [{"max_jobs": 1}, {"slot_quota": 16}, {}])
async def test_a_tenant_that_is_removed_is_given_nothing_more(
    rig: Rig, limit: dict[str, int]
) -> None:
    token = await tenant(rig, "bad", **limit)
    slots = 16 if limit else 4096
    await rig.call(lambda client: client.create_job("first", SlotRequest(slots)), token)
    names = ["w0", "w1", "w2"]
    waiting = []
    for name in names:
        waiting.append(asks(rig, name, slots=slots, token=token))
        await until(lambda n=name: any(w.name == n for w in rig.office.store.queue()))
    other = await tenant(rig, "good")
    theirs = asks(rig, "theirs", slots=4096, token=other)
    await queued(rig, *names, "theirs")
    await refused(
        "FAILED_PRECONDITION", "has live jobs", rig.call(lambda c: c.remove_tenant("bad"))
    )
    await rig.call(lambda client: client.remove_tenant("bad", evict=True))
    for task in waiting:
        await refused("ABORTED", "taken out of the queue: tenant bad was removed", task)
    # What is free is free for others.
    assert (await theirs).slots == 4096
    assert sorted(await granted(rig)) == ["first", "theirs"]
    (first,) = (job for job in rig.office.store.jobs() if job.name == "first")
    assert (first.state.value, first.reason) == ("evicted", "tenant bad was removed")
    assert first.events is not None
    assert rig.office.store.tenant("bad") is None


async def test_requests_of_a_tenant_that_is_being_removed_go_with_it(rig: Rig) -> None:
    """Its jobs' last counters take the switch a while; its token is good until they are there."""
    token = await tenant(rig, "bad")
    await rig.call(lambda client: client.create_job("first", SlotRequest(16)), token)
    rig.switch.freeze.set()
    removal = asyncio.create_task(rig.call(lambda c: c.remove_tenant("bad", evict=True)))
    late = asks(rig, "late", slots=16, token=token)
    queue = asks(rig, "queue", slots=4096, token=token)
    await removal
    rig.switch.freeze.clear()
    # What came in time is over all the same.
    await asyncio.wait([late, queue])
    assert all(not job.state.live for job in rig.office.store.jobs())
    assert rig.office.store.queue() == []
    assert isinstance(queue.exception(), ControllerError)


def test_the_command_removes_a_tenant_with_a_queue_at_the_first_try() -> None:
    with serving("--store", ":memory:") as child, child.client() as admin:
        done = run_cli(
            "switch", "add", "s1", "--controller", child.address, "--p4runtime", "127.0.0.1:1",
            "--address", "127.0.0.1:5555", "--host", "127.0.0.0/8=1", "--lanes", "64",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        token = admin.add_tenant("bad", max_jobs=1).token
        said: list[str] = []

        def wait(name: str) -> None:
            with ControllerClient(child.address, token=token) as client:
                try:
                    said.append(client.create_job(name, SlotRequest(16, on_full=OnFull.WAIT)).name)
                except ControllerError as error:
                    said.append(f"{error.code}: {error}")

        with ControllerClient(child.address, token=token) as client:
            client.create_job("first", SlotRequest(16))
        threads = [threading.Thread(target=wait, args=(f"w{i}",)) for i in range(3)]
        for thread in threads:
            thread.start()
        while sum(job.state == pb.JOB_STATE_QUEUED for job in admin.list_jobs()) < 3:
            pass
        done = run_cli("tenant", "remove", "bad", "--evict", "--controller", child.address)
        assert (done.returncode, done.stderr) == (0, "")
        for thread in threads:
            thread.join(30)
        assert len(said) == 3
        assert all("tenant bad was removed" in each for each in said), said
        told = [(job.name, job.reason) for job in admin.list_jobs()]
        assert told == [("first", "tenant bad was removed")]


# ---- a switch that is removed, drained, or has become too small


async def test_a_job_that_waits_for_a_removed_switch_is_told(rig: Rig) -> None:
    first = await rig.create("first", slots=4096)
    await rig.call(lambda c: c.add_switch(rig.facts("s2", p4runtime="127.0.0.1:1", udp_port=5556)))
    await rig.call(lambda client: client.drain_switch("s2"))
    here, there = asks(rig, "here", switch="s1"), asks(rig, "there", switch="s2")
    anywhere = asks(rig, "anywhere")
    await until(lambda: len(rig.office.store.queue()) == 3)
    await rig.call(lambda client: client.remove_switch("s2"))
    await refused("FAILED_PRECONDITION", "job there .* there is no switch s2 any more", there)
    assert {waiter.name for waiter in rig.office.store.queue()} == {"here", "anywhere"}
    await release(rig, first)
    done, _ = await asyncio.wait([here, anywhere], return_when=asyncio.FIRST_COMPLETED)
    (job,) = (task.result() for task in done)
    await release(rig, job)
    await release(rig, await (here if here not in done else anywhere))


async def test_jobs_that_wait_for_any_switch_are_told_when_the_last_one_goes(rig: Rig) -> None:
    await rig.call(lambda client: client.drain_switch("s1"))
    waiting = [asks(rig, "one"), asks(rig, "two", on_full=OnFull.WAIT, min_slots=64)]
    await until(lambda: len(rig.office.store.queue()) == 2)
    await rig.call(lambda client: client.remove_switch("s1"))
    for task in waiting:
        await refused("FAILED_PRECONDITION", "the controller knows no switch any more", task)


async def test_a_caller_between_two_calls_is_told_and_not_put_in_line_anew(rig: Rig) -> None:
    await rig.create("first", slots=4096)
    await rig.call(lambda c: c.add_switch(rig.facts("s2", p4runtime="127.0.0.1:1", udp_port=5556)))
    await rig.call(lambda client: client.drain_switch("s2"))
    acme = await tenant(rig, "acme")

    def request(name: str, switch: str) -> pb.CreateJobRequest:
        return pb.CreateJobRequest(
            name=name, slots_wanted=4096, switch=switch, on_full=pb.ON_FULL_WAIT, request_id=name
        )

    def ask(name: str, switch: str = "") -> Any:
        asked = request(name, switch)
        return rig.call(lambda c: c._call(lambda stub: stub.CreateJob, asked, timeout_s=30.0), acme)

    async def away(name: str, switch: str) -> None:
        """The caller's first call has ended, and its next one is not there yet."""
        with ControllerClient(rig.address, token=acme) as client:
            metadata = (("authorization", f"Bearer {acme}"),)
            (channel,) = client._connection._channels
            call = channel._stub.CreateJob.future(request(name, switch), 30, metadata)
            await until(lambda: name in {waiter.name for waiter in rig.office.store.queue()})
            call.cancel()
            await until(lambda: not rig.office.queue_polls._callers)

    for name, switch in (("gone", "s2"), ("evicted", ""), ("released", "")):
        await away(name, switch)
    await rig.call(lambda client: client.remove_switch("s2"))
    await rig.call(lambda client: client.evict_job("evicted", "not now"))
    await rig.call(lambda client: client.release_job("released", ""), acme)
    await refused("FAILED_PRECONDITION", "there is no switch s2 any more", ask("gone", "s2"))
    await refused("ABORTED", "queue: evicted by the admin: not now", ask("evicted"))
    await refused("ABORTED", "queue: released", ask("released"))
    assert rig.office.store.queue() == []


async def test_a_drained_switch_is_not_waited_for_for_ever(rig: Rig) -> None:
    await rig.call(lambda client: client.drain_switch("s1"))
    named, anywhere = asks(rig, "named", switch="s1"), asks(rig, "anywhere")
    await until(lambda: len(rig.office.store.queue()) == 2)
    rig.clock.time += rig.office.limits.drained_s - 1
    await rig.office.sweep()
    assert len(rig.office.store.queue()) == 2
    rig.clock.time += 2
    await rig.office.sweep()
    for task in (named, anywhere):
        await refused(
            "FAILED_PRECONDITION", "has waited 300 s for switch s1, which is being drained", task
        )


async def test_a_switch_that_comes_back_into_service_is_waited_for_anew(rig: Rig) -> None:
    first = await rig.create("first", slots=4096)
    waiting = asks(rig, "second")
    await queued(rig, "second")
    for _ in range(3):
        await rig.call(lambda client: client.drain_switch("s1"))
        rig.clock.time += rig.office.limits.drained_s - 1
        await rig.call(lambda c: c.heartbeat(first.id, first.token))
        await rig.call(lambda client: client.drain_switch("s1", undrain=True))
    await release(rig, first)
    assert (await waiting).slots == 4096


async def test_a_request_that_has_become_impossible_ends(rig: Rig) -> None:
    token = await tenant(rig, "acme", slot_quota=4096)
    await rig.create("first", slots=4096)
    large = asks(rig, "large", token=token)
    small = asks(rig, "small", slots=64, token=token)
    flexible = asks(rig, "flexible", slots=1024, on_full=OnFull.SMALLER, min_slots=64, token=token)
    await until(lambda: len(rig.office.store.queue()) == 2 and flexible.done())
    with pytest.raises(ControllerError, match="no room for 64 slots"):
        await flexible
    await rig.call(lambda client: client.set_tenant("acme", slot_quota=64))
    await refused(
        "RESOURCE_EXHAUSTED",
        "4096 slots are more than tenant acme may ever have: its quota is 64",
        large,
    )
    assert [waiter.name for waiter in rig.office.store.queue()] == ["small"]
    small.cancel()


# ---- a job that does not make way


async def goes_by(rig: Rig, seconds: float, *alive: pb.Job) -> None:
    """Time in which these jobs show signs of life."""
    until_then = rig.clock.time + seconds
    while rig.clock.time < until_then:
        rig.clock.time = min(until_then, rig.clock.time + 20)
        for job in alive:
            await rig.call(lambda client, job=job: client.heartbeat(job.id, job.token))
    await rig.office.sweep()


async def refuse(rig: Rig, *jobs: pb.Job) -> None:
    """The change that is announced to one of them passes without a word; all are alive."""
    await until(lambda: any(stored(rig, job).pending for job in jobs))
    await goes_by(rig, 3 * rig.office.limits.change_s + 1, *jobs)


async def rest(rig: Rig, *jobs: pb.Job) -> None:
    await goes_by(rig, rig.office.changes.limits.rest_s + 1, *jobs)


async def stubborn(rig: Rig) -> tuple[pb.Job, list[pb.Lease], "asyncio.Task[pb.Job]"]:
    """A running job on all slots, and one of higher priority that waits for half of them."""
    high = await tenant(rig, "high", priority=5)
    job = await rig.create("low", slots=4096)
    leases = await rig.join_all(job)
    asked = asks(rig, "high", slots=2048, token=high)
    await until(lambda: stored(rig, job).pending is not None)
    assert stored(rig, job).pending.reason == "for a job of higher priority"  # type: ignore[union-attr]
    return job, leases, asked


async def test_a_job_that_never_makes_way_is_evicted_after_three_refusals(rig: Rig) -> None:
    job, _, asked = await stubborn(rig)
    for _ in range(2):
        await refuse(rig, job)
        assert stored(rig, job).state.live
        await rest(rig, job)
        assert not asked.done()
    await refuse(rig, job)
    assert (await asked).slots == 2048
    told = await rig.call(lambda client: client.heartbeat(job.id, job.token))
    assert (told.state, told.reason) == (
        pb.JOB_STATE_EVICTED,
        "it did not make way for a job of higher priority, asked 3 times",
    )


async def test_refusals_are_bounded_in_time_too(rig: Rig) -> None:
    job, _, asked = await stubborn(rig)
    rig.office.changes.limits = replace(rig.office.changes.limits, max_refusals=1000)
    began = rig.clock.time
    while stored(rig, job).state.live:
        await refuse(rig, job)
        if stored(rig, job).state.live:
            await rest(rig, job)
        assert rig.clock.time - began < rig.office.changes.limits.patience_s + 200
    assert (await asked).slots == 2048
    assert "did not make way" in stored(rig, job).reason


async def test_a_job_that_agrees_and_never_changes_over_is_evicted(rig: Rig) -> None:
    job, leases, asked = await stubborn(rig)
    answers = await asyncio.gather(*(say(rig, job, lease, 1, 1 << 40) for lease in leases))
    assert {each.boundary for each in answers} == {1 << 40}
    began = rig.clock.time
    while stored(rig, job).state.live:
        rig.clock.time += 20
        await rig.call(lambda client: client.heartbeat(job.id, job.token))
        await rig.office.sweep()
        assert rig.clock.time - began < rig.office.changes.limits.patience_s + 60
    assert (await asked).slots == 2048
    assert "have not changed over within 300 s" in stored(rig, job).reason


async def test_a_job_that_makes_way_in_the_end_stays(rig: Rig) -> None:
    job, leases, asked = await stubborn(rig)
    for _ in range(2):
        await refuse(rig, job)
        await rest(rig, job)
    await until(lambda: stored(rig, job).pending is not None)
    change = stored(rig, job).pending.number  # type: ignore[union-attr]
    await asyncio.gather(*(say(rig, job, lease, change, 0) for lease in leases))
    await asyncio.gather(*(join_next(rig, job, rank, change) for rank in range(2)))
    assert (await asked).slots == 2048
    # What it refused before does not count any more.
    assert rig.office.changes.unyielding() == []
    await rig.office.sweep()
    assert stored(rig, job).state.live


async def test_refusals_count_only_while_a_job_needs_the_slots(rig: Rig) -> None:
    job, _, asked = await stubborn(rig)
    for _ in range(2):
        await refuse(rig, job)
        await rest(rig, job)
    await until(lambda: stored(rig, job).pending is not None)
    await rig.call(lambda client: client.evict_job("high"))
    await refused("ABORTED", "taken out of the queue", asked)
    await refuse(rig, job)
    assert stored(rig, job).state.live
    # Long afterwards, the next one that asks begins anew.
    await goes_by(rig, 600, job)
    assert rig.office.changes.unyielding() == []
    assert stored(rig, job).state.live


async def test_a_job_of_the_same_priority_may_stay_where_it_is(rig: Rig) -> None:
    """Nobody has a better claim to its slots: it is asked to move, and asked again."""
    jobs = [await rig.create(f"j{index}", slots=1024) for index in range(4)]
    for job in jobs[1::2]:
        await rig.join_all(job, attempt=jobs.index(job))
    for job in jobs[::2]:
        await release(rig, job)
    asked = asks(rig, "late", slots=2048)
    for _ in range(6):
        await refuse(rig, *jobs[1::2])
        await rest(rig, *jobs[1::2])
    assert all(stored(rig, job).state.live for job in jobs[1::2])
    assert not asked.done()
    for job in jobs[1::2]:
        await release(rig, job)
    assert (await asked).slots == 2048
