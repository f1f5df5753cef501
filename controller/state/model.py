"""What the controller knows, as values: switches, jobs, leases and members."""

import enum
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from wiresum.controller.on_full import OnFull

DEFAULT_TENANT = "default"
"""The tenant of the jobs that the admin creates without naming a tenant."""

MIN_SLOTS = 16
"""The smallest lease: two slots for exponents, and windows of data and of copies of a few chunks.

An engine needs two slots for each of its three streams."""


@dataclass(frozen=True, slots=True, order=True)
class SlotRange:
    """The slots ``base`` … ``base + slots - 1`` of a switch."""

    base: int
    slots: int

    @property
    def end(self) -> int:
        """The first slot behind the range."""
        return self.base + self.slots

    def overlaps(self, other: "SlotRange") -> bool:
        """Whether any slot lies in both ranges."""
        return self.base < other.end and other.base < self.end


@dataclass(frozen=True, slots=True)
class Tenant:
    """A user of the switches, with its limits. A limit of 0 is none."""

    name: str
    slot_quota: int
    max_jobs: int
    priority: int
    created: float
    served: int
    """A counter of the moments at which tenants get slots, as of this tenant's last one: the tenant
    with the least goes next."""


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
        """The values that running jobs depend on: all but the address of its P4Runtime server."""
        hosts = frozenset(self.hosts)
        return (self.ip, self.udp_port, self.mac, self.lanes, hosts, self.shared_address)


class JobState(enum.Enum):
    """The life of a job; the values are what the store holds."""

    QUEUED = "queued"
    WAITING = "waiting"
    READY = "ready"
    RELEASED = "released"
    EXPIRED = "expired"
    EVICTED = "evicted"

    @property
    def live(self) -> bool:
        """Whether the job holds slots."""
        return self in (JobState.WAITING, JobState.READY)


@dataclass(frozen=True, slots=True)
class Lease:
    """Slots and a number that a job holds, or held, on one switch."""

    switch: str
    number: int
    range: SlotRange
    counters_reset: bool
    """The switch's counters of this job number have been set to zero for this job."""


NO_LEASE = Lease("", 0, SlotRange(0, 0), counters_reset=True)
"""The lease of a job in the queue: no slots on no switch."""


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
class Change:
    """A lease that a running job shall have instead of its own, on the same switch.

    Both ranges are held until all ranks have joined under the new epoch.
    """

    number: int
    range: SlotRange
    epoch: int
    key: int
    reply_key: int
    reason: str
    announced: float
    boundary: int | None
    """The collective up to which the old lease is used; None until all ranks have agreed."""
    members: tuple[Member, ...] = ()
    """The ranks that wait under the new epoch."""


@dataclass(frozen=True, slots=True)
class Job:
    """One training run. ``attempt`` is None and ``epoch`` 0 until a rank joins.

    ``created`` is when it came into the queue, and from its grant on, when it got its slots. Signs
    of life are not stored: the office has them in memory.
    """

    id: str
    tenant: str
    name: str
    state: JobState
    reason: str
    created: float
    attempt: int | None
    epoch: int
    key: int
    """The secret that its workers' contributions carry."""
    reply_key: int
    """The secret that the switch's replies carry: whoever sees a reply cannot contribute with
    it."""
    workers: int
    field: int
    lease: Lease
    events: dict[str, int] | None = None
    """The switch's counters for it when it ended."""
    members: tuple[Member, ...] = ()
    target: int = 0
    """The slots that it was admitted with, to which a shrunk job grows back; in the queue, those
    that it asks for."""
    min_slots: int = MIN_SLOTS
    on_full: OnFull = OnFull.FAIL
    wanted_switch: str = ""
    """The switch that it asked for; empty: any."""
    request: str = ""
    """The id that its creator gave to the request for it, if any."""
    parent: str = ""
    """The id of the job that this is a part of; empty: of none. Its slots are that job's."""
    parked: bool = False
    """It has nothing to sum: others may have its slots."""
    lent: float = 0.0
    """When it was parked with all of its slots; 0: never, or it has them back."""
    sequence: int = 0
    """The order of arrival: of two jobs in the queue, the lower number came first."""
    priority: int = 0
    """Its tenant's."""
    change: int = 0
    """Of the lease in use: 0 as first joined in this attempt."""
    last_change: int = 0
    """The last that was announced in this attempt, also if it was cancelled."""
    pending: Change | None = None

    @property
    def sizes(self) -> tuple[int, ...]:
        """The numbers of slots that a job in the queue accepts, the best first."""
        sizes = [self.target]
        while self.on_full is OnFull.SMALLER and sizes[-1] // 2 >= self.min_slots:
            sizes.append(sizes[-1] // 2)
        return tuple(sizes)

    @property
    def announced_change(self) -> int:
        """The change that its ranks shall know of: the one that is wanted, or that they have."""
        return self.pending.number if self.pending else self.change

    @property
    def ranges(self) -> list[SlotRange]:
        """The slots that it holds: those of its lease, and those of the next one."""
        return [self.lease.range] + ([self.pending.range] if self.pending else [])

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
    """The MAC address of a host that named none: 02:00 and the four bytes of its IP address."""
    return 0x0200 << 32 | int(ip)


def format_mac(mac: int) -> str:
    """``02:00:0a:00:00:01``."""
    return mac.to_bytes(6, "big").hex(":")
