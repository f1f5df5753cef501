"""How long a collective takes on links that are all alike: closed forms.

- A ring all-reduce of S bytes on n ranks has 2(n−1) steps of S/n bytes, so it moves 2(n−1)/n of S
  over every link (Patarasuk and Yuan, 2009; the bus factor of nccl-tests' PERFORMANCE.md).
- A switch that sums moves S up and S down every link, both at once, whatever n is (SwitchML, 2021).
- A ring all-gather or reduce-scatter moves (n−1)/n of S; a broadcast or reduce moves S.

Times are in seconds, sizes in bytes of payload before headers. Frames come from ``limits.py``.
"""

import math

from wiresum.measure.model import limits
from wiresum.measure.model.links import NONE, Link, Protection
from wiresum.p4.packet import HEADER_BYTES

MTU = 1500


def framed(payload: float, headers: int, mtu: int = MTU, protection: Protection = NONE) -> float:
    """Bytes on the wire of a payload; ``headers`` are those above IPv4, in each packet.

    What protection adds to a frame makes its payload smaller: the MTU stays.
    """
    inside = mtu - protection.frame_bytes
    size = math.ceil(payload)
    packets = math.ceil(size / (inside - limits.IPV4 - headers))
    return limits.framed(size, inside, headers) + packets * protection.frame_bytes


def ring_s(
    size: float, workers: int, link: Link, mtu: int = MTU, protection: Protection = NONE
) -> float:
    """A ring all-reduce over TCP."""
    if workers < 2:
        return 0.0
    step = framed(size / workers, limits.TCP, mtu, protection)
    return 2 * (workers - 1) * link.seconds(step)


MOST_DIRECT = 16
"""Ranks that send their exponents to each other directly (``backend/gloo_sums.py``)."""


def maximum_s(
    size: float, workers: int, link: Link, mtu: int = MTU, protection: Protection = NONE
) -> float:
    """The ranks' own all-reduce MAX: up to :data:`MOST_DIRECT` of them send everything to all."""
    if workers > MOST_DIRECT:
        return ring_s(size, workers, link, mtu, protection)
    return link.seconds((workers - 1) * framed(size, limits.TCP, mtu, protection))


def steps(kind: str, workers: int) -> tuple[int, float]:
    """Messages one after the other on a link, and bytes on it as a share of S; no rank waits."""
    if workers < 2:
        return 0, 0.0
    apart = (workers - 1) / workers
    if kind == "all_reduce":
        return 2 * (workers - 1), 2 * apart
    if kind in ("all_gather", "reduce_scatter", "all_to_all", "gather", "scatter"):
        return workers - 1, apart
    if kind == "barrier":
        return 2, 0.0
    return 1, 1.0


def collective_s(
    kind: str,
    size: float,
    workers: int,
    link: Link,
    mtu: int = MTU,
    protection: Protection = NONE,
) -> float:
    """Any collective over TCP, by its best known algorithm on a ring."""
    if kind == "all_reduce":
        return ring_s(size, workers, link, mtu, protection)
    messages, share = steps(kind, workers)
    return messages * link.alpha_s + framed(share * size, limits.TCP, mtu, protection) / link.beta


def switch_s(
    size: float,
    link: Link,
    field: int = 32,
    mtu: int = MTU,
    protection: Protection = NONE,
    window_bytes: float = math.inf,
    hops: int = 1,
) -> float:
    """An all-reduce of ``size`` bytes of float32 that ``hops`` levels of switches sum.

    Two round trips go before the last byte: exponents, then data; after that, chunks leave as fast
    as the link and the window of ``window_bytes`` of lanes allow (bandwidth-delay product).
    """
    round_trip = 2 * link.alpha_s * hops
    headers = limits.UDP + HEADER_BYTES
    lanes = size * field / limits.ELEMENT_BITS
    wire = framed(exponents(size), headers, mtu, protection)
    wire += framed(lanes, headers, mtu, protection)
    rate = link.beta
    if round_trip > 0:
        rate = min(rate, window_bytes / round_trip)
    return 2 * round_trip + wire / rate


BLOCK_BYTES = 1024
"""Of float32 elements, which share an exponent of 4 bytes."""


def exponents(size: float) -> float:
    """Bytes of the exponents of ``size`` bytes of float32."""
    return 4 * math.ceil(size / BLOCK_BYTES)
