import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wiresum.controller.scheduling.slots import (
    DEFAULT_SLOTS,
    allocate,
    free_ranges,
    lowest_free_number,
    rounded,
)
from wiresum.controller.state.model import MIN_SLOTS, SlotRange

TOTAL = 4096
SIZES = [2**power for power in range(4, 13)]


@pytest.mark.parametrize(
    ("wanted", "slots"),
    [(0, DEFAULT_SLOTS), (1, MIN_SLOTS), (16, 16), (17, 32), (512, 512), (513, 1024), (4096, 4096)],
)
def test_wishes_are_rounded_up_to_powers_of_two(wanted: int, slots: int) -> None:
    assert rounded(wanted) == slots


@given(st.lists(st.tuples(st.sampled_from(SIZES), st.integers(0, 2**32)), max_size=120))
def test_random_arrivals_and_departures(arrivals: list[tuple[int, int]]) -> None:
    held: list[SlotRange] = []
    for size, seed in arrivals:
        if held and seed % 3 == 0:
            held.remove(random.Random(seed).choice(held))
        got = allocate(held, size, TOTAL)
        free = free_ranges(held, TOTAL)
        if got is None:
            # There is indeed no aligned range of that size without a held slot in it.
            for base in range(0, TOTAL, size):
                assert any(SlotRange(base, size).overlaps(taken) for taken in held)
        else:
            assert got.slots == size
            assert got.base % size == 0
            assert got.end <= TOTAL
            assert not any(got.overlaps(taken) for taken in held)
            # No larger free range was broken up than needed.
            smallest = min(gap.slots for gap in free if gap.slots >= size)
            assert any(gap.base <= got.base < gap.end for gap in free if gap.slots == smallest)
            held.append(got)
        tiles = sorted([*held, *free_ranges(held, TOTAL)])
        assert [tile.base for tile in tiles] == [0, *(tile.end for tile in tiles[:-1])]
        assert tiles[-1].end == TOTAL


@given(st.permutations(list(range(16))))
def test_freed_neighbours_join_up(order: list[int]) -> None:
    held = [SlotRange(index * 256, 256) for index in range(16)]
    assert free_ranges(held, TOTAL) == []
    for index in order:
        held.remove(SlotRange(index * 256, 256))
    assert free_ranges(held, TOTAL) == [SlotRange(0, TOTAL)]


def test_numbers() -> None:
    assert lowest_free_number([], 1, 1023) == 1
    assert lowest_free_number([1, 2, 4], 1, 1023) == 3
    assert lowest_free_number(range(1, 1024), 1, 1023) is None
