"""Carriers without a network: who starts where, and words that come too early."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from support.thread_sums import ThreadSums, thread_sums
from wiresum.host_agent.agent import carriers as module
from wiresum.host_agent.agent.carriers import RANKS, SWITCH, Carriers
from wiresum.host_agent.agent.change import Unused
from wiresum.host_agent.agent.face import Call, Unit
from wiresum.host_agent.agent.gate import Gate
from wiresum.host_agent.agent.relay import Relay
from wiresum.host_agent.engine import Packed
from wiresum.host_agent.environment import AgentError
from wiresum.host_agent.errors import EngineClosed

LIMIT_S = 30.0
WORKERS, WIDTH = 2, 32


@dataclass
class Rest:
    """What :class:`SilentEngine` leaves of a collective: all of it."""

    ticket: int
    packed: Packed


@dataclass
class SilentEngine:
    """An engine over a switch that never answers: it takes collectives, and sums none."""

    epoch: int
    lanes: int = 64
    calls: list[Call] = field(default_factory=list)
    suspended: str | None = None
    closed: bool = False

    @property
    def started(self) -> int:
        return len(self.calls)

    def collect(self, pieces: Unit) -> None:
        self.calls += pieces

    def poll(self, timeout_s: float) -> Sequence[Any]:
        time.sleep(min(timeout_s, 0.005))
        return []

    def stats(self) -> dict[str, int | float]:
        return {}

    def positions(self) -> dict[str, Any]:
        return {}

    def fail(self, kind: str, line: str) -> None:
        raise AssertionError((kind, line))

    def close(self) -> None:
        self.closed = True

    def suspend(self, why: str) -> bool:
        self.suspended = why
        return True

    def extent(self) -> dict[str, tuple[int, int]]:
        return {"exponent": (0, 0), "data": (0, 0), "copy": (0, 0)}

    def contributions(self, *_asked: object) -> int:
        return 0

    def rests(self, *_ends: int) -> list[Rest]:
        return [Rest(call.ticket, Packed(*call[:4], WORKERS, WIDTH)) for call in self.calls]


@dataclass
class Lease:
    """``returning.Joined``."""

    engine: SilentEngine
    dropped: bool = False

    @property
    def epoch(self) -> int:
        return self.engine.epoch

    def drop(self) -> None:
        self.dropped = True


@dataclass
class Rank:
    """One rank; ``rejoined`` are the epochs that it gets when it joins again, in order."""

    number: int
    sums: ThreadSums
    workers: int = WORKERS
    width: int = WIDTH
    rejoined: list[int] = field(default_factory=list)
    engines: list[SilentEngine] = field(default_factory=list)
    """Of the leases that it has got so."""
    on_return: Callable[[int], None] = lambda _epoch: None
    gate: Gate = field(default_factory=Gate)

    def __post_init__(self) -> None:
        self.relay = Relay(gate=self.gate)
        self.carriers = Carriers(
            self.relay, self.number, self.workers, self.width, rejoin=self._rejoin,
            returned=lambda joined: self.on_return(joined.epoch),
        )  # fmt: skip

    def _rejoin(self, _round: int) -> Lease:
        if not self.rejoined:
            raise AgentError("no lease")
        self.engines.append(SilentEngine(self.rejoined.pop(0)))
        return Lease(self.engines[-1])

    def begin(self, lease: Lease | None) -> None:
        self.carriers.begin(self.sums, lease, "the switch is away", loud=False)

    def close(self) -> None:
        self.carriers.close()
        self.relay.close()


def together(*calls: Callable[[], object]) -> list[BaseException | None]:
    """Call them at the same time; what each has raised."""
    raised: list[BaseException | None] = [None] * len(calls)

    def call(at: int) -> None:
        try:
            calls[at]()
        except BaseException as error:
            raised[at] = error

    threads = [threading.Thread(target=call, args=[at]) for at in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)
        assert not thread.is_alive()
    return raised


def sums_work(ranks: list[Rank], ticket: int) -> None:
    arrays = [np.full(2000, 1.0, np.float32) for _ in ranks]
    for rank, array in zip(ranks, arrays, strict=True):
        rank.relay.collect([Call(array.ctypes.data, array.size, "float32", False, ticket)])
    for rank in ranks:
        deadline = time.monotonic() + LIMIT_S
        while not (ended := rank.relay.poll(0.1)):
            assert time.monotonic() < deadline
        assert [(each.ticket, each.error) for each in ended] == [(ticket, None)]
    assert all((array == len(ranks)).all() for array in arrays)


def until(ranks: list[Rank], carrier: str) -> None:
    deadline = time.monotonic() + LIMIT_S
    while any(rank.carriers.carrier != carrier for rank in ranks):
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.mark.parametrize(
    ("epochs", "carrier"),
    [((5, 5), SWITCH), ((5, 6), RANKS), ((0, 5), RANKS), ((0, 0), RANKS)],
)
def test_a_run_begins_with_the_switch_if_all_ranks_have_one_lease(
    epochs: tuple[int, int], carrier: str
) -> None:
    ranks = [Rank(at, sums) for at, sums in enumerate(thread_sums(2))]
    leases = [Lease(SilentEngine(epoch)) if epoch else None for epoch in epochs]
    begins = [lambda r=r, le=le: r.begin(le) for r, le in zip(ranks, leases, strict=True)]
    assert together(*begins) == [None, None]
    assert [rank.carriers.carrier for rank in ranks] == [carrier] * 2
    if carrier == RANKS:
        sums_work(ranks, 1)
        assert all(lease is None or lease.dropped for lease in leases)
    for rank in ranks:
        rank.close()


def test_ranks_that_could_not_sum_together_all_hear_of_it() -> None:
    sums = thread_sums(2)
    ranks = [Rank(0, sums[0], width=8), Rank(1, sums[1], width=16)]
    for error in together(*(lambda rank=rank: rank.begin(None) for rank in ranks)):
        assert isinstance(error, AgentError)
        assert "they differ in the version of wiresum, in WIRESUM_FIELD" in str(error)
    for rank in ranks:
        rank.close()


def test_carriers_that_are_closed_while_they_begin_do_not_go_on_looking_for_a_lease() -> None:
    before = set(threading.enumerate())
    (sums,) = thread_sums(1)
    rank = Rank(0, sums, workers=1)
    rank.carriers.close()
    rank.begin(None)
    rank.relay.close()
    deadline = time.monotonic() + LIMIT_S
    while left := set(threading.enumerate()) - before:
        assert time.monotonic() < deadline, left
        time.sleep(0.001)


def test_a_word_to_leave_a_lease_is_kept_until_that_lease_is_in_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The other rank has gone over to the new lease, and lost the switch, before this one does.

    A collective that comes meanwhile begins under that lease, and ends over the ranks.
    """
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.001)
    ranks = [Rank(at, sums, rejoined=[6]) for at, sums in enumerate(thread_sums(WORKERS))]

    def on_return(rank: Rank, epoch: int) -> None:
        rank.carriers.leave_switch(epoch, "silent")
        deadline = time.monotonic() + LIMIT_S
        while rank.relay.asked == rank.relay.stats()["ranks_collectives"]:
            assert time.monotonic() < deadline, "no other collective has come"
            time.sleep(0.001)

    for rank in ranks:
        rank.on_return = lambda epoch, rank=rank: on_return(rank, epoch)
    together(*(lambda rank=rank: rank.begin(Lease(SilentEngine(5))) for rank in ranks))
    for rank in ranks:
        rank.carriers.leave_switch(5, "silent")
        rank.carriers.leave_switch(5, "silent here, too")
    deadline = time.monotonic() + LIMIT_S
    ticket = 0
    while not all({5, 6} <= rank.carriers._left for rank in ranks):
        assert time.monotonic() < deadline
        ticket += 1
        sums_work(ranks, ticket)
    for _ in range(5):
        ticket += 1
        sums_work(ranks, ticket)
    until(ranks, RANKS)
    assert [engine.started for rank in ranks for engine in rank.engines] == [1, 1]
    for rank in ranks:
        rank.close()


def begun(*epochs: int) -> list[Rank]:
    """Ranks that have begun with the switch, and can have leases of these epochs."""
    ranks = [Rank(at, sums, rejoined=list(epochs)) for at, sums in enumerate(thread_sums(WORKERS))]
    begins = [lambda r=rank: r.begin(Lease(SilentEngine(5))) for rank in ranks]
    assert together(*begins) == [None] * WORKERS
    return ranks


def test_ranks_that_have_chosen_so_carry_without_looking_for_a_lease_until_they_choose_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ranks = begun(6)
    for rank in ranks:
        rank.carriers.prefer(RANKS, "they are faster")
    until(ranks, RANKS)
    for ticket in range(1, 20):
        sums_work(ranks, ticket)
        time.sleep(0.005)
    assert all(rank.engines == [] and rank.carriers.rests_from_switch for rank in ranks)
    assert [rank.carriers.why for rank in ranks] == ["they are faster"] * WORKERS
    for rank in ranks:
        rank.carriers.prefer(SWITCH, "")
    deadline = time.monotonic() + LIMIT_S
    while not all(rank.carriers.has_lease for rank in ranks):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    sums_work(ranks, 20)  # the last one that the ranks carry
    until(ranks, SWITCH)
    assert [rank.carriers.epoch for rank in ranks] == [6] * WORKERS
    assert not [each for each in caplog.records if each.levelname == "WARNING"]
    for rank in ranks:
        rank.close()


def test_ranks_that_choose_to_carry_while_they_go_back_to_the_switch_leave_it_again() -> None:
    ranks = begun(6)
    for rank in ranks:
        rank.carriers.prefer(RANKS, "once")
    until(ranks, RANKS)
    for rank in ranks:
        # As in a collective that passes while this rank goes over.
        rank.on_return = lambda _epoch, rank=rank: rank.carriers.prefer(RANKS, "again")
        rank.carriers.prefer(SWITCH, "")
    deadline, ticket = time.monotonic() + LIMIT_S, 0
    while not all(rank.carriers.rests_from_switch and rank.engines for rank in ranks):
        assert time.monotonic() < deadline
        ticket += 1
        sums_work(ranks, ticket)
    sums_work(ranks, ticket + 1)
    assert all(rank.carriers._left == {5, 6} for rank in ranks)
    for rank in ranks:
        rank.close()


def test_a_switch_that_is_lost_before_it_is_chosen_to_be_left_is_left_once() -> None:
    ranks = begun(6)
    ranks[0].carriers.leave_switch(5, "silent")
    for rank in ranks:
        rank.carriers.prefer(RANKS, "they are faster")
    for rank in ranks:
        rank.carriers.leave_switch(5, "silent")
    until(ranks, RANKS)
    for ticket in range(1, 5):
        sums_work(ranks, ticket)
    assert all(rank.engines == [] for rank in ranks)
    for rank in ranks:
        rank.close()


@dataclass
class Choosing(Gate):
    """All ranks choose to carry themselves at the collective with this ticket."""

    ticket: int
    choose: Callable[[], None] = lambda: None

    def passing(self, unit: Unit) -> Unit:
        if unit[0].ticket == self.ticket:
            self.choose()
        return unit


def test_a_rank_whose_lease_changes_before_it_leaves_the_switch_goes_on_until_it_leaves() -> None:
    gates = [Choosing(3) for _ in range(WORKERS)]
    ranks = [
        Rank(at, sums, gate=gate)
        for at, (sums, gate) in enumerate(zip(thread_sums(WORKERS), gates, strict=True))
    ]
    for rank, gate in zip(ranks, gates, strict=True):
        gate.choose = lambda rank=rank: rank.carriers.prefer(RANKS, "they are faster")
    together(*(lambda rank=rank: rank.begin(Lease(SilentEngine(5))) for rank in ranks))
    arrays = [np.full(2000, 1.0, np.float32) for _ in range(3 * WORKERS)]

    def collect(rank: Rank, ticket: int) -> None:
        data = arrays[3 * rank.number + ticket - 1].ctypes.data
        rank.relay.collect([Call(data, 2000, "float32", False, ticket)])

    ahead, behind = ranks
    for ticket in (1, 2, 3):
        collect(ahead, ticket)
    for ticket in (1, 2):
        collect(behind, ticket)
    declared = behind.relay.pause()
    collect(behind, 3)
    assert behind.relay.held == 1
    assert ahead.carriers.rests_from_switch  # so it declares, too, while it waits for the other
    behind.relay.let(max(declared, Unused(ahead.carriers.chosen_at).pause()))
    assert behind.carriers.chosen_at == ahead.carriers.chosen_at
    for rank in ranks:
        ended: list[int] = []
        deadline = time.monotonic() + LIMIT_S
        while len(ended) < 3:
            assert time.monotonic() < deadline
            ended += [each.ticket for each in rank.relay.poll(0.1) if each.error is None]
    assert all((array == WORKERS).all() for array in arrays)
    assert all(rank.carriers.rests_from_switch for rank in ranks)
    with pytest.raises(EngineClosed):
        behind.relay.drained(0.0)  # the change is void for it, and tried again without the switch
    for rank in ranks:
        rank.close()
