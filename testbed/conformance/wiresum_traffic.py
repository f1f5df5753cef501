"""Random traffic for wiresum's own program: leases, workers, forged packets and other hosts."""

import random
from dataclasses import dataclass, field

from wiresum import p4
from wiresum.p4 import packet
from wiresum.testbed.conformance import frames
from wiresum.testbed.conformance.frames import Header, Station
from wiresum.testbed.conformance.scenario import Packet, Scenario, Step, Writes
from wiresum.testbed.conformance.target import (
    PROBE_TAIL_BYTES,
    Delete,
    Group,
    Insert,
    Modify,
    Probe,
    Write,
)

SWITCH_MAC = 0x0200_0000_0001
SWITCH_IP = 0x0A00_00FE
SECOND_IP = 0x0A00_00FD
PORTS = (1, 2, 3, 4)
JOB_NUMBERS = (1, 2, 3, 7, packet.JOBS - 1)
BROADCAST = 0xFFFF_FFFF_FFFF
LINK_LOCAL = 0x0180_C200_0001

# BMv2 has room for so many bytes more than a frame came with (new_packet in simple_switch.cpp), and
# no check: it ends where a bare contribution would become a RESULT with more lanes.
BMV2_GROWTH_BYTES = 512

_DISORDER = 512
_EPOCHS_EACH = 32
_FIRST_EPOCH = 0xFFFFFFFF - 1000 * _EPOCHS_EACH

_SETUP: tuple[Write, ...] = (
    Insert("addresses", {"ip": SWITCH_IP}, "switch_address", {"mac": SWITCH_MAC}),
    Insert("addresses", {"ip": SECOND_IP}, "switch_address", {"mac": SWITCH_MAC + 1}),
    Insert("own_source", {"ip": SWITCH_IP}, "spoofed_source"),
    Group(packet.FLOOD_GROUP, tuple((port, port) for port in PORTS)),
)


def _probe(port: int) -> Probe:
    """A ping of the switch from ``port``."""
    echo = bytes([8, 0, 0, 0])
    length = 20 + len(echo) + PROBE_TAIL_BYTES
    head = frames.ipv4(0x0AFF0001, SWITCH_IP, frames.ICMP, echo, length=length)
    return Probe(port, frames.ethernet(SWITCH_MAC, 0x02FF_0000_0001, frames.ETHERNET_IPV4, head))


def station(number: int) -> Station:
    """Host ``number``: several may be behind one port."""
    port = PORTS[number % len(PORTS)]
    return Station(port, 0x0200_0000_0100 + number, 0x0A00_0001 + number, 40000 + number)


@dataclass
class _Lease:
    job: int
    epoch: int
    key: int
    reply_key: int
    base: int
    slots: int
    workers: list[Station]
    op: int
    first: int
    """Chunk at position 0."""
    readers: list[int]
    """Of positions, in turn."""
    at: int = 0
    """Position that the workers have got to."""
    touched: dict[int, int] = field(default_factory=dict)
    """By slot, the newest position that anybody has sent."""

    @property
    def group(self) -> int:
        return packet.JOB_GROUPS + self.job

    def key_of(self, rank: int) -> dict[str, int]:
        worker = self.workers[rank]
        return {
            "ingress_port": worker.port,
            "ip": worker.ip,
            "udp_port": worker.udp_port,
            "job": self.job,
            "epoch": self.epoch,
            "key": self.key,
        }

    def member(self, rank: int) -> dict[str, int]:
        return {
            "worker": rank,
            "worker_bit": 1 << rank,
            "full": (1 << len(self.workers)) - 1,
            "slot_base": self.base,
            "slot_count": self.slots,
            "group": self.group,
            "reply_key": self.reply_key,
        }

    def members(self) -> list[Write]:
        ranks = range(len(self.workers))
        return [Insert("membership", self.key_of(r), "member", self.member(r)) for r in ranks]

    def delivery(self) -> list[Write]:
        out: list[Write] = [
            Group(self.group, tuple((w.port, r + 1) for r, w in enumerate(self.workers)))
        ]
        for rank, worker in enumerate(self.workers):
            place = {"mac": worker.mac, "ip": worker.ip, "udp_port": worker.udp_port}
            key = {"job": self.job, "worker": rank}
            out.append(Insert("deliver", key, "deliver_to", place))
        return out

    def header(self, position: int) -> Header:
        return Header(
            op=self.op,
            job=self.job,
            slot=position % self.slots,
            epoch=self.epoch,
            chunk=(self.first + position) & 0xFFFFFFFF,
            key=self.key,
            fingerprint=position * 0x9E3779B1 & 0xFFFFFFFF,
            readers=self.readers[position % len(self.readers)],
        )


class _Traffic:
    """One sequence in the making."""

    def __init__(self, draw: random.Random, number: int, lanes: int) -> None:
        self.draw = draw
        self.next_epoch = (_FIRST_EPOCH + _EPOCHS_EACH * number) % 0xFFFFFFFF + 1
        self.lanes = lanes
        self.steps: list[Step] = []
        jobs = draw.sample(JOB_NUMBERS, draw.choice([1, 1, 2, 3]))
        self.leases = [self.lease(job) for job in jobs]

    def lease(self, job: int) -> _Lease:
        draw = self.draw
        slots = draw.choice([1, 2, 2, 4, 8])
        # As the controller promises, most epochs are newer than all before (and wrap on the way).
        # Those that are not have slots of their own: the values that they leave make many later
        # ones stale.
        if draw.random() < 0.8:
            epoch = self.next_epoch
            self.next_epoch = epoch % 0xFFFFFFFF + 1
            base = draw.randrange(_DISORDER, packet.SLOTS - slots + 1)
            if draw.random() < 0.2:
                base = packet.SLOTS - slots
        else:
            epoch = draw.choice([1, 0x7FFFFFFF, 0xFFFFFFFF, draw.randint(1, 0xFFFFFFFF)])
            base = draw.choice([0, draw.randrange(_DISORDER - slots)])
        # A worker of its own port each: two copies out of one port would fill its queue sooner.
        workers = [station(n) for n in draw.sample(range(len(PORTS)), draw.randint(1, len(PORTS)))]
        return _Lease(
            job=job,
            epoch=epoch,
            key=draw.getrandbits(64),
            reply_key=draw.getrandbits(64),
            base=base,
            slots=slots,
            workers=workers,
            op=draw.choice(list(packet.Op)),
            readers=[self.readers(len(workers)) for _ in range(draw.choice([1, 3, 5]))],
            first=draw.choice([0, 0xFFFFFFFE, 0x7FFFFFFF, draw.getrandbits(32)]),
        )

    def readers(self, workers: int) -> int:
        """The byte of a header; now and then a rank that the job does not have."""
        who = self.draw.choice(list(packet.Readers))
        rank = self.draw.randrange(workers + (self.draw.random() < 0.05))
        return int(who) << packet.READER_BITS | (0 if who == packet.Readers.ALL else rank)

    def values(self) -> bytes:
        """Lanes, or nothing for a bare contribution."""
        draw = self.draw
        if 4 * self.lanes <= BMV2_GROWTH_BYTES and draw.random() < 0.4:
            return b""
        if draw.random() < 0.1:  # carries into the next lane would show
            return b"\xff" * (4 * self.lanes)
        return draw.randbytes(4 * self.lanes)

    def wrap(
        self, worker: Station, payload: bytes, *, ttl: int = 64, tos: int = 0, fragment: int = 0
    ) -> bytes:
        # None, the right one, or now and then another. A RESULT has one where the contribution had.
        datagram = frames.udp(worker.udp_port, packet.UDP_PORT, payload)
        kind = self.draw.randrange(8)
        if kind > 3:
            datagram = frames.with_checksum(worker.ip, SWITCH_IP, datagram)
        if kind == 7:
            datagram = datagram[:6] + self.draw.randbytes(2) + datagram[8:]
        inner = frames.ipv4(
            worker.ip, SWITCH_IP, frames.UDP, datagram, ttl=ttl, tos=tos, fragment=fragment
        )
        return frames.ethernet(SWITCH_MAC, worker.mac, frames.ETHERNET_IPV4, inner)

    def add(self, port: int, frame: bytes, what: str) -> None:
        self.steps.append(Packet(port, frame, what))

    # --- what workers send

    def contribution(self, lease: _Lease, rank: int, position: int, note: str = "") -> None:
        slot = position % lease.slots
        lease.touched[slot] = max(position, lease.touched.get(slot, 0))
        worker = lease.workers[rank]
        frame = self.wrap(worker, lease.header(position).pack() + self.values())
        self.add(worker.port, frame, f"job {lease.job} rank {rank} position {position} {note}")

    def round(self, lease: _Lease) -> None:
        """All ranks send one chunk, with losses and repetitions."""
        draw = self.draw
        lease.at += draw.choice([0, 1, 1, 1, 2])
        position = max(0, lease.at - draw.choice([0, 0, 0, 0, 1, lease.slots]))
        ranks = [r for r in range(len(lease.workers)) for _ in range(draw.choice([0, 1, 1, 1, 2]))]
        draw.shuffle(ranks)
        for rank in ranks:
            self.contribution(lease, rank, position)

    def near_miss(self, lease: _Lease) -> None:
        """A contribution with one thing wrong that the program looks at."""
        draw = self.draw
        rank = draw.randrange(len(lease.workers))
        worker = lease.workers[rank]
        header = lease.header(lease.at + draw.randint(0, 1))
        tail = self.values()
        port = worker.port
        ttl, tos, fragment = 64, 0, 0
        what = draw.randrange(16)
        if what == 0:
            others = [v for v in (0, 1, 2, 3, 4, 255) if v != packet.VERSION]
            header = header.but(version=draw.choice(others))
        elif what == 1:
            header = header.but(readers=draw.getrandbits(8))
        elif what == 2:
            header = header.but(kind=draw.choice([0, 2, 3, 4, 5, 255]))
        elif what == 3:
            header = header.but(op=draw.choice([0, 1, 2, 255]))
        elif what == 4:
            header = header.but(job=draw.choice([0, *JOB_NUMBERS, packet.JOBS, 0xFFFF]))
        elif what == 5:
            header = header.but(slot=draw.choice([lease.slots, lease.slots + 1, 4095, 0xFFFF]))
        elif what == 6:
            header = header.but(epoch=(lease.epoch + draw.choice([-1, 1, 1 << 31])) & 0xFFFFFFFF)
        elif what == 7:
            header = header.but(chunk=(header.chunk + draw.choice([-1, 1, 1 << 31])) & 0xFFFFFFFF)
        elif what == 8:
            header = header.but(
                key=draw.choice([lease.reply_key, header.key ^ 1 << draw.randrange(64)])
            )
        elif what == 9:
            header = header.but(fingerprint=draw.getrandbits(32))
        elif what == 10:
            tail = draw.randbytes(draw.randrange(1, 4 * self.lanes))
        elif what == 11:
            tail += draw.randbytes(draw.randint(1, 40))
        elif what == 12:
            port = draw.choice([p for p in (*PORTS, 5, 0, 510) if p != port])
        elif what == 13:
            worker = station(draw.randrange(8))
        elif what == 14:
            ttl, tos = draw.choice([0, 1, 255]), draw.getrandbits(8)
        else:
            fragment = draw.choice([1, 0x2000, 0x4000, 0x8000, draw.getrandbits(16)])
        frame = self.wrap(worker, header.pack() + tail, ttl=ttl, tos=tos, fragment=fragment)
        self.add(port, frame, f"near miss {what}")

    def mutant(self, lease: _Lease) -> None:
        rank = self.draw.randrange(len(lease.workers))
        worker = lease.workers[rank]
        position = lease.at + self.draw.randint(0, 1)
        good = self.wrap(worker, lease.header(position).pack() + self.values())
        frame, what = frames.spoil(self.draw, good)
        self.add(worker.port, frame, f"contribution {what}")

    # --- everybody else

    def other(self) -> None:
        """Ordinary traffic, sometimes spoilt."""
        draw = self.draw
        who = station(draw.randrange(6))
        port = who.port if draw.random() < 0.9 else draw.choice([0, 5, 9, 510])
        whom = draw.choice([SWITCH_IP, SECOND_IP, station(draw.randrange(6)).ip])
        source = who.ip if draw.random() < 0.9 else SWITCH_IP
        mac = draw.choice([SWITCH_MAC, BROADCAST, LINK_LOCAL, station(draw.randrange(6)).mac])
        kind = draw.randrange(7)
        payload = draw.randbytes(draw.choice([0, 1, 8, draw.randrange(200)]))
        if kind == 0:
            body = frames.arp(draw.choice([1, 1, 2, 9]), who.mac, source, 0, whom)
            frame = frames.ethernet(mac, who.mac, frames.ETHERNET_ARP, body)
        elif kind == 1:
            echo = frames.icmp_echo(payload, draw.choice([8, 8, 8, 0, 3]))
            inner = frames.ipv4(source, whom, frames.ICMP, echo)
            frame = frames.ethernet(mac, who.mac, frames.ETHERNET_IPV4, inner)
        elif kind == 2:
            datagram = frames.udp(who.udp_port, draw.choice([53, packet.UDP_PORT]), payload)
            inner = frames.ipv4(source, whom, frames.UDP, datagram)
            frame = frames.ethernet(mac, who.mac, frames.ETHERNET_IPV4, inner)
        elif kind == 3:
            inner = frames.ipv4(source, whom, frames.TCP, draw.randbytes(20) + payload)
            frame = frames.ethernet(mac, who.mac, frames.ETHERNET_IPV4, inner)
        elif kind == 4:  # options: never wiresum's
            datagram = frames.udp(who.udp_port, packet.UDP_PORT, payload)
            options = draw.randbytes(4 * draw.randint(1, 10))
            inner = frames.ipv4(source, whom, frames.UDP, datagram, options=options)
            frame = frames.ethernet(mac, who.mac, frames.ETHERNET_IPV4, inner)
        elif kind == 5:
            frame = frames.ethernet(
                mac, who.mac, draw.choice([0x86DD, 0x8100, 0x88A8, 0x88CC]), payload
            )
        else:
            size = draw.choice([1400, 1500, 9000])
            frame = frames.ethernet(mac, who.mac, 0x86DD, draw.randbytes(size))
        what = f"other traffic {kind}"
        if draw.random() < 0.25 and frame:
            frame, spoilt = frames.spoil(draw, frame)
            what += f" {spoilt}"
        self.add(port, frame, what)

    # --- the control plane

    def table_writes(self) -> None:
        """Writes that a controller makes, and writes that it never makes."""
        draw = self.draw
        lease = draw.choice(self.leases)
        rank = draw.randrange(len(lease.workers))
        key = lease.key_of(rank)
        mac = {"mac": station(draw.randrange(6)).mac}
        ip = {"ip": station(draw.randrange(6)).ip}
        writes: list[Write]
        what = draw.randrange(11)
        if what == 0:  # a restart: all ranks move to the next epoch
            writes = [Delete("membership", lease.key_of(r)) for r in range(len(lease.workers))]
            lease.epoch = self.next_epoch
            self.next_epoch = lease.epoch % 0xFFFFFFFF + 1
            writes += lease.members()
            lease.touched.clear()
        elif what == 1:
            writes = [Delete("membership", key)]
        elif what == 2:  # there already, unless it was withdrawn
            writes = [Insert("membership", key, "member", lease.member(rank))]
        elif what == 3:
            writes = [Modify("membership", key, "member", lease.member(rank))]
        elif what == 4:
            writes = [Delete("deliver", {"job": lease.job, "worker": rank})]
        elif what == 5:
            ports = draw.sample(PORTS, draw.randint(0, len(PORTS)))
            writes = [Group(lease.group, tuple((p, draw.randint(0, 5)) for p in ports))]
        elif what == 6:
            writes = [Insert("l2", mac, "to_port", {"port": draw.choice([*PORTS, 8, 510, 511])})]
        elif what == 7:
            writes = [Modify("l2", mac, "flood"), Delete("l2", mac)]
        elif what == 8:  # a host has moved, or was not known
            where = {"port": draw.choice(PORTS)}
            writes = [Modify("hosts", ip, "behind", where), Insert("hosts", ip, "behind", where)]
        elif what == 9:
            writes = [Modify("routes", ip, "to_port", {"port": draw.choice([*PORTS, 8, 510])})]
        else:
            writes = [Delete("hosts", ip), Delete("routes", ip)]
        self.steps.append(Writes(tuple(writes)))

    def read_out(self) -> None:
        """All ranks send each slot's newest chunk again: the replies show what registers hold."""
        for lease in self.leases:
            for position in list(lease.touched.values())[:3]:
                for rank in range(len(lease.workers)):
                    self.contribution(lease, rank, position, "read-out")

    def make(self) -> list[Step]:
        draw = self.draw
        start: list[Write] = []
        for lease in self.leases:
            start += lease.members() + lease.delivery()
        for number in draw.sample(range(6), draw.randint(0, 3)):
            where = {"port": station(number).port}
            start.append(Insert("l2", {"mac": station(number).mac}, "to_port", where))
            start.append(Insert("hosts", {"ip": station(number).ip}, "behind", where))
            if draw.random() < 0.5:  # else what l2 says counts
                start.append(Insert("routes", {"ip": station(number).ip}, "to_port", where))
        self.steps.append(Writes(tuple(start)))
        for _ in range(draw.randint(4, 16)):
            lease = draw.choice(self.leases)
            roll = draw.random()
            if roll < 0.35:
                self.round(lease)
            elif roll < 0.55:
                self.near_miss(lease)
            elif roll < 0.70:
                self.mutant(lease)
            elif roll < 0.85:
                self.other()
            elif roll < 0.92:
                self.add(draw.choice((*PORTS, 5)), frames.garbage(draw), "garbage")
            else:
                self.table_writes()
        self.read_out()
        return self.steps


def _describe(counter: str, index: int) -> str:
    if counter == "drops":
        return packet.DropReason(index).name
    return packet.Event(index % packet.EVENTS).name


def scenario(lanes: int) -> Scenario:
    """Wiresum's program for ``lanes`` lanes. Raises :class:`wiresum.p4.UnknownProgram`."""
    program = p4.program(lanes)
    return Scenario(
        name=f"wiresum-{lanes}",
        json=program.json,
        p4info=program.p4info,
        setup=_SETUP,
        probes=tuple(_probe(port) for port in PORTS),
        sequence=lambda draw, number: _Traffic(draw, number, lanes).make(),
        describe=_describe,
    )
