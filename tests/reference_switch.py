"""A model of the switch in Python: the five rules, over UDP on the loopback, with faults to order.

:class:`ReferenceSwitch` is the rules alone: a packet in, packets out, exactly as the P4 program has
it (an oracle for other tests). :class:`UdpSwitch` serves it on 127.0.0.1 from a thread of its own
and loses, doubles, reorders and delays packets as its :class:`Faults` say.
"""

import heapq
import random
import select
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from wiresum.p4 import packet
from wiresum.p4.packet import DropReason, Event, Kind, Op, Readers

Address = tuple[str, int]
_HEADER = struct.Struct(packet.HEADER_FORMAT)
_HALF = 1 << 31


@dataclass(frozen=True)
class Header:
    """The wiresum header."""

    version: int
    kind: int
    op: int
    readers: int
    job: int
    slot: int
    epoch: int
    chunk: int
    key: int
    fingerprint: int

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """Read the header at the start of a UDP payload."""
        return cls(*_HEADER.unpack_from(data))

    def pack(self) -> bytes:
        """Return the 28 bytes."""
        return _HEADER.pack(
            self.version,
            self.kind,
            self.op,
            self.readers,
            self.job,
            self.slot,
            self.epoch,
            self.chunk,
            self.key,
            self.fingerprint,
        )


@dataclass(frozen=True)
class Lease:
    """A job's part of the membership table: addresses by rank, and its range of slots."""

    job: int
    epoch: int
    key: int
    reply_key: int
    slot_base: int
    slot_count: int
    workers: tuple[Address, ...]

    @property
    def full(self) -> int:
        """The bitmap of all workers."""
        return (1 << len(self.workers)) - 1


@dataclass
class _Slot:
    epoch: int = 0
    chunk: int = 0
    fingerprint: int = 0
    bitmap: int = 0
    lanes: NDArray[np.uint32] = field(default_factory=lambda: np.zeros(0, np.uint32))


def _newer(a: int, b: int) -> bool:
    """Serial numbers (RFC 1982): a is ahead of b by less than half of the circle."""
    return 0 < (a - b) % (1 << 32) < _HALF


class ReferenceSwitch:
    """The rules. ``handle`` takes a worker's packet and returns the switch's packets."""

    def __init__(self, lanes: int = 256, slots: int = packet.SLOTS) -> None:
        self.lanes = lanes
        self.slots = [_Slot() for _ in range(slots)]
        self.leases: list[Lease] = []
        self.drops: Counter[DropReason] = Counter()
        self.events: Counter[tuple[int, Event]] = Counter()

    def handle(self, data: bytes, source: Address) -> list[tuple[Address, bytes]]:
        """Process the UDP payload ``data`` from ``source``."""
        if len(data) < packet.HEADER_BYTES:
            return self._drop(DropReason.TRUNCATED)
        header = Header.unpack(data)
        if header.kind != Kind.CONTRIBUTION:
            return self._drop(DropReason.FORGED_REPLY)
        if header.version != packet.VERSION:
            return self._drop(DropReason.WRONG_VERSION)
        if header.op not in (Op.SUM, Op.MAX):
            return self._drop(DropReason.WRONG_OP)
        if len(data) - packet.HEADER_BYTES not in (0, 4 * self.lanes):  # bare, or with lanes
            return self._drop(DropReason.WRONG_LENGTH)
        for lease in self.leases:
            asked = (header.job, header.epoch, header.key)
            if (lease.job, lease.epoch, lease.key) == asked and source in lease.workers:
                return self._aggregate(lease, lease.workers.index(source), header, data)
        return self._drop(DropReason.STRANGER)

    def _drop(self, reason: DropReason) -> list[tuple[Address, bytes]]:
        self.drops[reason] += 1
        return []

    def _aggregate(
        self, lease: Lease, rank: int, header: Header, data: bytes
    ) -> list[tuple[Address, bytes]]:
        if header.slot >= lease.slot_count:
            self.events[lease.job, Event.OUT_OF_LEASE] += 1
            return self._drop(DropReason.OUT_OF_LEASE)
        if not self._readable(header.readers, lease):
            return self._drop(DropReason.WRONG_READERS)
        slot = self.slots[lease.slot_base + header.slot]
        me = lease.workers[rank]
        lanes = np.zeros(self.lanes, np.uint32)
        if len(data) > packet.HEADER_BYTES:
            lanes = np.frombuffer(data, ">u4", offset=packet.HEADER_BYTES).astype(np.uint32)
        if (
            slot.epoch == 0
            or _newer(header.epoch, slot.epoch)
            or (header.epoch == slot.epoch and _newer(header.chunk, slot.chunk))
        ):
            self.events[lease.job, Event.CLAIMED] += 1
            slot.epoch, slot.chunk = header.epoch, header.chunk
            slot.fingerprint, slot.bitmap, slot.lanes = header.fingerprint, 0, lanes
        elif (header.epoch, header.chunk) != (slot.epoch, slot.chunk):
            self.events[lease.job, Event.STALE] += 1
            return self._drop(DropReason.STALE)
        elif slot.bitmap >> rank & 1:
            if slot.bitmap == lease.full:
                self.events[lease.job, Event.RESENT] += 1
                return [(me, self._result(header, slot, lease, rank))]
            self.events[lease.job, Event.WAITED] += 1
            return [(me, self._status(header, slot, lease, Kind.WAIT))]
        elif slot.fingerprint != header.fingerprint:
            self.events[lease.job, Event.MISMATCHED] += 1
            status = self._status(header, slot, lease, Kind.MISMATCH)
            return [(worker, status) for worker in lease.workers]
        else:
            self.events[lease.job, Event.ADDED] += 1
            if header.op == Op.SUM:
                slot.lanes = slot.lanes + lanes
            else:
                slot.lanes = np.maximum(slot.lanes, lanes)
        slot.bitmap |= 1 << rank
        if slot.bitmap != lease.full:
            return []
        self.events[lease.job, Event.COMPLETED] += 1
        return [
            (worker, self._result(header, slot, lease, place))
            for place, worker in enumerate(lease.workers)
        ]

    @staticmethod
    def _readable(readers: int, lease: Lease) -> bool:
        mode, rank = divmod(readers, 1 << packet.READER_BITS)
        if mode == Readers.ALL:
            return rank == 0
        return mode in (Readers.ONLY, Readers.ALL_BUT) and rank < len(lease.workers)

    def _reply(self, header: Header, slot: _Slot, lease: Lease, kind: Kind) -> bytes:
        return Header(
            packet.VERSION,
            kind,
            header.op,
            header.readers,
            header.job,
            header.slot,
            slot.epoch,
            slot.chunk,
            lease.reply_key,
            slot.fingerprint,
        ).pack()

    def _result(self, header: Header, slot: _Slot, lease: Lease, rank: int) -> bytes:
        mode, named = divmod(header.readers, 1 << packet.READER_BITS)
        reads = {Readers.ALL: True, Readers.ONLY: rank == named, Readers.ALL_BUT: rank != named}
        result = self._reply(header, slot, lease, Kind.RESULT)
        return result + slot.lanes.astype(">u4").tobytes() if reads[Readers(mode)] else result

    def _status(self, header: Header, slot: _Slot, lease: Lease, kind: Kind) -> bytes:
        return self._reply(header, slot, lease, kind) + slot.bitmap.to_bytes(
            packet.CONTRIBUTORS_BYTES, "big"
        )


@dataclass
class Faults:
    """The faults of packets, by probability and in either direction; ``seed`` fixes the draws."""

    seed: int = 0
    loss: float = 0.0
    duplication: float = 0.0
    reordering: float = 0.0
    """Held back for a random time of up to ``hold_s``."""
    hold_s: float = 0.004
    delay_s: float = 0.0
    """Every packet."""
    slow: dict[Address, float] = field(default_factory=dict)
    """Extra delay of the packets of these workers: stragglers."""
    intercept: Callable[[bytes, Address, str], bool] | None = None
    """Called with (payload, the worker's address, "in" or "out"); True loses the packet."""


class UdpSwitch:
    """A :class:`ReferenceSwitch` behind a UDP socket on 127.0.0.1, in a thread of its own."""

    def __init__(self, rules: ReferenceSwitch, faults: Faults | None = None) -> None:
        self.rules = rules
        self.faults = faults or Faults()
        self._random = random.Random(self.faults.seed)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.setblocking(False)
        self.address: Address = self._socket.getsockname()
        self._later: list[tuple[float, int, str, Address, bytes]] = []
        self._serial = 0
        self._stop_reader, self._stop_writer = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="reference-switch", daemon=True)
        self.error: BaseException | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.die()
        if self.error is not None and error is None:
            raise self.error

    def die(self) -> None:
        """Stop serving and close the socket, as a switch that dies does."""
        if self._thread.is_alive():
            self._stop_writer.send(b"x")
            self._thread.join(timeout=10)
            assert not self._thread.is_alive()
        for each in (self._socket, self._stop_reader, self._stop_writer):
            each.close()

    def send(self, data: bytes, to: Address) -> None:
        """Send a payload from the switch's own address (a forgery, say)."""
        self._socket.sendto(data, to)

    def _run(self) -> None:
        try:
            while True:
                timeout = None
                if self._later:
                    timeout = max(0.0, self._later[0][0] - time.monotonic())
                readable, _, _ = select.select([self._socket, self._stop_reader], [], [], timeout)
                if self._stop_reader in readable:
                    return
                if self._socket in readable:
                    self._receive()
                while self._later and self._later[0][0] <= time.monotonic():
                    _, _, direction, peer, data = heapq.heappop(self._later)
                    self._pass(direction, peer, data)
        except BaseException as error:
            self.error = error

    def _receive(self) -> None:
        for _ in range(64):
            try:
                data, source = self._socket.recvfrom(65536)
            except BlockingIOError:
                return
            except ConnectionRefusedError:  # a worker has gone
                continue
            self._suffer("in", source, data)

    def _suffer(self, direction: str, peer: Address, data: bytes) -> None:
        faults, draw = self.faults, self._random.random
        if faults.intercept is not None and faults.intercept(data, peer, direction):
            return
        if draw() < faults.loss:
            return
        copies = 2 if draw() < faults.duplication else 1
        for _ in range(copies):
            delay = faults.delay_s
            if direction == "in":
                delay += faults.slow.get(peer, 0.0)
            if draw() < faults.reordering:
                delay += draw() * faults.hold_s
            if delay == 0.0:
                self._pass(direction, peer, data)
            else:
                self._serial += 1
                heapq.heappush(
                    self._later, (time.monotonic() + delay, self._serial, direction, peer, data)
                )

    def _pass(self, direction: str, peer: Address, data: bytes) -> None:
        if direction == "in":
            for to, reply in self.rules.handle(data, peer):
                self._suffer("out", to, reply)
            return
        try:
            self._socket.sendto(data, peer)
        except (ConnectionRefusedError, BlockingIOError):
            return
