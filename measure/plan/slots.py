"""How many slots a job needs, and what they take of a switch's memory: closed forms.

A worker must have as many bytes in flight as its link carries in a round trip (the bandwidth-delay
product; SwitchML, NSDI 2021, sizes its pools so and rounds up to a power of two). wiresum leases
twice the window: chunk c + window may come while the result of c is still asked for again.
"""

import math

from wiresum.measure.model import limits
from wiresum.p4 import MAX_WORKERS
from wiresum.p4.packet import HEADER_BYTES

LANE_BYTES = 4
FRAME_BYTES = limits.ETHERNET + limits.IPV4 + limits.UDP + HEADER_BYTES
"""Around the lanes of a chunk: Ethernet, IPv4, UDP, wiresum's own header."""

STATE_BYTES = 4 + 4 + 4 + 8
"""Of a slot beside its lanes: epoch, chunk, fingerprint, bitmap of contributors."""


def window(gbit: float, round_trip_us: float, packet_bytes: float) -> int:
    """Packets in flight that fill a link: the bandwidth-delay product, as a power of two."""
    needed = math.ceil(gbit * 1e9 / 8 * round_trip_us * 1e-6 / packet_bytes)
    return 1 << max(0, needed - 1).bit_length()


def lease_slots(window_chunks: int) -> int:
    """Slots that a lease with this window has."""
    return 2 * window_chunks


def register_bytes(slots: int, lanes: int, state_bytes: int = STATE_BYTES) -> int:
    """Memory of a switch that these slots take."""
    return slots * (lanes * LANE_BYTES + state_bytes)


def sum_fits(field: int, workers: int) -> bool:
    """Whether fields of this width can hold a sum of so many workers: ⌊(2^F − 1)/2n⌋ ≥ 1."""
    return 2 * workers < 1 << field


def levels(racks: int, fan_in: int = MAX_WORKERS) -> int:
    """Levels of switches under which so many racks have one root: 1 for a single rack."""
    found = 1
    while racks > 1:
        racks = math.ceil(racks / fan_in)
        found += 1
    return found
