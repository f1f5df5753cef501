"""What the controller knows, as values: switches, jobs, leases and members."""

import enum
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from wiresum.controller.slots import SlotRange

DEFAULT_TENANT = "default"


@dataclass(frozen=True, slots=True)
class HostRange:
    """Workers whose address lies in ``network`` are behind the switch's port ``port``."""

    network: IPv4Network
    port: int


@dataclass(frozen=True, slots=True)
class Switch:
    """A switch as its operator described it."""

    name: str
    p4runtime: str
    device_id: int
    ip: IPv4Address
    udp_port: int
    mac: int
    lanes: int
    slots: int
    hosts: tuple[HostRange, ...]
    shared_address: bool

    @property
    def ports(self) -> tuple[int, ...]:
        """The ports that hosts are behind, in order."""
        return tuple(sorted({host.port for host in self.hosts}))

    def port_of(self, ip: IPv4Address) -> int | None:
        """The port that a worker's address is behind: the longest matching range's."""
        matches = [host for host in self.hosts if ip in host.network]
        if not matches:
            return None
        return max(matches, key=lambda host: host.network.prefixlen).port

    def data_plane(self) -> tuple[object, ...]:
        """What running jobs depend on: everything but the way to reach its P4Runtime."""
        hosts = frozenset(self.hosts)
        return (self.ip, self.udp_port, self.mac, self.lanes, hosts, self.shared_address)


class JobState(enum.Enum):
    """The life of a job; the values are what the store holds."""

    WAITING = "waiting"
    READY = "ready"
    RELEASED = "released"
    EXPIRED = "expired"

    @property
    def live(self) -> bool:
        """Whether the job holds slots."""
        return self in (JobState.WAITING, JobState.READY)


@dataclass(frozen=True, slots=True)
class Lease:
    """What a job holds, or held, on one switch."""

    switch: str
    number: int
    range: SlotRange
    counters_reset: bool
    """The switch's counters of this job number have been set to zero for this job."""


@dataclass(frozen=True, slots=True)
class Member:
    """A rank that has joined the current attempt, and where the switch finds it."""

    rank: int
    ip: IPv4Address
    udp_port: int
    mac: int
    port: int
    """The switch's port that it is behind."""


@dataclass(frozen=True, slots=True)
class Job:
    """One training run. ``attempt`` is None and ``epoch`` 0 until somebody joins."""

    id: str
    tenant: str
    name: str
    token: str
    state: JobState
    reason: str
    created: float
    heartbeat: float
    attempt: int | None
    epoch: int
    key: int
    workers: int
    field: int
    lease: Lease
    events: dict[str, int] | None = None
    """The switch's counters for it when it ended."""
    members: tuple[Member, ...] = ()

    @property
    def joined(self) -> list[int]:
        """The ranks of the current attempt that have joined, in order."""
        return [member.rank for member in self.members]

    @property
    def missing(self) -> list[int]:
        """The ranks of the current attempt that have not joined, in order."""
        joined = set(self.joined)
        return [rank for rank in range(self.workers) if rank not in joined]

    @property
    def label(self) -> str:
        """How messages call the job."""
        return self.id if self.name == self.id else f"{self.name} ({self.id})"


def default_mac(ip: IPv4Address) -> int:
    """The MAC address of whoever did not say: 02:00 and the four bytes of its address."""
    return 0x0200 << 32 | int(ip)


def format_mac(mac: int) -> str:
    """``02:00:0a:00:00:01``."""
    return mac.to_bytes(6, "big").hex(":")
