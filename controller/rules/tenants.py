"""The rules of tenants: who may use the switches, and how much of them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NoReturn

from wiresum.controller.clock import Clock
from wiresum.controller.errors import ControllerError
from wiresum.controller.rules.checks import MAX_LIMIT, MAX_PRIORITY, check_name, invalid
from wiresum.controller.state.model import DEFAULT_TENANT, Job, JobState, Tenant
from wiresum.controller.state.store import Store
from wiresum.controller.tokens import TENANT, hashed, new_token
from wiresum.controller.v1 import controller_pb2 as pb


@dataclass
class Tenants:
    """Adding, changing and removing tenants. Methods raise :class:`ControllerError`."""

    store: Store
    clock: Clock

    def add(self, request: pb.AddTenantRequest) -> tuple[Tenant, str]:
        """A new tenant and its token, which is not kept."""
        check_name(request.name, "tenant")
        if self.store.tenant(request.name) is not None:
            raise ControllerError(
                "ALREADY_EXISTS",
                f"there is a tenant {request.name} already: `wiresum tenant set` changes its "
                "limits, `wiresum tenant rotate` gives it another token",
            )
        # Whoever is new takes its place in the round behind those that are there.
        served = max((tenant.served for tenant in self.store.tenants()), default=0)
        tenant = Tenant(
            name=request.name,
            slot_quota=request.slot_quota,
            max_jobs=request.max_jobs,
            priority=request.priority,
            created=self.clock.now(),
            served=served,
        )
        _check_limits(tenant)
        token = new_token(TENANT)
        with self.store.transaction() as transaction:
            transaction.add_tenant(tenant, hashed(token))
        return tenant, token

    def get(self, name: str) -> Tenant:
        """The tenant of that name."""
        tenant = self.store.tenant(name)
        if tenant is None:
            known = ", ".join(known.name for known in self.store.tenants())
            raise ControllerError("NOT_FOUND", f"there is no tenant {name[:80]!r} (known: {known})")
        return tenant

    def set(self, request: pb.SetTenantRequest) -> Tenant:
        """Change what the request gives; running jobs stay as they are."""
        tenant = self.get(request.name)
        if request.HasField("slot_quota"):
            tenant = replace(tenant, slot_quota=request.slot_quota)
        if request.HasField("max_jobs"):
            tenant = replace(tenant, max_jobs=request.max_jobs)
        if request.HasField("priority"):
            tenant = replace(tenant, priority=request.priority)
        _check_limits(tenant)
        with self.store.transaction() as transaction:
            transaction.set_tenant(tenant)
        return tenant

    def rotate(self, name: str) -> tuple[Tenant, str]:
        """A tenant's new token; the one before is worth nothing from now on."""
        tenant = self.get(name)
        token = new_token(TENANT)
        with self.store.transaction() as transaction:
            transaction.set_tenant_token(name, hashed(token))
        return tenant, token

    def check_removable(self, name: str, *, evict: bool) -> list[Job]:
        """The live jobs that must end before the tenant can go."""
        tenant = self.get(name)
        if name == DEFAULT_TENANT:
            raise ControllerError(
                "FAILED_PRECONDITION",
                f"tenant {name} stays: jobs that the admin creates for nobody else are its",
            )
        jobs = self.store.jobs(live_only=True, tenant=tenant.name)
        if jobs and not evict:
            _refuse_busy(tenant, jobs)
        return jobs

    def remove(
        self,
        name: str,
        *,
        evict: bool = False,
        reason: str = "",
        events: Mapping[str, Mapping[str, int] | None] | None = None,
    ) -> tuple[list[Job], list[Job]]:
        """Forget a tenant, its live jobs (with ``evict``) and its jobs that wait, all at once.

        ``reason`` is why its jobs have ended; ``events`` are their last counters, by id, as far as
        they are known. The answer is what has ended, and what was waiting.
        """
        jobs = self.check_removable(name, evict=evict)
        queue = self.store.queue(name)
        now = self.clock.now()
        with self.store.transaction() as transaction:
            for job in queue:
                transaction.remove_from_queue(job.id)
            for job in jobs:
                transaction.end_job(
                    job.id, JobState.EVICTED, reason, now, (events or {}).get(job.id)
                )
            transaction.remove_tenant(name, now)
        ended = [self.store.job(job.id) for job in jobs]
        return [job for job in ended if job is not None], queue


def _check_limits(tenant: Tenant) -> None:
    if not -MAX_PRIORITY <= tenant.priority <= MAX_PRIORITY:
        invalid(
            f"tenant {tenant.name}: a priority of {tenant.priority} is not possible: it must be "
            f"from {-MAX_PRIORITY} to {MAX_PRIORITY}"
        )
    for what, limit in (("slot quota", tenant.slot_quota), ("job limit", tenant.max_jobs)):
        if limit > MAX_LIMIT:
            invalid(f"tenant {tenant.name}: a {what} of {limit} is too large: 0 means no limit")


def _refuse_busy(tenant: Tenant, jobs: list[Job]) -> NoReturn:
    labels = ", ".join(job.label for job in jobs[:4])
    more = f" and {len(jobs) - 4} more" if len(jobs) > 4 else ""
    raise ControllerError(
        "FAILED_PRECONDITION",
        f"tenant {tenant.name} has live jobs ({labels}{more}): wait for them to end, or remove "
        "it with --evict",
    )
