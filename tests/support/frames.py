"""Builds and reads the frames that workers and the switch exchange.

Deliberately independent of the product's code: the tests compare the product with it.
"""

import struct
from dataclasses import dataclass, field, replace

from wiresum.p4 import packet
from wiresum.p4.packet import Kind, Op, Readers

SWITCH_MAC = bytes.fromhex("020000000001")
SWITCH_IP = bytes([10, 0, 0, 254])


def ones_complement_sum(data: bytes) -> int:
    """RFC 1071's checksum of ``data``."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


@dataclass(frozen=True)
class Host:
    """A worker's place: switch port and addresses."""

    port: int
    mac: bytes
    ip: bytes
    udp_port: int


def host(number: int) -> Host:
    """The test rack's host ``number``: port = number, own addresses and its own UDP port."""
    return Host(number, bytes([2, 0, 0, 0, 1, number]), bytes([10, 0, 0, number]), 40000 + number)


def readers(who: Readers, rank: int = 0) -> int:
    """The byte ``readers`` of a header."""
    return who << packet.READER_BITS | rank


@dataclass(frozen=True)
class Chunk:
    """A wiresum header with lanes (CONTRIBUTION, RESULT) or a bitmap (WAIT, MISMATCH).

    Without lanes a CONTRIBUTION or a RESULT is bare.
    """

    kind: int = Kind.CONTRIBUTION
    op: int = Op.SUM
    job: int = 1
    slot: int = 0
    epoch: int = 1
    chunk: int = 0
    key: int = 0
    fingerprint: int = 0
    version: int = packet.VERSION
    readers: int = 0
    lanes: tuple[int, ...] = field(default=())
    bitmap: int | None = None

    def header(self) -> bytes:
        """The header's bytes."""
        return struct.pack(
            packet.HEADER_FORMAT, self.version, self.kind, self.op, self.readers, self.job,
            self.slot, self.epoch, self.chunk, self.key, self.fingerprint,
        )  # fmt: skip

    def payload(self) -> bytes:
        """The UDP payload."""
        tail = b"" if self.bitmap is None else struct.pack("!Q", self.bitmap)
        return self.header() + struct.pack(f"!{len(self.lanes)}I", *self.lanes) + tail

    @staticmethod
    def parse(payload: bytes) -> "Chunk":
        """Read a UDP payload."""
        values = struct.unpack_from(packet.HEADER_FORMAT, payload)
        fields = dict(zip(packet.HEADER_FIELDS, values, strict=True))
        rest = payload[packet.HEADER_BYTES :]
        if fields["kind"] in (Kind.WAIT, Kind.MISMATCH):
            return Chunk(**fields, bitmap=struct.unpack("!Q", rest)[0])
        return Chunk(**fields, lanes=struct.unpack(f"!{len(rest) // 4}I", rest))

    def but(self, **changes: object) -> "Chunk":
        """A copy with ``changes``."""
        return replace(self, **changes)  # type: ignore[arg-type]


def ipv4(src: bytes, dst: bytes, protocol: int, payload: bytes, ttl: int = 64) -> bytes:
    """An IPv4 packet without options."""
    header = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), 0, 0, ttl, protocol, 0, src, dst
    )
    checksum = ones_complement_sum(header)
    return header[:10] + struct.pack("!H", checksum) + header[12:] + payload


def udp(src_port: int, dst_port: int, payload: bytes, checksum: int = 0) -> bytes:
    """A UDP datagram, by default without a checksum."""
    return struct.pack("!HHHH", src_port, dst_port, 8 + len(payload), checksum) + payload


def ethernet(dst: bytes, src: bytes, kind: int, payload: bytes) -> bytes:
    """An Ethernet frame."""
    return dst + src + struct.pack("!H", kind) + payload


def frame(
    sender: Host, payload: bytes, *, dst_ip: bytes = SWITCH_IP, dst_mac: bytes = SWITCH_MAC,
    dst_port: int = packet.UDP_PORT, checksummed: bool = False,
) -> bytes:  # fmt: skip
    """``payload`` as a UDP datagram from ``sender`` to the switch (or ``dst_ip``)."""
    datagram = udp(sender.udp_port, dst_port, payload)
    if checksummed:
        pseudo = sender.ip + dst_ip + struct.pack("!HH", 17, len(datagram))
        checksum = ones_complement_sum(pseudo + datagram) or 0xFFFF
        datagram = udp(sender.udp_port, dst_port, payload, checksum)
    return ethernet(dst_mac, sender.mac, 0x0800, ipv4(sender.ip, dst_ip, 17, datagram))


@dataclass(frozen=True)
class Delivered:
    """A frame that the switch sent, taken apart; checks everything that must always hold."""

    port: int
    dst_mac: bytes
    dst_ip: bytes
    dst_port: int
    chunk: Chunk
    checksummed: bool = False


def delivered(port: int, data: bytes) -> Delivered:
    """Take a reply apart; raises AssertionError where addresses, lengths or checksum are off."""
    assert data[6:12] == SWITCH_MAC
    assert data[12:14] == b"\x08\x00"
    header = data[14:34]
    assert ones_complement_sum(header) == 0, "IPv4 checksum"
    assert struct.unpack("!H", header[2:4])[0] == len(data) - 14
    assert header[12:16] == SWITCH_IP
    src_port, dst_port, length, checksum = struct.unpack("!HHHH", data[34:42])
    assert src_port == packet.UDP_PORT
    assert length == len(data) - 34
    if checksum != 0:
        pseudo = header[12:] + struct.pack("!HH", 17, length)
        assert ones_complement_sum(pseudo + data[34:]) == 0, "UDP checksum"
    chunk = Chunk.parse(data[42:])
    return Delivered(port, data[:6], header[16:20], dst_port, chunk, checksum != 0)
