"""The changes of leases that are under way: the votes of ranks, which are in memory."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from wiresum.controller.office.desk import Desk
from wiresum.controller.rules import changes as rules
from wiresum.controller.rules.changes import Agreed, Cancelled, ChangeLimits, Refusals, Vote
from wiresum.controller.state.model import Job
from wiresum.controller.state.plan import Plan


@dataclass
class _Ballot:
    """The votes on one change; a rank has voted while a call of it is in progress."""

    change: int
    opened: float
    started: dict[int, int] = field(default_factory=dict)
    calls: Counter[int] = field(default_factory=Counter)


@dataclass
class Changes:
    """Keeps the votes, and applies the rules to them. Methods raise :class:`ControllerError`."""

    desk: Desk
    limits: ChangeLimits
    _refusals: dict[str, Refusals] = field(default_factory=dict)
    _ballots: dict[str, _Ballot] = field(default_factory=dict)
    _resting: dict[str, float] = field(default_factory=dict)
    _since: float = float("-inf")
    """No vote counts as late before this time."""

    def recover(self) -> None:
        """Take over what an earlier controller left."""
        self.desk.commit(rules.recover(self.desk.state, self.desk.now()))

    def give_time(self) -> None:
        """Give the ranks of every changing job their whole time from now on."""
        self._since = self.desk.now()

    def possible(self, job: Job) -> bool:
        """Whether the lease of the job may be changed now."""
        return job.pending is None and self._resting.get(job.id, 0.0) <= self.desk.now()

    def resting(self) -> frozenset[str]:
        """The jobs whose last change was cancelled recently: no other is asked of them yet."""
        now = self.desk.now()
        return frozenset(job_id for job_id, until in self._resting.items() if until > now)

    @contextmanager
    def voting(self, job: Job, vote: Vote) -> Iterator[None]:
        """A rank's vote, which counts as long as the block lasts."""
        rules.check_vote(job, vote)
        ballot = self._ballots.get(job.id)
        if ballot is None or ballot.change != vote.change:
            ballot = self._ballots[job.id] = _Ballot(vote.change, self.desk.now())
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
        """What the ranks have agreed upon; None while some have not voted yet."""
        ballot = self._ballots.get(job.id)
        started = ballot.started if ballot is not None and ballot.change == vote.change else {}
        outcome, plan = rules.settle(job, vote, started, self.desk.now())
        # The boundary is stored before any rank is told: all later answers are the same.
        self.desk.commit(plan)
        if isinstance(outcome, Agreed):
            rules.check_not_beyond(job, vote, outcome.boundary)
        return outcome

    def missing(self, job: Job) -> list[int]:
        """The ranks that have not voted yet."""
        ballot = self._ballots.get(job.id)
        voted = ballot.started if ballot is not None else {}
        return [rank for rank in range(job.workers) if rank not in voted]

    def cancel_late(self) -> list[Job]:
        """Cancel the changes on which the ranks do not agree in time; returns the jobs."""
        now = self.desk.now()
        late = [
            job
            for job in self.desk.state.changing_jobs()
            if rules.is_late(job, self._opened(job), self._since, self.limits, now)
        ]
        self.desk.commit(Plan(now, tuple(rules.cancel(job) for job in late)))
        self._resting = {job: until for job, until in self._resting.items() if until > now}
        for job in late:
            self._resting[job.id] = now + self.limits.rest_s
            refusals = rules.refusals_after(job, self._refusals.get(job.id), now)
            if refusals is not None:
                self._refusals[job.id] = refusals
        return late

    def unyielding(self) -> list[tuple[Job, str]]:
        """The jobs that have let too many changes pass, each with the reason to end it."""
        now, state = self.desk.now(), self.desk.state
        jobs: dict[str, Job] = {}
        for job_id, refusals in list(self._refusals.items()):
            job = state.job(job_id)
            if job is None or rules.forgotten(job, refusals, self.limits, now):
                del self._refusals[job_id]
            else:
                jobs[job_id] = job
        jobs |= {job.id: job for job in state.changing_jobs()}
        found = []
        for job in jobs.values():
            reason = rules.unyielding(job, self._refusals.get(job.id), self.limits, now)
            if reason is not None:
                found.append((job, reason))
        return found

    def _opened(self, job: Job) -> float | None:
        ballot = self._ballots.get(job.id)
        return ballot.opened if ballot is not None else None
