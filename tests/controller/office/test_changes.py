"""A lease that changes while its job runs: agreed upon, joined, done; or cancelled."""

import asyncio
import re
from typing import Any

import pytest
from controller_rig import Rig, until

from wiresum.controller.client import ControllerClient
from wiresum.controller.client.requests import Declaration, SlotRequest
from wiresum.controller.errors import ControllerError
from wiresum.controller.state.model import Job
from wiresum.controller.v1 import controller_pb2 as pb


async def refused(code: str, pattern: str, call: Any) -> None:
    with pytest.raises(ControllerError) as caught:
        await call
    assert (caught.value.code, "\n" in str(caught.value)) == (code, False)
    assert re.search(pattern, str(caught.value)), str(caught.value)


async def shrunk(rig: Rig, workers: int = 2) -> tuple[pb.Job, list[pb.Lease], asyncio.Task[pb.Job]]:
    """A running job on all slots, and one of higher priority that wants half of them."""
    high = (await rig.call(lambda client: client.add_tenant("high", priority=5))).token
    job = await rig.create("low", slots=4096)
    leases = await rig.join_all(job, workers)
    asked = asyncio.create_task(
        rig.call(lambda client: client.create_job("high", SlotRequest(2048)), token=high)
    )
    await until(lambda: stored(rig, job).pending is not None)
    return job, leases, asked


def stored(rig: Rig, job: pb.Job) -> Job:
    return rig.office.jobs.get(job.id)


async def say(
    rig: Rig, job: pb.Job, lease: pb.Lease, change: int, started: int, **more: Any
) -> pb.ChangeLeaseResponse:
    return await rig.call(
        lambda client: client.change_lease(
            job.id,
            job.token,
            Declaration(rank=lease.rank, epoch=lease.epoch, change=change, started=started),
            **more,
        )
    )


async def join_next(rig: Rig, job: pb.Job, rank: int, change: int, **more: Any) -> pb.Lease:
    where = {"change": change, "udp_port": 5000 + 100 * change + rank}
    return await rig.join(job, rank, **(where | more))  # type: ignore[arg-type]


async def test_a_job_is_shrunk_while_it_runs_and_grows_back(rig: Rig) -> None:
    job, leases, asked = await shrunk(rig)
    told = await rig.call(lambda client: client.heartbeat(job.id, job.token))
    assert (told.state, told.epoch, told.change, told.slots) == (
        pb.JOB_STATE_READY, leases[0].epoch, 1, 2048,
    )  # fmt: skip
    assert [lease.change for lease in leases] == [0, 0]
    shown = await rig.get(job)
    assert (shown.change, shown.change_wanted, shown.slots_next) == (0, 1, 2048)
    (switch,) = await rig.call(lambda client: client.list_slots())
    assert [(each.base, each.slots, each.next) for each in switch.ranges] == [(0, 4096, False)]

    answers = await asyncio.gather(say(rig, job, leases[0], 1, 7), say(rig, job, leases[1], 1, 9))
    assert [(each.boundary, each.cancelled) for each in answers] == [(9, False)] * 2
    # Whoever asks again is told the same.
    assert (await say(rig, job, leases[0], 1, 7)).boundary == 9

    first = asyncio.create_task(join_next(rig, job, 0, 1))
    await until(lambda: len(stored(rig, job).pending.members) == 1)  # type: ignore[union-attr]
    # Until all have joined, the old epoch is served, and its slots are nobody else's.
    rows = rig.switch.table("membership")
    assert {row["epoch"] for row in rows} == {leases[0].epoch}
    assert {row["slot_count"] for row in rows} == {4096}
    assert not asked.done()
    new = [await join_next(rig, job, 1, 1), await first]
    assert {lease.slots for lease in new} == {2048}
    assert {lease.change for lease in new} == {1}
    assert {lease.job for lease in new} == {leases[0].job}
    (epoch,) = {lease.epoch for lease in new}
    assert epoch > leases[0].epoch
    secrets = {lease.key for lease in (new[0], leases[0])}
    secrets |= {lease.reply_key for lease in (new[0], leases[0])}
    assert len(secrets - {0}) == 4
    high = await asked
    assert (high.slots, high.slot_base) == (2048, 2048)
    rows = rig.switch.table("membership")
    assert {(row["epoch"], row["slot_base"], row["slot_count"]) for row in rows} == {
        (epoch, 0, 2048)
    }
    # Joining again is joining once; with the change before, too late.
    assert (await join_next(rig, job, 0, 1)).key == new[0].key
    await refused("ABORTED", "change 0 of the lease .* is over, it has change 1", rig.join(job, 0))
    await refused("ABORTED", "epoch .* is over", say(rig, job, leases[0], 1, 7))
    shown = await rig.get(job)
    assert (shown.slots, shown.slots_target, shown.change) == (2048, 4096, 1)

    # What is freed goes back.
    news = asyncio.create_task(
        rig.call(lambda c: c.heartbeat(job.id, job.token, wait_s=10.0, epoch=epoch, change=1))
    )
    await rig.call(lambda client: client.release_job(high.id, high.token))
    assert ((await news).change, (await news).slots) == (2, 4096)
    answers = await asyncio.gather(say(rig, job, new[0], 2, 0), say(rig, job, new[1], 2, 3))
    assert {each.boundary for each in answers} == {3}
    grown = await asyncio.gather(join_next(rig, job, 0, 2), join_next(rig, job, 1, 2))
    assert {(lease.slots, lease.change) for lease in grown} == {(4096, 2)}
    rows = rig.switch.table("membership")
    assert {(row["slot_base"], row["slot_count"]) for row in rows} == {(0, 4096)}
    assert len(rows) == 2
    # A restart is a new attempt, which begins with no change.
    again = await rig.join_all(job, attempt=1)
    assert {(lease.slots, lease.change) for lease in again} == {(4096, 0)}


async def test_a_rank_that_says_nothing_cancels_the_change(rig: Rig) -> None:
    job, leases, asked = await shrunk(rig)
    waiting = asyncio.create_task(say(rig, job, leases[0], 1, 7))
    await until(lambda: rig.office.changes.missing(stored(rig, job)) == [1])
    rig.clock.time += rig.office.limits.change_s + 1
    await rig.office.sweep()
    answer = await waiting
    assert (answer.cancelled, answer.reason) == (True, "change 1 is not wanted any more")
    # The job is left in peace; who wanted its slots gets an answer.
    with pytest.raises(ControllerError, match="no room for 2048 slots"):
        await asked
    assert stored(rig, job).pending is None
    assert (await rig.call(lambda client: client.heartbeat(job.id, job.token))).change == 0
    await refused("ABORTED", "change 1 .* was cancelled", join_next(rig, job, 0, 1))
    late = await say(rig, job, leases[1], 1, 7)
    assert late.cancelled
    # Another change has another number.
    rig.clock.time += 29
    await rig.call(lambda client: client.heartbeat(job.id, job.token))
    rig.clock.time += 29
    await rig.call(lambda client: client.heartbeat(job.id, job.token))
    rig.clock.time += 5
    token = (await rig.call(lambda client: client.rotate_tenant_token("high"))).token
    again = asyncio.create_task(
        rig.call(lambda client: client.create_job("again", SlotRequest(2048)), token=token)
    )
    await until(lambda: stored(rig, job).pending is not None)
    assert (await rig.call(lambda client: client.heartbeat(job.id, job.token))).change == 2
    again.cancel()


async def test_a_vote_counts_while_its_call_lasts(rig: Rig) -> None:
    job, leases, asked = await shrunk(rig)
    answer = await say(rig, job, leases[0], 1, 7, timeout_s=0.05)
    assert answer.cancelled
    assert "rank 1 did not agree to change 1" in answer.reason
    # It may have started more since: what it had said is not held against it.
    waiting = asyncio.create_task(say(rig, job, leases[1], 1, 2))
    await until(lambda: rig.office.changes.missing(stored(rig, job)) == [0])
    assert not waiting.done()
    assert (await say(rig, job, leases[0], 1, 11)).boundary == 11
    assert (await waiting).boundary == 11
    await refused(
        "FAILED_PRECONDITION", "rank 1 .* has started 12 .* agreed .* after 11",
        say(rig, job, leases[1], 1, 12),
    )  # fmt: skip
    asked.cancel()


async def test_a_vote_that_cannot_be_is_refused(rig: Rig) -> None:
    job, leases, asked = await shrunk(rig, 1)
    with pytest.raises(ControllerError, match="cannot have started") as caught:
        await say(rig, job, leases[0], 1, (1 << 64) - 1)
    assert caught.value.code == "INVALID_ARGUMENT"
    assert (await say(rig, job, leases[0], 1, 0)).boundary == 0
    await join_next(rig, job, 0, 1, workers=1)
    await asked


async def test_an_agreed_change_survives_ranks_that_give_up_joining(rig: Rig) -> None:
    job, leases, asked = await shrunk(rig)
    await refused("FAILED_PRECONDITION", "not agreed on change 1 yet", join_next(rig, job, 0, 1))
    await asyncio.gather(*(say(rig, job, lease, 1, 5) for lease in leases))
    call = join_next(rig, job, 0, 1, timeout_s=0.2)
    await refused(
        "DEADLINE_EXCEEDED", "change 1 of the lease .*: rank 1 of 2 workers did not", call
    )
    assert stored(rig, job).pending.members == ()  # type: ignore[union-attr]
    # No sweep cancels what the ranks have been told.
    rig.clock.time += 25
    await rig.call(lambda client: client.heartbeat(job.id, job.token))
    rig.clock.time += 25
    await rig.office.sweep()
    joined = await asyncio.gather(join_next(rig, job, 0, 1), join_next(rig, job, 1, 1))
    assert {lease.slots for lease in joined} == {2048}
    assert (await asked).slot_base == 2048


async def test_a_restart_begins_under_the_new_lease(rig: Rig) -> None:
    job, leases, asked = await shrunk(rig)
    again = await rig.join_all(job, attempt=1)
    assert {(lease.slots, lease.change) for lease in again} == {(2048, 0)}
    assert (await asked).slot_base == 2048
    answer = await rig.call(lambda client: client.heartbeat(job.id, job.token))
    assert (answer.change, answer.epoch) == (0, again[0].epoch)
    await refused("ABORTED", "is over", say(rig, job, leases[0], 1, 5))
    await refused(
        "INVALID_ARGUMENT", "join attempt 2 without", join_next(rig, job, 0, 1, attempt=2)
    )


async def test_a_job_that_ends_ends_its_change(rig: Rig) -> None:
    job, leases, asked = await shrunk(rig)
    waiting = asyncio.create_task(say(rig, job, leases[0], 1, 7))
    await until(lambda: rig.office.changes.missing(stored(rig, job)) == [1])
    await rig.call(lambda client: client.evict_job(job.id))
    await refused("FAILED_PRECONDITION", "is over .evicted", waiting)
    assert (await asked).slots == 2048
    await until(lambda: rig.switch.table("membership") == [])


async def test_slots_of_a_job_without_ranks_change_at_once(rig: Rig) -> None:
    high = (await rig.call(lambda client: client.add_tenant("high", priority=5))).token
    job = await rig.create("low", slots=4096)
    first = asyncio.create_task(rig.join(job, 0))
    await until(lambda: rig.member_count(job) == 1)
    epoch = stored(rig, job).epoch
    taken = await rig.call(lambda client: client.create_job("high", SlotRequest(1024)), token=high)
    assert taken.slots == 1024
    lease = await rig.join(job, 1)
    assert (lease.slots, lease.change) == (2048, 0)
    # Whoever had these slots before may have had a later epoch than the job had.
    assert lease.epoch > epoch
    assert (await first).epoch == lease.epoch


async def test_jobs_move_when_free_slots_are_scattered(rig: Rig) -> None:
    jobs = [await rig.create(f"j{n}", slots=1024) for n in range(4)]
    leases = [await rig.join_all(job) for job in jobs]
    for gone in (jobs[0], jobs[2]):
        await rig.call(lambda client, gone=gone: client.release_job(gone.id, gone.token))
    asked = asyncio.create_task(rig.create("big", slots=2048))
    await until(lambda: any(stored(rig, job).pending for job in (jobs[1], jobs[3])))
    (moving,) = [n for n in (1, 3) if stored(rig, jobs[n]).pending]
    job, old = jobs[moving], leases[moving]
    await asyncio.gather(*(say(rig, job, lease, 1, 4) for lease in old))
    new = await asyncio.gather(join_next(rig, job, 0, 1), join_next(rig, job, 1, 1))
    assert {lease.slots for lease in new} == {1024}
    assert (await asked).slots == 2048
    assert (await rig.get(job)).slots_target == 1024


def test_the_client_asks_again_until_it_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that got lost must not be taken for none."""
    codes = ["UNAVAILABLE", "DEADLINE_EXCEEDED", "UNAVAILABLE"]
    client = ControllerClient("http://127.0.0.1:1", token="t")

    def call(*_: object, **__: object) -> pb.ChangeLeaseResponse:
        if codes:
            raise ControllerError(codes.pop(), "…")
        return pb.ChangeLeaseResponse(boundary=3)

    monkeypatch.setattr(client, "_call", call)
    answer = client.change_lease("j", "t", Declaration(rank=0, epoch=1, change=1, started=2))
    assert (answer.boundary, codes) == (3, [])
