"""The switch dies in the middle of pieces: the ranks finish them, to the same bits."""

import time
from collections.abc import Iterator

import numpy as np
from engine_rig import LIMIT_S, Rig
from handover_rig import Death, Ranks
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from piece_rig import Memory, Piece, all_gather, arguments, broadcast, reduce_scatter, some

from reference_switch import Faults
from support.examples import examples
from wiresum.host_agent.agent.face import Call

SIZES = (0, 1, 63, 1024, 1025, 4000, 20_011)


def die_within(
    death: Death, rig: Rig, collectives: list[list[Memory]], early: int, limit_s: float
) -> None:
    """Issue ``collectives``, the last rank ``early`` of them; wait until the switch is dead."""
    for number, (first, memory) in enumerate(numbered(collectives)):
        for rank, engine in enumerate(rig.engines):
            if number < early or rank < rig.workers - 1:
                engine.collect(arguments(memory, rank, first))
    deadline = time.monotonic() + limit_s
    while not death.dead and time.monotonic() < deadline:
        time.sleep(0.001)


def numbered(collectives: list[list[Memory]]) -> Iterator[tuple[int, list[Memory]]]:
    """The collectives with their first tickets."""
    first = 0
    for memory in collectives:
        yield first, memory
        first += len(memory)


def finish(rig: Rig, collectives: list[list[Memory]], early: int) -> None:
    """Hand over; the last rank issues the rest of the collectives then."""
    ranks = Ranks(rig)
    try:
        ranks.hand_over()
        for first, memory in list(numbered(collectives))[early:]:
            last = rig.workers - 1
            ranks.ranks[last].collect([Call(*each) for each in arguments(memory, last, first)])
        ranks.finish(range(sum(map(len, collectives))))
        for memory in collectives:
            for each in memory:
                each.check()
    finally:
        ranks.close()


@settings(max_examples=examples(50), deadline=None, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 2**32),
    workers=st.integers(1, 5),
    field=st.sampled_from([32, 16, 8]),
    lanes=st.sampled_from([64, 256]),
    slots=st.sampled_from([6, 16, 64]),
    packets=st.integers(0, 600),
    loss=st.sampled_from([0.0, 0.02, 0.2]),
    behind=st.integers(0, 3),
)
def test_whatever_pieces_were_in_flight_end_with_the_bits_of_an_undisturbed_run(
    seed: int, workers: int, field: int, lanes: int, slots: int, packets: int, loss: float,
    behind: int,
) -> None:  # fmt: skip
    rng = np.random.default_rng(seed)
    death = Death(packets, loss, seed)
    faults = Faults(seed=seed, intercept=death)
    collectives = [
        [
            Memory(some(rng, workers, SIZES), workers, field, rng)
            for _ in range(int(rng.integers(1, 5)))
        ]
        for _ in range(4)
    ]
    with Rig(workers, lanes=lanes, slots=slots, field=field, faults=faults) as rig:
        early = len(collectives) - behind
        die_within(death, rig, collectives, early, 0.3)
        finish(rig, collectives, early)


def test_each_kind_is_handed_over_in_its_middle() -> None:
    """With chunks that some ranks have the results of, and chunks that no rank has opened."""
    workers = 3
    kinds: dict[str, list[Piece]] = {
        "broadcast": [broadcast(40_000, 1)],
        "all-gather": all_gather(20_000, workers),
        "reduce": [Piece(12_000, "float32", readers=1, reader=2)],
        "reduce-scatter": reduce_scatter(5_000, workers),
    }
    for seed, (name, pieces) in enumerate(kinds.items()):
        rng = np.random.default_rng(seed)
        death = Death(450, 0.05, seed)
        with Rig(workers, slots=64, faults=Faults(seed=seed, intercept=death)) as rig:
            collectives = [[Memory(piece, workers, 32, rng) for piece in pieces]]
            die_within(death, rig, collectives, 1, LIMIT_S)
            assert all(engine.suspend("the test has said so") for engine in rig.engines)
            stream = "copy" if pieces[0].copies else "data"
            positions = [engine.extent()[stream] for engine in rig.engines]
            assert all(oldest > 0 for oldest, _ in positions), name
            assert any(oldest < following for oldest, following in positions), name
            finish(rig, collectives, 1)


def test_contributions_without_lanes_count_as_zeros() -> None:
    with Rig(2, slots=64, faults=Faults(intercept=lambda *_: True)) as rig:
        memory = Memory(broadcast(600, 1), 2, 32, np.random.default_rng(3))
        words = [np.full((3, 64), 7, np.uint32) for _ in rig.engines]
        hashes = set()
        for rank, engine in enumerate(rig.engines):
            engine.collect(arguments([memory], rank))
            deadline = time.monotonic() + LIMIT_S
            while engine.positions()["copy"].next < 3 and time.monotonic() < deadline:
                time.sleep(0.001)
            assert engine.suspend("the test has said so")
            assert engine.extent() == {"exponent": (0, 0), "data": (0, 0), "copy": (0, 3)}
            hashes.add(engine.contributions("copy", 0, 3, words[rank].ctypes.data))
        assert len(hashes) == 1
        assert not words[0].any()
        assert words[1].astype(">u4").tobytes()[:600] == memory.arrays[1].tobytes()
        assert not words[1].astype(">u4").tobytes()[600:].strip(b"\0")
