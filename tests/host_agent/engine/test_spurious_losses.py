"""Chunks that were sent again although nothing was lost: no window stays small for them."""

from typing import Any

import numpy as np
from engine_rig import Rig, eventually, normal

from reference_switch import Faults, Header
from wiresum.p4.packet import Kind

ROUND_TRIP = {"rto_initial_s": 0.05, "rto_min_s": 0.02, "rto_max_s": 0.05}


def test_a_path_that_became_slow_is_no_loss_and_the_window_comes_back() -> None:
    """Every chunk is sent again before its result can come; each transmission has an answer."""
    with Rig(2, slots=256, faults=Faults(), **ROUND_TRIP) as rig:
        rig.finish(rig.start(normal(2, 60_000)))
        before = [int(engine.stats()["window"]) for engine in rig.engines]
        assert min(before) == 80  # all of it
        rig.faults.delay_s = 0.15  # each way; a timeout is 0.05 s at most
        rig.finish(rig.start(normal(2, 70 * rig.lanes, seed=1)))
        for engine in rig.engines:
            eventually(
                lambda engine=engine: (
                    engine.stats()["spurious_losses"] == engine.stats()["losses"] > 0
                ),
                "answers to all transmissions",
            )
        assert [int(engine.stats()["window"]) for engine in rig.engines] == before


def test_results_that_were_lost_count_as_lost() -> None:
    """The control: here the second result is the first that comes."""
    dropped: set[tuple[int, int, Any]] = set()

    def lose(data: bytes, peer: Any, direction: str) -> bool:
        header = Header.unpack(data)
        chunk = header.slot, header.chunk, peer
        if direction == "in" or header.kind != Kind.RESULT or chunk in dropped:
            return False
        dropped.add(chunk)
        return True

    arrays = normal(2, 8_000)
    expected = arrays[0].astype(np.float64) + arrays[1]
    with Rig(2, slots=64, faults=Faults(intercept=lose), **ROUND_TRIP) as rig:
        rig.finish(rig.start(arrays))
        assert rig.total("losses") > 0
        assert rig.total("spurious_losses") == 0
    np.testing.assert_allclose(arrays[0], expected, atol=1e-5)


def test_losses_of_a_later_round_do_not_keep_the_window_small() -> None:
    """All losses of the round that shrank it were none; one of the next round was."""
    shrunk, after = 96, 96 + 50  # chunks before the round that shrinks the window, and with it
    late = range(shrunk, shrunk + 30)  # their first results come when all is done
    held: dict[int, bytes] = {}

    def hold(data: bytes, peer: Any, direction: str) -> bool:
        header = Header.unpack(data)
        if direction == "in" or header.kind != Kind.RESULT or peer != rig.addresses[0]:
            return False
        if header.slot < rig.slots // 8 or header.chunk in held:
            return False
        if header.chunk not in late and header.chunk != after:
            return False
        held[header.chunk] = data
        return True

    patient = {"rto_initial_s": 5.0, "rto_min_s": 5.0, "rto_max_s": 9.0}  # overtaken, never late
    rig = Rig(2, slots=256, faults=Faults(intercept=hold), **patient)

    def finish(chunks: int, **expected: int) -> None:
        rig.finish(rig.start([np.ones(chunks * rig.lanes, np.float32) for _ in range(2)]))
        reach(**expected)

    def reach(**expected: int) -> None:
        def reached() -> bool:
            stats = rig.engines[0].stats()
            return all(stats[name] == value for name, value in expected.items())

        eventually(reached, str(expected))

    with rig:
        finish(shrunk, window=80, losses=0)  # rounds of 32 and 64 chunks
        finish(50, window=50, losses=30)  # one round: 50 results and 30 losses
        finish(17, window=50, losses=31)
        for chunk in late:
            rig.switch.send(held[chunk], rig.addresses[0])
        reach(window=80, losses=31, spurious_losses=30)
