"""``await_end``: a thread that needs a collective waits in the engine, and takes nothing."""

import threading
import time

import numpy as np
import pytest
from engine_rig import Rig

from wiresum.host_agent.errors import EngineClosed


def test_the_end_of_a_collective_is_known_before_its_completion_is_taken() -> None:
    with Rig(2) as rig:
        values = [np.full(5000, rank + 1, np.float32) for rank in range(2)]
        tickets = [
            engine.all_reduce(each.ctypes.data, each.size, "float32")
            for engine, each in zip(rig.engines, values, strict=True)
        ]
        for leave, (engine, each, ticket) in enumerate(
            zip(rig.engines, values, tickets, strict=True)
        ):
            assert engine.await_end(ticket, 1, 20.0, bool(leave))
            assert (each == 3).all()
            engine.flush()
            (done,) = engine.poll(20.0)
            assert (done.ticket, done.error) == (ticket, None)
            assert engine.await_end(ticket, 1, 0.0, False)  # still so


def test_what_an_engine_cannot_know_is_not_taken_for_ended() -> None:
    with Rig(2, keep_nonfinite=True) as rig:
        values = [np.ones(300, np.float32) for _ in range(2)]
        engine, other = rig.engines
        first = engine.all_reduce(values[0].ctypes.data, 300, "float32", ticket=7)
        assert not engine.await_end(6, 1, 5.0, False)  # another engine has had it
        assert not engine.await_end(7, 2, 5.0, False)  # the second has not been given
        assert not engine.await_end(7, 0, 5.0, False)
        assert not engine.await_end(first, 1, 0.05, False)  # the other rank is late
        other.all_reduce(values[1].ctypes.data, 300, "float32", ticket=7)
        assert engine.await_end(first, 1, 20.0, False)
        values[0][5] = np.inf
        for each, mine in zip(values, rig.engines, strict=True):
            mine.all_reduce(each.ctypes.data, 300, "float32", ticket=8)
        for mine in rig.engines:
            assert not mine.await_end(8, 1, 20.0, False)  # something is left to do
            assert mine.await_end(7, 1, 0.0, False) is False


def test_an_engine_that_ends_lets_those_go_that_wait() -> None:
    with Rig(2) as rig:
        values = np.ones(300, np.float32)
        ticket = rig.engines[0].all_reduce(values.ctypes.data, 300, "float32")
        rig.engines[0].fail("PeerLost", "rank 1 is gone")
        assert not rig.engines[0].await_end(ticket, 1, 20.0, True)
        rig.engines[0].close()
        assert not rig.engines[0].await_end(ticket, 1, 20.0, True)
        with pytest.raises(EngineClosed):
            rig.engines[0].all_reduce(values.ctypes.data, 300, "float32")


def test_who_waits_for_one_collective_holds_back_no_completion_of_another() -> None:
    with Rig(2) as rig:
        values = [[np.full(2000, rank + 1, np.float32) for _ in range(2)] for rank in range(2)]
        first, second = (
            rig.engines[0].all_reduce(each.ctypes.data, each.size, "float32") for each in values[0]
        )
        found: list[bool] = []
        waiter = threading.Thread(
            target=lambda: found.append(rig.engines[0].await_end(second, 1, 60.0, True))
        )
        waiter.start()
        rig.engines[1].all_reduce(values[1][0].ctypes.data, 2000, "float32")
        assert [done.ticket for done in rig.engines[0].poll(30.0)] == [first]
        assert waiter.is_alive()
        rig.engines[1].all_reduce(values[1][1].ctypes.data, 2000, "float32")
        waiter.join(60.0)
        assert found == [True]


def test_who_has_given_up_waiting_does_not_make_its_completion_wait_for_another_thread() -> None:
    with Rig(2) as rig:
        engine, other = rig.engines
        values = [[np.full(2000, rank + 1, np.float32) for _ in range(2)] for rank in range(2)]
        first, second = (
            engine.all_reduce(each.ctypes.data, each.size, "float32") for each in values[0]
        )
        short = threading.Thread(target=lambda: engine.await_end(first, 1, 0.5, False))
        short.start()
        time.sleep(0.1)
        waiter = threading.Thread(target=lambda: engine.await_end(second, 1, 60.0, True))
        waiter.start()
        short.join(30.0)
        taken: list[int] = []
        poller = threading.Thread(
            target=lambda: taken.extend(done.ticket for done in engine.poll(120.0))
        )
        poller.start()
        time.sleep(0.1)
        other.all_reduce(values[1][0].ctypes.data, 2000, "float32")
        poller.join(30.0)
        assert taken == [first]
        other.all_reduce(values[1][1].ctypes.data, 2000, "float32")
        waiter.join(60.0)
