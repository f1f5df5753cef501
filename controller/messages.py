"""The controller's values as messages of its service."""

from wiresum.controller.jobs import Limits
from wiresum.controller.loop import SwitchLoop, SwitchState
from wiresum.controller.model import Job, JobState, Switch, format_mac
from wiresum.controller.slots import SlotRange, free_ranges
from wiresum.controller.v1 import controller_pb2 as pb

JOB_STATES = {
    JobState.WAITING: pb.JOB_STATE_WAITING,
    JobState.READY: pb.JOB_STATE_READY,
    JobState.RELEASED: pb.JOB_STATE_RELEASED,
    JobState.EXPIRED: pb.JOB_STATE_EXPIRED,
}

_SWITCH_STATES = {
    SwitchState.CONNECTING: pb.SWITCH_STATE_CONNECTING,
    SwitchState.UP: pb.SWITCH_STATE_UP,
    SwitchState.DOWN: pb.SWITCH_STATE_DOWN,
}


def switch_message(switch: Switch, loop: SwitchLoop | None, jobs: list[Job]) -> pb.Switch:
    """A switch with its state and the room that ``jobs``, its live ones, leave."""
    return pb.Switch(
        name=switch.name,
        p4runtime=switch.p4runtime,
        device_id=switch.device_id,
        ip=str(switch.ip),
        udp_port=switch.udp_port,
        mac=format_mac(switch.mac),
        lanes=switch.lanes,
        hosts=[pb.Host(cidr=str(host.network), port=host.port) for host in switch.hosts],
        shared_address=switch.shared_address,
        state=_SWITCH_STATES[loop.state if loop else SwitchState.CONNECTING],
        reason=loop.reason if loop else "just being added or removed",
        program_version=loop.program.version if loop else "",
        slots=switch.slots,
        free_slots=switch.slots - sum(job.lease.range.slots for job in jobs),
        jobs=len(jobs),
    )


def job_message(job: Job, switch: Switch | None, limits: Limits, now: float) -> pb.Job:
    """A job without its secrets; ``switch`` is None once the job's switch is forgotten."""
    live = job.state.live
    return pb.Job(
        id=job.id,
        name=job.name,
        tenant=job.tenant,
        state=JOB_STATES[job.state],
        reason=job.reason,
        switch=job.lease.switch,
        switch_ip=str(switch.ip) if switch else "",
        switch_udp_port=switch.udp_port if switch else 0,
        number=job.lease.number,
        slot_base=job.lease.range.base,
        slots=job.lease.range.slots if live else 0,
        lanes=switch.lanes if switch else 0,
        attempt=job.attempt,
        epoch=job.epoch,
        workers=job.workers,
        field=job.field,
        joined=job.joined,
        missing=job.missing if live else [],
        created=job.created,
        heartbeat_age_s=max(0.0, now - job.heartbeat) if live else 0.0,
        heartbeat_s=limits.heartbeat_s,
        expiry_s=limits.expiry_s,
    )


def lease_message(
    job: Job, rank: int, switch: Switch, program_version: str, limits: Limits
) -> pb.Lease:
    """What one rank of a ready job may use."""
    return pb.Lease(
        switch_name=switch.name,
        switch_ip=str(switch.ip),
        switch_udp_port=switch.udp_port,
        job=job.lease.number,
        epoch=job.epoch,
        key=job.key,
        slots=job.lease.range.slots,
        lanes=switch.lanes,
        workers=job.workers,
        rank=rank,
        heartbeat_s=limits.heartbeat_s,
        expiry_s=limits.expiry_s,
        program_version=program_version,
    )


def slots_message(switch: Switch, jobs: list[Job]) -> pb.SwitchSlots:
    """Every slot of a switch, as held by ``jobs``, its live ones, or free."""
    held = {job.lease.range: job for job in jobs}
    gaps = free_ranges(held, switch.slots)
    return pb.SwitchSlots(
        switch=switch.name,
        slots=switch.slots,
        ranges=[_range_message(slots, held.get(slots)) for slots in sorted([*held, *gaps])],
    )


def _range_message(slots: SlotRange, job: Job | None) -> pb.SlotRange:
    message = pb.SlotRange(base=slots.base, slots=slots.slots)
    if job is not None:
        message.job_id = job.id
        message.job_name = job.name
        message.tenant = job.tenant
        message.number = job.lease.number
    return message
