"""Slots, memory and levels: the published points, and what follows from the formulas."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wiresum.measure.plan import slots


def test_switchml_has_128_slots_at_10_gbit_and_512_at_100():
    """Packets of 180 bytes, 15 and 6 µs (Sapio et al., NSDI 2021)."""
    assert slots.window(10, 15, 180) == 128
    assert slots.window(100, 6, 180) == 512


def test_switchml_takes_32_and_128_kib_of_registers():
    """32 lanes, two versions of each slot, no state counted."""
    assert slots.register_bytes(slots.lease_slots(128), 32, state_bytes=0) == 32 << 10
    assert slots.register_bytes(slots.lease_slots(512), 32, state_bytes=0) == 128 << 10


@given(st.floats(0.1, 800), st.floats(1, 1000), st.integers(64, 9000))
def test_a_window_fills_its_link_and_not_more_than_twice(gbit, round_trip_us, packet):
    product = gbit * 1e9 / 8 * round_trip_us * 1e-6
    found = slots.window(gbit, round_trip_us, packet)
    assert found * packet >= product * (1 - 1e-9)
    assert found == 1 or found < 2 * math.ceil(product / packet)


def test_a_field_holds_no_sum_of_more_workers_than_half_its_values():
    assert slots.sum_fits(8, 127)
    assert not slots.sum_fits(8, 128)
    assert slots.sum_fits(16, 10_000)


@pytest.mark.parametrize(("racks", "levels"), [(1, 1), (2, 2), (64, 2), (65, 3), (5000, 4)])
def test_a_switch_adds_for_64_below_it(racks, levels):
    assert slots.levels(racks) == levels
