"""How ranks join: the first time, after a restart, and when their job's lease changes."""

from collections.abc import Iterable

from wiresum.controller import lines
from wiresum.controller.errors import ControllerError
from wiresum.controller.rules.checks import (
    check_field,
    check_rank,
    check_udp_port,
    invalid,
    parse_ip,
    parse_mac,
)
from wiresum.controller.rules.jobs import end_parts, ended_error, replaced_error
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
        # Its parts are of the attempt before.
        reason = f"attempt {request.attempt} of its job began"
        writes += end_parts(state, job, JobState.RELEASED, reason)
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
        invalid(lines.CHANGE_OF_ATTEMPT.of(change=request.change, attempt=request.attempt))
    if request.change < job.change:
        raise ControllerError(
            "ABORTED",
            lines.CHANGE_OVER.of(
                rank=request.rank, change=request.change, job=job.label, later=job.change
            ),
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
            lines.CHANGE_CANCELLED.of(change=number, job=job.label, epoch=job.epoch),
        )
    if job.pending.boundary is None:
        raise ControllerError(
            "FAILED_PRECONDITION",
            lines.CHANGE_NOT_AGREED.of(job=job.label, change=number),
        )
    return job.pending


def _check_room_for_members(state: Snapshot, job: Job, workers: int) -> None:
    """Refuse an attempt whose entries would not fit in the switch's tables.

    A tenant may have at most as many entries as it leaves free: so no tenant fills the tables
    alone, and each later one still finds room. A job may always restart with the workers that it
    has.
    """
    if workers <= job.workers:
        return
    taken = state.workers_on(job.lease.switch, but=job.id)
    free = MEMBERS_PER_SWITCH - taken.total()
    own = taken[job.tenant]
    if own + workers > free - workers:
        raise ControllerError(
            "RESOURCE_EXHAUSTED",
            lines.NO_ROOM_FOR_WORKERS.of(
                switch=job.lease.switch,
                free=free,
                most=MEMBERS_PER_SWITCH,
                tenant=job.tenant,
                there=own,
                workers=workers,
            ),
        )


def _has_joined(job: Job, there: Iterable[Member], new: Member, request: pb.JoinJobRequest) -> bool:
    """Whether the same rank is ``there`` already; raises if it contradicts the ranks that are."""
    attempt = f"attempt {job.attempt} of job {job.label}"
    if request.workers != job.workers:
        invalid(
            lines.OTHER_WORKERS.of(
                rank=new.rank, workers=request.workers, attempt=attempt, expected=job.workers
            )
        )
    if request.field != job.field:
        invalid(
            lines.OTHER_FIELD.of(
                rank=new.rank, bits=request.field, attempt=attempt, expected=job.field
            )
        )
    for member in there:
        same_address = (member.ip, member.udp_port) == (new.ip, new.udp_port)
        if member.rank == new.rank:
            if same_address and member.mac == new.mac:
                return True
            raise ControllerError(
                "ALREADY_EXISTS",
                lines.RANK_ELSEWHERE.of(
                    rank=new.rank,
                    attempt=attempt,
                    ip=member.ip,
                    udp_port=member.udp_port,
                    new_ip=new.ip,
                    new_udp_port=new.udp_port,
                ),
            )
        if same_address:
            raise ControllerError(
                "ALREADY_EXISTS",
                lines.SOCKET_TAKEN.of(
                    ip=new.ip,
                    udp_port=new.udp_port,
                    other=member.rank,
                    attempt=attempt,
                    rank=new.rank,
                ),
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
            lines.NO_HOST_RANGE.of(what=what, switch=switch.name, ip=ip),
        )
    if not switch.shared_address and (ip == switch.ip or mac == switch.mac):
        invalid(lines.ADDRESS_OF_SWITCH.of(what=what, switch=switch.name, ip=ip))
    return Member(request.rank, ip, request.udp_port, mac, port)


def _switch_of(state: Snapshot, job: Job) -> Switch:
    switch = state.switch(job.lease.switch)
    assert switch is not None, "a switch with live jobs cannot be removed"
    return switch
