"""Callers and their rights.

The admin may do everything, a tenant may use its own jobs, a job's token that job and its parts. To
a caller without the right to see a job, the controller answers as if the job did not exist.
"""

from dataclasses import dataclass, field

from wiresum.controller import lines
from wiresum.controller.errors import ControllerError
from wiresum.controller.state.model import DEFAULT_TENANT, Job


@dataclass(frozen=True)
class Caller:
    """The holder of a token: the admin, one tenant, or one job."""

    admin: bool = False
    tenant: str = ""
    job: str = ""
    token: str = field(default="", repr=False, compare=False)
    """The hash of a job's token: each of its launchers has one."""

    def __str__(self) -> str:
        if self.admin:
            return "the admin"
        return f"tenant {self.tenant}" if self.tenant else f"job {self.job}"

    def require_admin(self, what: str) -> None:
        """Refuse everyone but the admin. ``what`` completes "only the admin may"."""
        if not self.admin:
            raise ControllerError(
                "PERMISSION_DENIED",
                lines.ADMIN_ONLY.of(what=what, caller=self),
            )

    @property
    def own_tenant(self) -> str | None:
        """The tenant that the caller sees the jobs of; None: all. Refuses a job."""
        self.refuse_jobs()
        return None if self.admin else self.tenant

    def refuse_jobs(self) -> None:
        """Refuse the holder of a job's token: the call is for tenants and the admin."""
        if self.job:
            raise ControllerError(
                "PERMISSION_DENIED",
                lines.OWN_JOB_ONLY.of(),
            )

    def acting_tenant(self, named: str) -> str:
        """The tenant that a job is created for; ``named``: the one in the request, if any."""
        own = self.own_tenant
        if own is None:
            return named or DEFAULT_TENANT
        if named and named != own:
            raise ControllerError("PERMISSION_DENIED", lines.OWN_JOBS_ONLY.of(caller=self))
        return own

    def owns(self, job: Job) -> bool:
        """Whether the caller may see the job and end it: a job's token also the job's parts."""
        its_own = bool(self.job) and self.job in (job.id, job.parent)
        return self.admin or its_own or bool(self.tenant and job.tenant == self.tenant)
