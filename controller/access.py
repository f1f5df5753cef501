"""Who calls, and what that gives the right to.

The admin may do everything. A tenant has the jobs of its name, a job has itself. What a caller
has no right to see does not exist for it.
"""

import secrets
from dataclasses import dataclass

from wiresum.controller.errors import ControllerError
from wiresum.controller.model import DEFAULT_TENANT, Job
from wiresum.controller.store import Store
from wiresum.controller.tokens import hashed


@dataclass(frozen=True)
class Caller:
    """Whoever holds a token: the admin, or one tenant, or one job."""

    admin: bool = False
    tenant: str = ""
    job: str = ""

    def __str__(self) -> str:
        if self.admin:
            return "the admin"
        return f"tenant {self.tenant}" if self.tenant else f"job {self.job}"

    def require_admin(self, what: str) -> None:
        """Refuse everyone but the admin. ``what`` completes "only the admin may"."""
        if not self.admin:
            raise ControllerError(
                "PERMISSION_DENIED",
                f"only the admin may {what}: this is the token of {self}",
            )

    @property
    def own_tenant(self) -> str | None:
        """The tenant that the caller sees the jobs of; None: all. Refuses a job."""
        self.refuse_jobs()
        return None if self.admin else self.tenant

    def refuse_jobs(self) -> None:
        """Refuse whoever holds a job's token: what is asked for is a tenant's, or the admin's."""
        if self.job:
            raise ControllerError(
                "PERMISSION_DENIED",
                "a job's token shows that job only: use the tenant's token",
            )

    def acting_tenant(self, named: str) -> str:
        """The tenant that a job is created for, if the request names ``named`` (or nobody)."""
        own = self.own_tenant
        if own is None:
            return named or DEFAULT_TENANT
        if named and named != own:
            raise ControllerError(
                "PERMISSION_DENIED", f"this is the token of {self}: it creates no jobs for others"
            )
        return own

    def owns(self, job: Job) -> bool:
        """Whether the caller may see the job and end it."""
        return self.admin or job.id == self.job or bool(self.tenant and job.tenant == self.tenant)


@dataclass(frozen=True)
class Access:
    """Tells callers apart by their tokens. Methods raise :class:`ControllerError`."""

    store: Store
    fixed_admin: str = ""
    """The hash of an admin's token that counts instead of the store's."""

    def caller(self, token: str) -> Caller:
        """Who holds ``token``. Raises UNAUTHENTICATED."""
        if not token:
            raise ControllerError(
                "UNAUTHENTICATED",
                "the call has no token: give one with WIRESUM_TOKEN or --token-file",
            )
        digest = hashed(token)
        admin = self.fixed_admin or self.store.admin_token()
        if admin is not None and secrets.compare_digest(digest, admin):
            return Caller(admin=True)
        tenant = self.store.tenant_of_token(digest)
        if tenant is not None:
            return Caller(tenant=tenant)
        job = self.store.job_of_token(digest)
        if job is not None:
            return Caller(job=job)
        raise ControllerError(
            "UNAUTHENTICATED",
            "the controller does not know this token: it was rotated, or is another controller's",
        )
