"""The order of chunks in rows, one piece's after another's; and what they cost in system calls."""

from itertools import groupby
from typing import Any

import numpy as np
import pytest
from engine_rig import Rig, normal
from piece_rig import Memory, all_gather, collect, finish, reduce_scatter

from reference_switch import Faults, Header

LANES = 64
ROWS = 3


@pytest.mark.parametrize(
    ("slots", "workers", "copies", "sums"),
    [
        (512, 2, 32, 32),  # no longer, whatever the window
        (512, 4, 16, 32),  # the window of copies is 64, that of data 160
        (1024, 4, 32, 32),
        (128, 4, 8, 10),
        (64, 3, 8, 8),  # no shorter: 8 chunks, of which a window has few
    ],
)
def test_a_row_has_as_many_chunks_as_let_all_pieces_be_in_flight_together(
    slots: int, workers: int, copies: int, sums: int
) -> None:
    """Between 8 and 32: by the fingerprints, which tell pieces apart, in the order of chunks."""
    first_copy = slots - slots // 4
    seen: dict[bool, dict[int, int]] = {False: {}, True: {}}

    def watch(data: bytes, _peer: Any, direction: str) -> bool:
        header = Header.unpack(data)
        if direction == "in" and header.slot >= slots // 8:
            seen[header.slot >= first_copy][header.chunk] = header.fingerprint
        return False

    rest = 3
    pieces = [
        *reduce_scatter((ROWS * sums + rest) * LANES, workers),
        *all_gather((ROWS * copies + rest) * LANES * 4, workers),
    ]
    with Rig(workers, lanes=LANES, slots=slots, faults=Faults(intercept=watch)) as rig:
        memory = [Memory(each, workers, 32, np.random.default_rng(6), zeros=0.0) for each in pieces]
        collect(rig.engines, memory)
        finish(rig.engines, memory)
    for is_copy, row in ((False, sums), (True, copies)):
        found = seen[is_copy]
        assert sorted(found) == list(range(len(found)))
        runs = [len(list(run)) for _, run in groupby(found[chunk] for chunk in sorted(found))]
        assert runs == [row] * ROWS * workers + [rest] * workers


def test_a_socket_that_was_just_emptied_is_not_asked_again() -> None:
    """With one chunk in flight every reply comes alone: one call receives it."""
    awake = 1500  # calls at the start, while the engine does not sleep
    with Rig(2, lanes=LANES, window=1) as rig:
        rig.finish(rig.start(normal(2, 3000 * LANES)))
        for engine in rig.engines:
            stats = engine.stats()
            assert stats["packets_received"] > 2000
            assert stats["receive_calls"] < 1.5 * stats["packets_received"] + awake
