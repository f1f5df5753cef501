"""The rules of tenants: adding, changing and removing them."""

from collections.abc import Mapping
from dataclasses import replace
from typing import NoReturn

from wiresum.controller import lines
from wiresum.controller.errors import ControllerError
from wiresum.controller.rules.checks import MAX_LIMIT, MAX_PRIORITY, check_name, invalid
from wiresum.controller.state.model import DEFAULT_TENANT, Job, JobState, Tenant
from wiresum.controller.state.plan import (
    AddTenant,
    EndJob,
    LeaveQueue,
    Plan,
    RemoveTenant,
    SetTenant,
    SetTenantToken,
)
from wiresum.controller.state.store import Snapshot
from wiresum.controller.v1 import controller_pb2 as pb

Events = Mapping[str, Mapping[str, int] | None]
"""The last counters of jobs, by id, as far as they are known."""


def get(state: Snapshot, name: str) -> Tenant:
    """The tenant of that name."""
    tenant = state.tenant(name)
    if tenant is None:
        known = ", ".join(known.name for known in state.tenants())
        raise ControllerError("NOT_FOUND", lines.UNKNOWN_TENANT_OF.of(name=name[:80], known=known))
    return tenant


def add(state: Snapshot, request: pb.AddTenantRequest, token: str, now: float) -> Plan:
    """Add a tenant; ``token`` is the hash of its token."""
    check_name(request.name, "tenant")
    if state.tenant(request.name) is not None:
        raise ControllerError(
            "ALREADY_EXISTS",
            lines.TENANT_EXISTS.of(name=request.name),
        )
    # A new tenant is served after all tenants that exist.
    served = max((tenant.served for tenant in state.tenants()), default=0)
    tenant = Tenant(
        name=request.name,
        slot_quota=request.slot_quota,
        max_jobs=request.max_jobs,
        priority=request.priority,
        created=now,
        served=served,
    )
    _check_limits(tenant)
    return Plan(now, (AddTenant(tenant, token),))


def change(state: Snapshot, request: pb.SetTenantRequest, now: float) -> Plan:
    """Change the limits that the request gives; running jobs stay as they are."""
    tenant = get(state, request.name)
    if request.HasField("slot_quota"):
        tenant = replace(tenant, slot_quota=request.slot_quota)
    if request.HasField("max_jobs"):
        tenant = replace(tenant, max_jobs=request.max_jobs)
    if request.HasField("priority"):
        tenant = replace(tenant, priority=request.priority)
    _check_limits(tenant)
    return Plan(now, (SetTenant(tenant),))


def rotate(state: Snapshot, name: str, token: str, now: float) -> Plan:
    """Replace a tenant's token by the one of that hash; the old token is not valid any more."""
    return Plan(now, (SetTenantToken(get(state, name).name, token),))


def must_end(state: Snapshot, name: str, *, evict: bool) -> list[Job]:
    """The live jobs that end when the tenant is removed. Refuses them unless ``evict``."""
    tenant = get(state, name)
    if name == DEFAULT_TENANT:
        raise ControllerError(
            "FAILED_PRECONDITION",
            lines.TENANT_STAYS.of(name=name),
        )
    jobs = state.jobs(live_only=True, tenant=tenant.name)
    if jobs and not evict:
        _refuse_busy(tenant, jobs)
    return jobs


def remove(
    state: Snapshot, name: str, *, evict: bool, reason: str, events: Events, now: float
) -> Plan:
    """Forget a tenant, its jobs in the queue, and (with ``evict``) its live jobs, all at once.

    ``reason`` is why its jobs have ended.
    """
    live = must_end(state, name, evict=evict)
    return Plan(
        now,
        (
            *(LeaveQueue(job.id) for job in state.queue(name)),
            *(EndJob(job.id, JobState.EVICTED, reason, events.get(job.id)) for job in live),
            RemoveTenant(name),
        ),
    )


def _check_limits(tenant: Tenant) -> None:
    if not -MAX_PRIORITY <= tenant.priority <= MAX_PRIORITY:
        invalid(
            lines.NOT_A_PRIORITY.of(
                name=tenant.name, priority=tenant.priority, least=-MAX_PRIORITY, most=MAX_PRIORITY
            )
        )
    for what, limit in (("slot quota", tenant.slot_quota), ("job limit", tenant.max_jobs)):
        if limit > MAX_LIMIT:
            invalid(lines.LIMIT_TOO_LARGE.of(name=tenant.name, what=what, limit=limit))


def _refuse_busy(tenant: Tenant, jobs: list[Job]) -> NoReturn:
    labels = ", ".join(job.label for job in jobs[:4])
    more = f" and {len(jobs) - 4} more" if len(jobs) > 4 else ""
    raise ControllerError(
        "FAILED_PRECONDITION",
        lines.TENANT_BUSY.of(name=tenant.name, jobs=labels, more=more),
    )
