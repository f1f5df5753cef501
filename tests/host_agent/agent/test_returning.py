"""Back to the switch: all ranks go over after the same collective, or none does."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.examples import examples
from support.thread_sums import thread_sums
from wiresum.common.errors import WiresumError
from wiresum.host_agent.agent import returning
from wiresum.host_agent.agent.face import Call
from wiresum.host_agent.agent.ranks import RanksEngine
from wiresum.host_agent.agent.returning import Return
from wiresum.host_agent.engine import Packed

LIMIT_S = 30.0


@pytest.fixture(autouse=True)
def _no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(returning, "_FIRST_REST_S", 0.001)
    monkeypatch.setattr(returning, "LONGEST_REST_S", 0.01)


@dataclass
class Lease:
    """A lease in hand."""

    epoch: int
    dropped: bool = False
    engine: object = None

    def drop(self) -> None:
        self.dropped = True


@dataclass
class Rank:
    """One rank: what becomes of each of its rounds, and what came of it."""

    plans: list[int]
    """By round: an epoch, or 0 for a failure. After these, epoch 1000 + round."""
    slow_s: float = 0.0
    leases: list[Lease] = field(default_factory=list)
    arrived: list[Lease] = field(default_factory=list)
    rounds: list[int] = field(default_factory=list)

    def join(self, number: int) -> Lease:
        self.rounds.append(number)
        time.sleep(self.slow_s)
        epoch = self.plans[number - 1] if number <= len(self.plans) else 1000 + number
        if not epoch:
            raise WiresumError("no lease")
        self.leases.append(Lease(epoch))
        return self.leases[-1]


@dataclass
class Begun:
    """What another carrier leaves of a collective: all of it."""

    ticket: int
    packed: Packed


@contextmanager
def carrying(ranks: list[Rank]) -> Iterator[list[RanksEngine]]:
    sums = thread_sums(len(ranks))
    ballots = [Return(rank.join, 1, 0.0, rank.arrived.append) for rank in ranks]
    engines = [
        RanksEngine(each, len(ranks), 32, ballot=ballot)
        for each, ballot in zip(sums, ballots, strict=True)
    ]
    try:
        yield engines
    finally:
        for ballot in ballots:
            ballot.close()
        for engine in engines:
            engine.close()


def collectives(engines: list[RanksEngine], ranks: list[Rank]) -> int:
    """All-reduces until the ranks have arrived; how many there were."""
    deadline = time.monotonic() + LIMIT_S
    for ticket in range(1, 100_000):
        assert time.monotonic() < deadline, f"nobody has arrived: {ranks}"
        arrays = [np.full(2000, 1.0, np.float32) for _ in ranks]
        for engine, array in zip(engines, arrays, strict=True):
            engine.collect([Call(array.ctypes.data, array.size, "float32", False, ticket)])
        for engine, array in zip(engines, arrays, strict=True):
            (ended,) = engine.poll(LIMIT_S)
            assert (ended.ticket, ended.error) == (ticket, None)
            assert (array == len(ranks)).all()
        if any(rank.arrived for rank in ranks):
            return ticket
        time.sleep(0.001)
    raise AssertionError


@settings(max_examples=examples(25))
@given(
    plans=st.lists(st.lists(st.sampled_from([0, 5, 6, 7]), max_size=4), min_size=1, max_size=4),
    slow=st.integers(0, 3),
)
def test_all_arrive_together_with_one_epoch(plans: list[list[int]], slow: int) -> None:
    ranks = [Rank(plan, 0.01 if at == slow else 0.0) for at, plan in enumerate(plans)]
    with carrying(ranks) as engines:
        collectives(engines, ranks)
        deadline = time.monotonic() + LIMIT_S
        while not all(rank.arrived for rank in ranks):
            assert time.monotonic() < deadline, "some have arrived, and others have not"
            time.sleep(0.001)
    (epoch,) = {lease.epoch for rank in ranks for lease in rank.arrived}
    for rank in ranks:
        (lease,) = rank.arrived
        assert not lease.dropped
        assert lease.epoch == epoch
        assert [each.dropped for each in rank.leases if each is not lease] == [True] * (
            len(rank.leases) - 1
        )
    assert len({max(rank.rounds) for rank in ranks}) == 1


def test_what_has_not_begun_is_given_back() -> None:
    ranks = [Rank([]), Rank([])]
    with carrying(ranks) as engines:
        last = collectives(engines, ranks)
        data = np.ones(10, np.float32)
        for engine in engines:
            engine.collect([Call(data.ctypes.data, 10, "float32", False, last + 1)])
        for engine in engines:
            assert [call.ticket for (call,) in engine.give_back()] == [last + 1]
            assert engine.started == last


@settings(max_examples=examples(20))
@given(begun=st.lists(st.integers(0, 4), min_size=2, max_size=3), others=st.integers(1, 2))
def test_what_another_carrier_has_begun_is_carried_to_its_end(
    begun: list[int], others: int
) -> None:
    """Not all ranks had issued as many collectives when they left the other carrier."""
    last = max(1, *begun)
    count = last + others
    arrays = [[np.full(2000, 1.0, np.float32) for _ in range(count)] for _ in begun]
    calls = [
        [Call(each.ctypes.data, each.size, "float32", False, at) for at, each in enumerate(mine)]
        for mine in arrays
    ]
    ranks = [Rank([]) for _ in begun]
    ballots = [Return(rank.join, 1, 0.0, rank.arrived.append) for rank in ranks]
    deadline = time.monotonic() + LIMIT_S
    while any(ballot.words()[0] for ballot in ballots):  # until all have a lease
        assert time.monotonic() < deadline
        time.sleep(0.001)
    engines = [
        RanksEngine(
            sums,
            len(ranks),
            32,
            rests=[Begun(call.ticket, Packed(*call[:4], len(ranks), 32)) for call in mine[:done]],
            most_rests=max(begun),
            ballot=ballot,
        )
        for sums, ballot, mine, done in zip(
            thread_sums(len(ranks)), ballots, calls, begun, strict=True
        )
    ]
    for engine, mine, done in zip(engines, calls, begun, strict=True):
        for call in mine[done:last]:
            engine.collect([call])
        engine.collect(mine[last:])
    while not all(rank.arrived for rank in ranks):
        assert time.monotonic() < deadline, "they have not arrived"
        time.sleep(0.001)
    for engine, mine in zip(engines, arrays, strict=True):
        assert [[call.ticket for call in unit] for unit in engine.give_back()] == [
            list(range(last, count))
        ]
        assert all((each == len(ranks)).all() for each in mine[:last])
        assert all((each == 1).all() for each in mine[last:])
        engine.close()


def test_a_lease_that_ends_fails_its_round_but_not_once_all_ranks_go_over() -> None:
    rank = Rank([])
    ballot = Return(rank.join, 1, 0.0, rank.arrived.append)
    deadline = time.monotonic() + LIMIT_S

    def has_lease(number: int) -> None:
        while len(rank.leases) < number or not ballot.has_lease:
            assert time.monotonic() < deadline
            time.sleep(0.001)

    has_lease(1)
    ballot.lost()
    assert rank.leases[0].dropped
    assert not ballot.counted(list(ballot.words()))
    has_lease(2)
    assert ballot.counted(list(ballot.words()))
    ballot.lost()  # while the last collective is carried
    ballot.stopped()
    assert rank.arrived == [rank.leases[1]]
    assert not rank.leases[1].dropped


def test_closing_drops_a_lease_in_hand_and_one_that_comes_too_late() -> None:
    here, late = threading.Event(), Rank([], slow_s=0.1)
    quick = Rank([])
    ballots = [Return(rank.join, 1, 0.0, rank.arrived.append) for rank in (quick, late)]
    deadline = time.monotonic() + LIMIT_S
    while ballots[0].words()[0] or not late.rounds:
        assert time.monotonic() < deadline
        here.wait(0.001)
    for ballot in ballots:
        ballot.close()
    while not (late.leases and late.leases[0].dropped):
        assert time.monotonic() < deadline
        here.wait(0.001)
    assert quick.leases[0].dropped


def test_ranks_that_sum_different_tensors_of_one_size_get_an_error_and_no_sum() -> None:
    engines = [RanksEngine(each, 2, 32) for each in thread_sums(2)]
    data = [np.ones(2000, np.float16) for _ in engines]
    for engine, array, dtype in zip(engines, data, ("float16", "bfloat16"), strict=True):
        engine.collect([Call(array.ctypes.data, array.size, dtype, False, 1)])
    for engine in engines:
        (ended,) = engine.poll(LIMIT_S)
        assert ended.kind == "CollectiveMismatch"
        assert "have issued different collectives" in str(ended.error)
        engine.close()
    assert all((array == 1).all() for array in data)
