"""The controller's values as messages of its service."""

from wiresum.common.version import package_version
from wiresum.controller.office.rank_polls import Ready
from wiresum.controller.rules.callers import Caller
from wiresum.controller.rules.limits import Limits
from wiresum.controller.scheduling.slots import disjoint, free_ranges
from wiresum.controller.southbound.loop import SwitchLoop, SwitchState
from wiresum.controller.state.model import (
    Job,
    JobState,
    SlotRange,
    Switch,
    Tenant,
    format_mac,
)
from wiresum.controller.state.store import Usage
from wiresum.controller.v1 import controller_pb2 as pb

JOB_STATES = {
    JobState.QUEUED: pb.JOB_STATE_QUEUED,
    JobState.WAITING: pb.JOB_STATE_WAITING,
    JobState.READY: pb.JOB_STATE_READY,
    JobState.RELEASED: pb.JOB_STATE_RELEASED,
    JobState.EXPIRED: pb.JOB_STATE_EXPIRED,
    JobState.EVICTED: pb.JOB_STATE_EVICTED,
}

_SWITCH_STATES = {
    SwitchState.CONNECTING: pb.SWITCH_STATE_CONNECTING,
    SwitchState.UP: pb.SWITCH_STATE_UP,
    SwitchState.DOWN: pb.SWITCH_STATE_DOWN,
}


def switch_message(
    switch: Switch, loop: SwitchLoop | None, jobs: list[Job], *, draining: bool
) -> pb.Switch:
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
        free_slots=sum(
            gap.slots for gap in free_ranges([r for job in jobs for r in job.ranges], switch.slots)
        ),
        jobs=len(jobs),
        draining=draining,
    )


def job_message(job: Job, switch: Switch | None, limits: Limits, silence_s: float) -> pb.Job:
    """A job without its secrets; ``switch`` is that of its lease, None if that is forgotten."""
    live = job.state.live
    return pb.Job(
        id=job.id,
        name=job.name,
        tenant=job.tenant,
        state=JOB_STATES[job.state],
        reason=job.reason,
        switch=job.lease.switch or job.wanted_switch,
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
        heartbeat_age_s=silence_s if live else 0.0,
        heartbeat_s=limits.heartbeat_s,
        expiry_s=limits.expiry_s,
        change=job.change,
        change_wanted=job.pending.number if job.pending else 0,
        slots_next=job.pending.range.slots if job.pending else 0,
        slots_target=job.target,
        min_slots=job.min_slots,
        priority=job.priority,
        controller_version=package_version(),
        parent=job.parent,
        parked=job.parked,
    )


def tenant_message(tenant: Tenant, usage: Usage, token: str) -> pb.Tenant:
    """A tenant and its usage; with its token if that is new."""
    return pb.Tenant(
        name=tenant.name,
        slot_quota=tenant.slot_quota,
        max_jobs=tenant.max_jobs,
        priority=tenant.priority,
        token=token,
        slots=usage.slots,
        jobs=usage.jobs,
        queued=usage.queued,
        created=tenant.created,
    )


def lease_message(ready: Ready, rank: int, limits: Limits) -> pb.Lease:
    """The lease of a ready job, as one rank gets it."""
    job, switch = ready.job, ready.switch
    return pb.Lease(
        switch_name=switch.name,
        switch_ip=str(switch.ip),
        switch_udp_port=switch.udp_port,
        job=job.lease.number,
        epoch=job.epoch,
        key=job.key,
        reply_key=job.reply_key,
        slots=job.lease.range.slots,
        lanes=switch.lanes,
        workers=job.workers,
        rank=rank,
        heartbeat_s=limits.heartbeat_s,
        expiry_s=limits.expiry_s,
        program_version=ready.program_version,
        change=job.change,
        controller_version=package_version(),
    )


def heartbeat_message(job: Job) -> pb.HeartbeatResponse:
    """The answer to a heartbeat."""
    return pb.HeartbeatResponse(
        state=JOB_STATES[job.state],
        epoch=job.epoch,
        reason=job.reason,
        change=job.announced_change,
        slots=job.pending.range.slots if job.pending else job.lease.range.slots,
    )


def slots_message(switch: Switch, jobs: list[Job], caller: Caller) -> pb.SwitchSlots:
    """Every slot of a switch, as held by ``jobs``, its live ones, or free.

    Whose job it is that the caller does not own is not told.
    """
    held: dict[SlotRange, pb.SlotRange] = {}
    for job in jobs:
        # While a job changes over, its ranges may overlap: each slot is told once.
        for position, slots in enumerate(disjoint(job.ranges)):
            held[slots] = _range_message(slots, job if caller.owns(job) else None, position > 0)
    for gap in free_ranges(held, switch.slots):
        held[gap] = pb.SlotRange(base=gap.base, slots=gap.slots)
    return pb.SwitchSlots(
        switch=switch.name,
        slots=switch.slots,
        ranges=[held[slots] for slots in sorted(held)],
    )


def _range_message(slots: SlotRange, job: Job | None, is_next: bool) -> pb.SlotRange:
    message = pb.SlotRange(base=slots.base, slots=slots.slots, held=True, next=is_next)
    if job is not None:
        message.job_id = job.id
        message.job_name = job.name
        message.tenant = job.tenant
        message.number = job.lease.number
    return message
