"""A job under attack: contributes chunk by chunk, and holds every result to the integers' sum."""

import random
from collections.abc import Callable

from support.forger import ARP, IPV4, LINK_LOCAL, PROVIDER_VLAN, VLAN, Scene
from support.frames import SWITCH_IP, Chunk, delivered, frame
from support.targets import Target
from wiresum.p4.packet import Kind, Op

Out = list[tuple[int, bytes]]


class Victim:
    """Drives a lease's workers in lockstep; ``before`` runs before every frame of theirs."""

    def __init__(
        self, switch: Target, scene: Scene, seed: int, before: Callable[[], None] = lambda: None
    ) -> None:
        self.switch = switch
        self.scene = scene
        self.before = before
        self.rng = random.Random(seed)

    def send(self, rank: int, chunk: Chunk) -> Out:
        """One frame of a worker; all that leaves."""
        self.before()
        place = self.scene.victim.hosts[rank]
        data = frame(place, chunk.payload())
        self.scene.captured = [*self.scene.captured[-50:], data]
        return self.switch.inject(place.port, data)

    def step(self) -> None:
        """Reduce one chunk, with repeats; every answer must be the right one."""
        lease, number = self.scene.victim, self.scene.chunk
        ranks = list(range(len(lease.hosts)))
        parts = [self._lanes() for _ in ranks]
        op = self.rng.choice([Op.SUM, Op.MAX])
        columns = zip(*parts, strict=True)
        want = tuple(max(c) if op == Op.MAX else sum(c) & 0xFFFFFFFF for c in columns)
        base = Chunk(
            op=op, job=lease.job, slot=number % lease.slots, epoch=lease.epoch,
            chunk=number % (1 << 32), key=lease.key, fingerprint=number % 251,
        )  # fmt: skip
        self.rng.shuffle(ranks)
        for place, rank in enumerate(ranks):
            out = self.send(rank, base.but(lanes=parts[rank]))
            if place < len(ranks) - 1:
                assert out == [], f"chunk {number} was answered early"
                if self.rng.random() < 0.3:
                    ((port, data),) = self.send(rank, base.but(lanes=self._lanes()))
                    waiting = delivered(port, data).chunk
                    assert (port, waiting.kind) == (lease.hosts[rank].port, Kind.WAIT)
                    assert waiting.bitmap == sum(1 << each for each in ranks[: place + 1])
        assert len(out) == len(ranks), f"chunk {number}: {len(out)} results"
        for port, data in out:
            self._check(port, data, base, want)
        if self.rng.random() < 0.3:
            rank = self.rng.choice(ranks)
            ((port, data),) = self.send(rank, base.but(lanes=self._lanes()))
            assert port == lease.hosts[rank].port
            self._check(port, data, base, want)
        self.scene.chunk += 1

    def _check(self, port: int, data: bytes, base: Chunk, want: tuple[int, ...]) -> None:
        reply = delivered(port, data)
        (place,) = [h for h in self.scene.victim.hosts if h.port == port]
        assert (reply.dst_mac, reply.dst_ip, reply.dst_port) == (
            place.mac, place.ip, place.udp_port,
        )  # fmt: skip
        key = self.scene.victim.reply_key
        assert reply.chunk == base.but(kind=Kind.RESULT, lanes=want, key=key)

    def _lanes(self) -> tuple[int, ...]:
        return tuple(self.rng.getrandbits(32) for _ in range(self.scene.lanes))


def harm(scene: Scene, sent: bytes, out: Out) -> str | None:
    """The harm to others of the frames that ``sent`` caused; None if there is none.

    Reads frames as the most trusting host would: tags are taken off, options skipped, and a
    source address is believed.
    """
    mine = scene.attacker.port
    others = {place.ip: place.port for place in scene.victim.hosts}
    for port, data in out:
        source, why = _claimed_source(data)
        own = scene.own is not None and _job(data) == scene.own.job
        if source == SWITCH_IP and not (port == mine and (own or data[12:14] == b"\x08\x06"
                                                          or data[23:24] == b"\x01")):  # fmt: skip
            return f"port {port} gets {why} in the switch's name"
        if port != mine and source in others:
            return f"port {port} gets {why} in a worker's name"
        if port != mine and data[:5] == LINK_LOCAL[:5]:
            return f"port {port} gets what no bridge may forward"
        if port != mine and data != sent:
            return f"port {port} gets what the attacker made the switch say"
    return None


def _claimed_source(data: bytes) -> tuple[bytes, str]:
    at = 12
    while data[at : at + 2] in (VLAN.to_bytes(2), PROVIDER_VLAN.to_bytes(2)):
        at += 4
    kind, rest = data[at : at + 2], data[at + 2 :]
    if kind == IPV4.to_bytes(2):
        return rest[12:16], "a packet"
    if kind == ARP.to_bytes(2):
        return rest[14:18], "ARP"
    return b"", ""


def _job(data: bytes) -> int:
    return int.from_bytes(data[46:48]) if data[12:14] == IPV4.to_bytes(2) else -1
