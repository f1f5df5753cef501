"""Leases that change under collectives in flight, and everything that can go wrong with it."""

import socket
import threading
from collections import Counter

import numpy as np
import pytest
from change_rig import LIMIT_S, ChangeRig, eventually, looping, unavailable

from reference_switch import Faults, Lease
from wiresum.controller.errors import ControllerError
from wiresum.host_agent._engine import Engine
from wiresum.host_agent.agent.change import Unused, change_lease
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


def test_a_lease_that_some_ranks_do_not_use_any_more_changes_with_that_of_the_others() -> None:
    """As when the ranks have chosen to carry by themselves, and the last of them still leaves."""
    with ChangeRig(3) as rig:
        for rank in rig.ranks[:2]:
            rank.change = lambda number, rank=rank: (  # type: ignore[method-assign]
                change_lease(
                    *(Unused(0), rank, None, number),
                    limit_s=rig.limit_s,
                    stopped=rank.gone.is_set,
                )
                is not None
            )
        assert all(rig.change(16))
        assert rig.controller.declared.keys() == {0, 1, 2}
        assert all(rig.change(64))
        assert rig.controller.moves == [1, 2]


def test_a_rank_that_leaves_the_switch_while_it_joins_again_has_the_new_lease_too() -> None:
    """Else it would vote on later changes with a lease that is over, and be refused."""

    def stand(rank: int, step: str, when: str) -> None:
        if (rank, step, when) == (1, "join", "after"):
            rig.ranks[1].relay.stand()

    rig = ChangeRig(2, fault=stand)
    with rig:
        before = rig.ranks[1].relay.engine
        assert all(rig.change(16))
        assert rig.ranks[1].relay.engine is before
        assert not before.closed


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
@pytest.mark.parametrize("times", [1, 4])
def test_a_call_or_an_answer_that_is_lost_is_made_again(step: str, when: str, times: int) -> None:
    rig = ChangeRig(3, fault=Once(1, step, when, times))
    with looping(rig, depth=10) as loop:
        loop.reach(10)
        assert all(rig.change(16))
        loop.reach(10)
        loop.stop()
        assert loop.finish() == [[], [], []]
    assert len({rank.epoch for rank in rig.ranks}) == 1


def test_a_rank_that_does_not_say_where_it_is_leaves_the_old_lease_to_all() -> None:
    """Its controller is away for long: the change is off, the training goes on."""
    rig = ChangeRig(3, fault=Once(2, "declare", "before", 1000), limit_s=60.0)
    rig.controller.vote_s = 1.0
    with looping(rig, depth=10) as loop:
        loop.reach(10)
        first = rig.changing(16)
        assert [outcome.result() for outcome in first[:2]] == [False] * 2
        rig.controller.fault = lambda *_: None
        assert first[2].result() is False
        loop.reach(50)
        assert rig.controller.moves == []
        assert all(rig.change(16))
        loop.reach(50)
        loop.stop()
        assert loop.finish() == [[], [], []]


@pytest.mark.parametrize("step", ["declare", "join"])
def test_no_answer_in_time_is_an_error(step: str) -> None:
    rig = ChangeRig(2, fault=Once(1, step, "after", 1000), limit_s=1.0)
    with rig:
        first, second = rig.changing(16)
        with pytest.raises(ControllerError, match="cannot be reached"):
            second.result()
        rig.controller.cancelled = True
        first.join(LIMIT_S)


def test_a_refusal_is_an_error() -> None:
    def refuse(rank: int, step: str, when: str) -> None:
        if rank == 0 and step == "declare":
            raise ControllerError("ABORTED", "attempt 0 is over")

    with ChangeRig(2, fault=refuse) as rig:
        first, _ = rig.changing(16)
        with pytest.raises(ControllerError, match="attempt 0 is over"):
            first.result()


def test_a_rank_that_dies_before_it_has_said_anything_is_named_as_ever() -> None:
    """The change is called off; the collective that the rank is missing from names it."""

    def die(rank: int, at: str, when: str) -> None:
        if rank == 1 and at == "declare":
            rig.ranks[1].leave()
            raise unavailable()

    rig = ChangeRig(3, fault=die, timeout_s=2.0)
    rig.controller.vote_s = 1.0
    with looping(rig, depth=4) as loop:
        loop.reach(10)
        assert rig.change(16) == [False] * 3
        found = loop.finish()
    for rank in (0, 2):
        (line,) = found[rank]
        assert "rank 1" in line, line
        assert "\n" not in line


def test_a_rank_that_dies_before_it_joins_is_named_by_the_controller() -> None:
    def die(rank: int, at: str, when: str) -> None:
        if rank == 1 and at == "join":
            rig.ranks[1].leave()
            raise unavailable()

    rig = ChangeRig(3, fault=die, limit_s=1.5, join_s=1.0)
    with looping(rig, depth=4) as loop:
        loop.reach(10)
        outcomes = rig.changing(16)
        assert outcomes[1].result() is False
        for outcome in (outcomes[0], outcomes[2]):
            with pytest.raises(ControllerError, match="did not join"):
                outcome.result()
        for rank in (rig.ranks[0], rig.ranks[2]):
            rank.relay.close()  # as the agent does; see test_agent_changes.py
        found = loop.finish()
    assert all(len(found[rank]) == 1 for rank in (0, 2))


def test_a_rank_that_is_late_is_waited_for() -> None:
    """It gets to the boundary long after the others have joined, and given up joining once."""
    gate = threading.Event()
    rig = ChangeRig(2, join_s=0.3)
    tensors = [np.full(100, 3.0, np.float32) for _ in range(2)]
    with rig:
        # Rank 1 has handed over one more than rank 0.
        ahead = rig.ranks[1].all_reduce(tensors[1])
        outcomes = rig.changing(16)
        eventually(lambda: 0 in rig.controller.declared, "rank 0 says where it is")
        assert not gate.wait(1.0)
        late = rig.ranks[0].all_reduce(tensors[0])
        assert all(outcome.result() for outcome in outcomes)
        assert rig.ranks[0].wait(late).error is None
        assert rig.ranks[1].wait(ahead).error is None
        assert (tensors[0] == 6.0).all()


def test_ranks_that_changed_at_different_collectives_get_an_error_and_no_wrong_sum() -> None:
    """Should it ever happen: the numbering of chunks keeps their collectives apart."""
    rig = ChangeRig(2, timeout_s=1.5)
    original = rig.engine

    def engine(rank: int, lease: Lease, sock: socket.socket, done: int) -> Engine:
        return original(rank, lease, sock, done + rank if done else 0)

    rig.engine = engine  # type: ignore[method-assign]
    with looping(rig, depth=4, size=100) as loop:
        loop.reach(10)
        assert all(rig.change(16))
        found = loop.finish()  # which checks every sum that there was
    assert all(len(errors) == 1 for errors in found)


def test_leaving_in_the_middle_ends_what_is_held() -> None:
    rig = ChangeRig(2)
    with looping(rig) as loop:
        loop.reach(5)
        (outcome,) = rig.changing(16, but=(1,))
        eventually(lambda: rig.ranks[0].relay.held > 0, "a collective is held")
        rig.ranks[0].relay.close()
        rig.controller.cancel()
        assert outcome.result() is False
        rig.ranks[1].relay.close()
        assert all(found for found in loop.finish())
