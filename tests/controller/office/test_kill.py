"""A controller that is killed (SIGKILL) in the middle of things, and started again on its store."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from controller_process import ADMIN_TOKEN, LIMIT_S, Serving, serving, store_argument, switch_spec
from fake_switch import FakeSwitch

from wiresum.controller.client import ControllerClient
from wiresum.controller.client.requests import Declaration, JoiningRank, SlotRequest
from wiresum.controller.errors import ControllerError
from wiresum.controller.on_full import OnFull
from wiresum.controller.v1 import controller_pb2 as pb


class Site:
    """A controller that can be killed and started again at the same address."""

    def __init__(self, arguments: list[str]) -> None:
        self.arguments = arguments
        self.child: Serving | None = Serving(*arguments)
        self.address, self.listen = self.child.address, self.child.listen
        self.client = self.child.client()
        self.threads = ThreadPoolExecutor(16)

    def kill(self) -> None:
        assert self.child is not None
        self.child.end()
        self.child = None

    def start(self) -> None:
        self.child = Serving(*self.arguments, "--listen", self.listen)
        # A connection that has just been refused waits a little before it tries again.
        until(self.client.list_tenants, "nobody answers")

    def close(self) -> None:
        if self.child is not None:
            self.child.end()
        self.client.close()
        self.threads.shutdown(wait=False, cancel_futures=True)

    def do(
        self, call: Callable[[ControllerClient], Any], token: str | None = None
    ) -> "Future[Any]":
        """Make a call in the background, on a connection of its own."""

        def work() -> Any:
            with ControllerClient(self.address, token=token or ADMIN_TOKEN) as client:
                return call(client)

        return self.threads.submit(work)


class Pair(Site):
    """Two controllers of one store. The one that leads is killed; the other takes over."""

    def __init__(self, arguments: list[str]) -> None:
        self.arguments = arguments
        self.children = [Serving(*arguments) for _ in range(2)]
        self.address = ",".join(child.address for child in self.children)
        self.client = ControllerClient(self.address, token=ADMIN_TOKEN)
        self.threads = ThreadPoolExecutor(16)
        self.killed: Serving | None = None

    def leader(self) -> Serving:
        deadline = time.monotonic() + LIMIT_S
        while time.monotonic() < deadline:
            for child in self.children:
                with contextlib.suppress(ControllerError), child.client() as client:
                    client.list_tenants()
                    return child
        raise AssertionError("nobody leads")

    def kill(self) -> None:
        self.killed = self.leader()
        self.killed.end()
        self.children.remove(self.killed)

    def start(self) -> None:
        assert self.killed is not None
        self.children.append(Serving(*self.arguments, "--listen", self.killed.listen))
        self.killed = None

    def close(self) -> None:
        for child in self.children:
            child.end()
        self.client.close()
        self.threads.shutdown(wait=False, cancel_futures=True)


@contextlib.contextmanager
def site(*arguments: str) -> Iterator[Site]:
    several = any(argument.startswith("postgresql:") for argument in arguments)
    made = (Pair if several else Site)(list(arguments))
    try:
        yield made
    finally:
        made.close()


def until(condition: Callable[[], Any], what: str) -> None:
    """Wait until the condition holds; a controller that says no may say yes later."""
    deadline = time.monotonic() + LIMIT_S
    while True:
        with contextlib.suppress(ControllerError):
            if condition():
                return
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def join(job: pb.Job, rank: int, attempt: int = 0, change: int = 0) -> Callable[[Any], pb.Lease]:
    return lambda client: client.join_job(
        job.id,
        job.token,
        JoiningRank(
            rank=rank,
            workers=2,
            attempt=attempt,
            change=change,
            ip="127.0.0.1",
            udp_port=4000 + 100 * change + rank,
            field=32,
        ),
        timeout_s=LIMIT_S,
    )


def join_both(site: Site, job: pb.Job) -> list[pb.Lease]:
    calls = [site.do(join(job, rank)) for rank in range(2)]
    return [call.result(LIMIT_S) for call in calls]


def say(job: pb.Job, lease: pb.Lease, change: int, started: int) -> Callable[[Any], Any]:
    return lambda client: client.change_lease(
        job.id,
        job.token,
        Declaration(rank=lease.rank, epoch=lease.epoch, change=change, started=started),
        unreachable_s=LIMIT_S,
    )


def change_through_kills(arguments: list[str]) -> None:
    with site(*arguments) as here:
        vip = here.client.add_tenant("vip", priority=3).token
        low = here.client.create_job("low", SlotRequest(4096))
        leases = join_both(here, low)
        high = here.do(lambda c: c.create_job("high", SlotRequest(1024, on_full=OnFull.WAIT)), vip)
        until(lambda: here.client.get_job("low").change_wanted == 1, "no change is announced")

        # Before all have said: who has said says it again.
        first = here.do(say(low, leases[0], 1, 5))
        here.kill()
        here.start()
        until(lambda: here.client.get_job("low").change_wanted == 1, "the change is forgotten")
        second = here.do(say(low, leases[1], 1, 8))
        assert first.result(LIMIT_S).boundary == second.result(LIMIT_S).boundary == 8

        # After they were told: whoever lost the answer gets the same one.
        here.kill()
        here.start()
        assert here.do(say(low, leases[0], 1, 5)).result(LIMIT_S).boundary == 8

        # While they join.
        joining = here.do(join(low, 0, change=1))
        here.kill()
        here.start()
        assert here.client.heartbeat(low.id, low.token).epoch == leases[0].epoch
        other = here.do(join(low, 1, change=1))
        new = [joining.result(LIMIT_S), other.result(LIMIT_S)]
        assert {(lease.slots, lease.change) for lease in new} == {(2048, 1)}
        assert len({(lease.epoch, lease.key) for lease in new}) == 1
        assert new[0].epoch > leases[0].epoch

        # And the one for whom all this was done has waited all the while.
        granted = high.result(LIMIT_S)
        assert (granted.name, granted.slots, granted.tenant) == ("high", 1024, "vip")
        here.kill()
        here.start()
        shown = here.client.get_job("low")
        assert (shown.state, shown.slots, shown.slots_target) == (pb.JOB_STATE_READY, 2048, 4096)
        assert (shown.change, shown.epoch) == (1, new[0].epoch)
        # It grows back when the other ends, whoever the controller is by then.
        here.do(lambda c: c.release_job(granted.id, granted.token)).result(LIMIT_S)
        until(lambda: here.client.get_job("low").change_wanted == 2, "it does not grow back")
        calls = [here.do(say(low, lease, 2, 1)) for lease in new]
        assert {call.result(LIMIT_S).boundary for call in calls} == {1}
        calls = [here.do(join(low, rank, change=2)) for rank in range(2)]
        assert {call.result(LIMIT_S).slots for call in calls} == {4096}


@pytest.fixture(params=["one controller", pytest.param("two controllers", marks=pytest.mark.slow)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    """A store's options: of one controller that is started again, or of two that take turns."""
    if request.param == "one controller":
        return store_argument(tmp_path)
    return ["--store", request.getfixturevalue("postgres_url")]


async def test_a_change_of_a_lease_survives_kills(fake: FakeSwitch, store: list[str]) -> None:
    arguments = [*store, "--switch", switch_spec(fake.address)]
    await asyncio.to_thread(change_through_kills, arguments)
    # One program, pushed once: running jobs have not noticed.
    assert fake.pushes == 1
    rows = fake.table("membership")
    assert {(row["slot_base"], row["slot_count"]) for row in rows} == {(0, 4096)}
    assert len(rows) == 2
    # Each leader had a higher election id than those before it.
    assert fake.obeyed == sorted(fake.obeyed)


def queue_through_a_kill(arguments: list[str]) -> None:
    with site(*arguments) as here:
        running = here.client.create_job("running", SlotRequest(4096))
        waiting = []
        for position, name in enumerate(("first", "second", "third")):
            waiting.append(
                here.do(
                    lambda c, name=name: c.create_job(name, SlotRequest(4096, on_full=OnFull.WAIT))
                )
            )
            until(lambda: here.client.get_job(name).queue_position == position + 1, name)  # noqa: B023
        ids = [here.client.get_job(name).id for name in ("first", "second", "third")]
        here.kill()
        here.start()
        # The slots become free before anybody had the time to come back.
        here.do(lambda c: c.release_job(running.id, running.token)).result(LIMIT_S)
        for call, expected in zip(waiting, ids, strict=True):
            job = call.result(LIMIT_S)
            assert (job.id, job.slots) == (expected, 4096)
            states = [each.state for each in here.client.list_jobs(live_only=True)]
            assert states.count(pb.JOB_STATE_WAITING) == 1
            here.do(lambda c, job=job: c.release_job(job.id, job.token)).result(LIMIT_S)
        assert here.client.list_jobs(live_only=True) == []


async def test_the_queue_survives_a_kill_in_its_order(fake: FakeSwitch, store: list[str]) -> None:
    arguments = [*store, "--switch", switch_spec(fake.address)]
    await asyncio.to_thread(queue_through_a_kill, arguments)


@pytest.fixture
async def other(tmp_path: Path) -> Any:
    switch = FakeSwitch(f"unix:{tmp_path}/other", device_id=0)
    await switch.start()
    yield switch
    assert switch.broken == []
    if switch.running:
        await switch.kill()


async def test_every_switch_is_reconciled(
    fake: FakeSwitch, other: FakeSwitch, tmp_path: Path
) -> None:
    """One switch restarts while the controller is away, the other has entries of nobody's."""
    store = store_argument(tmp_path)
    specs = [switch_spec(fake.address, "s1"), switch_spec(other.address, "s2")]

    def run() -> tuple[list[pb.Job], list[pb.Lease]]:
        with site(*store, "--switch", specs[0], "--switch", specs[1]) as here:
            jobs = [
                here.client.create_job(f"j{n}", SlotRequest(1024), switch=f"s{n % 2 + 1}")
                for n in range(4)
            ]
            leases = [join_both(here, job)[0] for job in jobs]
            here.kill()
        return jobs, leases

    jobs, leases = await asyncio.to_thread(run)
    epochs = {lease.epoch for lease in leases}
    before = {"s1": fake.table("membership"), "s2": other.table("membership")}
    assert {row["epoch"] for rows in before.values() for row in rows} == epochs
    await fake.kill()
    await fake.start()
    gone = next(
        key for key, entry in other.memory.entries.items()
        if entry.table_id == other.memory.schema.tables["membership"].id  # type: ignore[union-attr]
    )  # fmt: skip
    del other.memory.entries[gone]

    def again() -> None:
        with serving(*store) as child, child.client() as client:
            until(
                lambda: all(s.state == pb.SWITCH_STATE_UP for s in client.list_switches()),
                "the switches are not up",
            )
            for job, lease in zip(jobs, leases, strict=True):
                answer = client.heartbeat(job.id, job.token)
                assert (answer.state, answer.epoch) == (pb.JOB_STATE_READY, lease.epoch)
                told = client.get_job(job.id)
                assert (told.slots, told.switch) == (1024, lease.switch_name)

    await asyncio.to_thread(again)

    def rows(switch: FakeSwitch) -> list[tuple[Any, ...]]:
        return sorted(tuple(sorted(row.items())) for row in switch.table("membership"))

    assert rows(fake) == sorted(tuple(sorted(row.items())) for row in before["s1"])
    assert rows(other) == sorted(tuple(sorted(row.items())) for row in before["s2"])


async def test_a_tenant_and_its_limits_survive(fake: FakeSwitch, tmp_path: Path) -> None:
    arguments = [*store_argument(tmp_path), "--switch", switch_spec(fake.address)]

    def run() -> None:
        with site(*arguments) as here:
            token = here.client.add_tenant("acme", slot_quota=64, max_jobs=3, priority=2).token
            job = here.do(lambda c: c.create_job("x", SlotRequest(64)), token).result(LIMIT_S)
            here.client.drain_switch("s1")
            here.kill()
            here.start()
            (own,) = here.do(lambda c: c.list_tenants(), token).result(LIMIT_S)
            assert (own.slot_quota, own.max_jobs, own.priority) == (64, 3, 2)
            assert (own.slots, own.jobs) == (64, 1)
            assert here.do(lambda c: c.get_job(job.id), job.token).result(LIMIT_S).tenant == "acme"
            assert here.client.list_switches()[0].draining

    await asyncio.to_thread(run)
