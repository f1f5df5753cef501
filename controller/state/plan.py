"""Plans: the writes that the rules decide on, as values. A store commits all of a plan or nothing.

Epochs and keys are not part of a plan: the store draws them when it commits, because only the store
knows which epochs have been used.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from wiresum.controller.state.model import Job, JobState, Member, SlotRange, Switch, Tenant

# ---- switches


@dataclass(frozen=True)
class PutSwitch:
    """Add a switch, or replace what is known of the one of that name."""

    switch: Switch


@dataclass(frozen=True)
class RemoveSwitch:
    """Forget a switch; jobs that ended on it keep its name."""

    name: str


@dataclass(frozen=True)
class SetDraining:
    """Let a switch take new jobs, or none."""

    name: str
    draining: bool


# ---- tenants and tokens; of tokens, plans hold hashes only


@dataclass(frozen=True)
class SetAdminToken:
    """Replace the admin's token."""

    token: str


@dataclass(frozen=True)
class AddTenant:
    """Add a tenant with its token."""

    tenant: Tenant
    token: str


@dataclass(frozen=True)
class SetTenant:
    """Change a tenant's limits and priority."""

    tenant: Tenant


@dataclass(frozen=True)
class SetTenantToken:
    """Replace a tenant's token."""

    name: str
    token: str


@dataclass(frozen=True)
class RemoveTenant:
    """Forget a tenant; jobs of it that ended keep its name."""

    name: str


@dataclass(frozen=True)
class AddJobToken:
    """Give a job one more token."""

    job: str
    token: str


# ---- the queue


@dataclass(frozen=True)
class Enqueue:
    """Put a job into the queue, behind all others; the store chooses its ``sequence``."""

    job: Job


@dataclass(frozen=True)
class RestartWait:
    """Let the wait of a job in the queue begin now."""

    job: str


@dataclass(frozen=True)
class LeaveQueue:
    """Forget a job in the queue."""

    job: str


@dataclass(frozen=True)
class Grant:
    """Give a job in the queue its slots; its tenant is the last to be served, but for a part."""

    job: str
    switch: str
    number: int
    range: SlotRange


# ---- joining


@dataclass(frozen=True)
class StartAttempt:
    """Begin an attempt under a new epoch: nobody has joined it, former members are forgotten.

    If the lease was about to change, the attempt begins under the new one.
    """

    job: str
    attempt: int
    workers: int
    field: int


@dataclass(frozen=True)
class AddMember:
    """Record that a rank has joined the attempt, or that it waits for the lease's ``change``."""

    job: str
    member: Member
    change: int = 0


@dataclass(frozen=True)
class RemoveMember:
    """Record that a rank no longer waits for the other ranks."""

    job: str
    rank: int
    change: int = 0


@dataclass(frozen=True)
class RemoveWaitingMembers:
    """Record that no rank waits for other ranks any more."""


@dataclass(frozen=True)
class SetReady:
    """Record that all ranks of the attempt have joined."""

    job: str


# ---- changes of leases


@dataclass(frozen=True)
class AnnounceChange:
    """Reserve other slots for a running job, under a new epoch; its ranks learn of the change."""

    job: str
    range: SlotRange
    reason: str


@dataclass(frozen=True)
class MoveLease:
    """Give other slots to a job that has no entries on its switch.

    Under a new epoch, if it has one: the last user of the slots may have had a later one.
    """

    job: str
    range: SlotRange


@dataclass(frozen=True)
class MoveToSwitch:
    """Give a job a lease on another switch; its members are forgotten, and it waits for its ranks.

    A change of its lease that was under way is forgotten, too.
    """

    job: str
    switch: str
    number: int
    range: SlotRange


@dataclass(frozen=True)
class SetBoundary:
    """Record the last collective under the lease in use: all ranks have agreed on it."""

    job: str
    boundary: int


@dataclass(frozen=True)
class RestartChange:
    """Give the ranks of a changing job their whole time again."""

    job: str


@dataclass(frozen=True)
class CancelChange:
    """Let a job keep the lease that it has."""

    job: str


@dataclass(frozen=True)
class FinishChange:
    """Replace a job's lease with the next one, which all ranks have joined."""

    job: str


@dataclass(frozen=True)
class Park:
    """Record that a job lends its slots to others, the first of them at the time ``lent``."""

    job: str
    lent: float


@dataclass(frozen=True)
class Unpark:
    """Record that a job wants its slots back."""

    job: str


# ---- the ends of jobs


@dataclass(frozen=True)
class CountersReset:
    """Record that the switch's counters of a job's number have been set to zero for the job."""

    job: str


@dataclass(frozen=True)
class EndJob:
    """Release, expire or evict a job; its slots and its number are free again.

    ``events`` are the switch's last counters for it. Of its tenant's history, ``keep`` other jobs
    stay, or, where it is a part, ``keep`` other parts.
    """

    job: str
    state: JobState
    reason: str
    events: Mapping[str, int] | None = None
    keep: int | None = None


@dataclass(frozen=True)
class ForgetHistory:
    """Forget the jobs that ended before a time, and the tenants that only these knew."""

    before: float


Write = (
    PutSwitch
    | RemoveSwitch
    | SetDraining
    | SetAdminToken
    | AddTenant
    | SetTenant
    | SetTenantToken
    | RemoveTenant
    | AddJobToken
    | Enqueue
    | RestartWait
    | LeaveQueue
    | Grant
    | StartAttempt
    | AddMember
    | RemoveMember
    | RemoveWaitingMembers
    | SetReady
    | AnnounceChange
    | MoveLease
    | MoveToSwitch
    | SetBoundary
    | RestartChange
    | CancelChange
    | FinishChange
    | Park
    | Unpark
    | CountersReset
    | EndJob
    | ForgetHistory
)


@dataclass(frozen=True)
class Plan:
    """Writes in their order, decided upon at the time ``now``."""

    now: float
    writes: tuple[Write, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.writes)
