"""A lease on a switch under test and its workers: what tests of the rules send from and to."""

from support.frames import Chunk, Delivered, Host, delivered, frame, host
from support.targets import Lease, Target
from wiresum.p4 import packet
from wiresum.p4.packet import Event

HOSTS = tuple(host(number) for number in (1, 2, 3))
MASK = 0xFFFFFFFF


class Rack:
    """A lease on a switch and its workers."""

    def __init__(self, switch: Target, lease: Lease) -> None:
        self.switch = switch
        self.lease = lease
        self.installed = True
        lease.install(switch)

    def withdraw(self) -> None:
        """Take the lease off the switch, once."""
        if self.installed:
            self.lease.withdraw(self.switch)
        self.installed = False

    def chunk(self, **fields: object) -> Chunk:
        """A CONTRIBUTION of this lease; lanes default to zeros."""
        base = Chunk(
            job=self.lease.job, epoch=self.lease.epoch, key=self.lease.key, fingerprint=77,
            lanes=(0,) * self.switch.lanes,
        )  # fmt: skip
        return base.but(**fields)

    def reply(self, **fields: object) -> Chunk:
        """The switch's counters of this lease."""
        return self.chunk(key=self.lease.reply_key).but(**fields)

    def send(self, sender: int | Host, chunk: Chunk, checksummed: bool = False) -> list[Delivered]:
        """Send from a rank (or any host); replies sorted by port."""
        place = self.lease.hosts[sender] if isinstance(sender, int) else sender
        data = frame(place, chunk.payload(), checksummed=checksummed)
        out = self.switch.inject(place.port, data)
        return sorted((delivered(*item) for item in out), key=lambda d: d.port)

    def event(self, event: Event) -> int:
        """A counter of this job."""
        return self.switch.counter("events", self.lease.job * packet.EVENTS + event)

    def host_of(self, reply: Delivered) -> Host:
        """The worker that a reply is addressed to, at the right port."""
        place = (reply.port, reply.dst_mac, reply.dst_ip, reply.dst_port)
        return next(h for h in self.lease.hosts if (h.port, h.mac, h.ip, h.udp_port) == place)

    def to_all(self, replies: list[Delivered]) -> bool:
        """Whether ``replies`` are one copy for each worker at its own address."""
        want = [(h.port, h.mac, h.ip, h.udp_port) for h in self.lease.hosts]
        return [(r.port, r.dst_mac, r.dst_ip, r.dst_port) for r in replies] == want


def lanes(switch: Target, start: int) -> tuple[int, ...]:
    """Lanes to contribute, other ones for each ``start``."""
    return tuple((start + 0x01010101 * i) & MASK for i in range(switch.lanes))


def summed(*parts: tuple[int, ...]) -> tuple[int, ...]:
    """The lanes of a SUM."""
    return tuple(sum(column) & MASK for column in zip(*parts, strict=True))
