"""Frames that an attacker with a port of its own may send, whatever they claim to be.

Seeded random: the same seed gives the same frames. The attacker is taken to know everything: the
addresses and ports of the workers, the job's number, epoch and key, and every frame that the
workers have sent so far. What it cannot choose is the port of the switch that it is plugged into.
"""

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from support.frames import (
    SWITCH_IP,
    SWITCH_MAC,
    Chunk,
    Host,
    ethernet,
    ones_complement_sum,
    udp,
)
from support.targets import Lease
from wiresum.p4 import packet
from wiresum.p4.packet import Kind, Op

BROADCAST = b"\xff" * 6
LINK_LOCAL = bytes.fromhex("0180c2000000")
IPV4, ARP, VLAN, PROVIDER_VLAN = 0x0800, 0x0806, 0x8100, 0x88A8
ICMP, UDP = 1, 17
UDP_PAYLOAD = 42  # where it begins in a frame


@dataclass
class Scene:
    """The victim and the attacker. ``own``: the lease of the attacker, if it is a tenant too."""

    lanes: int
    victim: Lease
    attacker: Host
    own: Lease | None = None
    chunk: int = 0
    """About where the victim's chunk numbers are."""
    captured: list[bytes] = field(default_factory=list)
    """Frames that the victim's workers have sent."""


def network_header(
    src: bytes, dst: bytes, protocol: int, payload: bytes, *, version: int = 4, words: int = 5,
    length: int | None = None, fragment: int = 0, ttl: int = 64, spoil: int = 0,
) -> bytes:  # fmt: skip
    """An IPv4 packet; ``words`` > 5 adds options, ``spoil`` is added to a right checksum."""
    options = b"\x01" * (4 * (words - 5))
    total = 4 * words + len(payload) if length is None else length
    head = struct.pack(
        "!BBHHHBBH4s4s", version << 4 | words, 0, total & 0xFFFF, 7, fragment, ttl, protocol, 0,
        src, dst,
    )  # fmt: skip
    checksum = (ones_complement_sum(head + options) + spoil) & 0xFFFF
    return head[:10] + struct.pack("!H", checksum) + head[12:] + options + payload


class Forger:
    """Makes frames for one scene."""

    def __init__(self, scene: Scene, seed: int) -> None:
        self.scene = scene
        self.rng = random.Random(seed)
        self._kinds: list[tuple[int, Callable[[], bytes]]] = [
            (6, self.contribution), (2, self.reply_to_switch), (5, self.reply_to_worker),
            (3, self.replay), (3, self.arp), (3, self.icmp), (1, self.noise), (1, self.control),
            (5, self.answer), (2, self.impersonation),
        ]  # fmt: skip
        if scene.own is not None:
            self._kinds.append((8, self.tenant))

    def frame(self) -> bytes:
        """The next frame."""
        weights, makers = zip(*self._kinds, strict=True)
        made: bytes = self.rng.choices(makers, weights)[0]()
        return self._mangled(made)

    # -- parts -----------------------------------------------------------------------------------

    def _worker(self) -> Host:
        return self.rng.choice(self.scene.victim.hosts)

    def _sender(self) -> Host:
        """Whom a frame claims to be from."""
        switch = Host(0, SWITCH_MAC, SWITCH_IP, packet.UDP_PORT)
        return self.rng.choice([self._worker(), self._worker(), self.scene.attacker, switch])

    def _lie(self, bits: int, near: int) -> int:
        """A number of ``bits`` bits: near the true one, at the edges, or any."""
        choice = self.rng.randrange(4)
        if choice == 0:
            return (near + self.rng.choice([-2, -1, 1, 2])) % (1 << bits)
        if choice == 1:
            return self.rng.choice([0, 1, (1 << bits) - 1, 1 << (bits - 1), (1 << bits - 1) - 1])
        if choice == 2:
            return near ^ 1 << self.rng.randrange(bits)
        return self.rng.getrandbits(bits)

    def _lanes(self) -> tuple[int, ...]:
        if self.rng.random() < 0.2:
            return ()  # bare
        value = self.rng.choice([0, 1, 0xFFFFFFFF, self.rng.getrandbits(32)])
        return (value,) * self.scene.lanes

    def _chunk(self, lease: Lease) -> Chunk:
        """A contribution to ``lease`` that is right, or has one or more lies."""
        position = self.scene.chunk + self.rng.randrange(-2 * lease.slots, 2 * lease.slots)
        chunk = Chunk(
            op=self.rng.choice([Op.SUM, Op.MAX]), job=lease.job, slot=position % lease.slots,
            epoch=lease.epoch, chunk=position % (1 << 32), key=lease.key, fingerprint=77,
            lanes=self._lanes(),
        )  # fmt: skip
        fields = {
            "op": 8, "job": 16, "slot": 16, "epoch": 32, "chunk": 32, "key": 64,
            "fingerprint": 32, "version": 8, "readers": 8,
        }  # fmt: skip
        for name in self.rng.sample(list(fields), self.rng.choice([0, 0, 1, 1, 2, 4])):
            chunk = chunk.but(**{name: self._lie(fields[name], getattr(chunk, name))})
        return chunk

    def _datagram(
        self, sender: Host, dst: Host, payload: bytes, src_port: int | None = None
    ) -> bytes:
        body = udp(sender.udp_port if src_port is None else src_port, dst.udp_port, payload)
        network = network_header(sender.ip, dst.ip, UDP, body)
        return ethernet(dst.mac, sender.mac, IPV4, network)

    @property
    def _switch(self) -> Host:
        return Host(0, SWITCH_MAC, SWITCH_IP, packet.UDP_PORT)

    # -- forged frames ---------------------------------------------------------------------------

    def contribution(self) -> bytes:
        """To the switch, as a worker of the victim's job."""
        payload = self._chunk(self.scene.victim).payload()
        return self._datagram(self._sender(), self._switch, payload)

    def _reply(self) -> bytes:
        chunk = self._chunk(self.scene.victim)
        kind = self.rng.choice([Kind.RESULT, Kind.RESULT, Kind.WAIT, Kind.MISMATCH, 0, 255])
        if kind in (Kind.WAIT, Kind.MISMATCH):
            chunk = chunk.but(lanes=(), bitmap=self.rng.getrandbits(64))
        return self._of_the_switch(chunk).but(kind=kind).payload()

    def _of_the_switch(self, chunk: Chunk) -> Chunk:
        """With the key that replies carry, now and then with the other one."""
        victim = self.scene.victim
        return chunk.but(key=self.rng.choice([victim.reply_key, victim.reply_key, victim.key]))

    def reply_to_switch(self) -> bytes:
        """Replies, which only a switch may send, to the switch."""
        return self._datagram(self._sender(), self._switch, self._reply())

    def reply_to_worker(self) -> bytes:
        """Replies, which only a switch may send, straight to a worker."""
        sender, to = self._sender(), self._worker()
        src_port = self.rng.choice([packet.UDP_PORT, packet.UDP_PORT, sender.udp_port])
        return self._datagram(sender, to, self._reply(), src_port)

    def replay(self) -> bytes:
        """A worker's own frame, unchanged or with a few bits changed."""
        if not self.scene.captured:
            return self.contribution()
        copy = bytearray(self.rng.choice(self.scene.captured))
        for _ in range(self.rng.choice([0, 0, 1, 3])):
            copy[self.rng.randrange(len(copy))] ^= 1 << self.rng.randrange(8)
        return bytes(copy)

    def answer(self) -> bytes:
        """The answer that a worker waits for, with other lanes."""
        if not self.scene.captured:
            return self.reply_to_worker()
        chunk = Chunk.parse(self.rng.choice(self.scene.captured)[UDP_PAYLOAD:])
        kind = self.rng.choice([Kind.RESULT, Kind.RESULT, Kind.RESULT, Kind.WAIT, Kind.MISMATCH])
        if kind == Kind.RESULT:
            chunk = chunk.but(kind=kind, lanes=self._lanes())
        else:
            chunk = chunk.but(kind=kind, lanes=(), bitmap=self.rng.getrandbits(64))
        payload = self._of_the_switch(chunk).payload()
        frame = self._datagram(self._switch, self._worker(), payload, packet.UDP_PORT)
        return self._tagged(frame) if self.rng.random() < 0.5 else frame

    def impersonation(self) -> bytes:
        """One worker's contribution, in the name of another that has not sent its own."""
        if not self.scene.captured:
            return self.contribution()
        chunk = Chunk.parse(self.rng.choice(self.scene.captured)[UDP_PAYLOAD:])
        payload = chunk.but(lanes=self._lanes()).payload()
        return self._datagram(self._worker(), self._switch, payload)

    def arp(self) -> bytes:
        """ARP that claims, or asks for, an address of another host."""
        sender, target = self._sender(), self._sender()
        oper = self.rng.choice([1, 2, 2, 3])
        mac = self.rng.choice([sender.mac, self.scene.attacker.mac, SWITCH_MAC])
        body = struct.pack("!HHBBH", 1, IPV4, 6, 4, oper)
        body += mac + sender.ip + target.mac + target.ip + bytes(self.rng.choice([0, 18]))
        return ethernet(self.rng.choice([BROADCAST, target.mac]), mac, ARP, body)

    def icmp(self) -> bytes:
        """Echoes in another's name; errors about a worker's frames to the switch."""
        sender, to = self._sender(), self.rng.choice([self._worker(), self._switch])
        worker = self._worker()
        if self.rng.random() < 0.4:
            body = struct.pack("!BBHHH", self.rng.choice([0, 8]), 0, 0, 1, 1) + b"x" * 32
        else:
            sent = udp(worker.udp_port, packet.UDP_PORT, bytes(packet.HEADER_BYTES))
            quoted = network_header(worker.ip, SWITCH_IP, UDP, sent)
            kind, code = self.rng.choice([(3, 1), (3, 3), (3, 4), (5, 1), (11, 0), (12, 0), (4, 0)])
            rest = struct.pack("!HH", 0, 576) if (kind, code) == (3, 4) else sender.ip
            body = struct.pack("!BBH", kind, code, 0) + rest + quoted
        body = body[:2] + struct.pack("!H", ones_complement_sum(body)) + body[4:]
        return ethernet(to.mac, sender.mac, IPV4, network_header(sender.ip, to.ip, ICMP, body))

    def noise(self) -> bytes:
        """Anything at all."""
        head = self.rng.choice([BROADCAST, SWITCH_MAC, self._worker().mac]) + self._sender().mac
        kind = self.rng.choice([IPV4, ARP, VLAN, 0x86DD, 46, self.rng.getrandbits(16)])
        return head + struct.pack("!H", kind) + self.rng.randbytes(self.rng.randrange(400))

    def control(self) -> bytes:
        """Frames between bridges: PAUSE, spanning tree, LACP."""
        dst = LINK_LOCAL[:5] + bytes([self.rng.choice([0, 1, 2, 3, 14, 15])])
        kind = self.rng.choice([0x8808, 0x8809, 0x88CC, 38])
        return ethernet(dst, self.scene.attacker.mac, kind, b"\0\1\xff\xff" + bytes(42))

    def tenant(self) -> bytes:
        """From a rank of the attacker's own job: correct, or beyond its own lease."""
        assert self.scene.own is not None
        chunk = self._chunk(self.scene.own)
        if self.rng.random() < 0.3:
            victim = self.scene.victim
            reach = self.rng.choice([
                {"job": victim.job}, {"key": victim.key}, {"epoch": victim.epoch},
                {"key": self.scene.own.reply_key},
                {"job": victim.job, "key": victim.key}, {"fingerprint": self.rng.getrandbits(32)},
                {"job": victim.job, "epoch": victim.epoch, "key": victim.key},
                {"slot": (victim.slot_base - self.scene.own.slot_base) % (1 << 16)},
                {"slot": self.rng.randrange(self.scene.own.slots, packet.SLOTS)},
            ])  # fmt: skip
            chunk = chunk.but(**reach)
        sender = self.rng.choice(self.scene.own.hosts)
        return self._datagram(sender, self._switch, chunk.payload())

    # -- and how it is bent ----------------------------------------------------------------------

    def _mangled(self, frame: bytes) -> bytes:
        """The frame as it is, or bent so that one may read it otherwise than another."""
        roll = self.rng.random()
        if roll < 0.5 or len(frame) < 42:
            return frame
        if roll < 0.62:
            return self._tagged(frame)
        if roll < 0.70:
            keep = self.rng.randrange(1, len(frame))
            return frame[:keep]
        if roll < 0.76:
            return frame + self.rng.randbytes(self.rng.randrange(1, 90))
        if roll < 0.82:
            dst = self.rng.choice([BROADCAST, SWITCH_MAC, self._worker().mac, LINK_LOCAL,
                                   self.scene.attacker.mac, self.rng.randbytes(6)])  # fmt: skip
            return dst + frame[6:]
        if frame[12:14] != struct.pack("!H", IPV4):
            return frame
        return self._other_header(frame)

    def _tagged(self, frame: bytes) -> bytes:
        tags = b""
        for _ in range(self.rng.choice([1, 1, 2, 3])):
            kind = self.rng.choice([VLAN, VLAN, PROVIDER_VLAN])
            tags += struct.pack("!HH", kind, self.rng.choice([0, 0, 0x2000, 5, 4095]))
        return frame[:12] + tags + frame[12:]

    def _other_header(self, frame: bytes) -> bytes:
        src, dst, protocol, body = frame[26:30], frame[30:34], frame[23], frame[34:]
        kind = self.rng.randrange(6)
        options: dict[str, int] = {}
        if kind == 0:
            options = {"words": self.rng.randrange(6, 16)}
        elif kind == 1:
            options = {"fragment": self.rng.choice([0x2000, 0x2001, 0x0001, 0x1FFF, 0x4000])}
        elif kind == 2:
            options = {"length": self.rng.randrange(0, 2 * len(frame))}
        elif kind == 3:
            options = {"version": self.rng.choice([0, 5, 6, 15]), "ttl": self.rng.choice([0, 1])}
        elif kind == 4:
            options = {"spoil": self.rng.randrange(1, 0xFFFF)}
        elif len(body) >= 8:
            body = body[:4] + struct.pack("!H", self.rng.randrange(0, 2 * len(body))) + body[6:]
        network = network_header(src, dst, protocol, body, **options)
        return frame[:14] + network
