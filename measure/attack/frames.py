"""The frames of a flood, by kind. Imports no packet library: the sender stays small."""

import random
import socket
import struct
from dataclasses import dataclass
from typing import Any

from wiresum.p4 import packet

KINDS = {
    "none": "no flood: a control",
    "elsewhere": "dropped on the attacker's own host: a control, for what sending costs here",
    "garbage": "full frames to the switch, of no version that it knows",
    "wrong-key": "contributions of the victim's job, right but for the key and the port",
    "pings": "echo requests to the switch, which answers them",
    "socket": "full frames to the UDP socket of one worker",
    "broadcast": "full frames to all hosts",
}
"""Each kind of flood, with its target."""

MTU_PAYLOAD = 1472
_SAMPLES = 64  # different frames, sent in turn
_BROADCAST = b"\xff" * 6


@dataclass(frozen=True)
class Address:
    """A host's addresses."""

    mac: bytes
    ip: bytes
    udp_port: int


@dataclass(frozen=True)
class Target:
    """The facts of a job that its attacker knows; ``lanes`` are the switch program's."""

    switch: Address
    workers: tuple[Address, ...]
    attacker: Address
    job: int
    epoch: int
    lanes: int


def target_of(facts: dict[str, Any]) -> Target:
    """Read a target from JSON values, as the benchmark hands it to the attacker."""

    def address(words: list[Any]) -> Address:
        mac, ip, udp_port = words
        return Address(bytes.fromhex(mac.replace(":", "")), socket.inet_aton(ip), int(udp_port))

    return Target(
        switch=address(facts["switch"]),
        workers=tuple(address(each) for each in facts["workers"]),
        attacker=address(facts["attacker"]),
        job=facts["job"],
        epoch=facts["epoch"],
        lanes=facts["lanes"],
    )


def _checksum(header: bytes) -> int:
    words: tuple[int, ...] = struct.unpack(f"!{len(header) // 2}H", header)
    total = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def _ipv4(source: Address, to: Address, protocol: int, payload: bytes) -> bytes:
    length = packet.IPV4_BYTES + len(payload)
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, length, 0, 0, 64, protocol, 0, source.ip, to.ip)
    head = head[:10] + struct.pack("!H", _checksum(head)) + head[12:]
    return to.mac + source.mac + b"\x08\x00" + head + payload


def _udp(source: Address, to: Address, payload: bytes) -> bytes:
    head = struct.pack("!HHHH", source.udp_port, to.udp_port, packet.UDP_BYTES + len(payload), 0)
    return _ipv4(source, to, 17, head + payload)


def flood(kind: str, target: Target, seed: int = 1) -> list[bytes]:
    """The frames of a flood, to be sent in turn over and over."""
    rng = random.Random(seed)
    made = []
    for number in range(_SAMPLES):
        worker = target.workers[number % len(target.workers)]
        if kind in ("garbage", "elsewhere"):
            payload = bytes([0xEE, packet.Kind.CONTRIBUTION]) + rng.randbytes(MTU_PAYLOAD - 2)
            made.append(_udp(target.attacker, target.switch, payload))
        elif kind == "wrong-key":
            header = struct.pack(
                packet.HEADER_FORMAT, packet.VERSION, packet.Kind.CONTRIBUTION,
                packet.Op.SUM, 0, target.job, number % 16, target.epoch, number,
                rng.getrandbits(64), 7,
            )  # fmt: skip
            made.append(_udp(worker, target.switch, header + rng.randbytes(4 * target.lanes)))
        elif kind == "pings":
            body = struct.pack("!BBHHH", 8, 0, 0, 1, number) + rng.randbytes(MTU_PAYLOAD)
            body = body[:2] + struct.pack("!H", _checksum(body)) + body[4:]
            made.append(_ipv4(target.attacker, target.switch, 1, body))
        elif kind == "socket":
            made.append(_udp(target.attacker, target.workers[0], rng.randbytes(MTU_PAYLOAD)))
        else:
            everybody = Address(_BROADCAST, worker.ip[:3] + b"\xff", 9)
            made.append(_udp(target.attacker, everybody, rng.randbytes(MTU_PAYLOAD)))
    return made
