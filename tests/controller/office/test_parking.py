"""A job that has nothing to sum lends its slots, and gets them back: calls, restarts, commands."""

import asyncio
from pathlib import Path

import pytest
from controller_process import LIMIT_S, run_cli, serving, store_argument, switch_spec
from controller_rig import Rig, until
from fake_switch import FakeSwitch

from wiresum.controller.client import ControllerClient
from wiresum.controller.client.requests import Declaration, SlotRequest
from wiresum.controller.errors import ControllerError
from wiresum.controller.on_full import OnFull
from wiresum.controller.v1 import controller_pb2 as pb


async def park(rig: Rig, job: pb.Job, *, unpark: bool = False) -> pb.Job:
    def ask(client: ControllerClient) -> pb.Job:
        return client.park_job(job.id, job.token, unpark=unpark)

    return await rig.call(ask, token="")


async def follow(rig: Rig, job: pb.Job, change: int, workers: int = 2) -> list[pb.Lease]:
    """All ranks of a job make a change of its lease that is announced, or will be."""
    stored = rig.office.jobs.get
    await until(lambda: getattr(stored(job.id).pending, "number", 0) == change)
    epoch = stored(job.id).epoch

    async def one(rank: int) -> pb.Lease:
        say = Declaration(rank=rank, epoch=epoch, change=change, started=3)
        await rig.call(lambda client: client.change_lease(job.id, job.token, say))
        return await rig.join(job, rank, workers, change=change, udp_port=5000 + rank)

    return list(await asyncio.gather(*(one(rank) for rank in range(workers))))


async def settle(rig: Rig, *jobs: pb.Job) -> None:
    """All ranks make all changes that are announced, until there are none."""
    while changing := rig.office.state.changing_jobs():
        (job,) = [job for job in jobs if job.id == changing[0].id]
        assert changing[0].pending is not None
        await follow(rig, job, changing[0].pending.number)


async def test_a_parked_job_lends_its_slots_and_gets_them_back(rig: Rig) -> None:
    host = await rig.create("host", slots=4096)
    await rig.join_all(host)
    parked = await park(rig, host)
    assert (parked.parked, parked.slots, parked.token) == (True, 4096, "")
    assert (await park(rig, host)).parked
    asked = asyncio.create_task(
        rig.call(lambda client: client.create_job("guest", SlotRequest(2048, on_full=OnFull.WAIT)))
    )
    leases = await follow(rig, host, 1)
    assert {lease.slots for lease in leases} == {2048}
    guest = await asked
    assert guest.slots == 2048
    await rig.join_all(guest)
    # The host is there: it holds its place, and sums with what it has left.
    shown = await rig.get(host)
    assert (shown.state, shown.parked, shown.slots_target) == (pb.JOB_STATE_READY, True, 4096)

    # Unparked it waits for the guest's end, who has no more than it was given in one range.
    back = await park(rig, host, unpark=True)
    assert (back.parked, back.slots) == (False, 2048)
    assert not (await park(rig, host, unpark=True)).parked
    await rig.call(lambda client: client.release_job(guest.id, guest.token))
    assert {lease.slots for lease in await follow(rig, host, 2)} == {4096}
    rows = rig.switch.table("membership")
    assert {row["slot_count"] for row in rows} == {4096}


async def test_a_guest_makes_way_for_its_host(rig: Rig) -> None:
    host, beside = await rig.create("host", slots=2048), await rig.create("beside", slots=1024)
    await rig.join_all(host)
    await park(rig, host)
    asked = asyncio.create_task(
        rig.call(lambda client: client.create_job("guest", SlotRequest(2048, on_full=OnFull.WAIT)))
    )
    await until(lambda: bool(rig.office.state.changing_jobs()))
    await settle(rig, host)
    guest = await asked
    await rig.join_all(guest)
    assert ((await rig.get(host)).slots, guest.slots) == (1024, 2048)
    back = await park(rig, host, unpark=True)
    assert (back.slots, (await rig.get(guest)).slots_next) == (1024, 1024)
    await settle(rig, host, guest)
    assert [(await rig.get(job)).slots for job in (host, guest, beside)] == [2048, 1024, 1024]


async def test_each_attempt_begins_without(rig: Rig) -> None:
    job = await rig.create("host")
    await rig.join_all(job)
    await park(rig, job)
    await rig.join_all(job, attempt=1)
    assert not (await rig.get(job)).parked


async def test_what_cannot_be_parked_is_told_in_one_line(rig: Rig) -> None:
    job, other = await rig.create("host", slots=4096), None
    asked = asyncio.create_task(
        rig.call(lambda client: client.create_job("waits", SlotRequest(16, on_full=OnFull.WAIT)))
    )
    await until(lambda: bool(rig.office.store.queue()))
    (other,) = rig.office.store.queue()

    async def refused(code: str, words: str, who: pb.Job | None, job_id: str) -> None:
        token = who.token if who is not None else None
        with pytest.raises(ControllerError, match=words) as caught:
            await rig.call(lambda client: client.park_job(job_id), token)
        assert (caught.value.code, "\n" in str(caught.value)) == (code, False)

    await refused("FAILED_PRECONDITION", "a job in the queue cannot be parked", None, other.id)
    await refused("NOT_FOUND", "there is no job", job, other.id)
    await refused("NOT_FOUND", "there is no job", None, "j-0123456789ab")
    await rig.call(lambda client: client.release_job(job.id, job.token))
    await refused("FAILED_PRECONDITION", "is over", None, job.id)
    await asked


def commands(directory: Path, fake: FakeSwitch) -> None:
    """Blocking, hence in a thread: the fake switch needs the event loop."""
    store = store_argument(directory)
    with serving(*store, "--switch", switch_spec(fake.address)) as child, child.client() as client:
        job = client.create_job("host", SlotRequest(64))
        where = ("--controller", child.address)
        said = run_cli("job", "park", "host", *where)
        assert said.stdout == "job host is parked: 64 of 64 slots\n"
        child.process.kill()
        child.process.wait(LIMIT_S)
    with serving(*store) as child, child.client() as client:
        assert client.get_job(job.id).parked
        where = ("--controller", child.address)
        assert " parked " in run_cli("job", "list", *where).stdout
        said = run_cli("job", "unpark", "host", *where)
        assert said.stdout == "job host is not parked: 64 of 64 slots\n"
        wrong = run_cli("job", "park", "nobody", *where)
        assert (wrong.returncode, wrong.stdout, wrong.stderr.count("\n")) == (1, "", 1)


async def test_a_job_stays_parked_while_the_controller_restarts(
    fake: FakeSwitch, tmp_path: Path
) -> None:
    await asyncio.to_thread(commands, tmp_path, fake)
