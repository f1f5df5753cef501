"""The desired tables of a switch: a pure function of its jobs.

Table, action and field names are those of the switch program's P4Info (see p4/).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address

from wiresum.controller.state.model import Job, JobState, Switch
from wiresum.p4 import packet

MEMBERSHIP = "membership"
TABLES = ("addresses", "own_source", MEMBERSHIP, "hosts", "routes", "l2", "deliver")
"""The tables that the controller owns: it removes all entries that it did not ask for."""

Fields = tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """The identity of a table entry: at most one entry of a table has these match values."""

    table: str
    match: Fields


@dataclass(frozen=True, slots=True)
class Action:
    """The action of a table entry."""

    name: str
    parameters: Fields


@dataclass(frozen=True, slots=True, order=True)
class Replica:
    """One copy of a multicast packet."""

    port: int
    instance: int


@dataclass(frozen=True)
class Tables:
    """The content of a switch's tables and multicast groups."""

    entries: dict[Key, Action]
    groups: dict[int, frozenset[Replica]]


def fields(**values: int) -> Fields:
    """Named values in the one order that makes them comparable."""
    return tuple(sorted(values.items()))


def group_of(job_number: int) -> int:
    """The multicast group of a job's workers."""
    return packet.JOB_GROUPS + job_number


def desired(switch: Switch, jobs: Iterable[Job]) -> Tables:
    """The tables that ``switch`` shall hold for its live jobs.

    A job has entries only once all its ranks have joined: until then no packet of it counts.
    """
    ip = int(switch.ip)
    entries = {Key("addresses", fields(ip=ip)): Action("switch_address", fields(mac=switch.mac))}
    if not switch.shared_address:
        entries[Key("own_source", fields(ip=ip))] = Action("spoofed_source", ())
        for host in switch.hosts:
            if host.network.prefixlen == 32:
                entries.update(_place(host.network.network_address, host.port))
    groups = {packet.FLOOD_GROUP: frozenset(Replica(port, 0) for port in switch.ports)}
    for job in jobs:
        if job.state is JobState.READY:
            groups[group_of(job.lease.number)] = _group(job)
            entries.update(_entries(switch, job))
    return Tables(entries, groups)


def _place(ip: IPv4Address, port: int) -> Iterable[tuple[Key, Action]]:
    """The one port that frames of this address come from, and go to.

    The port is the operator's word (``--host``). Forwarding does not depend on a MAC address that a
    worker reports: with another host's address it would get that host's frames.
    """
    yield Key("hosts", fields(ip=int(ip))), Action("behind", fields(port=port))
    yield Key("routes", fields(ip=int(ip))), Action("to_port", fields(port=port))


def _group(job: Job) -> frozenset[Replica]:
    # The egress finds the worker that a copy is for by its instance; 0 means "not a copy".
    return frozenset(Replica(member.port, member.rank + 1) for member in job.members)


def _entries(switch: Switch, job: Job) -> Iterable[tuple[Key, Action]]:
    number = job.lease.number
    for member in job.members:
        yield (
            Key(
                MEMBERSHIP,
                fields(
                    ingress_port=member.port,
                    ip=int(member.ip),
                    udp_port=member.udp_port,
                    job=number,
                    epoch=job.epoch,
                    key=job.key,
                ),
            ),
            Action(
                "member",
                fields(
                    worker=member.rank,
                    worker_bit=1 << member.rank,
                    full=(1 << job.workers) - 1,
                    slot_base=job.lease.range.base,
                    slot_count=job.lease.range.slots,
                    group=group_of(number),
                    reply_key=job.reply_key,
                ),
            ),
        )
        yield (
            Key("deliver", fields(job=number, worker=member.rank)),
            Action(
                "deliver_to",
                fields(mac=member.mac, ip=int(member.ip), udp_port=member.udp_port),
            ),
        )
        if not switch.shared_address:
            yield from _place(member.ip, member.port)
