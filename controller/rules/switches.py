"""The rules of switches: adding, changing, draining and removing them."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NoReturn

from wiresum.controller import lines
from wiresum.controller.errors import ControllerError
from wiresum.controller.rules.checks import (
    MAX_HOSTS,
    check_name,
    check_p4runtime,
    check_udp_port,
    invalid,
    parse_ip,
    parse_mac,
    parse_network,
)
from wiresum.controller.rules.jobs import end_parts
from wiresum.controller.state.model import HostRange, Job, JobState, Switch
from wiresum.controller.state.plan import EndJob, Plan, PutSwitch, RemoveSwitch, SetDraining, Write
from wiresum.controller.state.store import Snapshot
from wiresum.controller.v1 import controller_pb2 as pb
from wiresum.p4 import MAX_PORT, packet

DEFAULT_LANES = 256

SlotsOf = Callable[[int], int]
"""The slots that a switch has whose program has so many lanes."""


def get(state: Snapshot, name: str) -> Switch:
    """The switch of that name."""
    switch = state.switch(name)
    if switch is None:
        known = ", ".join(known.name for known in state.switches()) or "none"
        raise ControllerError("NOT_FOUND", lines.UNKNOWN_SWITCH_OF.of(name=name[:80], known=known))
    return switch


def recover(state: Snapshot, slots_of: SlotsOf, now: float) -> Plan:
    """Follow the programs: another version may have another number of slots.

    If there are fewer, the jobs that hold slots beyond the last one end.
    """
    writes: list[Write] = []
    for switch in state.switches():
        slots = slots_of(switch.lanes)
        if slots == switch.slots:
            continue
        reason = f"switch {switch.name} has {slots} slots since its program was upgraded"
        writes.append(PutSwitch(replace(switch, slots=slots)))
        beyond = [
            job
            for job in state.jobs_on(switch.name)
            if any(held.end > slots for held in job.ranges)
        ]
        ended = {job.id for job in beyond}
        for job in beyond:
            parts = end_parts(state, job, JobState.EVICTED, f"its job ended: {reason}")
            writes += [write for write in parts if write.job not in ended]
            writes.append(EndJob(job.id, JobState.EVICTED, reason))
    return Plan(now, tuple(writes))


def add(
    state: Snapshot,
    request: pb.AddSwitchRequest,
    slots_of: SlotsOf,
    lane_counts: Sequence[int],
    now: float,
) -> Plan:
    """Register a switch, or replace what is known of it as far as its jobs allow."""
    switch = _parse(request, slots_of, lane_counts)
    before = state.switch(switch.name)
    jobs = state.jobs_on(switch.name)
    if before and jobs and before.data_plane() != switch.data_plane():
        _refuse_busy(switch.name, jobs, "its address, MAC, lanes and hosts cannot be changed now")
    for other in state.switches():
        same = _place(other) == _place(switch)
        if same and other.name != switch.name:
            raise ControllerError(
                "ALREADY_EXISTS",
                lines.DEVICE_KNOWN.of(
                    p4runtime=switch.p4runtime, device_id=switch.device_id, switch=other.name
                ),
            )
    return Plan(now, (PutSwitch(switch),))


def remove(state: Snapshot, name: str, now: float) -> Plan:
    """Forget a switch without jobs."""
    switch = get(state, name)
    jobs = state.jobs_on(name)
    if jobs:
        _refuse_busy(name, jobs, "it cannot be removed now")
    return Plan(now, (RemoveSwitch(switch.name),))


def drain(state: Snapshot, name: str, draining: bool, now: float) -> Plan:
    """Give a switch no new jobs, or new jobs again; the jobs that it has are not touched."""
    return Plan(now, (SetDraining(get(state, name).name, draining),))


def _parse(request: pb.AddSwitchRequest, slots_of: SlotsOf, lane_counts: Sequence[int]) -> Switch:
    check_name(request.name, "switch")
    what = f"switch {request.name}"
    check_p4runtime(request.p4runtime, what)
    if request.device_id >= 1 << 63:
        invalid(lines.DEVICE_ID.of(what=what, device_id=request.device_id))
    ip = parse_ip(request.ip, f"{what}: address")
    udp_port = request.udp_port or packet.UDP_PORT
    check_udp_port(udp_port, f"{what}: port")
    lanes = request.lanes or DEFAULT_LANES
    if lanes not in lane_counts:
        choices = " or ".join(str(count) for count in lane_counts)
        invalid(lines.NO_PROGRAM.of(what=what, lanes=lanes, choices=choices))
    hosts = [HostRange(parse_network(host.cidr), host.port) for host in request.hosts]
    if not hosts:
        invalid(lines.NO_HOSTS.of(what=what))
    if len(hosts) > MAX_HOSTS:
        invalid(lines.TOO_MANY_HOSTS.of(what=what, count=len(hosts), most=MAX_HOSTS))
    networks = Counter(host.network for host in hosts)
    for host in hosts:
        if not 0 < host.port <= MAX_PORT:
            invalid(lines.NOT_A_SWITCH_PORT.of(what=what, port=host.port, most=MAX_PORT))
        if networks[host.network] > 1:
            invalid(lines.TWO_PORTS.of(what=what, network=host.network))
    shared = request.shared_address if request.HasField("shared_address") else ip.is_loopback
    return Switch(
        name=request.name,
        p4runtime=request.p4runtime,
        device_id=request.device_id,
        ip=ip,
        udp_port=udp_port,
        mac=parse_mac(request.mac, ip, f"{what}: MAC"),
        lanes=lanes,
        slots=slots_of(lanes),
        hosts=tuple(sorted(hosts, key=lambda host: str(host.network))),
        shared_address=shared,
    )


def _place(switch: Switch) -> tuple[str, int]:
    """Which device it is, with TLS or without."""
    return switch.p4runtime.removeprefix("https://"), switch.device_id


def _refuse_busy(name: str, jobs: list[Job], consequence: str) -> NoReturn:
    labels = ", ".join(job.label for job in jobs[:4])
    more = f" and {len(jobs) - 4} more" if len(jobs) > 4 else ""
    raise ControllerError(
        "FAILED_PRECONDITION",
        lines.SWITCH_BUSY.of(switch=name, jobs=labels, more=more, consequence=consequence),
    )
