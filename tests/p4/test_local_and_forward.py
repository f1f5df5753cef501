"""ARP and ping for the switch's address, and ordinary frames between hosts."""

import struct

import pytest

from support.frames import (
    SWITCH_IP,
    SWITCH_MAC,
    Host,
    ethernet,
    frame,
    host,
    ipv4,
    ones_complement_sum,
)  # fmt: skip
from support.targets import install_hosts, remove_hosts
from wiresum.p4.packet import DropReason

BROADCAST = b"\xff" * 6


def arp(oper: int, sender, target_ip: bytes) -> bytes:
    body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, oper)
    return ethernet(
        BROADCAST, sender.mac, 0x0806, body + sender.mac + sender.ip + bytes(6) + target_ip
    )


def test_arp_for_the_switch_is_answered(switch):
    sender = host(2)
    ((port, reply),) = switch.inject(2, arp(1, sender, SWITCH_IP) + bytes(18))
    assert port == 2
    assert reply[:14] == ethernet(sender.mac, SWITCH_MAC, 0x0806, b"")
    body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 2)
    assert reply[14:42] == body + SWITCH_MAC + SWITCH_IP + sender.mac + sender.ip


def test_arp_between_hosts_is_flooded_to_the_other_ports(switch):
    sender = host(1)
    request = arp(1, sender, host(3).ip)
    assert sorted(switch.inject(1, request)) == [(port, request) for port in (2, 3, 4)]


@pytest.mark.parametrize("data", [b"", b"12345678", bytes(range(256)) * 3, b"\xff" * 57])
@pytest.mark.parametrize("identifier", [0, 0xF800, 0xFFFF, 0xF7FF])
def test_ping_is_answered(switch, data, identifier):
    sender = host(1)
    body = struct.pack("!HH", identifier, 7) + data
    checksum = ones_complement_sum(b"\x08\0\0\0" + body)
    echo = struct.pack("!BBH", 8, 0, checksum) + body
    request = ethernet(SWITCH_MAC, sender.mac, 0x0800, ipv4(sender.ip, SWITCH_IP, 1, echo, ttl=3))
    ((port, reply),) = switch.inject(1, request)
    assert port == 1
    assert ones_complement_sum(reply[34:]) == 0
    want = ethernet(sender.mac, SWITCH_MAC, 0x0800, ipv4(SWITCH_IP, sender.ip, 1, reply[34:]))
    assert reply == want
    assert reply[34:36] == b"\0\0"
    assert reply[38:] == body


def test_unserved_packets_for_the_switch_are_counted(switch):
    before = switch.counter("drops", DropReason.LOCAL_UNSERVED)
    sender = host(1)
    assert switch.inject(1, frame(sender, b"hello", dst_port=53)) == []
    assert switch.inject(1, arp(2, sender, SWITCH_IP)) == []
    assert switch.counter("drops", DropReason.LOCAL_UNSERVED) == before + 2


def test_known_stations_get_their_frames_alone(switch):
    sender, receiver = host(1), host(3)
    match = {"mac": int.from_bytes(receiver.mac)}
    switch.insert("l2", match, "to_port", {"port": 3})
    try:
        for data in (
            frame(sender, b"ordinary", dst_ip=receiver.ip, dst_mac=receiver.mac, dst_port=80),
            ethernet(receiver.mac, sender.mac, 0x86DD, bytes(60)),
            frame(
                sender, b"\1" * 1400, dst_ip=receiver.ip, dst_mac=receiver.mac
            ),  # another switch's
        ):
            assert switch.inject(1, data) == [(3, data)]
        before = switch.counter("drops", DropReason.SAME_PORT)
        assert switch.inject(3, ethernet(receiver.mac, sender.mac, 0x86DD, bytes(60))) == []
        assert switch.counter("drops", DropReason.SAME_PORT) == before + 1
    finally:
        switch.remove("l2", match)


def test_unknown_stations_are_flooded_unchanged(switch):
    data = ethernet(b"\x02\0\0\0\x09\x09", host(2).mac, 0x1234, b"payload" * 9)
    assert sorted(switch.inject(2, data)) == [(port, data) for port in (1, 3, 4)]


def test_ip_options_and_fragments_are_ordinary(switch):
    sender, receiver = host(1), host(2)
    plain = frame(sender, bytes(64), dst_ip=receiver.ip, dst_mac=receiver.mac)
    header = bytearray(plain[14:34])
    header[6:8] = b"\x20\x00"  # more fragments
    header[10:12] = b"\0\0"
    header[10:12] = struct.pack("!H", ones_complement_sum(bytes(header)))
    data = plain[:14] + bytes(header) + plain[34:]
    assert sorted(switch.inject(1, data)) == [(port, data) for port in (2, 3, 4)]


@pytest.mark.parametrize("tags", ["81000000", "81000005", "88a80000", "88a8000581000000"])
def test_tagged_frames_are_dropped(switch, tags):
    """Linux takes VLAN 0 for no VLAN: the frame behind the tag would pass unchecked."""
    before = switch.counter("drops", DropReason.TAGGED)
    liar = Host(2, host(2).mac, SWITCH_IP, 22355)
    plain = frame(liar, bytes(64), dst_ip=host(1).ip, dst_mac=host(1).mac, dst_port=40001)
    for data in (plain, arp(2, liar, host(1).ip), frame(host(2), bytes(64))):
        assert switch.inject(2, data[:12] + bytes.fromhex(tags) + data[12:]) == []
    assert switch.counter("drops", DropReason.TAGGED) == before + 3


@pytest.mark.parametrize("last", [0, 1, 2, 14, 15])
def test_link_local_frames_are_dropped(switch, last):
    before = switch.counter("drops", DropReason.LINK_LOCAL)
    data = ethernet(bytes.fromhex("0180c20000") + bytes([last]), host(2).mac, 0x8808, bytes(46))
    assert switch.inject(2, data) == []
    assert switch.counter("drops", DropReason.LINK_LOCAL) == before + 1


def test_other_multicast_addresses_are_flooded(switch):
    for address in ("0180c2000010", "01005e0000fb"):
        data = ethernet(bytes.fromhex(address), host(2).mac, 0x1234, bytes(46))
        assert sorted(switch.inject(2, data)) == [(port, data) for port in (1, 3, 4)]


@pytest.fixture
def bound(switch):
    """Hosts 1 and 2 may speak from their own ports only."""
    install_hosts(switch, [host(1), host(2)])
    yield
    remove_hosts(switch, [host(1), host(2)])


def test_a_hosts_address_cannot_be_borrowed_from_another_port(switch, bound):
    before = switch.counter("drops", DropReason.SPOOFED_SOURCE)
    liar = Host(3, host(3).mac, host(1).ip, 40001)
    for data in (
        frame(liar, bytes(64), dst_ip=host(2).ip, dst_mac=host(2).mac, dst_port=80),
        arp(1, liar, host(2).ip),
        arp(2, liar, host(2).ip),
        arp(2, liar, liar.ip),
    ):
        assert switch.inject(3, data) == []
    assert switch.counter("drops", DropReason.SPOOFED_SOURCE) == before + 4


def test_hosts_speak_from_their_own_port_and_others_from_any(switch, bound):
    known = frame(host(1), bytes(64), dst_ip=host(2).ip, dst_mac=host(2).mac, dst_port=80)
    assert switch.inject(1, known) == [(2, known)]
    question = arp(1, host(1), host(2).ip)
    assert sorted(switch.inject(1, question)) == [(port, question) for port in (2, 3, 4)]
    other = frame(host(3), bytes(64), dst_ip=host(2).ip, dst_mac=host(2).mac, dst_port=80)
    for port in (3, 4):  # the switch has no port for host 3
        assert switch.inject(port, other) == [(2, other)]


def test_a_claimed_mac_diverts_nothing(switch, bound):
    """Frames to a host go to the port of its address, whatever host has claimed its MAC."""
    sender, receiver = host(1), host(2)
    claimed = {"mac": int.from_bytes(receiver.mac)}
    switch.insert("l2", claimed, "to_port", {"port": 4})
    try:
        packet = frame(sender, bytes(64), dst_ip=receiver.ip, dst_mac=receiver.mac, dst_port=80)
        answer = receiver.mac + arp(2, sender, receiver.ip)[6:]
        for data in (packet, answer):
            assert switch.inject(1, data) == [(2, data)]
        group = bytes.fromhex("01005e000001") + packet[6:]
        assert sorted(switch.inject(1, group)) == [(port, group) for port in (2, 3, 4)]
        before = switch.counter("drops", DropReason.SAME_PORT)
        back = frame(host(3), bytes(64), dst_ip=receiver.ip, dst_mac=receiver.mac, dst_port=80)
        assert switch.inject(2, back) == []
        assert switch.counter("drops", DropReason.SAME_PORT) == before + 1
    finally:
        switch.remove("l2", claimed)
