"""A link's limit: the fewest bytes that an all-reduce puts on it, and the time that they take.

The bytes are those of Ethernet frames without preamble, check sequence and gap, which is what the
kernel's shapers charge. Only payload and the headers that the MTU forces count: neither exponents,
nor packets shorter than the MTU allows, nor acknowledgements. So no program can reach it.
"""

import math

from wiresum.p4.packet import HEADER_BYTES

ETHERNET = 14
IPV4 = 20
UDP = 8
TCP = 20 + 12  # with timestamps, as Linux sends them
ELEMENT_BITS = 32  # of the float32 elements that are reduced


def framed(payload: int, mtu: int, headers: int) -> int:
    """Bytes on the wire of ``payload`` bytes in IPv4 packets of at most ``mtu`` bytes.

    ``headers`` are those above IPv4, in each packet.
    """
    packets = math.ceil(payload / (mtu - IPV4 - headers))
    return payload + packets * (ETHERNET + IPV4 + headers)


def wiresum_bytes(size: int, field: int, mtu: int = 1500) -> int:
    """Least bytes in each direction of each link for ``size`` bytes of float32 over the switch."""
    payload = math.ceil(size * field / ELEMENT_BITS)
    return framed(payload, mtu, UDP + HEADER_BYTES)


def ring_bytes(size: int, workers: int, mtu: int = 1500) -> int:
    """Least bytes in each direction of each link for ``size`` bytes of float32 in a TCP ring.

    A ring reduce-scatter and all-gather: 2(n - 1) steps of 1/n of the tensor each.
    """
    step = math.ceil(size / workers)
    return 2 * (workers - 1) * framed(step, mtu, TCP)


def seconds(wire_bytes: float, rate_mbit: float) -> float:
    """How long ``wire_bytes`` take at ``rate_mbit`` Mbit/s."""
    return wire_bytes * 8 / (rate_mbit * 1e6)
