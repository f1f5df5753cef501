"""Groups of a job's ranks get parts of it while it runs; switch, controller and store restart."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from controller_process import LIMIT_S, Serving, run_cli, serving, store_argument, switch_spec
from controller_process import until as wait_until
from controller_rig import Rig, until
from fake_switch import FakeSwitch

from wiresum.controller.client import ControllerClient
from wiresum.controller.client.requests import Declaration, JoiningRank, SlotRequest
from wiresum.controller.errors import ControllerError
from wiresum.controller.on_full import OnFull
from wiresum.controller.v1 import controller_pb2 as pb

SMALLER = SlotRequest(on_full=OnFull.SMALLER)


class Worker:
    """A rank of a job or of a part of it: joins, and follows changes of the lease."""

    def __init__(self, address: str, job: pb.Job, rank: int, workers: int, port: int) -> None:
        self.client = ControllerClient(address, token="")
        self.job, self.rank, self.workers, self.port = job, rank, workers, port
        self.lease = self.join(0)

    def join(self, change: int) -> pb.Lease:
        where = ("127.0.0.1", self.port, 32)
        joining = JoiningRank(self.rank, self.workers, 0, *where, change=change)
        return self.client.join_job(
            self.job.id, self.job.token, joining, timeout_s=LIMIT_S, unreachable_s=LIMIT_S
        )

    def follow(self, change: int) -> pb.Lease:
        """Change over when this change is announced."""
        while True:
            told = self.client.heartbeat(
                self.job.id, self.job.token, wait_s=5.0, epoch=self.lease.epoch, change=change - 1
            )
            if told.change >= change:
                break
        say = Declaration(self.rank, self.lease.epoch, change, started=7)
        answer = self.client.change_lease(self.job.id, self.job.token, say)
        assert (answer.boundary, answer.cancelled) == (7, False)
        self.lease = self.join(change)
        return self.lease


def group(
    threads: ThreadPoolExecutor, address: str, job: pb.Job, port: int, workers: int = 2
) -> list[Worker]:
    """The ranks of a group, all on this host, each with a socket of its own."""
    ranks = range(workers)
    made = [threads.submit(Worker, address, job, rank, workers, port + rank) for rank in ranks]
    return [each.result(LIMIT_S) for each in made]


def part_of(
    threads: ThreadPoolExecutor, address: str, workers: list[Worker], change: int | None
) -> pb.Job:
    """A part of the job of these workers, who follow the ``change`` that makes room for it."""
    job = workers[0].job

    def ask() -> pb.Job:
        with ControllerClient(address, token="", timeout_s=LIMIT_S) as client:
            return client.create_job("", SMALLER, parent=job.id, parent_token=job.token)

    asked = threads.submit(ask)
    if change is not None:
        for each in [threads.submit(worker.follow, change) for worker in workers]:
            each.result(LIMIT_S)
    return asked.result(LIMIT_S)


def mesh(address: str, client: ControllerClient) -> tuple[list[Worker], list[list[Worker]]]:
    """A run of four ranks with the four groups of a mesh of 2 by 2."""
    with ThreadPoolExecutor(8) as threads:
        job = client.create_job("run", SlotRequest(512))
        world = group(threads, address, job, 4000, workers=4)
        groups = []
        # The first part halves the job's lease, and so does the third: 128 + 3 * 128 are all.
        for number, change in enumerate((1, None, 2)):
            part = part_of(threads, address, world, change)
            assert (part.parent, part.slots) == (job.id, 128)
            groups.append(group(threads, address, part, 4100 + 10 * number))
        # For the fourth there are shares of 64; the job itself gives first.
        part = part_of(threads, address, world, 3)
        assert part.slots == 64
        groups.append(group(threads, address, part, 4200))
        return world, groups


def held(client: ControllerClient) -> dict[str, int]:
    return {job.id: job.slots for job in client.list_jobs(live_only=True)}


def on_switch(fake: FakeSwitch) -> dict[int, int]:
    """The epochs and slots of all entries."""
    if fake.memory.schema is None:
        return {}  # it has just started
    return {row["epoch"]: row["slot_count"] for row in fake.table("membership")}


def leases(world: list[Worker], groups: list[list[Worker]]) -> dict[int, int]:
    return {each[0].lease.epoch: each[0].lease.slots for each in [world, *groups]}


async def test_the_groups_of_a_mesh_share_the_slots_of_their_job(rig: Rig) -> None:
    """One host, one address: each lease has its own entries, its own group, its own epoch."""
    world, groups = await asyncio.to_thread(mesh, rig.address, rig.client)
    await until(lambda: on_switch(rig.switch) == leases(world, groups))
    assert sum(leases(world, groups).values()) == 512
    assert len(rig.switch.table("membership")) == 4 + 4 * 2
    numbers = {each[0].lease.job for each in [world, *groups]}
    assert len(numbers) == 5
    # The job's token ends a part at once; what it had goes back to the job.
    job = world[0].job
    for each in groups:
        ended = await rig.call(lambda c, each=each: c.release_job(each[0].job.id, job.token))  # type: ignore[misc]
        assert ended.state == pb.JOB_STATE_RELEASED
    with ThreadPoolExecutor(4) as threads:
        following = [threads.submit(worker.follow, 4) for worker in world]
        grown = [await asyncio.wrap_future(each) for each in following]
    assert {(lease.change, lease.slots > 64) for lease in grown} == {(4, True)}
    left = await rig.call(lambda c: c.list_jobs(live_only=True))
    assert [each.id for each in left] == [job.id]


async def test_parts_expire_with_their_job_and_alone(rig: Rig) -> None:
    world, groups = await asyncio.to_thread(mesh, rig.address, rig.client)
    part, other = groups[0][0].job, groups[1][0].job
    alive = [worker.job for worker in (world[0], *(each[0] for each in groups[1:]))]

    async def pass_time(jobs: list[pb.Job]) -> None:
        for _ in range(2):
            rig.clock.time += 20
            for job in jobs:
                await rig.call(lambda c, job=job: c.heartbeat(job.id, job.token))  # type: ignore[misc]
            await rig.office.sweep()

    await pass_time(alive)
    assert (await rig.get(part)).reason == "no heartbeat for 30 s"
    assert (await rig.get(other)).state == pb.JOB_STATE_READY
    await pass_time(alive[1:])
    ended = await rig.get(other)
    assert (ended.state, ended.reason) == (
        pb.JOB_STATE_EXPIRED,
        "its job ended: no heartbeat for 30 s",
    )
    assert rig.office.store.jobs(live_only=True) == []
    await until(lambda: on_switch(rig.switch) == {})
    assert rig.office.ended.total() == 5


async def test_ranks_that_wait_for_a_part_are_told_that_an_attempt_of_its_job_began(
    rig: Rig,
) -> None:
    job = await rig.create("run", slots=512)
    asked = {"parent": job.id, "parent_token": job.token}
    part = await rig.call(lambda client: client.create_job("pair", SMALLER, **asked), token="")
    assert (part.name, part.parent) == ("run:pair", job.id)
    waiting = asyncio.create_task(rig.join(part, 0))
    await until(lambda: rig.member_count(part) == 1)
    await rig.join(job, 0, workers=1, attempt=1)
    with pytest.raises(ControllerError, match="attempt 1 of its job began") as caught:
        await waiting
    assert caught.value.code == "FAILED_PRECONDITION"


async def test_a_retried_request_gives_the_same_part_also_while_it_waits(rig: Rig) -> None:
    job = await rig.create("run", slots=64)
    asked = {"parent": job.id, "parent_token": job.token, "request_id": "again"}
    wait = SlotRequest(32, 32, OnFull.WAIT)

    def ask(**more: str) -> "asyncio.Task[pb.Job]":
        request = asked | more
        return asyncio.create_task(
            rig.call(lambda client: client.create_job("", wait, **request), token="")
        )

    lost = await ask()
    first = await ask()
    assert (first.id, first.token != lost.token) == (lost.id, True)
    queued = [ask(request_id="later") for _ in range(2)]
    await until(lambda: len(rig.office.store.queue()) == 1)
    await rig.call(lambda client: client.release_job(first.id, first.token))
    one, two = await asyncio.gather(*queued)
    assert one.id == two.id != first.id
    assert one.token != two.token


async def test_who_may_make_parts_is_told_in_one_line(rig: Rig) -> None:
    job, other = await rig.create("run"), await rig.create("other")
    for parent, token, code in (
        (job.id, other.token, "PERMISSION_DENIED"),
        (job.id, "guess", "UNAUTHENTICATED"),
        (job.id, "", "UNAUTHENTICATED"),
        ("j-0123456789ab", job.token, "PERMISSION_DENIED"),
    ):
        with pytest.raises(ControllerError) as caught:
            await rig.call(
                lambda client, parent=parent, token=token: client.create_job(  # type: ignore[misc]
                    "", parent=parent, parent_token=token
                ),
                token="",
            )
        assert (caught.value.code, "\n" in str(caught.value)) == (code, False)


async def test_a_switch_that_restarts_gets_the_parts_back(rig: Rig) -> None:
    world, groups = await asyncio.to_thread(mesh, rig.address, rig.client)
    await rig.switch.kill()
    await rig.switch.start()
    await until(lambda: on_switch(rig.switch) == leases(world, groups))


def outlive(directory: Path, fake: FakeSwitch) -> None:
    """Blocking, hence in a thread: the fake switch needs the event loop."""
    store, spec = store_argument(directory), switch_spec(fake.address)

    def killed(child: Serving) -> None:
        child.process.kill()
        child.process.wait(LIMIT_S)

    with serving(*store, "--switch", spec) as child, child.client() as client:
        world, groups = mesh(child.address, client)
        before = held(client)
        listed = run_cli("job", "list", "--live", "--controller", child.address).stdout
        names = [row.split("│")[2].strip() for row in listed.splitlines() if row[:3] == "│ j"]
        assert names == ["run", *(f"└ {each[0].job.id}" for each in groups)]
        killed(child)
    job, part = world[0].job, groups[0][0].job
    with serving(*store) as child, child.client() as client:
        assert held(client) == before
        # Joining again is joining once: ranks of all groups find their leases.
        for worker in (world[0], *(each[0] for each in groups)):
            again = ControllerClient(child.address, token="")
            worker.client = again
            assert worker.join(worker.lease.change).key == worker.lease.key
        assert client.get_job(part.id).parent == job.id
        with ControllerClient(child.address, token=job.token) as workers:
            workers.release_job(part.id, job.token)
            workers.release_job(job.id, job.token)
        assert held(client) == {}
        wait_until(lambda: on_switch(fake) == {})


async def test_a_controller_that_is_killed_finds_the_parts_in_its_store(
    fake: FakeSwitch, tmp_path: Path
) -> None:
    await asyncio.to_thread(outlive, tmp_path, fake)
