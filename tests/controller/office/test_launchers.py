"""Launchers that share a job: it ends with the last of them, however each of them ends."""

import asyncio
from dataclasses import replace

import pytest
from controller_rig import Clock, Rig, until

from wiresum.controller.client.requests import GroupRank, SlotRequest
from wiresum.controller.errors import ControllerError
from wiresum.controller.office.launchers import Launchers
from wiresum.controller.on_full import OnFull
from wiresum.controller.state.model import Job
from wiresum.controller.v1 import controller_pb2 as pb

HEARTBEAT_S, EXPIRY_S = 5.0, 30.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def launchers(clock: Clock) -> Launchers:
    return Launchers(clock, HEARTBEAT_S, EXPIRY_S)


@pytest.fixture
async def job(rig: Rig, clock: Clock) -> Job:
    made = await rig.create("job")
    return replace(rig.office.jobs.get(made.id), created=clock.now())


async def released(rig: Rig, job: pb.Job) -> "pb.JobState.ValueType":
    return (await rig.call(lambda client: client.release_job(job.id, job.token))).state


async def test_a_job_ends_with_the_last_of_its_launchers_in_any_order(rig: Rig) -> None:
    for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0)):
        three = [await rig.create("shared") for _ in range(3)]
        assert len({job.id for job in three}) == 1
        for each in order[:2]:
            assert await released(rig, three[each]) == pb.JOB_STATE_WAITING
            # Once more: its answer may have been lost.
            assert await released(rig, three[each]) == pb.JOB_STATE_WAITING
        assert await released(rig, three[order[2]]) == pb.JOB_STATE_RELEASED
        assert await released(rig, three[0]) == pb.JOB_STATE_RELEASED


async def test_the_tenant_and_the_admin_end_a_job_under_its_launchers(rig: Rig) -> None:
    first, second = await rig.create("shared"), await rig.create("shared")
    answer = await rig.call(lambda client: client.release_job(first.id, ""))
    assert answer.state == pb.JOB_STATE_RELEASED
    beat = await rig.call(lambda client: client.heartbeat(second.id, second.token))
    assert beat.state == pb.JOB_STATE_RELEASED


async def test_a_job_in_the_queue_waits_for_the_last_of_its_launchers(rig: Rig) -> None:
    first = await rig.create("first", slots=4096)

    def ask(request: str) -> "asyncio.Task[pb.Job]":
        return asyncio.create_task(
            rig.call(
                lambda client: client.create_job(
                    "shared", SlotRequest(4096, on_full=OnFull.WAIT), request_id=request
                )
            )
        )

    async def leave(job: str, request: str) -> "pb.JobState.ValueType":
        call = rig.call(lambda client: client.release_job(job, "", request_id=request))
        return (await call).state

    creator, other = ask("a"), ask("b")
    waiting = rig.office.queue_polls._requests
    await until(lambda: sorted(request for _, request in waiting) == ["a", "b"])
    (queued,) = rig.office.store.queue()
    assert await leave(queued.id, "a") == pb.JOB_STATE_QUEUED
    await released(rig, first)
    one, two = await asyncio.gather(creator, other)
    assert one.id == two.id == queued.id
    # It has got the job in the same moment: it is known by its request, too.
    assert await leave(one.id, "a") == pb.JOB_STATE_WAITING
    assert await leave(one.id, "never given") == pb.JOB_STATE_WAITING
    assert await released(rig, two) == pb.JOB_STATE_RELEASED


async def test_the_last_launcher_takes_its_job_out_of_the_queue(rig: Rig) -> None:
    await rig.create("first", slots=4096)
    call = rig.call(
        lambda client: client.create_job(
            "alone", SlotRequest(4096, on_full=OnFull.WAIT), request_id="a"
        )
    )
    waiting = asyncio.create_task(call)
    await until(lambda: bool(rig.office.queue_polls._requests))
    (queued,) = rig.office.store.queue()
    answer = await rig.call(lambda client: client.release_job(queued.id, "", request_id="a"))
    assert answer.state == pb.JOB_STATE_RELEASED
    with pytest.raises(ControllerError, match="taken out of the queue"):
        await waiting


async def test_a_launcher_that_has_died_does_not_keep_the_job_from_its_end(rig: Rig) -> None:
    first, dead = await rig.create("shared"), await rig.create("shared")
    await rig.call(lambda client: client.heartbeat(dead.id, dead.token))
    rig.clock.time += rig.office.limits.expiry_s + 1
    await rig.call(lambda client: client.heartbeat(first.id, first.token))
    assert await rig.office.sweep() == [], "its death ends nothing"
    assert await released(rig, first) == pb.JOB_STATE_RELEASED


async def test_a_job_whose_last_launcher_has_died_expires(rig: Rig) -> None:
    first, dead = await rig.create("shared"), await rig.create("shared")
    assert await released(rig, first) == pb.JOB_STATE_WAITING
    rig.clock.time += rig.office.limits.expiry_s + 1
    assert [job.id for job in await rig.office.sweep()] == [dead.id]


async def test_ranks_do_not_keep_the_job_of_a_launcher_that_has_left(rig: Rig) -> None:
    job = await rig.create("shared")
    call = asyncio.create_task(
        rig.call(lambda client: client.heartbeat(job.id, job.token, wait_s=5, of=GroupRank("a", 1)))
    )
    assert await released(rig, job) == pb.JOB_STATE_RELEASED
    assert (await call).state == pb.JOB_STATE_RELEASED


def test_a_heartbeat_in_progress_keeps_the_job_and_a_broken_one_does_not(
    launchers: Launchers, clock: Clock, job: Job
) -> None:
    launchers.given(job.id, "a", "")
    launchers.given(job.id, "b", "")
    with launchers.call(job.id, "b"):
        clock.time += 10 * EXPIRY_S
        assert not launchers.leave(job, "a", 2)
    assert not launchers.leave(job, "a", 2), "it is expected to call again"
    with pytest.raises(ConnectionError), launchers.call(job.id, "b"):
        raise ConnectionError
    assert not launchers.leave(job, "a", 2), "only its connection may be lost"
    clock.time += 3.0
    assert launchers.leave(job, "a", 2)


def test_a_lost_answer_makes_no_launcher(launchers: Launchers, job: Job) -> None:
    launchers.given(job.id, "lost", "request")
    launchers.given(job.id, "a", "request")
    assert launchers.leave(job, "a", 2)


def test_after_a_restart_launchers_have_time_to_call_again(clock: Clock, job: Job) -> None:
    clock.time += 100
    restarted = Launchers(clock, HEARTBEAT_S, EXPIRY_S)
    assert restarted.leave(job, "a", 1), "nobody else ever had a token"
    assert not restarted.leave(job, "a", 2)
    with restarted.call(job.id, "b"):
        clock.time += 3 * HEARTBEAT_S
        assert not restarted.leave(job, "a", 2)
    assert restarted.leave(job, "b", 2)
