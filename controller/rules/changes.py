"""How a running job gets another lease: announced, agreed upon, joined, done.

The ranks learn of an announced change from their heartbeats. Each stops starting collectives and
says how many it has started under the lease in use; when all have said so, the largest number is
the boundary, up to which all of them finish under that lease. It is stored before any rank is
told, so that a rank that asks later, even after a restart of the controller, gets the same answer.
Then each joins under the new epoch, and when all have, the old lease is gone.

Until there is a boundary, a change can be cancelled without a trace. From then on it is
carried through, unless a later attempt begins or the job ends.

A job may let a change pass; no other change is asked of it for a while. A job that does so again
and again, or agrees and never changes over, must not keep a job of higher priority out for ever:
:func:`unyielding` finds such jobs.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from wiresum.controller import lines
from wiresum.controller.errors import ControllerError
from wiresum.controller.scheduling.scheduling import FOR_HIGHER
from wiresum.controller.state.model import Change, Job, JobState, SlotRange
from wiresum.controller.state.plan import (
    AnnounceChange,
    CancelChange,
    MoveLease,
    Plan,
    RestartChange,
    SetBoundary,
    Write,
)
from wiresum.controller.state.store import Snapshot

# The store's numbers have 64 bits, one of them for the sign.
_MAX_STARTED = 1 << 62


@dataclass(frozen=True)
class ChangeLimits:
    """How long the ranks of a changing job may take, in seconds."""

    vote_s: float
    """To say how far they are, from the first that does; and, three times as long, from the
    announcement."""
    rest_s: float = 60.0
    """How long no other change is asked of a job whose change was cancelled."""
    max_refusals: int = 3
    """How many changes that a job of higher priority needs a job may let pass."""
    patience_s: float = 300.0
    """How long a job may keep a job of higher priority out: from the announcement of the first
    change that it let pass, or of one that was agreed upon."""


@dataclass(frozen=True)
class Vote:
    """The vote of one rank: how many collectives it has started under the lease of ``epoch``."""

    rank: int
    epoch: int
    change: int
    started: int


@dataclass(frozen=True)
class Agreed:
    """The ranks finish so many collectives under the lease in use."""

    boundary: int


@dataclass(frozen=True)
class Cancelled:
    """The lease in use stays."""

    reason: str


@dataclass(frozen=True)
class Refusals:
    """How often a job has let a change pass that a job of higher priority needs."""

    range: SlotRange
    """The slots that it held: a job that holds others has made way."""
    first: float
    """When the first of these changes was announced."""
    last: float
    """When it let the last of them pass."""
    count: int


def recover(state: Snapshot, now: float) -> Plan:
    """Give all changing jobs their whole time again: votes are cast again, boundaries stand."""
    return Plan(now, tuple(RestartChange(job.id) for job in state.changing_jobs()))


def begin(job: Job, slots: SlotRange, reason: str) -> Write:
    """Give the job other slots of its switch; at once if no rank uses its lease yet."""
    if job.state is JobState.READY:
        return AnnounceChange(job.id, slots, reason)
    return MoveLease(job.id, slots)


def settle(
    job: Job, vote: Vote, started: Mapping[int, int], now: float
) -> tuple[Agreed | Cancelled | None, Plan]:
    """What the ranks have agreed upon; None while some have not voted yet.

    ``started`` holds the votes on the change so far, by rank.
    """
    pending = _pending(job, vote)
    if pending is None:
        return Cancelled(f"change {vote.change} is not wanted any more"), Plan(now)
    boundary, plan = pending.boundary, Plan(now)
    if boundary is None and len(started) == job.workers:
        boundary = max(started.values())
        plan = Plan(now, (SetBoundary(job.id, boundary),))
    return (None if boundary is None else Agreed(boundary)), plan


def check_not_beyond(job: Job, vote: Vote, boundary: int) -> None:
    """Refuse a rank that has started more collectives than the ranks had agreed upon."""
    if vote.started > boundary:
        raise ControllerError(
            "FAILED_PRECONDITION",
            lines.WENT_ON_ALONE.of(
                rank=vote.rank, job=job.label, started=vote.started, boundary=boundary
            ),
        )


def is_late(job: Job, opened: float | None, since: float, limits: ChangeLimits, now: float) -> bool:
    """Whether the ranks have not agreed in time to the change that the job is asked for.

    ``opened`` is when the first rank voted, if any has; no time before ``since`` counts.
    """
    if job.pending is None or job.pending.boundary is not None:
        return False
    voting = now - max(opened, since) if opened is not None else 0.0
    return voting > limits.vote_s or now - max(job.pending.announced, since) > 3 * limits.vote_s


def cancel(job: Job) -> Write:
    """Let the job keep its lease: its ranks have not agreed on another."""
    assert job.pending is not None
    assert job.pending.boundary is None
    return CancelChange(job.id)


def refusals_after(job: Job, before: Refusals | None, now: float) -> Refusals | None:
    """How often the job has refused, when the change that it is asked for has been cancelled."""
    assert job.pending is not None
    if job.pending.reason != FOR_HIGHER:
        return before
    if before is None:
        return Refusals(job.lease.range, job.pending.announced, now, 1)
    return Refusals(before.range, before.first, now, before.count + 1)


def forgotten(job: Job | None, refusals: Refusals, limits: ChangeLimits, now: float) -> bool:
    """Whether refusals count no more: the job is over, has made way, or refused long ago."""
    over = job is None or not job.state.live or job.lease.range != refusals.range
    return over or now - refusals.last > limits.patience_s


def unyielding(job: Job, refusals: Refusals | None, limits: ChangeLimits, now: float) -> str | None:
    """The reason to end a job that has not made way for a higher priority in time, or None.

    The caller must check whether any job still needs its slots.
    """
    pending = job.pending
    if pending is None:
        if refusals is None:
            return None
        late = now - refusals.first > limits.patience_s
        return _refused(refusals.count) if late or refusals.count >= limits.max_refusals else None
    late = now - pending.announced > limits.patience_s
    if pending.boundary is not None and late and pending.reason == FOR_HIGHER:
        return (
            f"its ranks agreed to make way {FOR_HIGHER}, and have not changed over "
            f"within {limits.patience_s:g} s"
        )
    return None


def _refused(count: int) -> str:
    times = "once" if count == 1 else f"{count} times"
    return f"it did not make way {FOR_HIGHER}, asked {times}"


def check_vote(job: Job, vote: Vote) -> None:
    """Refuse a vote that no rank of the job can cast."""
    if not 0 <= vote.rank < max(job.workers, 1):
        raise ControllerError(
            "INVALID_ARGUMENT",
            lines.NOT_A_RANK_OF_JOB.of(rank=vote.rank, highest=job.workers - 1, job=job.label),
        )
    if vote.started >= _MAX_STARTED:
        raise ControllerError(
            "INVALID_ARGUMENT",
            lines.CANNOT_HAVE_STARTED.of(rank=vote.rank, job=job.label, started=vote.started),
        )
    if vote.epoch != job.epoch:
        raise ControllerError(
            "ABORTED",
            lines.EPOCH_OVER.of(epoch=vote.epoch, job=job.label, later=job.epoch),
        )


def _pending(job: Job, vote: Vote) -> Change | None:
    if job.pending is None or job.pending.number != vote.change:
        return None
    return job.pending
