"""A caller asks for a job: it gets the job that is there already, or a place in the queue."""

from collections.abc import Mapping
from dataclasses import dataclass

from wiresum.controller import lines
from wiresum.controller.errors import ControllerError
from wiresum.controller.on_full import OnFull
from wiresum.controller.rules import parts
from wiresum.controller.rules.callers import Caller
from wiresum.controller.rules.checks import check_name, check_request_id, invalid
from wiresum.controller.rules.jobs import check_attachable, ended_error
from wiresum.controller.scheduling.slots import rounded
from wiresum.controller.state.model import NO_LEASE, Job, JobState, Switch, Tenant
from wiresum.controller.state.plan import Enqueue, LeaveQueue, Plan, RestartWait, Write
from wiresum.controller.state.store import Snapshot
from wiresum.controller.v1 import controller_pb2 as pb
from wiresum.p4 import packet

MAX_WAIT_S = 365 * 24 * 3600.0
"""The longest that a job can wait in the queue."""

# Of one tenant: more launchers than can ever be useful in the queue.
_QUEUE_PER_TENANT = 256

_ON_FULL: dict[int, OnFull] = {pb.OnFull.Value(f"ON_FULL_{each.name}"): each for each in OnFull}


@dataclass(frozen=True)
class Found:
    """The job that a request is for, live or in the queue."""

    job: Job
    attached: bool
    """Another caller had asked for the job before."""


def recover(state: Snapshot, now: float) -> Plan:
    """Take over the queue of an earlier controller, whose callers have to come back.

    Callers that would not have waited are gone. If the wait of a job is negative, or longer than
    any wait can be, a clock was or is wrong: the job waits from now on.
    """
    writes: list[Write] = []
    for job in state.queue():
        if job.on_full is not OnFull.WAIT:
            writes.append(LeaveQueue(job.id))
        elif not 0 <= now - job.created <= MAX_WAIT_S:
            writes.append(RestartWait(job.id))
    return Plan(now, tuple(writes))


def tenant_for(
    state: Snapshot, request: pb.CreateJobRequest, caller: Caller, whole: Job | None = None
) -> Tenant:
    """The tenant that the job is for; a part, of the job ``whole``, is for that job's."""
    name = whole.tenant if whole is not None else caller.acting_tenant(request.tenant)
    tenant = state.tenant(name)
    if tenant is None:
        raise ControllerError("NOT_FOUND", lines.UNKNOWN_TENANT.of(name=name[:80]))
    return tenant


def find(
    state: Snapshot,
    request: pb.CreateJobRequest,
    tenant: Tenant,
    dismissed: Mapping[str, ControllerError],
    whole: Job | None = None,
) -> Found | None:
    """The job that is asked for, or the part of the job ``whole``, if it is there already.

    ``dismissed`` tells why jobs were taken out of the queue, by :func:`asked_by`.
    """
    check_request_id(request.request_id)
    if request.name:
        check_name(request.name, "job")
    name, asked = _names(request, whole)
    # The same request again: the answer to the first one was lost.
    job = state.job_requested(tenant.name, asked)
    if job is not None:
        if job.state.live or job.state is JobState.QUEUED:
            return Found(job, attached=False)
        raise ended_error(job)
    named = state.job_not_over(tenant.name, name)
    if named is not None and named.state.live:
        check_attachable(named, request.switch)
        return Found(named, attached=True)
    gone = dismissed.get(asked_by(tenant.name, asked))
    if gone is not None and asked:
        raise gone
    return Found(named, attached=True) if named is not None else None


def enqueue(
    state: Snapshot,
    request: pb.CreateJobRequest,
    tenant: Tenant,
    job_id: str,
    now: float,
    whole: Job | None = None,
) -> Plan:
    """Put a new job of that id into the queue, or a part of the job ``whole``.

    Refuses what the tenant, or the job, can never get.
    """
    default = parts.default_slots(whole) if whole is not None else 0
    slots, least = _size(request.slots_wanted or default), _size(request.min_slots or 1)
    if least > slots:
        invalid(lines.LEAST_ABOVE_SLOTS.of(least=least, slots=slots))
    on_full = _ON_FULL.get(request.on_full)
    if on_full is None:
        invalid(lines.NOT_ON_FULL.of(value=request.on_full, most=max(_ON_FULL)))
    if whole is None:
        _check_switches(state, request.switch)
    else:
        parts.check_count(state, whole)
    # Parts do not count: groups of a training would take the places of the tenant's launchers.
    places = sum(not job.parent for job in state.queue(tenant.name))
    if whole is None and places >= _QUEUE_PER_TENANT:
        raise ControllerError(
            "RESOURCE_EXHAUSTED",
            lines.QUEUE_FULL.of(tenant=tenant.name, count=_QUEUE_PER_TENANT),
        )
    name, asked = _names(request, whole)
    job = Job(
        id=job_id,
        tenant=tenant.name,
        name=name or job_id,
        state=JobState.QUEUED,
        reason="",
        created=now,
        attempt=None,
        epoch=0,
        key=0,
        reply_key=0,
        workers=0,
        field=0,
        lease=NO_LEASE,
        target=slots,
        min_slots=least,
        on_full=on_full,
        wanted_switch=request.switch if whole is None else whole.lease.switch,
        request=asked,
        priority=tenant.priority,
        parent=whole.id if whole is not None else "",
    )
    if whole is not None:
        why = parts.impossible(job, whole)
    else:
        why = impossible(job, fitting_switches(request.switch, state.switches()), tenant)
    if why is not None:
        raise why
    return Plan(now, (Enqueue(job),))


def _names(request: pb.CreateJobRequest, whole: Job | None) -> tuple[str, str]:
    """The job's name and the id of the request, as they are stored; empty if there is none."""
    if whole is None:
        return request.name, request.request_id
    name = parts.name_of(whole, request.name) if request.name else ""
    return name, parts.request_of(whole, request.request_id)


def asked_by(tenant: str, request: str) -> str:
    """A name for a request that is no job's id."""
    return f"{tenant} {request}"


def fitting_switches(wanted: str, switches: list[Switch]) -> list[Switch]:
    """The switches that a job may have that asks for ``wanted`` (empty: any)."""
    return [switch for switch in switches if wanted in ("", switch.name)]


def impossible(job: Job, fitting: list[Switch], tenant: Tenant) -> ControllerError | None:
    """Why a job can never get the slots that it asks for from these switches; None: it can."""
    if not fitting and job.wanted_switch:
        return ControllerError(
            "FAILED_PRECONDITION",
            lines.WANTED_SWITCH_GONE.of(job=job.label, switch=job.wanted_switch),
        )
    if not fitting:
        return ControllerError(
            "FAILED_PRECONDITION",
            lines.SWITCHES_GONE.of(job=job.label),
        )
    needed = job.sizes[-1]
    largest = max(switch.slots for switch in fitting)
    if needed > largest:
        which = f"switch {job.wanted_switch}" if job.wanted_switch else "every switch"
        return ControllerError(
            "RESOURCE_EXHAUSTED",
            lines.SWITCH_TOO_SMALL.of(slots=needed, which=which, most=largest),
        )
    if tenant.slot_quota and needed > tenant.slot_quota:
        return ControllerError(
            "RESOURCE_EXHAUSTED",
            lines.QUOTA_TOO_SMALL.of(slots=needed, tenant=tenant.name, quota=tenant.slot_quota),
        )
    return None


def _check_switches(state: Snapshot, wanted: str) -> None:
    names = state.switch_names()
    if not names:
        raise ControllerError(
            "FAILED_PRECONDITION",
            lines.NO_SWITCHES.of(),
        )
    if wanted and wanted not in names:
        raise ControllerError("NOT_FOUND", lines.UNKNOWN_SWITCH.of(name=wanted[:80]))


def _size(wanted: int) -> int:
    """The slots that a wish for ``wanted`` (0: the default) comes to; refuses the impossible."""
    if wanted > packet.SLOTS:
        invalid(lines.MORE_THAN_ANY_SWITCH.of(slots=wanted, most=packet.SLOTS))
    return rounded(wanted)
