"""What a controller makes of a wild clock and of an upgraded program when it starts."""

import contextlib
import dataclasses
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from controller_rig import ADMIN, QUICK, Clock, StillOffice

from wiresum.controller.errors import ControllerError
from wiresum.controller.office.office import Office
from wiresum.controller.rules.callers import Caller
from wiresum.controller.rules.limits import Limits
from wiresum.controller.state.epochs import HIGHEST_START
from wiresum.controller.state.model import JobState
from wiresum.controller.state.sqlite import SqliteStore
from wiresum.controller.v1 import controller_pb2 as pb
from wiresum.p4 import Program, program

NOW = 1_800_000_000.0
YEAR = 365.25 * 86400
WILD = [0.0, 1e6, 4_102_444_800.0, 2**33 + 0.0, 1e12]
"""1970, 1970, 2100, 2242, 33658."""


def site(
    store: SqliteStore, clock: Clock, programs: Callable[[int], Program] = program
) -> StillOffice:
    """The rules on a store with a switch."""
    if not store.switches():
        request = pb.AddSwitchRequest(
            name="s1",
            p4runtime="127.0.0.1:1",
            ip="127.0.0.1",
            udp_port=5555,
            lanes=64,
            hosts=[pb.Host(cidr="127.0.0.0/8", port=1)],
        )
        StillOffice(store, clock, programs=programs).put_switch(request)
    return StillOffice(store, clock, programs=programs)


def epoch(store: SqliteStore, clock: Clock) -> int:
    """That of a job that starts now."""
    office = site(store, clock)
    job = office.create(slots_wanted=16).job
    joined = office.join(job, 0, 1).epoch
    office.jobs.end(job, JobState.RELEASED, "released")
    return joined


@pytest.mark.parametrize("wild", WILD)
def test_a_wild_clock_at_a_start_is_not_written_into_the_epochs(
    tmp_path: Path, wild: float
) -> None:
    path = tmp_path / "store.sqlite"
    given = []
    for now in (NOW, wild, wild, NOW + 60, wild, NOW - YEAR, NOW + YEAR):
        store = SqliteStore(path)
        given += [epoch(store, Clock(now)), epoch(store, Clock(now))]
        store.close()
    assert given == sorted(set(given)), "an epoch is never used twice"
    # As far as the one clock that is right has led, and not further.
    assert given[-1] == int(NOW + YEAR) - 1_735_689_600 + 1


@pytest.mark.parametrize("wild", WILD)
def test_a_new_store_with_a_wild_clock_leaves_most_epochs_unused(wild: float) -> None:
    starts = set()
    for _ in range(20):
        store = SqliteStore()
        first = epoch(store, Clock(wild))
        assert 0 < first < HIGHEST_START < 1 << 30
        # Newer than what any clock has led to, and still so once it is right.
        assert first > int(NOW) - 1_735_689_600
        assert epoch(store, Clock(NOW)) == first + 1
        starts.add(first)
    assert len(starts) > 15, "two stores in a row hand out the same epochs"


@contextlib.asynccontextmanager
async def running(
    store: SqliteStore, clock: Clock, programs: Callable[[int], Program] = program
) -> AsyncIterator[Office]:
    controller = Office(store, clock=clock, limits=Limits(), loop_options=QUICK, programs=programs)
    await controller.start()
    try:
        yield controller
    finally:
        await controller.stop()


@pytest.mark.parametrize("wild", WILD)
async def test_a_wild_clock_forgets_nothing_and_ends_no_wait(
    wild: float, caplog: pytest.LogCaptureFixture
) -> None:
    store = SqliteStore()
    office = site(store, Clock(NOW))
    old = office.create(slots_wanted=16).job
    office.jobs.end(old, JobState.RELEASED, "released")
    office.create(name="all", slots_wanted=4096)
    request = pb.CreateJobRequest(
        name="w", slots_wanted=4096, on_full=pb.ON_FULL_WAIT, wait_timeout_s=3600, request_id="w"
    )
    office.queue.request(request, ADMIN)
    for now in (wild, NOW + 100):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            async with running(store, Clock(now)) as controller:
                await controller.sweep()
                (waiter,) = store.queue()
                assert waiter.created == now
                assert store.job(old.id) is not None
                live = store.job_not_over("default", "all")
                assert live is not None
                assert live.state.live
        told = [each for each in caplog.messages if "this machine's clock is wrong" in each]
        assert len(told) == (now == wild)


# ---- upgrades


def with_slots(slots: int) -> Callable[[int], Program]:
    return lambda lanes: dataclasses.replace(program(lanes), slots=slots)


async def test_the_slots_of_switches_follow_the_program(caplog: pytest.LogCaptureFixture) -> None:
    store, clock = SqliteStore(), Clock(NOW)
    office = site(store, clock, with_slots(1024))
    low = office.create(name="low", slots_wanted=512).job
    high = office.create(name="high", slots_wanted=512).job
    assert (low.lease.range.base, high.lease.range.base) == (0, 512)
    with pytest.raises(ControllerError, match="2048 slots are more than every switch has: ask for"):
        office.create(slots_wanted=2048, caller=ADMIN)
    # More slots: they can be had.
    async with running(store, clock, with_slots(4096)) as controller:
        assert [switch.slots for switch in store.switches()] == [4096]
        assert controller.ended.total() == 0
    assert office.create(name="large", slots_wanted=2048, caller=Caller(admin=True)).job.state.live
    # Fewer: whoever holds what is no more has lost it, and is told why.
    async with running(store, clock, with_slots(512)) as controller:
        assert [switch.slots for switch in store.switches()] == [512]
        assert controller.ended == {JobState.EVICTED: 2}
    assert office.jobs.get(low.id).state.live
    for name in ("high", "large"):
        (job,) = (job for job in store.jobs() if job.name == name)
        assert job.reason == "switch s1 has 512 slots since its program was upgraded"
        assert f"job {job.label}: {job.reason}" in caplog.messages
