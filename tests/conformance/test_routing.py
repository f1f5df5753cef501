"""Programs that decide where a frame goes: the router, source routing, the access list."""

import struct
from collections.abc import Callable

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Raw
from scenarios import SOURCE_ROUTE, hops

from wiresum.testbed.conformance.target import (
    Count,
    Default,
    Delete,
    Group,
    Insert,
    Target,
    Write,
    inject,
)

Start = Callable[[str], Target]


def ip(address: str) -> int:
    return int.from_bytes(map(int, address.split(".")))


def accepted(switch: Target, *writes: Write) -> None:
    assert switch.write(writes) == [True] * len(writes)


def leaves(switch: Target, port: int, frame: object) -> list[tuple[int, Ether]]:
    return [(to, Ether(data)) for to, data in inject(switch, port, bytes(frame))]  # type: ignore[call-overload]


def packet(dst: str, **fields: object) -> Ether:
    return Ether(dst="02:00:00:00:00:fe") / IP(src="192.0.2.1", dst=dst, **fields) / UDP() / b"load"


# --- the router


@pytest.fixture
def router(start: Start) -> Target:
    switch = start("router")
    accepted(
        switch,
        Insert("routes", {"dst": (ip("10.1.0.0"), 16)}, "via", {"next_hop": 1, "port": 1}),
        Insert("routes", {"dst": (ip("10.1.2.0"), 24)}, "direct", {"port": 2}),
        Insert("routes", {"dst": (ip("10.1.2.3"), 32)}, "via", {"next_hop": 3, "port": 3}),
        Insert("neighbours", {"ip": 1}, "neighbour", {"mac": 0x11}),
        Insert("neighbours", {"ip": 3}, "neighbour", {"mac": 0x33}),
        Insert("neighbours", {"ip": ip("10.1.2.9")}, "neighbour", {"mac": 0x99}),
        Insert("interfaces", {"port": 3}, "from", {"mac": 0x02AA}),
    )
    return switch


@pytest.mark.parametrize(
    ("dst", "port", "mac"),
    [
        ("10.1.9.9", 1, "00:00:00:00:00:11"),
        ("10.1.2.9", 2, "00:00:00:00:00:99"),
        ("10.1.2.3", 3, "00:00:00:00:00:33"),
    ],
)
def test_the_longest_prefix_wins(router: Target, dst: str, port: int, mac: str) -> None:
    [(to, out)] = leaves(router, 4, packet(dst, ttl=7))
    assert (to, out.dst, out[IP].ttl, out[IP].dst) == (port, mac, 6, dst)
    assert bytes(out[UDP].payload) == b"load"
    written = out[IP].chksum
    del out[IP].chksum
    assert IP(bytes(out[IP])).chksum == written
    if port == 3:
        assert out.src == "00:00:00:00:02:aa"


def test_routes_come_and_go(router: Target) -> None:
    accepted(router, Delete("routes", {"dst": (ip("10.1.2.3"), 32)}))
    assert leaves(router, 4, packet("10.1.2.3")) == []  # its neighbour is not known on port 2
    accepted(router, Insert("neighbours", {"ip": ip("10.1.2.3")}, "neighbour", {"mac": 5}))
    assert [to for to, _ in leaves(router, 4, packet("10.1.2.3"))] == [2]
    assert router.write(
        [
            Delete("routes", {"dst": (ip("10.1.2.3"), 32)}),
            Insert("routes", {"dst": (ip("10.1.2.0"), 24)}, "direct", {"port": 1}),
        ]
    ) == [False, False]
    accepted(router, Default("routes", "direct", {"port": 4}))
    # The default action runs, but a miss is a miss: the neighbour table is not applied.
    [(to, out)] = leaves(router, 1, packet("8.8.8.8", ttl=9))
    assert (to, out.dst, out[IP].ttl) == (4, "02:00:00:00:00:fe", 9)


@pytest.mark.parametrize(
    ("why", "frame"),
    [
        (0, Ether(type=0x86DD) / Raw(bytes(40))),
        (1, Ether(bytes(packet("10.1.9.9"))[:30])),
        (1, packet("10.1.9.9", chksum=0x1234)),
        (1, packet("10.1.9.9", version=6)),
        (2, packet("10.2.0.1")),
        (3, packet("10.1.9.9", ttl=1)),
        (3, packet("10.1.9.9", ttl=0)),
    ],
)
def test_unrouted_frames_are_counted(router: Target, why: int, frame: Ether) -> None:
    size = len(bytes(frame))
    assert leaves(router, 4, frame) == []
    assert leaves(router, 4, frame) == []
    [((_, index), count)] = router.counters().items()
    assert (index, count) == (why, Count(2, 2 * size))


def test_routes_count_their_frames(router: Target) -> None:
    frame = packet("10.1.2.3")
    for _ in range(3):
        leaves(router, 4, frame)
    counts = {key[1]: count for key, count in router.direct_counters().items()}
    assert counts[("dst", (ip("10.1.2.3"), 32)),] == Count(3, 3 * len(bytes(frame)))
    assert counts[("dst", (ip("10.1.0.0"), 16)),] == Count(0, 0)


# --- source routing

INNER = IP(src="192.0.2.1", dst="192.0.2.2", ttl=9) / UDP(sport=1, dport=2) / b"inner"


def routed(*ports: int, rest: bytes | None = None) -> bytes:
    inner = bytes(INNER) if rest is None else rest
    return bytes(Ether(dst="02:00:00:00:00:01", type=SOURCE_ROUTE) / Raw(hops(*ports) + inner))


def test_each_switch_takes_the_first_hop_off(start: Start) -> None:
    switch = start("source_routing")
    [(to, out)] = inject(switch, 1, routed(3, 2, 4))
    assert to == 3
    assert out[14:18] == hops(2, 4)
    [(to, out)] = inject(switch, 1, out)
    [(to, out)] = inject(switch, 1, out)
    assert to == 4
    arrived = Ether(out)
    assert arrived.type == 0x0800  # the last hop leaves an ordinary packet
    assert (arrived[IP].ttl, bytes(arrived[UDP].payload)) == (6, b"inner")
    assert inject(switch, 1, out) == []  # and that has no route any more


def test_a_list_may_have_five_hops_and_no_more(start: Start) -> None:
    switch = start("source_routing")
    [(to, out)] = inject(switch, 1, routed(1, 2, 3, 4, 5))
    assert (to, out[14:22]) == (1, hops(2, 3, 4, 5))
    assert inject(switch, 1, routed(1, 2, 3, 4, 5, 6)) == []
    counted = {index: count.packets for (_, index), count in switch.counters().items()}
    assert counted[5] == 1


def test_a_list_that_ends_with_the_frame_still_travels(start: Start) -> None:
    switch = start("source_routing")
    [(to, out)] = inject(switch, 1, routed(2, 3, rest=b""))
    assert (to, out[14:]) == (2, hops(3))
    whole = routed(2, 3, rest=bytes(INNER)[:11])
    [(to, out)] = inject(switch, 1, whole)
    assert (to, out[14:]) == (2, hops(3) + bytes(INNER)[:11])
    assert inject(switch, 1, whole[:14]) == []
    assert inject(switch, 1, whole[:15]) == []


@pytest.mark.parametrize(("port", "leaving"), [(510, [510]), (511, []), (512, [0]), (0x7FFF, [])])
def test_a_port_is_nine_bits_and_511_drops(start: Start, port: int, leaving: list[int]) -> None:
    assert [to for to, _ in inject(start("source_routing"), 1, routed(port, 1))] == leaving


# --- the access list


def flow(src: str, dst: str, **tcp: int) -> Ether:
    return Ether() / IP(src=src, dst=dst) / TCP(**tcp)


@pytest.fixture
def acl(start: Start) -> Target:
    switch = start("acl")
    ten, all_bits = (ip("10.0.0.0"), 0xFF000000), 0xFFFFFFFF
    both = {"has_ports": 1}
    accepted(
        switch,
        Group(21, ((1, 1), (2, 7), (2, 8), (4, 0xFFFF))),
        Insert(
            "rules", {**both, "src": ten, "port": (80, 90)}, "allow", {"class": 7, "group": 21}, 10
        ),
        Insert("rules", {**both, "src": ten, "protocol": 17}, "redirect", {"port": 3}, 20),
        Insert("rules", {**both, "src": (ip("10.0.0.66"), all_bits)}, "deny", {}, 30),
        Insert("rules", {**both, "dst": (1, 1), "port": (85, 85)}, "redirect", {"port": 4}, 25),
        Insert("rules", {"has_ports": 0, "protocol": 1}, "redirect", {"port": 2}, 5),
    )
    return switch


@pytest.mark.parametrize(
    ("frame", "ports"),
    [
        (flow("10.0.0.1", "10.0.0.2", dport=80), [1, 2, 2, 4]),
        (flow("10.0.0.1", "10.0.0.2", dport=90), [1, 2, 2, 4]),
        (flow("10.0.0.1", "10.0.0.2", dport=85), [1, 2, 2, 4]),
        (flow("10.0.0.1", "10.0.0.3", dport=85), [4]),  # 25 beats 10
        (flow("10.0.0.66", "10.0.0.3", dport=85), []),  # 30 beats 25
        (Ether() / IP(src="10.0.0.1", dst="1.1.1.1") / UDP(dport=80), [3]),  # 20 beats 10
        (Ether() / IP(src="10.0.0.1", dst="1.1.1.1") / ICMP(), [2]),
        (Ether(type=0x86DD) / Raw(bytes(50)), []),
    ],
)
def test_the_highest_priority_wins(acl: Target, frame: Ether, ports: list[int]) -> None:
    assert [to for to, _ in leaves(acl, 9, frame)] == ports


def test_copies_are_numbered_and_pruned(acl: Target) -> None:
    frame = flow("10.0.0.1", "10.0.0.2", dport=80)
    copies = {(to, out[IP].id, out[IP].tos) for to, out in leaves(acl, 9, frame)}
    assert copies == {(1, 1, 7), (2, 7, 7), (2, 8, 7), (4, 0xFFFF, 7)}
    assert {to for to, _ in leaves(acl, 2, frame)} == {1, 4}
    counted = {index: count.packets for (_, index), count in acl.counters().items()}
    assert counted == {1: 2, 2: 2, 4: 2}
    for _, out in leaves(acl, 1, frame):
        assert struct.unpack("!H", bytes(out[IP])[10:12]) == (out[IP].chksum,)
        written = out[IP].chksum
        del out[IP].chksum
        assert IP(bytes(out[IP])).chksum == written


def test_groups_change_while_rules_stay(acl: Target) -> None:
    frame = flow("10.0.0.1", "10.0.0.2", dport=80)
    accepted(acl, Group(21, ((3, 5),)))
    assert [(to, out[IP].id) for to, out in leaves(acl, 9, frame)] == [(3, 5)]
    accepted(acl, Group(21, ()))
    assert leaves(acl, 9, frame) == []
