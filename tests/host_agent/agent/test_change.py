"""Leases that change under collectives in flight, and everything that can go wrong with it."""

import threading
from collections import Counter

import numpy as np
import pytest
from change_rig import LIMIT_S, ChangeRig, eventually, looping, unavailable

from reference_switch import Faults
from wiresum.controller.errors import ControllerError
from wiresum.p4.packet import Event

pytestmark = pytest.mark.timeout(120)


def added(rig: ChangeRig) -> tuple[int, int]:
    """Contributions that the switch took, and chunks that it completed, over all epochs."""
    events: Counter[Event] = Counter()
    for (_job, event), count in rig.rules.events.items():
        events[event] += count
    return events[Event.CLAIMED] + events[Event.ADDED], events[Event.COMPLETED]


@pytest.mark.parametrize("depth", [1, 32])
@pytest.mark.parametrize("workers", [1, 3])
def test_sums_are_right_across_many_changes(workers: int, depth: int) -> None:
    rig = ChangeRig(workers)
    with looping(rig, depth=depth) as loop:
        for slots in (16, 64, 32, 16, 64):
            loop.reach(20)
            assert all(rig.change(slots))
        loop.reach(20)
        total = loop.stop()
        assert loop.finish() == [[]] * workers
        assert rig.controller.moves == [1, 2, 3, 4, 5]
        stats = [rank.relay.stats() for rank in rig.ranks]
        # Nothing twice, nothing lost: over all engines each collective once, each chunk once.
        assert [each["collectives"] for each in stats] == [total] * workers
        (chunks,) = {each["contributions"] for each in stats}
        assert added(rig) == (workers * chunks, chunks)


def test_sums_are_right_with_loss_and_ranks_that_are_not_alike() -> None:
    rig = ChangeRig(3, faults=Faults(seed=5, loss=0.02, reordering=0.02))
    with looping(rig, depth=20, pause_s=0.001) as loop:
        for slots in (16, 64, 16):
            loop.reach(15)
            assert all(rig.change(slots))
        loop.stop()
        assert loop.finish() == [[], [], []]


def test_a_change_without_collectives_needs_none() -> None:
    with ChangeRig(3) as rig:
        assert all(rig.change(16))


def test_what_is_held_waits_for_the_last_rank() -> None:
    with ChangeRig(2) as rig:
        first = rig.changing(16, but=(1,))
        tensors = [np.full(100, 3.0, np.float32) for _ in range(2)]
        eventually(lambda: 0 in rig.controller.declared, "rank 0 says where it is")
        ticket = rig.ranks[0].all_reduce(tensors[0])
        assert rig.ranks[0].relay.held == 1
        other = rig.ranks[1].all_reduce(tensors[1])  # so the boundary is 1
        assert rig.ranks[1].change(1)
        assert first[0].result()
        for rank, number in ((0, ticket), (1, other)):
            assert rig.ranks[rank].wait(number).error is None
            assert (tensors[rank] == 6.0).all()
        assert rig.ranks[0].relay.held == 0


class Once:
    """A fault that strikes one rank at one moment, ``times`` times."""

    def __init__(self, rank: int, step: str, when: str, times: int = 1) -> None:
        self.where, self.left = (rank, step, when), times

    def __call__(self, rank: int, step: str, when: str) -> None:
        if (rank, step, when) == self.where and self.left:
            self.left -= 1
            raise unavailable()


@pytest.mark.parametrize(
    ("step", "when"),
    [("declare", "before"), ("declare", "after"), ("join", "before"), ("join", "after")],
)
@pytest.mark.parametrize("times", [1, 3])
def test_a_call_or_an_answer_that_is_lost_is_made_again(step: str, when: str, times: int) -> None:
    # Before the move, a lost call to join ends in carrying on: try until it has taken place.
    rig = ChangeRig(3, fault=Once(1, step, when, times), patience_s=3.0, join_s=1.0)
    with looping(rig, depth=10) as loop:
        loop.reach(10)
        for _ in range(times + 1):
            if all(rig.change(16)):
                break
        else:
            raise AssertionError("no change has taken place")
        loop.reach(10)
        loop.stop()
        assert loop.finish() == [[], [], []]
    assert len({rank.epoch for rank in rig.ranks}) == 1


@pytest.mark.parametrize("step", ["declare", "join"])
def test_a_rank_that_does_not_come_leaves_the_old_lease_to_all(step: str) -> None:
    """One rank's controller is away for long: the change is off, the training goes on."""
    rig = ChangeRig(3, fault=Once(2, step, "before", 1000), patience_s=1.5, join_s=1.0)
    with looping(rig, depth=10) as loop:
        loop.reach(10)
        assert rig.change(16) == [False] * 3
        loop.reach(50)
        assert rig.controller.moves == []
        rig.controller.fault = lambda *_: None
        assert all(rig.change(16))
        loop.reach(50)
        loop.stop()
        assert loop.finish() == [[], [], []]


def test_a_refusal_leaves_the_old_lease() -> None:
    def refuse(rank: int, step: str, when: str) -> None:
        if rank == 0 and step == "declare":
            raise ControllerError("ABORTED", "attempt 0 is over")

    rig = ChangeRig(2, fault=refuse, patience_s=1.0)
    with looping(rig) as loop:
        assert rig.change(16) == [False, False]
        loop.reach(20)
        loop.stop()
        assert loop.finish() == [[], []]


@pytest.mark.parametrize("step", ["declare", "join"])
def test_a_rank_that_dies_in_a_change_is_named_to_the_others(step: str) -> None:
    killed = threading.Event()

    def die(rank: int, at: str, when: str) -> None:
        if rank == 1 and at == step and when == "before":
            rig.ranks[1].leave()
            killed.set()
            raise unavailable()

    rig = ChangeRig(3, fault=die, patience_s=1.0, join_s=1.0, timeout_s=2.0)
    with looping(rig, depth=4) as loop:
        loop.reach(10)
        outcomes = rig.changing(16)
        assert [outcome.result() for outcome in outcomes] == [False] * 3
        assert killed.wait(LIMIT_S)
        found = loop.finish()
    for rank in (0, 2):
        (line,) = found[rank]
        assert "rank 1" in line, line
        assert "\n" not in line


def test_ranks_that_differ_about_the_boundary_get_no_wrong_sum() -> None:
    """A controller gone mad: the numbering of chunks keeps their sums apart."""
    rig = ChangeRig(2, timeout_s=1.5)
    original = rig.controller.declare

    def declare(rank: int, change: int, started: int, limit_s: float) -> int | None:
        boundary = original(rank, change, started, limit_s)
        return boundary if boundary is None else boundary + rank

    rig.controller.declare = declare  # type: ignore[method-assign]
    with looping(rig, depth=4, size=100) as loop:
        loop.reach(10)
        changes = rig.changing(16)
        found = loop.finish()
        for outcome in changes:
            outcome.result()
    assert any(found)  # an error on the way; and every sum that there was has been checked


def test_leaving_in_the_middle_ends_what_is_held() -> None:
    rig = ChangeRig(2, patience_s=60.0)
    with looping(rig) as loop:
        loop.reach(5)
        (outcome,) = rig.changing(16, but=(1,))
        eventually(lambda: rig.ranks[0].relay.held > 0, "a collective is held")
        rig.ranks[0].relay.close()
        rig.controller.cancel()
        assert outcome.result() is False
        rig.ranks[1].relay.close()
        assert all(found for found in loop.finish())
