"""What the rules may ask of a store, and what a store must be able to do.

SQLite is behind it (``sqlite/``), or PostgreSQL (``postgres/``).
"""

from collections import Counter
from dataclasses import dataclass
from typing import Protocol

from wiresum.controller.state.model import Job, Switch, Tenant
from wiresum.controller.state.plan import Plan


@dataclass(frozen=True)
class Usage:
    """The slots and jobs of a tenant, as its limits count them."""

    slots: int
    """For its quota: those that its live jobs were admitted with."""
    jobs: int
    """Its live jobs, without the parts of jobs."""
    queued: int
    """Its jobs and parts in the queue."""


class Snapshot(Protocol):
    """What is stored, until the next plan is committed. No question changes anything.

    Every question raises :class:`StoreFailed` while the store cannot be read.
    """

    # ---- switches

    def switches(self, name: str | None = None) -> list[Switch]:
        """All switches by name, or the one of a name."""
        ...

    def switch(self, name: str) -> Switch | None:
        """The switch of that name, if any."""
        ...

    def switch_names(self) -> list[str]:
        """The names of all switches."""
        ...

    def draining(self) -> set[str]:
        """The switches that take no new jobs."""
        ...

    def job(self, job_id: str) -> Job | None:
        """The job of that id, if any, live or not."""
        ...

    def job_named(self, name: str, tenant: str | None = None) -> Job | None:
        """The job of that name: one that is not over, or else the latest; of any tenant if None."""
        ...

    def job_requested(self, tenant: str, request: str) -> Job | None:
        """The tenant's job that was created by the request of that id, if any."""
        ...

    def job_of_token(self, token: str) -> str | None:
        """The id of the job whose token has this hash, if any."""
        ...

    def tenant_of_job(self, job_id: str) -> str | None:
        """The tenant of the job, if there is one; with an addition if the tenant is gone."""
        ...

    def callers_of(self, tenant: str) -> int:
        """How many workers and launchers the tenant's live jobs may have."""
        ...

    def token_count(self, job_id: str) -> int:
        """How many tokens the job has."""
        ...

    def job_not_over(self, tenant: str, name: str) -> Job | None:
        """The tenant's job of that name that is live or in the queue, if any."""
        ...

    def jobs(self, *, live_only: bool = False, tenant: str | None = None) -> list[Job]:
        """Jobs, newest first; of any tenant if it is None."""
        ...

    def job_ids_before(
        self, before: tuple[float, int] | None, limit: int, *, live_only: bool, tenant: str | None
    ) -> list[tuple[str, tuple[float, int]]]:
        """The ids of up to ``limit`` jobs that came before a place, newest first, and theirs.

        Without those in the queue. Of any tenant if it is None; from the newest on if ``before``
        is None.
        """
        ...

    def jobs_called(self, name: str) -> list[tuple[str, str]]:
        """The tenants and ids of the live jobs of that name, and of those in the queue."""
        ...

    def shrunk_jobs(self) -> list[Job]:
        """The live jobs that have fewer slots than they were admitted with, the oldest first."""
        ...

    def parts(self, job_id: str) -> list[Job]:
        """The parts of a job that are live or in the queue, in order of arrival."""
        ...

    def changing_jobs(self) -> list[Job]:
        """The jobs whose lease is about to change."""
        ...

    def jobs_on(self, switch: str, *, members: bool = True) -> list[Job]:
        """The live jobs on a switch, by slot; without their ``members`` it takes a fraction."""
        ...

    def live_since(self) -> dict[str, float]:
        """The ids of all live jobs, and when each got its slots."""
        ...

    def waiting_members(self) -> list[tuple[str, int, int, int]]:
        """The ranks that wait for others: job, attempt, change of its lease, rank."""
        ...

    def workers_on(self, switch: str, but: str) -> Counter[str]:
        """How many workers each tenant's live jobs on a switch have, without those of ``but``."""
        ...

    def queue(self, tenant: str | None = None) -> list[Job]:
        """The jobs in the queue, in order of arrival; of any tenant if it is None."""
        ...

    def queue_before(self, sequence: int | None, limit: int, tenant: str | None) -> list[Job]:
        """Up to ``limit`` that came before one of that sequence (None: the last), last first."""
        ...

    def tenants(self) -> list[Tenant]:
        """All tenants by name."""
        ...

    def tenant(self, name: str) -> Tenant | None:
        """The tenant of that name, if any."""
        ...

    def tenant_of_token(self, token: str) -> str | None:
        """The name of the tenant whose token has this hash, if any."""
        ...

    def admin_token(self) -> str | None:
        """The hash of the admin's token, if there is one yet."""
        ...

    def usage(self) -> dict[str, Usage]:
        """The usage of every tenant, by its name."""
        ...

    def last_epoch(self) -> int:
        """The last epoch that was handed out; 0 if none ever was."""
        ...


class Store(Protocol):
    """Keeps what the controller must not forget."""

    trouble: str
    """Why the store cannot be written; empty while it can."""

    @property
    def version(self) -> int:
        """Another number after every write."""
        ...

    def snapshot(self) -> Snapshot:
        """What is stored now."""
        ...

    def commit(self, plan: Plan) -> None:
        """Write all of a plan, or nothing. Raises :class:`StoreFailed`.

        Epochs and keys are drawn here. What breaks an invariant (two jobs that share a slot, an
        epoch that was used) is refused with an error of the store's own.
        """
        ...

    def probe(self) -> None:
        """Write, if the last attempt to has failed. Raises :class:`StoreFailed` if this does."""
        ...

    def close(self) -> None:
        """Let another controller have it."""
        ...
