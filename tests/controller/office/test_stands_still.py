"""A controller that stands still for a while (SIGSTOP) judges nobody by the time that it missed."""

import asyncio
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress

import pytest
from controller_process import LIMIT_S, Serving, join, serving, switch_spec, until
from controller_rig import Clock, StillOffice, with_switches
from fake_switch import FakeSwitch

from wiresum.common.patience import LATE_S
from wiresum.controller import clock as clock_module
from wiresum.controller.client import ControllerClient
from wiresum.controller.client.requests import SlotRequest
from wiresum.controller.clock import SystemClock
from wiresum.controller.errors import ControllerError
from wiresum.controller.on_full import OnFull
from wiresum.controller.state.model import SlotRange
from wiresum.controller.state.plan import AnnounceChange, Plan
from wiresum.controller.state.sqlite import SqliteStore
from wiresum.controller.v1 import controller_pb2 as pb

EXPIRY_S = 4.0


@contextmanager
def standing_still(child: Serving, at_least_s: float) -> Iterator[None]:
    """Inside the block, and for so long at least, the controller does not run."""
    began = time.monotonic()
    child.process.send_signal(signal.SIGSTOP)
    try:
        yield
        time.sleep(max(0.0, began + at_least_s - time.monotonic()))
    finally:
        child.process.send_signal(signal.SIGCONT)


def test_no_job_expires_because_the_controller_stood_still() -> None:
    spec = switch_spec("127.0.0.1:1")
    with (
        serving("--store", ":memory:", "--switch", spec, "--expiry", str(EXPIRY_S)) as child,
        child.client() as client,
    ):
        jobs = [client.create_job(f"j{number}", SlotRequest(16)) for number in range(4)]
        silent = client.create_job("silent", SlotRequest(16))
        stop = threading.Event()

        def beat(job: pb.Job) -> None:
            with ControllerClient(child.address, token=job.token, timeout_s=3.0) as worker:
                while not stop.wait(0.1):
                    with suppress(ControllerError):  # while nobody answers
                        worker.heartbeat(job.id, job.token, wait_s=0.5)

        with ThreadPoolExecutor(len(jobs)) as threads:
            beating = [threads.submit(beat, job) for job in jobs]
            time.sleep(1.0)
            with standing_still(child, 2 * EXPIRY_S):
                pass
            # Whoever is silent, though, is found out as ever.
            until(lambda: client.get_job(silent.id).state == pb.JOB_STATE_EXPIRED)
            states = {job.name: job.state for job in client.list_jobs(live_only=True)}
            stop.set()
            for each in beating:
                each.result(LIMIT_S)
    assert states == {job.name: pb.JOB_STATE_WAITING for job in jobs}


async def test_ranks_that_came_meanwhile_have_come_in_time(fake: FakeSwitch) -> None:
    def run() -> None:
        arguments = ["--store", ":memory:", "--switch", switch_spec(fake.address)]
        with (
            serving(*arguments) as child,
            child.client() as client,
            ThreadPoolExecutor(2) as threads,
        ):
            job = client.create_job("demo", SlotRequest(16))
            first = threads.submit(join, child.address, job, 0, 5.0)
            until(lambda: client.get_job(job.id).joined == [0])
            with standing_still(child, 6.0):
                second = threads.submit(join, child.address, job, 1, 20.0)
            leases = [first.result(LIMIT_S), second.result(LIMIT_S)]
            assert [lease.rank for lease in leases] == [0, 1]

    await asyncio.to_thread(run)


def test_a_queued_job_waits_its_whole_time() -> None:
    spec = switch_spec("127.0.0.1:1")
    with (
        serving("--store", ":memory:", "--switch", spec) as child,
        child.client() as client,
        child.client() as other,
        child.client() as third,
        ThreadPoolExecutor(2) as threads,
    ):
        holder = client.create_job("holder", SlotRequest(4096))
        waiting = threads.submit(
            lambda: other.create_job(
                "late", SlotRequest(4096, on_full=OnFull.WAIT, queue_timeout_s=4.0)
            )
        )
        until(lambda: client.list_tenants()[0].queued == 1)
        with standing_still(child, 6.0):
            released = threads.submit(lambda: third.release_job(holder.id, holder.token))
        released.result(LIMIT_S)
        assert waiting.result(LIMIT_S).slots == 4096


def test_the_votes_on_a_change_get_their_whole_time_again() -> None:
    clock = Clock()
    with closing(SqliteStore(":memory:")) as store:
        with_switches(store, clock, "s1")
        office = StillOffice(store, clock)
        job = office.create(slots_wanted=4096).job
        office.join(job, 0, 1)
        office.desk.commit(Plan(clock.now(), (AnnounceChange(job.id, SlotRange(0, 2048), "x"),)))
        clock.time += 3 * office.limits.change_s + 1
        office.changes.give_time()
        assert office.changes.cancel_late() == []
        clock.time += 3 * office.limits.change_s + 1
        assert [late.id for late in office.changes.cancel_late()] == [job.id]


def test_the_clock_leaves_out_pauses_of_the_controller(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ticks = [100.0]
    monkeypatch.setattr(clock_module.time, "monotonic", lambda: ticks[0])
    clock = SystemClock()
    began = clock.now()
    ticks[0] += 1000.0
    assert clock.now() == began + 1000.0  # nobody has promised to look
    clock.tick()
    for _ in range(10):
        ticks[0] += 0.2
        clock.tick()
    assert clock.now() == pytest.approx(began + 1002.0)
    ticks[0] += 50.0
    before = clock.now()
    assert before == pytest.approx(began + 1002.0 + LATE_S)
    clock.tick()
    assert clock.now() == pytest.approx(before)  # it stands, and never runs backwards
    ticks[0] += 0.5
    assert clock.now() == pytest.approx(before + 0.5)
