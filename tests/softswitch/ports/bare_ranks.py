"""A rank of reduce-scatters and all-gathers, packet by packet, without an engine."""

import itertools
import socket
import struct
from collections.abc import Iterator

from support.frames import Chunk, readers
from support.targets import Lease
from wiresum.p4.packet import Kind, Readers

SOL_UDP, UDP_SEGMENT = 17, 103
LIMIT_S = 20
CHUNKS = 48
"""Of one collective; a third, a half, … of them in a row belong to each rank."""
COLLECTIVES = ("reduce-scatter", "all-gather")


class Rank:
    """What rank ``rank`` of ``ranks`` sends in a collective, and what it must get."""

    def __init__(self, lease: Lease, rank: int, lanes: int) -> None:
        self.lease, self.rank, self.lanes = lease, rank, lanes
        self.ranks = len(lease.hosts)

    def owner(self, number: int) -> int:
        """The rank that a chunk belongs to."""
        return number * self.ranks // CHUNKS

    def _chunks(self, collective: str) -> Iterator[tuple[int, Chunk]]:
        at = COLLECTIVES.index(collective) * CHUNKS
        who = Readers.ONLY if collective == "reduce-scatter" else Readers.ALL_BUT
        for number in range(CHUNKS):
            yield number, Chunk(
                job=self.lease.job, slot=at + number, chunk=at + number, epoch=self.lease.epoch,
                fingerprint=at, readers=readers(who, self.owner(number)),
            )  # fmt: skip

    def contributions(self, collective: str) -> list[bytes]:
        """Payloads, in order."""
        return [
            chunk.but(
                key=self.lease.key,
                lanes=(1000 * self.rank + number,) * self.lanes
                if collective == "reduce-scatter" or self.rank == self.owner(number)
                else (),
            ).payload()
            for number, chunk in self._chunks(collective)
        ]

    def results(self, collective: str) -> list[bytes]:
        """Payloads, in order."""
        every = range(self.ranks)
        out = []
        for number, chunk in self._chunks(collective):
            mine = self.rank == self.owner(number)
            givers = every if collective == "reduce-scatter" else [self.owner(number)]
            total = sum(1000 * giver + number for giver in givers)
            reads = mine if collective == "reduce-scatter" else not mine
            lanes = (total,) * self.lanes if reads else ()
            reply = chunk.but(kind=Kind.RESULT, key=self.lease.reply_key, lanes=lanes)
            out.append(reply.payload())
        return out


def send_trains(sender: socket.socket, to: tuple[str, int], payloads: list[bytes]) -> None:
    """Payloads of one length in a row leave as one train, where the kernel knows trains."""
    for length, run in itertools.groupby(payloads, len):
        train = list(run)
        try:
            sender.sendmsg(
                [b"".join(train)], [(SOL_UDP, UDP_SEGMENT, struct.pack("H", length))], 0, to
            )
        except OSError:
            for payload in train:
                sender.sendto(payload, to)


def take_part(lease: Lease, rank: int, lanes: int, switch: tuple[str, int]) -> None:
    """On a host of its own: a line before and after each collective; ends at a wrong one."""
    me = Rank(lease, rank, lanes)
    place = lease.hosts[rank]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mine:
        mine.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        mine.bind((socket.inet_ntoa(place.ip), place.udp_port))
        mine.settimeout(LIMIT_S)
        for collective in COLLECTIVES:
            print(f"ready for {collective}", flush=True)
            input()
            send_trains(mine, switch, me.contributions(collective))
            got = [mine.recv(1 << 16) for _ in range(CHUNKS)]
            assert got == me.results(collective), collective
            print(f"{collective} is right", flush=True)
