"""How a running job changes over to another lease: announced, agreed upon, joined, done.

The ranks learn of an announced change from their heartbeats. Each stops starting collectives and
says how many it has started under the lease in use; when all have said so, the largest number is
the boundary, up to which all of them finish under that lease. It is stored before any rank is
told, so that whoever asks later, also of a controller that has restarted, gets the same answer.
Then each joins under the new epoch, and when all have, the old lease is gone.

Until there is a boundary, a change can be cancelled, and nothing has happened. From then on it is
carried through, unless a later attempt begins or the job ends.

A job may let a change pass, and is then left in peace for a while. One that does so again and
again, or agrees and never changes over, must not keep a job of higher priority out for ever:
:meth:`Changes.stubborn` tells which have had their chances.
"""

import secrets
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from wiresum.controller.clock import Clock
from wiresum.controller.errors import ControllerError
from wiresum.controller.scheduling.scheduling import FOR_HIGHER
from wiresum.controller.state.epochs import epoch_floor
from wiresum.controller.state.model import Change, Job, JobState, SlotRange
from wiresum.controller.state.store import Store

# The store's numbers have 64 bits, one of them for the sign.
_MAX_STARTED = 1 << 62


@dataclass(frozen=True)
class Vote:
    """What one rank says: the collectives that it has started under the lease of ``epoch``."""

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


@dataclass
class _Ballot:
    """The votes on one change; a rank has voted while a call of it is in progress."""

    change: int
    opened: float
    started: dict[int, int] = field(default_factory=dict)
    calls: Counter[int] = field(default_factory=Counter)


@dataclass
class _Refusals:
    """How often a job has let a change pass that a job of higher priority needs."""

    range: SlotRange
    """What it holds: once that is another, it has made way."""
    first: float
    """When the first of these changes was announced."""
    last: float
    """When it let the last of them pass."""
    count: int = 0


@dataclass
class Changes:
    """The rules of changing leases. Methods raise :class:`ControllerError`."""

    store: Store
    clock: Clock
    vote_s: float
    """How long the ranks may take to say, from the first that does; and, three times as long, from
    the announcement."""
    rest_s: float = 60.0
    """How long a job whose change was cancelled is left in peace."""
    max_refusals: int = 3
    """How many changes that a job of higher priority needs a job may let pass."""
    patience_s: float = 300.0
    """How long, from the announcement of the first of them, or of one that was agreed upon."""
    _refusals: dict[str, _Refusals] = field(default_factory=dict)
    _ballots: dict[str, _Ballot] = field(default_factory=dict)
    _resting: dict[str, float] = field(default_factory=dict)
    _since: float = float("-inf")
    """The time before which no vote is late."""

    def recover(self) -> None:
        """Take over what an earlier controller left: votes are cast again, boundaries stand."""
        with self.store.transaction() as transaction:
            for job in self.store.changing_jobs():
                transaction.set_announced(job.id, self.clock.now())

    def give_time(self) -> None:
        """Give the ranks of every changing job their whole time from now on."""
        self._since = self.clock.now()

    def possible(self, job: Job) -> bool:
        """Whether the lease of the job may be changed now."""
        return job.pending is None and self._resting.get(job.id, 0.0) <= self.clock.now()

    def resting(self) -> frozenset[str]:
        """The jobs that are left in peace now."""
        now = self.clock.now()
        return frozenset(job_id for job_id, until in self._resting.items() if until > now)

    def begin(self, job: Job, slots: SlotRange, reason: str) -> None:
        """Give the job other slots of its switch; at once if nobody uses its lease yet."""
        with self.store.transaction() as transaction:
            # New slots need a new epoch: whoever had them before may have had a later one than
            # the job has now.
            new = job.epoch > 0
            epoch = transaction.new_epoch(epoch_floor(self.clock)) if new else 0
            key = secrets.randbits(64) if new else 0
            reply_key = secrets.randbits(64) if new else 0
            if job.state is JobState.READY:
                transaction.announce(job, slots, epoch, key, reply_key, reason, self.clock.now())
            else:
                transaction.move_job(job.id, slots, epoch, key, reply_key)

    # ---- agreeing

    @contextmanager
    def voting(self, job: Job, vote: Vote) -> Iterator[None]:
        """A rank's vote, which counts as long as the block lasts."""
        _check_vote(job, vote)
        ballot = self._ballots.get(job.id)
        if ballot is None or ballot.change != vote.change:
            ballot = self._ballots[job.id] = _Ballot(vote.change, self.clock.now())
        ballot.started[vote.rank] = max(vote.started, ballot.started.get(vote.rank, 0))
        ballot.calls[vote.rank] += 1
        try:
            yield
        finally:
            ballot.calls[vote.rank] -= 1
            if not ballot.calls[vote.rank]:
                del ballot.calls[vote.rank], ballot.started[vote.rank]
            if not ballot.calls and self._ballots.get(job.id) is ballot:
                del self._ballots[job.id]

    def outcome(self, job: Job, vote: Vote) -> Agreed | Cancelled | None:
        """What the ranks have agreed upon; None while some have not said yet."""
        pending = _pending(job, vote)
        if pending is None:
            return Cancelled(f"change {vote.change} is not wanted any more")
        boundary = pending.boundary
        ballot = self._ballots.get(job.id)
        if (
            boundary is None
            and ballot is not None
            and ballot.change == pending.number
            and len(ballot.started) == job.workers
        ):
            boundary = max(ballot.started.values())
            with self.store.transaction() as transaction:
                transaction.set_boundary(job.id, boundary)
        if boundary is None:
            return None
        if vote.started > boundary:
            raise ControllerError(
                "FAILED_PRECONDITION",
                f"rank {vote.rank} of job {job.label} has started {vote.started} collectives, but "
                f"the ranks had agreed to change over after {boundary}: restart the job's workers",
            )
        return Agreed(boundary)

    def overdue(self) -> list[Job]:
        """Cancel the changes that the ranks do not agree upon in time; whose they were."""
        now = self.clock.now()
        late = []
        for job in self.store.changing_jobs():
            assert job.pending is not None
            if job.pending.boundary is not None:
                continue
            ballot = self._ballots.get(job.id)
            opened = max(ballot.opened, self._since) if ballot is not None else now
            announced = max(job.pending.announced, self._since)
            if now - opened > self.vote_s or now - announced > 3 * self.vote_s:
                self.cancel(job)
                late.append(job)
        self._resting = {job: until for job, until in self._resting.items() if until > now}
        return late

    def stubborn(self) -> list[tuple[Job, str]]:
        """The jobs that have had enough chances to make way for one of higher priority.

        Each with what it has done, as a reason to end it. Whether anybody still needs its slots is
        for the caller to see.
        """
        now = self.clock.now()
        found = []
        for job_id, said in list(self._refusals.items()):
            job = self.store.job(job_id)
            over = job is None or not job.state.live or job.lease.range != said.range
            if over or now - said.last > self.patience_s:
                del self._refusals[job_id]
                continue
            assert job is not None
            asked = job.pending is not None
            late = now - said.first > self.patience_s
            if not asked and (late or said.count >= self.max_refusals):
                found.append((job, _refused(said.count)))
        for job in self.store.changing_jobs():
            assert job.pending is not None
            agreed = job.pending.boundary is not None
            late = now - job.pending.announced > self.patience_s
            if agreed and late and job.pending.reason == FOR_HIGHER:
                found.append(
                    (
                        job,
                        f"its ranks agreed to make way {FOR_HIGHER}, and have not changed over "
                        f"within {self.patience_s:g} s",
                    )
                )
        return found

    def cancel(self, job: Job) -> None:
        """The job keeps its lease, and is left in peace for a while."""
        assert job.pending is not None
        assert job.pending.boundary is None
        if job.pending.reason == FOR_HIGHER:
            said = self._refusals.setdefault(
                job.id, _Refusals(job.lease.range, job.pending.announced, self.clock.now())
            )
            said.count += 1
            said.last = self.clock.now()
        with self.store.transaction() as transaction:
            transaction.cancel_change(job.id)
        self._resting[job.id] = self.clock.now() + self.rest_s

    def missing(self, job: Job) -> list[int]:
        """The ranks that have not said yet."""
        ballot = self._ballots.get(job.id)
        said = ballot.started if ballot is not None else {}
        return [rank for rank in range(job.workers) if rank not in said]


def _refused(count: int) -> str:
    times = "once" if count == 1 else f"{count} times"
    return f"it did not make way {FOR_HIGHER}, asked {times}"


def _check_vote(job: Job, vote: Vote) -> None:
    if not 0 <= vote.rank < max(job.workers, 1):
        raise ControllerError(
            "INVALID_ARGUMENT",
            f"rank {vote.rank} is not one of 0 to {job.workers - 1}, the ranks of job {job.label}",
        )
    if vote.started >= _MAX_STARTED:
        raise ControllerError(
            "INVALID_ARGUMENT",
            f"rank {vote.rank} of job {job.label} cannot have started {vote.started} collectives",
        )
    if vote.epoch != job.epoch:
        raise ControllerError(
            "ABORTED",
            f"epoch {vote.epoch} of job {job.label} is over: it is in epoch {job.epoch}; restart "
            "this worker with the others",
        )


def _pending(job: Job, vote: Vote) -> Change | None:
    if job.pending is None or job.pending.number != vote.change:
        return None
    return job.pending
