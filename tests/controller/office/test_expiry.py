"""Heartbeats and what happens without them, with a clock that only the test moves."""

import asyncio

import pytest
from controller_rig import Rig, until

from wiresum.controller.errors import ControllerError
from wiresum.controller.v1 import controller_pb2 as pb


async def beat(rig: Rig, job: pb.Job) -> pb.HeartbeatResponse:
    return await rig.call(lambda client: client.heartbeat(job.id, job.token))


async def test_a_silent_job_gives_everything_back(rig: Rig) -> None:
    job = await rig.create("demo", slots=4096)
    await rig.join_all(job)
    rig.switch.count("events", 8 + 2, 5)
    rig.clock.time += 29
    assert await rig.office.sweep() == []
    rig.clock.time += 2
    assert [ended.id for ended in await rig.office.sweep()] == [job.id]
    await until(lambda: rig.switch.table("membership") == [])
    await until(lambda: set(rig.switch.memory.groups) == {1})
    answer = await beat(rig, job)
    assert (answer.state, answer.reason) == (pb.JOB_STATE_EXPIRED, "no heartbeat for 30 s")
    told = await rig.get(job, counters=True)
    assert (told.state, told.slots, told.events["completed"]) == (pb.JOB_STATE_EXPIRED, 0, 5)
    with pytest.raises(ControllerError, match=r"is over \(expired: no heartbeat for 30 s\)"):
        await rig.join(job, 0, attempt=1)
    released = await rig.call(lambda client: client.release_job(job.id, job.token))
    assert released.state == pb.JOB_STATE_EXPIRED
    # The whole switch is free again.
    await rig.join_all(await rig.create("next", slots=4096))


async def test_heartbeats_keep_a_job(rig: Rig) -> None:
    job = await rig.create("demo")
    leases = await rig.join_all(job)
    for _ in range(4):
        rig.clock.time += 20
        answer = await beat(rig, job)
        assert (answer.state, answer.epoch) == (pb.JOB_STATE_READY, leases[0].epoch)
        assert await rig.office.sweep() == []
    assert (await rig.get(job)).heartbeat_age_s == 0


async def test_a_job_without_ranks_expires_too(rig: Rig) -> None:
    job = await rig.create("demo")
    rig.clock.time += 31
    await rig.office.sweep()
    assert (await beat(rig, job)).state == pb.JOB_STATE_EXPIRED


async def test_a_job_whose_ranks_wait_is_alive(rig: Rig) -> None:
    job = await rig.create("demo")
    waiting = asyncio.create_task(rig.join(job, 0))
    await until(lambda: rig.member_count(job) == 1)
    for _ in range(3):
        rig.clock.time += 20
        assert await rig.office.sweep() == []
    await rig.join(job, 1)
    await waiting


async def test_release_frees_at_once_and_only_with_the_token(rig: Rig) -> None:
    job = await rig.create("demo", slots=4096)
    await rig.join_all(job)
    with pytest.raises(ControllerError, match="does not know this token"):
        await rig.call(lambda client: client.release_job(job.id, "guess"))
    with pytest.raises(ControllerError, match="does not know this token"):
        await rig.call(lambda client: client.heartbeat(job.id, "guess"))
    for _ in range(2):
        answer = await rig.call(lambda client: client.release_job(job.id, job.token))
        assert answer.state == pb.JOB_STATE_RELEASED
    other = await rig.create("other", slots=4096)
    (lease, _) = await rig.join_all(other)
    # The slots and the number are the same; nothing of the old epoch is left on the switch.
    assert {row["epoch"] for row in rig.switch.table("membership")} == {lease.epoch}


async def test_slots_are_listed_without_gaps(rig: Rig) -> None:
    first = await rig.create("first", slots=1024)
    second = await rig.create("second", slots=16)
    (switch,) = await rig.call(lambda client: client.list_slots())
    assert switch.slots == 4096
    held = {(entry.base, entry.slots): entry.job_name for entry in switch.ranges if entry.job_id}
    assert held == {
        (first.slot_base, 1024): "first",
        (second.slot_base, 16): "second",
    }
    assert sum(entry.slots for entry in switch.ranges) == 4096
    assert [entry.base for entry in switch.ranges] == sorted(e.base for e in switch.ranges)
    jobs = await rig.call(lambda client: client.list_jobs())
    assert [job.name for job in jobs] == ["second", "first"]
    await rig.call(lambda client: client.release_job(first.id, first.token))
    live = await rig.call(lambda client: client.list_jobs(live_only=True))
    assert [job.name for job in live] == ["second"]
    with pytest.raises(ControllerError, match="no switch 's9'"):
        await rig.call(lambda client: client.list_slots("s9"))
