"""The relay alone: order, tickets, limits, with engines that the test ends by hand."""

import queue
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wiresum.host_agent.agent.face import Call, Ended, Unit
from wiresum.host_agent.agent.relay import Relay
from wiresum.host_agent.errors import EngineClosed


@dataclass
class HandEngine:
    """Notes what it is handed; ends tickets when told to."""

    number: int = 0
    tickets: list[int] = field(default_factory=list)
    calls: list[int] = field(default_factory=list)
    closed: bool = False
    fails: bool = False
    suspended: str | None = None
    ended: "queue.Queue[Ended]" = field(default_factory=queue.Queue)

    def collect(self, pieces: Unit) -> None:
        if self.closed or self.fails:
            raise EngineClosed("the engine takes no more work: test")
        self.calls += (piece.data for piece in pieces)
        self.tickets += (piece.ticket for piece in pieces)

    @property
    def started(self) -> int:
        return len(self.calls)

    def end(self, count: int = 1, error: str | None = None) -> None:
        for _ in range(count):
            kind = None if error is None else "CollectiveTimeout"
            self.ended.put(Ended(self.tickets[self._done], error, kind))
            self._done += 1

    _done: int = 0

    def poll(self, timeout_s: float) -> Sequence[Ended]:
        batch = []
        while not self.ended.empty():
            batch.append(self.ended.get())
        return batch

    def stats(self) -> Mapping[str, int | float]:
        return {"collectives": len(self.calls), "window": 7 + self.number}

    def close(self) -> None:
        self.closed = True


def test_ranges_that_are_not_finite_come_through_under_their_ticket() -> None:
    engine = HandEngine()
    relay = Relay(engine)
    submit(relay, 1, 2)
    engine.ended.put(Ended(2, None, None, [(256, 512), (2560, 100)]))
    engine.ended.put(Ended(1, None, None))
    told = {each.ticket: list(each.nonfinite) for each in relay.poll(1.0)}
    assert told == {2: [(256, 512), (2560, 100)], 1: []}


def submit(relay: Relay, *values: int) -> list[int]:
    """Hand over one collective a value, under the value as its ticket."""
    for value in values:
        relay.collect([Call(value, 1, "float32", False, value)])
    return list(values)


@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("submit"), st.integers(1, 4)),
            st.tuples(st.just("end"), st.integers(1, 3)),
            st.tuples(st.sampled_from(["pause", "let", "resume", "replace"]), st.integers(0, 3)),
        ),
        max_size=60,
    )
)
def test_every_collective_goes_to_one_engine_in_order_and_ends_once(
    steps: list[tuple[str, int]],
) -> None:
    engines = [HandEngine()]
    relay = Relay(engines[0])
    given_out: list[int] = []
    ended: list[int] = []
    limit: int | None = None
    for step, number in steps:
        current = engines[-1]
        if step == "submit":
            for _ in range(number):  # units of two pieces
                tickets = [len(given_out), len(given_out) + 1]
                relay.collect([Call(each, 1, "float32", False, each) for each in tickets])
                given_out += tickets
        elif step == "end":
            current.end(min(number, len(current.calls) - current._done))
        elif step == "pause" and limit is None:
            limit = relay.pause()
            assert limit == sum(len(engine.calls) for engine in engines)
        elif step == "let" and limit is not None:
            limit += 2 * number
            relay.let(limit)
        elif step == "resume":
            limit = None
            relay.resume()
        elif step == "replace" and limit is not None and relay.drained(0.0):
            assert relay.done == limit
            assert relay.done == sum(len(engine.calls) for engine in engines)
            engines.append(HandEngine(number=100 * len(engines)))
            relay.replace(engines[-1])
            assert current.closed
            limit = None
        ended += [each.ticket for each in relay.poll(0.0)]
        if limit is not None:
            assert relay.started <= limit
            assert relay.held == 0 or relay.started == limit
    relay.resume()
    engines[-1].end(len(engines[-1].calls) - engines[-1]._done)
    ended += [each.ticket for each in relay.poll(0.0)]
    assert [value for engine in engines for value in engine.calls] == list(range(len(given_out)))
    assert given_out == list(range(len(given_out)))
    assert sorted(ended) == given_out
    stats = relay.stats()
    if given_out:
        assert stats["collectives"] == len(given_out)
    assert stats["window"] == 7 + engines[-1].number  # of the last engine, not a sum


def test_a_limit_lets_through_as_many_and_no_more() -> None:
    engine = HandEngine()
    relay = Relay(engine)
    submit(relay, 1, 2)
    assert relay.pause() == 2
    submit(relay, 3, 4, 5)
    assert engine.calls == [1, 2]
    relay.let(4)
    assert engine.calls == [1, 2, 3, 4]
    submit(relay, 6)
    assert engine.calls == [1, 2, 3, 4]
    assert relay.held == 2
    assert not relay.drained(0.0)
    engine.end(4)
    relay.poll(0.0)
    assert relay.drained(0.0)


def test_drained_waits_for_the_training_to_get_there() -> None:
    engine = HandEngine()
    relay = Relay(engine)
    relay.pause()
    relay.let(1)
    threading.Timer(0.1, lambda: (submit(relay, 1), engine.end(), relay.poll(0.0))).start()
    assert not relay.drained(0.01)
    assert relay.drained(20.0)


def test_an_engine_that_fails_is_not_drained_and_fails_what_was_held() -> None:
    engine = HandEngine()
    relay = Relay(engine)
    first, second = submit(relay, 1, 2)
    relay.pause()
    (third,) = submit(relay, 3)
    engine.end(2, error="rank 1 is missing")
    engine.fails = True
    assert [each.error for each in relay.poll(0.0)] == ["rank 1 is missing"] * 2
    with pytest.raises(EngineClosed):
        relay.drained(0.0)
    relay.resume()
    (held,) = relay.poll(0.0)
    assert (held.ticket, held.kind) == (third, "EngineClosed")
    assert "takes no more work: test" in str(held.error)
    with pytest.raises(EngineClosed):
        submit(relay, 4)
    assert first != second


def test_closing_ends_what_is_held_and_leaves_no_engine_open() -> None:
    engine, late = HandEngine(), HandEngine()
    relay = Relay(engine)
    relay.pause()
    (held,) = submit(relay, 1)
    relay.close()
    relay.close()
    assert engine.closed
    assert relay.closed
    (ended,) = relay.poll(0.0)
    assert (ended.ticket, ended.kind) == (held, "EngineClosed")
    with pytest.raises(EngineClosed):
        relay.drained(0.0)
    with pytest.raises(EngineClosed):
        submit(relay, 2)
    relay.replace(late)  # a lease that came too late
    assert late.closed


def test_polling_a_closed_engine_does_not_spin() -> None:
    relay = Relay(HandEngine(closed=True))
    polls = 0
    done = threading.Event()
    timer = threading.Timer(0.5, done.set)
    timer.start()
    while not done.is_set():
        relay.poll(0.1)
        polls += 1
    assert polls < 50
