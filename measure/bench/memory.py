"""The embedded switch in memory: contributions of all workers, one after the other, on one core.

No sockets and no threads: what is measured is the switch program, parser and deparser included.
"""

import struct

from wiresum.measure import lines
from wiresum.p4 import packet
from wiresum.softswitch import Switch
from wiresum.testbed.conformance import frames
from wiresum.testbed.conformance.frames import Header, Station
from wiresum.testbed.errors import RackError

_SWITCH_MAC, _SWITCH_IP = 0x0200_0000_0001, 0x0A00_00FE
_JOB, _EPOCH, _KEY, _REPLY_KEY = 1, 1, 0x5EC2E7, 0x5EC2E8
_GENERATIONS = 3  # of chunk numbers: each a third of the circle newer than the one before it


class InMemory:
    """A switch with one job of ``workers`` on ``slots`` slots, and the frames of three rounds."""

    def __init__(self, lanes: int, workers: int, slots: int) -> None:
        self.lanes = lanes
        self._workers = workers
        self._switch = Switch(lanes=lanes)
        stations = [
            Station(rank + 1, 0x0200_0000_0100 + rank, 0x0A00_0001 + rank, 40000 + rank)
            for rank in range(workers)
        ]
        self._program(stations, slots)
        self._frames = [
            (station.port, _frame(station, rank, generation, slot, lanes))
            for generation in range(_GENERATIONS)
            for slot in range(slots)
            for rank, station in enumerate(stations)
        ]
        self.contributions = len(self._frames)
        """In one pass over the frames."""

    def _program(self, stations: list[Station], slots: int) -> None:
        switch = self._switch
        group = packet.JOB_GROUPS + _JOB
        switch.table_add("addresses", {"ip": _SWITCH_IP}, "switch_address", {"mac": _SWITCH_MAC})
        switch.multicast_group(group, [(s.port, rank + 1) for rank, s in enumerate(stations)])
        for rank, station in enumerate(stations):
            sender = {"ingress_port": station.port, "ip": station.ip, "udp_port": station.udp_port}
            lease = {"job": _JOB, "epoch": _EPOCH, "key": _KEY}
            bits = {"worker": rank, "worker_bit": 1 << rank, "full": (1 << len(stations)) - 1}
            place = {"slot_base": 0, "slot_count": slots, "group": group}
            place["reply_key"] = _REPLY_KEY
            switch.table_add("membership", {**sender, **lease}, "member", {**bits, **place})
            where = {"mac": station.mac, "ip": station.ip, "udp_port": station.udp_port}
            switch.table_add("deliver", {"job": _JOB, "worker": rank}, "deliver_to", where)

    def _events(self, event: packet.Event) -> int:
        return self._switch.counter("events", _JOB * packet.EVENTS + event).packets

    def seconds(self, passes: int) -> float:
        """How long ``passes`` passes take.

        Raises :class:`RackError` unless every contribution was summed, every chunk completed and
        every worker sent its sum.
        """
        counted = (packet.Event.CLAIMED, packet.Event.ADDED, packet.Event.COMPLETED)
        before = [self._events(event) for event in counted]
        taken, left = self._switch.dataplane.replay(self._frames, passes)
        claimed, added, completed = (
            self._events(event) - old for event, old in zip(counted, before, strict=True)
        )
        wanted = self.contributions * passes
        if (claimed + added, completed * self._workers, left) != (wanted, wanted, wanted):
            raise RackError(
                lines.OTHER_WORK.of(
                    wanted=wanted, claimed=claimed + added, completed=completed, left=left
                )
            )
        return taken


def _frame(station: Station, rank: int, generation: int, slot: int, lanes: int) -> bytes:
    header = Header(
        job=_JOB,
        epoch=_EPOCH,
        key=_KEY,
        slot=slot,
        chunk=(generation * (1 << 32) // _GENERATIONS + slot) % (1 << 32),
        fingerprint=generation,
    )
    payload = header.pack() + struct.pack(f"!{lanes}I", *range(rank, rank + lanes))
    datagram = frames.udp(station.udp_port, packet.UDP_PORT, payload)
    inside = frames.ipv4(station.ip, _SWITCH_IP, frames.UDP, datagram)
    return frames.ethernet(_SWITCH_MAC, station.mac, frames.ETHERNET_IPV4, inside)
