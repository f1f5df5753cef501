"""Frames for the fuzzer: good ones of several protocols, and ways to spoil them."""

import random
import struct
from dataclasses import dataclass, replace

from wiresum.p4 import packet

ETHERNET_IPV4 = 0x0800
ETHERNET_ARP = 0x0806
ICMP, TCP, UDP = 1, 6, 17


def internet_checksum(data: bytes) -> int:
    """RFC 1071's checksum."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


@dataclass(frozen=True)
class Station:
    """A host: the switch port that it is behind, and its addresses."""

    port: int
    mac: int
    ip: int
    udp_port: int


@dataclass(frozen=True)
class Header:
    """A wiresum header."""

    version: int = packet.VERSION
    kind: int = packet.Kind.CONTRIBUTION
    op: int = packet.Op.SUM
    readers: int = 0
    job: int = 0
    slot: int = 0
    epoch: int = 0
    chunk: int = 0
    key: int = 0
    fingerprint: int = 0

    def pack(self) -> bytes:
        """Its bytes."""
        values = [getattr(self, name) for name in packet.HEADER_FIELDS]
        return struct.pack(packet.HEADER_FORMAT, *values)

    def but(self, **changes: int) -> "Header":
        """A copy with ``changes``."""
        return replace(self, **changes)


def ethernet(dst: int, src: int, kind: int, payload: bytes) -> bytes:
    """An Ethernet frame without its check sequence."""
    return dst.to_bytes(6) + src.to_bytes(6) + kind.to_bytes(2) + payload


def ipv4(
    src: int,
    dst: int,
    protocol: int,
    payload: bytes,
    *,
    ttl: int = 64,
    fragment: int = 0,
    options: bytes = b"",
    tos: int = 0,
    identification: int = 0,
    length: int | None = None,
) -> bytes:
    """An IPv4 packet with the right header checksum; ``length``: what it claims to be."""
    words = 5 + len(options) // 4
    total = 4 * words + len(payload) if length is None else length
    header = struct.pack(
        "!BBHHHBBHII",
        0x40 | words, tos, total, identification, fragment, ttl, protocol, 0, src, dst,
    ) + options  # fmt: skip
    checksum = internet_checksum(header)
    return header[:10] + struct.pack("!H", checksum) + header[12:] + payload


def udp(src: int, dst: int, payload: bytes, length: int | None = None, checksum: int = 0) -> bytes:
    """A UDP datagram; ``length``: what it claims to be."""
    claimed = 8 + len(payload) if length is None else length
    return struct.pack("!HHHH", src, dst, claimed, checksum) + payload


def with_checksum(src: int, dst: int, datagram: bytes) -> bytes:
    """The UDP datagram between these IPv4 addresses with the right checksum."""
    pseudo = struct.pack("!IIHH", src, dst, UDP, len(datagram))
    bare = datagram[:6] + bytes(2) + datagram[8:]
    return datagram[:6] + (internet_checksum(pseudo + bare) or 0xFFFF).to_bytes(2) + datagram[8:]


def arp(operation: int, mac: int, ip: int, target_mac: int, target_ip: int) -> bytes:
    """An ARP packet for IPv4 over Ethernet."""
    head = struct.pack("!HHBBH", 1, ETHERNET_IPV4, 6, 4, operation)
    return head + mac.to_bytes(6) + ip.to_bytes(4) + target_mac.to_bytes(6) + target_ip.to_bytes(4)


def icmp_echo(payload: bytes, kind: int = 8) -> bytes:
    """An ICMP echo with the right checksum."""
    checksum = internet_checksum(bytes([kind, 0, 0, 0]) + payload)
    return bytes([kind, 0]) + checksum.to_bytes(2) + payload


def spoil(draw: random.Random, frame: bytes) -> tuple[bytes, str]:
    """The frame (of 2 bytes or more) with something wrong with it, and what.

    Never empty: no link carries such a frame, and BMv2's dataplane service skips it.
    """
    how = draw.randrange(6)
    data = bytearray(frame)
    if how == 0:
        for _ in range(draw.randint(1, 3)):
            data[draw.randrange(min(len(data), 80))] ^= 1 << draw.randrange(8)
        return bytes(data), "bits flipped in the headers"
    if how == 1:
        data[draw.randrange(len(data))] = draw.getrandbits(8)
        return bytes(data), "a byte changed"
    if how == 2:
        return frame[: draw.randrange(1, len(frame))], "truncated"
    if how == 3:
        return frame[: draw.randrange(1, min(len(frame), 75))], "truncated in the headers"
    if how == 4:
        return frame + draw.randbytes(draw.randint(1, 64)), "with bytes behind its end"
    at = draw.randrange(min(len(data), 80))
    data[at : at + draw.randint(1, 8)] = draw.randbytes(draw.randint(0, 8))
    return bytes(data) or b"\0", "bytes replaced, lost or inserted"


def garbage(draw: random.Random) -> bytes:
    """Random bytes of any length but 0, often with a type of Ethernet that parsers go into."""
    data = draw.randbytes(draw.choice([1, 13, 14, draw.randint(2, 90), draw.randint(14, 600)]))
    if len(data) >= 14 and draw.random() < 0.7:
        kind = draw.choice([ETHERNET_IPV4, ETHERNET_ARP, 0x86DD, 0x8100])
        data = data[:12] + kind.to_bytes(2) + data[14:]
        if kind == ETHERNET_IPV4 and len(data) > 24 and draw.random() < 0.7:
            protocol = draw.choice([ICMP, TCP, UDP])
            data = data[:14] + b"\x45" + data[15:20] + b"\0\0" + data[22:23] + bytes([protocol]) + (
                data[24:]
            )  # fmt: skip
    return data
