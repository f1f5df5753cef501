"""How ranks join: the first time, after a restart, and when their job's lease changes."""

from collections.abc import Iterable

from wiresum.controller.errors import ControllerError
from wiresum.controller.rules.checks import (
    check_field,
    check_rank,
    check_udp_port,
    invalid,
    parse_ip,
    parse_mac,
)
from wiresum.controller.rules.jobs import ended_error, replaced_error
from wiresum.controller.state.model import Change, Job, JobState, Member, Switch
from wiresum.controller.state.plan import (
    AddMember,
    FinishChange,
    Plan,
    RemoveMember,
    SetReady,
    StartAttempt,
    Write,
)
from wiresum.controller.state.store import Snapshot
from wiresum.controller.v1 import controller_pb2 as pb

MEMBERS_PER_SWITCH = 8192
"""Entries of the program's membership and deliver tables."""


def join(state: Snapshot, job: Job, request: pb.JoinJobRequest, now: float) -> Plan:
    """Record that a rank of ``job`` is there; the job is ready when this was the last one.

    Joining twice from the same address is the same as joining once: the plan is empty then.
    """
    if not job.state.live:
        raise ended_error(job)
    check_rank(request.rank, request.workers)
    check_field(request.field)
    _check_room_for_members(state, job, request.workers)
    if job.attempt is not None and request.attempt < job.attempt:
        raise replaced_error(job, request.attempt)
    member = _member(state, job, request)
    if request.change or (job.attempt == request.attempt and job.change):
        return _join_change(job, member, request, now)
    writes: list[Write] = []
    missing = job.missing
    if job.attempt == request.attempt and job.members:
        if _has_joined(job, job.members, member, request):
            return Plan(now)
    else:
        writes.append(StartAttempt(job.id, request.attempt, request.workers, request.field))
        missing = list(range(request.workers))
    writes.append(AddMember(job.id, member))
    if missing == [member.rank]:
        writes.append(SetReady(job.id))
    return Plan(now, tuple(writes))


def withdraw(state: Snapshot, request: pb.JoinJobRequest, now: float) -> Plan:
    """Record that a rank gave up waiting for the others; nothing happens if all are there."""
    job = state.job(request.job_id)
    if job is None or job.attempt != request.attempt:
        return Plan(now)
    if request.change > job.change or job.state is JobState.WAITING:
        return Plan(now, (RemoveMember(job.id, request.rank, request.change),))
    return Plan(now)


def _join_change(job: Job, member: Member, request: pb.JoinJobRequest, now: float) -> Plan:
    """A rank is ready for an agreed change of the lease; it is made when all are."""
    if job.attempt != request.attempt:
        invalid(
            f"change {request.change} belongs to an attempt that has begun: join attempt "
            f"{request.attempt} without one"
        )
    if request.change < job.change:
        raise ControllerError(
            "ABORTED",
            f"rank {request.rank}: change {request.change} of the lease of job {job.label} is "
            f"over, it has change {job.change}: restart this worker with the others",
        )
    if request.change == job.change:
        _has_joined(job, job.members, member, request)
        return Plan(now)
    pending = _agreed(job, request.change)
    if _has_joined(job, pending.members, member, request):
        return Plan(now)
    last = len(pending.members) + 1 == job.workers
    finish = (FinishChange(job.id),) if last else ()
    return Plan(now, (AddMember(job.id, member, pending.number), *finish))


def _agreed(job: Job, number: int) -> Change:
    if job.pending is None or job.pending.number != number:
        raise ControllerError(
            "ABORTED",
            f"change {number} of the lease of job {job.label} was cancelled: carry on under "
            f"the lease of epoch {job.epoch}",
        )
    if job.pending.boundary is None:
        raise ControllerError(
            "FAILED_PRECONDITION",
            f"the ranks of job {job.label} have not agreed on change {number} yet: call "
            "ChangeLease first",
        )
    return job.pending


def _check_room_for_members(state: Snapshot, job: Job, workers: int) -> None:
    """Refuse an attempt whose entries would not fit in the switch's tables.

    A tenant may have as many as it leaves free: so none can fill the tables alone, and each
    that comes still finds room. A job may always restart with the workers that it has.
    """
    if workers <= job.workers:
        return
    taken = state.workers_on(job.lease.switch, but=job.id)
    free = MEMBERS_PER_SWITCH - taken.total()
    own = taken[job.tenant]
    if own + workers > free - workers:
        raise ControllerError(
            "RESOURCE_EXHAUSTED",
            f"switch {job.lease.switch} has room for {free} of {MEMBERS_PER_SWITCH} workers: "
            f"tenant {job.tenant} has {own} there, and would leave less than that with "
            f"{workers} more",
        )


def _has_joined(job: Job, there: Iterable[Member], new: Member, request: pb.JoinJobRequest) -> bool:
    """Whether the same rank is ``there`` already; raises if it contradicts those that are."""
    attempt = f"attempt {job.attempt} of job {job.label}"
    if request.workers != job.workers:
        invalid(
            f"rank {new.rank} says {request.workers} workers, but {attempt} has {job.workers}: "
            "start all ranks with the same number"
        )
    if request.field != job.field:
        invalid(
            f"rank {new.rank} has fields of {request.field} bits, but {attempt} has "
            f"{job.field}: start all ranks with the same --field"
        )
    for member in there:
        same_address = (member.ip, member.udp_port) == (new.ip, new.udp_port)
        if member.rank == new.rank:
            if same_address and member.mac == new.mac:
                return True
            raise ControllerError(
                "ALREADY_EXISTS",
                f"rank {new.rank} of {attempt} is already {member.ip}:{member.udp_port}, "
                f"not {new.ip}:{new.udp_port}: a restarted worker needs a later attempt",
            )
        if same_address:
            raise ControllerError(
                "ALREADY_EXISTS",
                f"{new.ip}:{new.udp_port} is already rank {member.rank} of {attempt}: "
                f"rank {new.rank} needs a socket of its own",
            )
    return False


def _member(state: Snapshot, job: Job, request: pb.JoinJobRequest) -> Member:
    what = f"rank {request.rank}"
    ip = parse_ip(request.ip, f"{what}: address")
    check_udp_port(request.udp_port, f"{what}: port")
    mac = parse_mac(request.mac, ip, f"{what}: MAC")
    switch = _switch_of(state, job)
    port = switch.port_of(ip)
    if port is None:
        raise ControllerError(
            "FAILED_PRECONDITION",
            f"{what}: no host range of switch {switch.name} contains {ip}: repeat "
            f"`wiresum switch add {switch.name}` with a --host for it",
        )
    if not switch.shared_address and (ip == switch.ip or mac == switch.mac):
        invalid(
            f"{what} has the address of switch {switch.name} itself, {ip}: if the switch "
            "runs on the worker's host, add it with --shared-address"
        )
    return Member(request.rank, ip, request.udp_port, mac, port)


def _switch_of(state: Snapshot, job: Job) -> Switch:
    switch = state.switch(job.lease.switch)
    assert switch is not None, "a switch with live jobs cannot be removed"
    return switch
