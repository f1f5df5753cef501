"""ARP and ping for the switch's address, and ordinary frames between hosts."""

import struct

import pytest

from support.frames import (
    SWITCH_IP,
    SWITCH_MAC,
    ethernet,
    frame,
    host,
    ipv4,
    ones_complement_sum,
)  # fmt: skip
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


def test_what_the_switch_does_not_serve_is_counted(switch):
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
