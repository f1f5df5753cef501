"""The switch dies in the middle of collectives: the ranks finish them, to the same bits."""

import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from engine_rig import LIMIT_S, Rig, codec_alone, name_of
from handover_rig import Death, Ranks
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from piece_rig import FLOATS, WORDS, numbers

from reference_switch import Faults
from support.examples import examples
from support.thread_sums import thread_sums
from wiresum.host_agent.agent.face import Call
from wiresum.host_agent.agent.ranks import RanksEngine
from wiresum.host_agent.engine import Engine
from wiresum.host_agent.errors import CollectiveMismatch, EngineClosed, EngineError

ZEROS = 0.3  # of the blocks
SIZES = (1, 63, 1024, 1025, 4000, 20_011)


def all_reduces(
    engines: Sequence[Any], arrays: list[NDArray[Any]], ticket: int, field: int = 0
) -> None:
    for engine, array in zip(engines, arrays, strict=True):
        call = Call(array.ctypes.data, array.size, name_of(array), averages(array, ticket), ticket)
        engine.collect([call._replace(field=field)])


def averages(array: NDArray[Any], ticket: int) -> bool:
    return ticket % 3 == 0 and array.dtype.kind == "f"


@settings(max_examples=examples(60), deadline=None, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 2**32),
    workers=st.integers(1, 5),
    field=st.sampled_from([32, 16, 8]),
    lanes=st.sampled_from([64, 256]),
    slots=st.sampled_from([16, 64]),
    packets=st.integers(0, 600),
    loss=st.sampled_from([0.0, 0.02, 0.2]),
    behind=st.integers(0, 4),
)
def test_whatever_was_in_flight_ends_with_the_bits_of_an_undisturbed_run(
    seed: int, workers: int, field: int, lanes: int, slots: int, packets: int, loss: float,
    behind: int,
) -> None:  # fmt: skip
    rng = np.random.default_rng(seed)
    kinds = [*FLOATS, *WORDS]
    data = [
        numbers(rng, workers, int(rng.choice(SIZES)), str(rng.choice(kinds)), ZEROS)
        for _ in range(6)
    ]
    fields = [int(rng.choice([0, 32, 16, 8])) for _ in data]  # 0: the lease's
    expected = [
        codec_alone(each, fields[ticket] or field, name_of(each[0]), averages(each[0], ticket))
        for ticket, each in enumerate(data)
    ]
    death = Death(packets, loss, seed)
    faults = Faults(seed=seed, intercept=death)
    # The last rank is behind the others: it has issued fewer collectives when the switch dies.
    early = len(data) - behind
    with Rig(workers, lanes=lanes, slots=slots, field=field, faults=faults) as rig:
        ranks = Ranks(rig)
        for ticket, each in enumerate(data):
            some = slice(None) if ticket < early else slice(0, workers - 1)
            all_reduces(rig.engines[some], each[some], ticket, fields[ticket])
        deadline = time.monotonic() + 0.3
        while not death.dead and time.monotonic() < deadline:
            time.sleep(0.001)
        try:
            ranks.hand_over()
            for ticket in range(early, len(data)):
                last = slice(workers - 1, None)
                all_reduces(ranks.ranks[last], data[ticket][last], ticket, fields[ticket])
            ranks.finish(range(len(data)))
            for each, bits in zip(data, expected, strict=True):
                assert [array.tobytes() for array in each] == [bits] * workers
        finally:
            ranks.close()


def test_a_result_that_a_rank_has_used_already_is_not_needed_from_it() -> None:
    """Rank 0 has its sum and writes over the tensor; the last result to rank 1 is lost."""
    rng = np.random.default_rng(1)
    data = numbers(rng, 2, 5000, "float32", ZEROS)
    expected = codec_alone(data, 32, "float32", False)
    rig = Rig(2)
    lost = 0

    def intercept(_payload: bytes, to: object, way: str) -> bool:
        nonlocal lost
        # The first results pass: rank 1 gets to its last data chunks.
        if way == "out" and to == rig.addresses[1]:
            lost += 1
            return lost > 60
        return False

    rig.faults.intercept = intercept
    with rig:
        ranks = Ranks(rig)
        all_reduces(rig.engines, data, 1)
        done = rig.engines[0].wait(1, LIMIT_S)
        if done is not None:
            ranks.over[0][1] = done
        assert data[0].tobytes() == expected
        data[0].fill(float("nan"))
        ranks.hand_over()
        ranks.finish([1])
        assert data[1].tobytes() == expected
        assert np.isnan(data[0]).all()
        ranks.close()


def test_ranks_that_have_issued_other_collectives_get_an_error_and_no_sum() -> None:
    with Rig(2, faults=Faults(intercept=lambda *_: True)) as rig:
        one, other = np.ones(2000, np.float32), np.ones(3000, np.float32)
        rig.engines[0].all_reduce(one.ctypes.data, one.size, "float32", False, 0)
        rig.engines[1].all_reduce(other.ctypes.data, other.size, "float32", False, 0)
        time.sleep(0.1)
        ranks = Ranks(rig)
        with pytest.raises(CollectiveMismatch):
            ranks.hand_over()


def test_an_engine_whose_switch_is_silent_suspends_itself_and_says_why() -> None:
    options = {"switch_timeout_s": 0.2, "suspend_unreachable": True}
    with Rig(2, faults=Faults(intercept=lambda *_: True), **options) as rig:
        data = [np.ones(2000, np.float32) for _ in range(2)]
        all_reduces(rig.engines, data, 1)
        for engine in rig.engines:
            deadline = time.monotonic() + LIMIT_S
            while engine.suspended is None:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            assert "has not answered anything for 0.2 s" in engine.suspended
            assert engine.poll(0.0) == []
        ranks = Ranks(rig)
        ranks.hand_over()
        ranks.finish([1])
        assert all((each == 2).all() for each in data)
        ranks.close()


def test_what_a_suspended_engine_had_in_flight_ends_when_it_is_failed_or_closed() -> None:
    with Rig(2, faults=Faults(intercept=lambda *_: True)) as rig:
        data = [np.ones(2000, np.float32) for _ in range(2)]
        all_reduces(rig.engines, data, 1)
        assert all(engine.suspend("why") for engine in rig.engines)
        rig.engines[0].fail("PeerLost", "rank 1 is gone")
        rig.engines[1].close()
        first, second = (engine.wait(1, LIMIT_S) for engine in rig.engines)
        assert first is not None
        assert (first.kind, first.error) == ("PeerLost", "rank 1 is gone")
        assert second is not None
        assert second.kind == "EngineClosed"
        for engine in rig.engines:
            with pytest.raises(EngineClosed):
                engine.extent()


def test_only_a_suspended_engine_hands_over() -> None:
    with Rig(1) as rig, pytest.raises(EngineClosed, match="is not suspended"):
        rig.engines[0].rests(0, 0, 0)


def test_chunks_of_more_than_two_windows_ago_are_not_kept() -> None:
    with Rig(1, slots=16) as rig:
        engine: Engine = rig.engines[0]
        data = np.ones(64 * 100, np.float32)
        rig.finish(rig.start([data]))
        assert engine.suspend("why")
        words = np.zeros(64, np.int32)
        with pytest.raises(EngineError, match="are not kept here"):
            engine.contributions("data", 0, 1, words.ctypes.data)


def test_a_sum_that_breaks_ends_what_waits_in_an_error() -> None:
    sums = thread_sums(2)
    engine = RanksEngine(sums[0], 2, 32)
    data = np.ones(10, np.float32)
    engine.collect([Call(data.ctypes.data, 10, "float32", False, 5)])
    threading.Timer(0.1, lambda: engine.fail("PeerLost", "rank 1 is gone")).start()
    (ended,) = engine.poll(LIMIT_S)
    assert (ended.ticket, ended.kind, ended.error) == (5, "PeerLost", "rank 1 is gone")
    with pytest.raises(EngineClosed, match="rank 1 is gone"):
        engine.collect([Call(data.ctypes.data, 10, "float32", False, 6)])
    engine.close()
